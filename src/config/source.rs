//! Validates the `[[source]]` tables, each by itself and against the others.
//!
//! A snapshot is one tree, so no two sources may have the same path in it, or one within the
//! other's. A source's name begins its error codes; the paths of AtoCore's layout get the names
//! that AtoCore's procedure uses.

mod atocore;
mod misplaced;
mod tree;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::document::ConfigDocument;
use super::error::{ConfigError, near};
use super::preset::{self, RawSnapshots};
use super::value::{ValueText, optional};
use super::written::WrittenTable;
use super::{COMMAND_TIMEOUT, CommandLine, LOCK_TIMEOUT, Source, SourceKind, value};
use crate::base::similar::nearest;

use misplaced::refuse_misplaced;
use tree::tree;

pub(super) use atocore::atocore_source;
pub use atocore::{AtoCoreSource, Fallback};

/// The name of the snapshot's own record, which no source may take.
pub(super) const METADATA: &str = "backup-metadata.json";

/// `[[source]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    kind: Spanned<String>,
    path: Option<String>,
    to: Option<Spanned<String>>,
    name: Option<Spanned<String>>,
    owner: Option<Spanned<ValueText>>,
    mode: Option<Spanned<ValueText>>,
    stage: Option<Spanned<bool>>,
    exclude: Option<Spanned<Vec<String>>>,
    one_file_system: Option<Spanned<bool>>,
    max_file_size: Option<Spanned<ValueText>>,
    cachedir_tag: Option<Spanned<bool>>,
    nobackup: Option<Spanned<bool>>,
    check: Option<Spanned<String>>,
    command: Option<RawCommand>,
    before: Option<RawCommand>,
    after: Option<RawCommand>,
    lock: Option<String>,
    lock_timeout: Option<Spanned<ValueText>>,
    timeout: Option<Spanned<ValueText>>,
    #[serde(default)]
    optional: bool,
    required: Option<bool>,
    allow_empty: Option<Spanned<bool>>,
    shrink_alarm: Option<bool>,
    #[serde(default)]
    on_request: bool,
    must_exist: Option<Spanned<Vec<Spanned<String>>>>,
    mountpoint: Option<Spanned<bool>>,
    url: Option<Spanned<String>>,
    token_file: Option<Spanned<String>>,
    include_chroma: Option<Spanned<bool>>,
    root_map: Option<Spanned<Vec<Spanned<String>>>>,
    fallback: Option<Spanned<String>>,
    insecure: Option<Spanned<bool>>,
    allow_root: Option<Spanned<String>>,
}

/// The part of a `path` that is replaced by the last line that the source's `before` printed.
pub(super) const SNAPSHOT: &str = "{snapshot}";
/// The kind of a source that asks a running AtoCore.
const ATOCORE: &str = "atocore";

/// A command: a line for the shell, or a program and its arguments.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
pub(super) enum RawCommand {
    Shell(String),
    Words(Vec<String>),
}

impl RawCommand {
    pub(super) fn line(&self) -> CommandLine {
        match self {
            Self::Shell(line) => CommandLine::Shell(line.clone()),
            Self::Words(words) => CommandLine::Words(words.clone()),
        }
    }

    /// Returns whether it names no program.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Shell(line) => line.trim().is_empty(),
            Self::Words(words) => words
                .first()
                .is_none_or(|program| program.trim().is_empty()),
        }
    }
}

