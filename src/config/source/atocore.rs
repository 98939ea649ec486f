//! A source of kind `atocore`: a running AtoCore makes the snapshot, and this host adopts it.
//!
//! Its snapshot is the whole one of this host. So it needs the preset, which names the data that is
//! copied if AtoCore does not answer and to which a restore in place returns it, and no source but
//! those of the preset may be beside it.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use super::{ATOCORE, RawSource, Source, checked_name};
use crate::config::document::ConfigDocument;
use crate::config::error::ConfigError;
use crate::config::preset::{self, RawSnapshots};
use crate::config::restore_settings::base_url_of;
use crate::config::value::{self, optional};
use crate::storage::is_private_way;

/// How long a request may take, with all its repetitions, if the configuration does not say.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A running AtoCore that makes the snapshots.
#[derive(Debug, Clone)]
pub struct AtoCoreSource {
    /// The source's name.
    pub name: String,
    /// The URL of AtoCore, without a slash at its end.
    pub url: String,
    /// The file of the bearer token. `None`: none is sent.
    pub token_file: Option<PathBuf>,
    /// AtoCore is asked for the vector store with every snapshot.
    pub include_chroma: bool,
    /// How long the request may take, with all its repetitions.
    pub timeout: Duration,
    /// Directories as AtoCore names them, and as this host does.
    pub root_map: Vec<(PathBuf, PathBuf)>,
    /// What becomes of a run in which AtoCore makes no snapshot.
    pub fallback: Fallback,
    /// The token may be sent in clear text to another machine.
    pub insecure: bool,
    /// A further directory in which AtoCore's snapshots may be. `None`: there is none.
    pub allow_root: Option<PathBuf>,
}

/// What becomes of a run in which AtoCore makes no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This host copies the preset's sources itself, and the run counts as partial.
    Local,
    /// The run fails.
    Fail,
}

impl AtoCoreSource {
    /// Returns `path`, as AtoCore names it, as this host names it: the longest directory of
    /// `root_map` counts.
    pub fn on_this_host(&self, path: &Path) -> PathBuf {
        let within = |(from, to): &(PathBuf, PathBuf)| {
            let rest = path.strip_prefix(from).ok()?;
            Some((from.components().count(), to.join(rest)))
        };
        let mapped = self.root_map.iter().filter_map(within);
        let longest = mapped.max_by_key(|(length, _)| *length);
        longest.map_or_else(|| path.to_owned(), |(_, path)| path)
    }
}

/// Returns the source of kind `atocore`. `None`: the file has none.
pub(in crate::config) fn atocore_source(
    document: &ConfigDocument<'_>,
    snapshots: &RawSnapshots,
    raw: &[Spanned<RawSource>],
    sources: &[Source],
) -> Result<Option<AtoCoreSource>, ConfigError> {
    let is_one = |spanned: &&Spanned<RawSource>| spanned.get_ref().kind.get_ref() == ATOCORE;
    let mut all = raw.iter().filter(is_one);
    let Some(spanned) = all.next() else {
        return Ok(None);
    };
    if let Some(second) = all.next() {
        let what = "a second source of kind \"atocore\": a snapshot is that of one AtoCore";
        return Err(document.invalid(&second.span(), what));
    }
    let source = validate(document, spanned)?;
    if snapshots.preset.is_none() {
        let what = "kind \"atocore\" needs `preset = \"atocore\"` and `root` in [snapshots]: they say where AtoCore's data is";
        return Err(document.invalid(&spanned.span(), what));
    }
    let is_other = |source: &&Source| preset::procedure_name(&source.to).is_none();
    if let Some(other) = sources.iter().find(is_other) {
        let what = format!(
            "AtoCore's snapshot is the whole one, so the source {:?} would be missing from it: put that into a \
             configuration of its own, or remove the source of kind \"atocore\"",
            other.name
        );
        return Err(document.invalid(&spanned.span(), what));
    }
    if sources.iter().any(|other| other.name == source.name) {
        let what = format!("two sources are named {:?}", source.name);
        return Err(document.invalid(&spanned.span(), what));
    }
    Ok(Some(source))
}

