//! Tries each configured target for the first time.

use super::super::context::{FrontEnd, runtime};
use super::super::error::JobError;
use super::super::recovery_files::recovery_files;
use super::super::targets::{make_target, own_trust};
use super::TriedTarget;
use crate::base::clock;
use crate::base::error_chain::with_causes;
use crate::base::panics::caught;
use crate::base::progress::Stage;
use crate::config::Config;
use crate::format::signature::Trust;
use crate::repository::probe::{Probe, probe};
use crate::repository::{HostFolder, RepositoryError};
use crate::shipper;
use crate::storage;

/// Opens each target, makes its folder, and finds out what it allows.
pub(super) fn try_all(config: &Config, front: &dyn FrontEnd) -> Result<Vec<TriedTarget>, JobError> {
    let runtime = runtime()?;
    let mut tried = Vec::new();
    for target in &config.targets {
        front.stage(Stage::Trying, Some(&target.name));
        let (probe, problem) = match make_target(target) {
            Err(error) => (None, Some(error.to_string())),
            Ok(opened) => {
                let folder = HostFolder::new(opened.target, config.host.clone());
                let done = caught(try_one(config, &folder, target.write_only, front));
                let done = runtime.block_on(done);
                done.unwrap_or_else(|panicked| (None, Some(panicked.to_string())))
            }
        };
        tried.push(TriedTarget {
            name: target.name.clone(),
            writes: probe.is_some(),
            may: probe.map(Into::into),
            problem,
            is_folder: storage::folder_path(&target.url).is_some(),
        });
    }
    Ok(tried)
}

/// Returns what the target allows, and what is wrong with it. If nothing is, puts the recovery
/// documents there, which a push puts first.
async fn try_one(
    config: &Config,
    folder: &HostFolder,
    write_only: bool,
    front: &dyn FrontEnd,
) -> (Option<Probe>, Option<String>) {
    let probe = match probe(folder, clock::now()).await {
        Ok(probe) => probe,
        Err(error) => return (None, Some(with_causes(&error))),
    };
    let mut problem = probe.problem(write_only);
    if probe.lists && problem.is_none() {
        problem = match folder.manifest_names().await {
            Err(error) => Some(with_causes(&error)),
            Ok(names) if !names.is_empty() => {
                Some(occupied(config, folder, names.len(), front).await)
            }
            Ok(_) => None,
        };
    }
    if problem.is_none() {
        let put = shipper::publish_recovery(folder, &recovery_files()).await;
        problem = put.err().map(|error| with_causes(&error));
    }
    (Some(probe), problem)
}

/// Returns the problem that the target holds `count` snapshots of this host's name.
async fn occupied(
    config: &Config,
    folder: &HostFolder,
    count: usize,
    front: &dyn FrontEnd,
) -> String {
    let trust = own_trust(config, front).unwrap_or(Trust::AllowedSigners(Vec::new()));
    match folder.chain(&trust).await {
        Ok(_) => format!(
            "it holds {count} snapshots of {} by this signer already; if this machine takes over, run `sealift adopt`",
            config.host
        ),
        Err(RepositoryError::Chain(_)) => format!(
            "it holds {count} snapshots of {} by another signer; give this machine another --host, or bring the old \
             signer over and run `sealift adopt`",
            config.host
        ),
        Err(error) => with_causes(&error),
    }
}