/// Returns the preset's sources, then the file's, checked against each other.
pub(super) fn collect_sources(
    document: &ConfigDocument<'_>,
    snapshots: &RawSnapshots,
    raw: &[Spanned<RawSource>],
) -> Result<Vec<Source>, ConfigError> {
    let mut sources: Vec<Source> = Vec::new();
    if let Some(preset) = &snapshots.preset {
        sources = preset::expand(document, snapshots, preset)?;
    }
    let preset_sources = sources.len();
    for spanned in raw {
        if spanned.get_ref().kind.get_ref() == ATOCORE {
            continue;
        }
        let source = validate(document, spanned)?;
        let span = spanned.span();
        // A source of the file at the path of one of the preset's replaces that one.
        let adjusted = sources.iter_mut().take(preset_sources);
        if let Some(adjusted) = adjusted.into_iter().find(|preset| preset.to == source.to) {
            // A required source stays required unless the file says otherwise.
            let required = spanned.get_ref().required.unwrap_or(adjusted.required);
            *adjusted = Source { required, ..source };
            continue;
        }
        for earlier in &sources {
            if overlaps(&earlier.to, &source.to) {
                let what = format!(
                    "sources {:?} and {:?} both go to {:?}; give one of them another place with `to = \"...\"`",
                    earlier.name, source.name, source.to
                );
                return Err(document.invalid(&span, what));
            }
            if earlier.name == source.name {
                let what = format!(
                    "two sources are named {:?}; give one of them another with `name = \"...\"`",
                    source.name
                );
                return Err(document.invalid(&span, what));
            }
        }
        sources.push(source);
    }
    Ok(sources)
}

/// Returns the name of each source of the file, and the line of its header.
pub(super) fn written_sources(
    document: &ConfigDocument<'_>,
    raw: &[Spanned<RawSource>],
) -> Result<Vec<WrittenTable>, ConfigError> {
    let written = |spanned: &Spanned<RawSource>| {
        let name = match spanned.get_ref().kind.get_ref() == ATOCORE {
            true => atocore::validate(document, spanned)?.name,
            false => validate(document, spanned)?.name,
        };
        let line = document.line(&spanned.span());
        Ok(WrittenTable { name, line })
    };
    raw.iter().map(written).collect()
}

/// Returns whether the paths are equal or one is within the other.
pub(super) fn overlaps(a: &str, b: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        let rest = inner.strip_prefix(outer);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(a, b) || within(b, a)
}

fn validate(
    document: &ConfigDocument<'_>,
    spanned: &Spanned<RawSource>,
) -> Result<Source, ConfigError> {
    let (raw, span) = (spanned.get_ref(), spanned.span());
    let kind = kind(document, spanned)?;
    let to = match (&raw.to, &kind) {
        (Some(to), _) => to.get_ref().clone(),
        (None, SourceKind::Command { .. }) => match &raw.name {
            Some(name) => name.get_ref().clone(),
            None => {
                return Err(document.invalid(
                    &span,
                    "a source of kind \"command\" needs a `name` or a `to`",
                ));
            }
        },
        (None, SourceKind::Sqlite { path } | SourceKind::Json { path }) => last_name(path),
        (None, SourceKind::Tree(tree)) => last_name(&tree.path),
    };
    check_hooks(document, spanned, &kind)?;
    let to_span = raw.to.as_ref().map_or(span, Spanned::span);
    let bad = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if to.split('/').any(bad) || overlaps(&to, METADATA) {
        let what = format!("{to:?} is not a valid path in a snapshot; write `to = \"name\"`");
        return Err(document.invalid(&to_span, what));
    }
    let name = match &raw.name {
        Some(name) => {
            checked_name(name.get_ref()).map_err(|what| document.invalid(&name.span(), what))?
        }
        None => default_name(&to),
    };
    Ok(Source {
        name,
        kind,
        to,
        owner: optional(document, &raw.owner, value::parse_owner)?,
        mode: optional(document, &raw.mode, value::parse_mode)?,
        optional: raw.optional,
        required: raw.required.unwrap_or(false),
        allow_empty: raw
            .allow_empty
            .as_ref()
            .is_some_and(|value| *value.get_ref()),
        shrink_alarm: raw.shrink_alarm.unwrap_or(true),
        on_request: raw.on_request,
        before: raw.before.as_ref().map(RawCommand::line),
        after: raw.after.as_ref().map(RawCommand::line),
        lock: raw.lock.as_deref().map(|path| document.resolve(path)),
        lock_timeout: optional(document, &raw.lock_timeout, value::parse_duration)?
            .unwrap_or(LOCK_TIMEOUT),
        timeout: optional(document, &raw.timeout, value::parse_duration)?
            .unwrap_or(COMMAND_TIMEOUT),
    })
}