/// Validates one table.
pub(super) fn validate(
    document: &ConfigDocument<'_>,
    spanned: &Spanned<RawSource>,
) -> Result<AtoCoreSource, ConfigError> {
    let raw = spanned.get_ref();
    super::misplaced::refuse_misplaced(document, raw, ATOCORE)?;
    refuse_others(document, spanned)?;
    let Some(url) = &raw.url else {
        let what = "a source of kind \"atocore\" needs a `url`, such as \"http://127.0.0.1:8100\"";
        return Err(document.invalid(&spanned.span(), what));
    };
    let base_url = base_url_of(document, url)?;
    let said = |value: &Option<Spanned<bool>>| value.as_ref().is_some_and(|value| *value.get_ref());
    let insecure = said(&raw.insecure);
    if !insecure && !is_private_way(&base_url) {
        let what = "AtoCore on another machine is reached by https, or with `insecure = true`: others can read the \
                    request and the token on the way";
        return Err(document.invalid(&url.span(), what));
    }
    let name = match &raw.name {
        Some(name) => {
            checked_name(name.get_ref()).map_err(|what| document.invalid(&name.span(), what))?
        }
        None => ATOCORE.to_owned(),
    };
    Ok(AtoCoreSource {
        name,
        url: base_url,
        token_file: raw
            .token_file
            .as_ref()
            .map(|path| document.resolve(path.get_ref())),
        include_chroma: said(&raw.include_chroma),
        timeout: optional(document, &raw.timeout, value::parse_duration)?.unwrap_or(TIMEOUT),
        root_map: root_map(document, raw)?,
        fallback: fallback(document, raw)?,
        insecure,
        allow_root: raw
            .allow_root
            .as_ref()
            .map(|path| document.resolve(path.get_ref())),
    })
}

/// Refuses the keys of copied sources.
fn refuse_others(
    document: &ConfigDocument<'_>,
    spanned: &Spanned<RawSource>,
) -> Result<(), ConfigError> {
    let raw = spanned.get_ref();
    let others = [
        ("path", raw.path.is_some()),
        ("to", raw.to.is_some()),
        ("command", raw.command.is_some()),
        ("before", raw.before.is_some()),
        ("after", raw.after.is_some()),
        ("lock", raw.lock.is_some()),
        ("lock_timeout", raw.lock_timeout.is_some()),
        ("optional", raw.optional),
        ("required", raw.required.is_some()),
        ("shrink_alarm", raw.shrink_alarm.is_some()),
        ("on_request", raw.on_request),
    ];
    match others.iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => {
            let what = format!("{key:?} has no effect for a source of kind \"atocore\"");
            Err(document.invalid(&spanned.span(), what))
        }
        None => Ok(()),
    }
}

/// Parses the pairs of directories, such as `/app/backups:/srv/storage/atocore/backups`.
fn root_map(
    document: &ConfigDocument<'_>,
    raw: &RawSource,
) -> Result<Vec<(PathBuf, PathBuf)>, ConfigError> {
    let pairs = raw.root_map.as_ref().map(|pairs| pairs.get_ref().iter());
    let parsed = pairs.into_iter().flatten().map(|pair| {
        let halves = pair.get_ref().split_once(':');
        let halves = halves.map(|(from, to)| (PathBuf::from(from), PathBuf::from(to)));
        let is_good = |path: &Path| {
            path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
        };
        match halves.filter(|(from, to)| is_good(from) && is_good(to)) {
            Some(pair) => Ok(pair),
            None => {
                let what = format!(
                    "root_map: {:?} is not a directory in the container, a colon, and one of this host, such as \
                     \"/app/backups:/srv/storage/atocore/backups\"",
                    pair.get_ref()
                );
                Err(document.invalid(&pair.span(), what))
            }
        }
    });
    parsed.collect()
}

fn fallback(document: &ConfigDocument<'_>, raw: &RawSource) -> Result<Fallback, ConfigError> {
    let Some(raw) = &raw.fallback else {
        return Ok(Fallback::Local);
    };
    match raw.get_ref().as_str() {
        "local" => Ok(Fallback::Local),
        "fail" => Ok(Fallback::Fail),
        other => {
            let what = format!("fallback is \"local\" or \"fail\", not {other:?}");
            Err(document.invalid(&raw.span(), what))
        }
    }
}
