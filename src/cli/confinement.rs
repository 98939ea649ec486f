//! Confines commands that decrypt foreign content: they give up the right to write elsewhere
//! ([`crate::base::confine`]), unless a program that they start needs it.

use std::path::Path;

use super::Context;
use super::failure::Failure;
use super::target_args::RemoteArgs;
use crate::base::confine::writes_to;
use crate::base::openat::Dir;
use crate::config::remotes::NamedRemote;
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
    if uses_programs(identities, &urls) {
        return Ok(());
    }
    let pinned = source.and_then(|(_, named)| named?.signer);
    if remote.from.is_some() && remote.signer.is_none() && pinned.is_none() {
        // A signer may have to be remembered, and the file's directory is none of those.
        context.signers().prepare();
    }
    give_up_the_rest(context, &urls, dirs)
}

/// Does the same for a command that reads and writes the `places`, and needs no configuration.
pub(super) fn confine_to_places(
    context: &Context,
    places: &[RemoteArgs],
    identities: &Identities,
    dirs: Vec<Dir>,
) -> Result<(), Failure> {
    let sources = places.iter().map(RemoteArgs::source);
    let sources: Vec<_> = sources.collect::<Result<_, _>>()?;
    let urls = sources.iter().flatten().map(|(spec, _)| spec.url.clone());
    let urls: Vec<String> = urls.collect();
    if uses_programs(identities, &urls) {
        return Ok(());
    }
    let is_pinned = |named: &NamedRemote| named.signer.is_some();
    let mut named = sources.iter().flatten().map(|(_, named)| named);
    let has_pins = named.all(|named| named.as_ref().is_some_and(is_pinned));
    if !has_pins && places.iter().any(|place| place.signer.is_none()) {
        context.signers().prepare();
    }
    give_up_the_rest(context, &urls, dirs)
}

fn uses_programs(identities: &Identities, urls: &[String]) -> bool {
    identities.uses_programs() || urls.iter().any(|url| storage::runs_programs(url))
}

/// Gives up the right to write to anything but `dirs`, the directory for temporary files, and the
/// folders among `urls`.
fn give_up_the_rest(context: &Context, urls: &[String], mut dirs: Vec<Dir>) -> Result<(), Failure> {
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