/// Refuses hooks that name no program, and hooks or a lock of a source that is not copied.
fn check_hooks(
    document: &ConfigDocument<'_>,
    spanned: &Spanned<RawSource>,
    kind: &SourceKind,
) -> Result<(), ConfigError> {
    let (raw, span) = (spanned.get_ref(), spanned.span());
    for (key, hook) in [("before", &raw.before), ("after", &raw.after)] {
        if hook.as_ref().is_some_and(RawCommand::is_empty) {
            let what =
                format!("`{key}` names no program: remove the key, or name the command to run");
            return Err(document.invalid(&span, what));
        }
    }
    let in_place = matches!(kind, SourceKind::Tree(tree) if !tree.stage);
    if in_place && (raw.before.is_some() || raw.after.is_some() || raw.lock.is_some()) {
        let what = "`before`, `after` and `lock` guard the copying; a source with `stage = false` is not copied";
        return Err(document.invalid(&span, what));
    }
    Ok(())
}

fn kind(
    document: &ConfigDocument<'_>,
    spanned: &Spanned<RawSource>,
) -> Result<SourceKind, ConfigError> {
    const KINDS: &[&str] = &["sqlite", "json", "tree", "command", ATOCORE];
    let (raw, span) = (spanned.get_ref(), spanned.span());
    let name = raw.kind.get_ref().as_str();
    let path = || match &raw.path {
        Some(path) if path.contains(SNAPSHOT) => of_snapshot(document, spanned, path),
        Some(path) => Ok(document.resolve(path)),
        None => Err(document.invalid(&span, format!("a source of kind {name:?} needs a `path`"))),
    };
    if !KINDS.contains(&name) {
        let near = near(nearest(name, KINDS));
        let what = format!(
            "unknown source kind {name:?}{near} (use {})",
            KINDS.join(", ")
        );
        return Err(document.invalid(&raw.kind.span(), what));
    }
    refuse_misplaced(document, raw, name)?;
    match (name, &raw.command) {
        ("command", Some(command)) if !command.is_empty() => Ok(SourceKind::Command {
            command: command.line(),
        }),
        ("command", _) => {
            let what = "a source of kind \"command\" needs a `command`";
            Err(document.invalid(&span, what))
        }
        ("sqlite", _) => Ok(SourceKind::Sqlite { path: path()? }),
        ("json", _) => Ok(SourceKind::Json { path: path()? }),
        _ => tree(document, raw, path()?),
    }
}

/// Returns a path that has a part of which only the source's `before` knows the text.
fn of_snapshot(
    document: &ConfigDocument<'_>,
    spanned: &Spanned<RawSource>,
    path: &str,
) -> Result<PathBuf, ConfigError> {
    if spanned.get_ref().before.is_none() {
        let what = "`{snapshot}` in `path` is the last line that `before` prints, and there is no `before`";
        return Err(document.invalid(&spanned.span(), what));
    }
    match path.starts_with(SNAPSHOT) || path.starts_with('/') {
        true => Ok(PathBuf::from(path)),
        false => {
            let what = format!("{path:?} must begin with `{SNAPSHOT}`, or be absolute");
            Err(document.invalid(&spanned.span(), what))
        }
    }
}

fn last_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn checked_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(format!(
            "{name:?} is not a valid name: use A-Z a-z 0-9 _ - ."
        ));
    }
    Ok(name.to_owned())
}

/// Returns the name of a source at `to` that has no other.
pub(super) fn default_name(to: &str) -> String {
    if let Some(name) = preset::procedure_name(to) {
        return name.to_owned();
    }
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    to.chars().map(plain).collect()
}
