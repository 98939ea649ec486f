//! A text that names a place of backups: a URL, a folder, a remote, or a target of the
//! configuration.
//!
//! Text with a slash or a colon is a URL or a path. Other text is a name. Where a target of the
//! configuration can be named, it comes first, so that an existing command never changes its
//! meaning; then a remote; then, with `--from`, a folder of that name. `./NAME` is always the
//! folder.

use std::path::Path;

use super::Context;
use super::failure::Failure;
use crate::config::Config;
use crate::config::remotes::{self, NamedRemote, Remotes, RemotesError};
use crate::jobs::targets::spec;
use crate::storage::TargetSpec;

/// Whether `text` is a name, and no path or URL.
pub(super) fn is_name(text: &str) -> bool {
    !text.contains(['/', ':'])
}

/// Returns the remote of this name; `None`: there is none.
pub(super) fn remote_of_name(text: &str) -> Result<Option<NamedRemote>, Failure> {
    if !is_name(text) || !remotes::is_name(text) {
        return Ok(None);
    }
    let remotes = Remotes::load().map_err(|error| unusable_for(error, text))?;
    Ok(remotes.all.get(text).cloned())
}

/// Returns the remote that `--from TEXT` names; `None` if it is a URL or a folder.
pub(super) fn remote_or_folder(text: &str) -> Result<Option<NamedRemote>, Failure> {
    if !is_name(text) || !remotes::is_name(text) {
        return Ok(None);
    }
    let remotes = match Remotes::load() {
        Ok(remotes) => remotes,
        // The remote may be in the file, so the folder must be named as one.
        Err(error) => return Err(unusable_for(error, text)),
    };
    if let Some(remote) = remotes.all.get(text) {
        return Ok(Some(remote.clone()));
    }
    if Path::new(text).exists() {
        return Ok(None);
    }
    let near = remotes.nearest(text);
    let near = near.map_or(String::new(), |name| format!("; did you mean {name}?"));
    Err(Failure::from_error(format!(
        "there is no folder {text}, and no remote of that name{near}"
    ))
    .hint(match remotes.all.is_empty() {
        true => "is the disk mounted? The folder is the one that holds the host's folder",
        false => {
            "`sealift remote list` shows the remotes; for a folder, see whether its disk is mounted"
        }
    }))
}

/// A side of a copy, or a target to look at.
pub(super) enum NamedPlace {
    /// A target of the configuration.
    Target(TargetSpec),
    /// A remote.
    Remote(NamedRemote),
    /// A URL or a path.
    Url,
}

/// Returns what `text` names, where targets of the configuration can be named.
pub(super) fn look_up(context: &Context, text: &str) -> Result<NamedPlace, Failure> {
    if !is_name(text) {
        return Ok(NamedPlace::Url);
    }
    let hint = format!("for a folder write ./{text}");
    // A target in it may have this name.
    let config = context.load_config_if_any();
    let config = config.map_err(|failure| failure.hint(&hint))?;
    if let Some(target) = config.as_ref().and_then(|config| config.target(text)) {
        return Ok(NamedPlace::Target(spec(target)));
    }
    let remotes = Remotes::load().map_err(|error| unusable_for(error, text))?;
    if let Some(remote) = remotes.all.get(text) {
        return Ok(NamedPlace::Remote(remote.clone()));
    }
    Err(unknown(config.as_ref(), &remotes, text).hint(hint))
}

fn unknown(config: Option<&Config>, remotes: &Remotes, text: &str) -> Failure {
    let targets = config.map_or(&[][..], |config| &config.targets);
    let mut names: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    names.extend(remotes.all.keys().map(String::as_str));
    let near = crate::base::similar::nearest(text, &names);
    let near = near.map_or(String::new(), |name| format!("; did you mean {name}?"));
    let there = match names.is_empty() {
        true => String::new(),
        false => format!("; there are: {}", names.join(", ")),
    };
    Failure::usage(format!(
        "no target is named {text}, and no remote{near}{there}"
    ))
}

/// Returns the failure for remotes that cannot be used, where `text` may name one, or a folder.
fn unusable_for(error: RemotesError, text: &str) -> Failure {
    let next = match &error {
        RemotesError::Exposed { exposure, .. } => exposure.remedy.clone(),
        _ => "see to that file".to_owned(),
    };
    unusable(error).hint(format!("{next}; for a folder write ./{text}"))
}

/// Returns the failure for remotes that cannot be used.
pub(super) fn unusable(error: RemotesError) -> Failure {
    let next = match &error {
        RemotesError::Exposed { exposure, .. } => Some(format!(
            "{}; then see whether its lines are right",
            exposure.remedy
        )),
        RemotesError::Unknown { .. } => Some("`sealift remote list` shows them".to_owned()),
        RemotesError::Taken(name) => Some(format!(
            "choose another name, or `sealift remote remove {name}` first"
        )),
        _ => None,
    };
    let failure = Failure::usage(error);
    match next {
        Some(next) => failure.hint(next),
        None => failure,
    }
}
