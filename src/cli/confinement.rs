//! Confines commands that decrypt foreign content: they give up the right to write elsewhere
//! ([`crate::base::confine`]), unless a program that they start needs it.

use std::path::Path;

use super::Context;
use super::failure::Failure;
use super::target_args::RemoteArgs;
use crate::base::confine::writes_to;
use crate::base::openat::Dir;
use crate::restore::open::Identities;
use crate::storage;

/// Returns the directories that a restore to `to` changes: the destination's parent, and the
/// destination if it exists.
pub(super) fn around(to: &Path) -> std::io::Result<Vec<Dir>> {
    let resolved = Dir::resolve(to)?;
    let above = resolved.above.map(|(above, _)| above);
    let exists = resolved.missing.is_empty();
    Ok(above
        .filter(|_| exists)
        .into_iter()
        .chain([resolved.dir])
        .collect())
}

/// Confines this process to `dirs`, the directory for temporary files and, with a configuration, to
/// the state directory and the folders that it names.
///
/// Does not confine it if the command reads a target through ssh or rsync, or opens archives
/// through an age plugin, since those programs would be confined too. Must be called before any
/// thread is started.
pub(super) fn confine(
    context: &Context,
    remote: &RemoteArgs,
    identities: &Identities,
    mut dirs: Vec<Dir>,
) -> Result<(), Failure> {
    let source = remote.source()?;
    let mut urls: Vec<String> = source.iter().map(|(spec, _)| spec.url.clone()).collect();
    if source.is_none() {
        let config = context.load_config()?;
        urls.extend(config.targets.iter().map(|target| target.url.clone()));
        dirs.extend(Dir::open(&config.state));
    }
    if identities.uses_programs() || urls.iter().any(|url| storage::runs_programs(url)) {
        return Ok(());
    }
    let pinned = source.and_then(|(_, named)| named?.signer);
    if remote.from.is_some() && remote.signer.is_none() && pinned.is_none() {
        // A signer may have to be remembered, and the file's directory is none of those.
        context.signers().prepare();
    }
    dirs.extend(Dir::open(&std::env::temp_dir()));
    // The end of the run is recorded there.
    dirs.extend(
        context
            .recorder
            .dir()
            .and_then(|state| Dir::open(&state).ok()),
    );
    // Opening a folder removes what interrupted uploads left in it.
    dirs.extend(
        urls.iter()
            .filter_map(|url| Dir::open(&storage::folder_path(url)?).ok()),
    );
    match writes_to(&dirs) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::from_error(format!(
            "cannot give up the right to write elsewhere (Landlock): {error}"
        ))),
    }
}
