//! Refuses a signer that nothing introduces to the readers of this host's backups, and says how to
//! introduce it.

use super::error::JobError;
use super::init::allowed_signers;
use super::push::{PresentSigner, PushError};
use super::targets::listed_signers;
use crate::config::Config;
use crate::format::signature::{Signer, Trust};
use crate::state::catalog::Catalog;

/// Returns the configured signer. Passes warnings about the host's `allowed_signers` to `warn`.
pub(crate) fn present_signer(
    config: &Config,
    warn: &dyn Fn(&str),
) -> Result<PresentSigner, JobError> {
    let signer = Signer::load(&config.signer)?;
    let listed = Trust::AllowedSigners(listed_signers(config, warn)?);
    Ok(PresentSigner::of(&signer, &config.host, &listed))
}

/// Fails if the catalog remembers another signer, and readers who trust that one would refuse the
/// snapshots of `present`, which is `signer`.
pub(crate) fn require_introduced(
    config: &Config,
    present: &PresentSigner,
    signer: &Signer,
    catalog: &Catalog,
) -> Result<(), JobError> {
    let introduced = present.require_introduced(catalog);
    introduced.map_err(|error| not_pushed(config, signer, error))
}

/// Adds to the error of a push the steps of a rotation, if the signer was not introduced.
pub(crate) fn not_pushed(config: &Config, signer: &Signer, error: PushError) -> JobError {
    if !matches!(error, PushError::NotIntroduced { .. }) {
        return JobError::from(error);
    }
    let list = config.signer.with_file_name("allowed_signers");
    let (path, list) = (config.signer.display(), list.display());
    let line = allowed_signers::line(config, signer);
    JobError::request(error).with_next(format!(
        "nothing was sent. To rotate the signer, set `signer` back to the old key, add `next_signer = \
         \"{path}.pub\"`, run one backup, and set `signer` then (\"Rotate the signer\" in keys/README.md). If the old key \
         is lost, add this line to {list} here and to the list of every key holder: {line}"
    ))
}
