//! Takes over a host's name from another machine.

use serde::Serialize;

use super::context::{FrontEnd, open_state};
use super::error::JobError;
use super::push;
use super::targets::{open_all, own_trust};
use crate::base::ids::HostName;
use crate::config::Config;

/// The snapshots that this machine continues.
#[derive(Debug, Serialize)]
pub(crate) struct AdoptReport {
    pub(crate) host: HostName,
    /// Names of the newest snapshots of other machines. Empty if the targets have no snapshot that
    /// this machine does not know.
    pub(crate) adopted: Vec<String>,
}

/// Continues the history that the targets show, whichever machine made it.
pub(crate) fn run(config: &Config, front: &dyn FrontEnd) -> Result<AdoptReport, JobError> {
    let mut state = open_state(config, front)?;
    let targets = open_all(config)?;
    let trust = own_trust(config, front)?;
    let heads = push::adopt(&mut state, &config.host, &targets, &trust)?;
    Ok(AdoptReport {
        host: config.host.clone(),
        adopted: heads,
    })
}

/// Continues after `sequence`, for a host whose targets cannot be read. 0: it never pushed.
pub(crate) fn continue_after(
    config: &Config,
    sequence: u64,
    front: &dyn FrontEnd,
) -> Result<(), JobError> {
    Ok(push::begin_after(&open_state(config, front)?, sequence)?)
}
