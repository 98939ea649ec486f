//! The `[snapshots]` table, and the preset that stands for several sources.

mod procedure;

use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::document::ConfigDocument;
use super::error::ConfigError;
use super::value::{self, ValueText, optional};
use super::{Check, KEEP_LOCAL, Source, SourceKind, TreeSource};
use crate::base::walk::Filter;

pub(super) use procedure::{checks, restore_defaults};

/// AtoCore's parts: the path of each in a snapshot, and its name in the error codes of AtoCore's
/// procedure.
const ATOCORE: &[(&str, &str)] = &[
    ("db/atocore.db", "db"),
    ("config/project-registry.json", "registry"),
    ("chroma", "chroma"),
];

/// `[snapshots]`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSnapshots {
    pub dir: Option<String>,
    pub keep: Option<Spanned<ValueText>>,
    pub preset: Option<Spanned<String>>,
    pub root: Option<String>,
    #[serde(default)]
    pub include_chroma: bool,
}

impl RawSnapshots {
    /// Returns the root of the preset's application. `None`: no preset is in use.
    pub(super) fn preset_root(&self, document: &ConfigDocument<'_>) -> Option<PathBuf> {
        let root = self.root.as_ref().filter(|_| self.preset.is_some())?;
        Some(document.resolve(root))
    }

    /// Returns the number of snapshots that stay on this host; `None`: all.
    pub(super) fn keep(&self, document: &ConfigDocument<'_>) -> Result<Option<u32>, ConfigError> {
        let keep = optional(document, &self.keep, value::parse_keep)?;
        Ok(keep.unwrap_or(Some(KEEP_LOCAL)))
    }
}

/// Returns the name that AtoCore's procedure has for the part at `to`; `None` if that is not one of
/// its parts.
pub(super) fn procedure_name(to: &str) -> Option<&'static str> {
    let part = ATOCORE.iter().find(|(place, _)| *place == to);
    part.map(|(_, name)| *name)
}

/// Returns the sources of the preset that the file names.
pub(super) fn expand(
    document: &ConfigDocument<'_>,
    snapshots: &RawSnapshots,
    preset: &Spanned<String>,
) -> Result<Vec<Source>, ConfigError> {
    if preset.get_ref() != "atocore" {
        let what = format!(
            "unknown preset {:?}; the only one is \"atocore\"",
            preset.get_ref()
        );
        return Err(document.invalid(&preset.span(), what));
    }
    let Some(root) = &snapshots.root else {
        let what = "preset \"atocore\" needs `root`, the directory that contains data/ and config/";
        return Err(document.invalid(&preset.span(), what));
    };
    let root = document.resolve(root);
    let source = |index: usize, kind| {
        let (to, name) = ATOCORE[index];
        Source::with_defaults(name.to_owned(), kind, to.to_owned())
    };
    let database = root.join("data/db/atocore.db");
    let registry = root.join("config/project-registry.json");
    let chroma = TreeSource {
        path: root.join("data/chroma"),
        stage: true,
        filter: Filter::everything(),
        check: Check::Strict,
        must_exist: Vec::new(),
        mountpoint: false,
    };
    Ok(vec![
        Source {
            owner: Some((1000, 1000)),
            mode: Some(0o600),
            required: true,
            ..source(0, SourceKind::Sqlite { path: database })
        },
        Source {
            mode: Some(0o644),
            optional: true,
            ..source(1, SourceKind::Json { path: registry })
        },
        Source {
            on_request: !snapshots.include_chroma,
            ..source(2, SourceKind::Tree(chroma))
        },
    ])
}
