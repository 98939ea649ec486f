//! What is checked on the raw document: every key is known, and nothing is an identity.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use crate::keys::private_key_text::private_part;

/// The document, for complaints that name file and line.
pub(super) struct Place<'a> {
    pub text: &'a str,
    pub file: &'a Path,
}

impl Place<'_> {
    /// From 1.
    pub fn line(&self, span: &Range<usize>) -> usize {
        let head = &self.text.as_bytes()[..span.start.min(self.text.len())];
        head.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    pub fn invalid(&self, span: &Range<usize>, what: impl Into<String>) -> ConfigError {
        ConfigError::Invalid {
            file: self.file.to_owned(),
            line: self.line(span),
            what: what.into(),
        }
    }

    pub fn identity(&self, span: &Range<usize>, what: impl Into<String>) -> ConfigError {
        ConfigError::Identity {
            file: self.file.to_owned(),
            line: self.line(span),
            what: what.into(),
        }
    }

    pub fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        self.invalid(&span, error.message().replace('\n', " "))
    }

    /// `path` as seen from the file's directory.
    pub fn resolve(&self, path: &str) -> PathBuf {
        let dir = self.file.parent().unwrap_or(Path::new("/"));
        let joined = dir.join(path);
        std::path::absolute(&joined).unwrap_or(joined)
    }
}

/// The keys of each table; a table within a table is found by its key here.
const TOP: &[&str] = &[
    "host",
    "recipients",
    "signer",
    "next_signer",
    "state",
    "snapshots",
    "source",
    "target",
    "retention",
    "schedule",
    "pack",
    "spool",
];
const TABLES: &[(&str, &[&str])] = &[
    ("snapshots", &["dir", "preset", "root", "include_chroma"]),
    (
        "source",
        &[
            "kind",
            "path",
            "to",
            "name",
            "owner",
            "mode",
            "stage",
            "exclude",
            "one_file_system",
            "max_file_size",
            "cachedir_tag",
            "nobackup",
            "check",
            "command",
            "before",
            "after",
            "lock",
            "lock_timeout",
            "timeout",
            "optional",
            "required",
            "allow_empty",
            "shrink_alarm",
            "on_request",
            "must_exist",
            "mountpoint",
        ],
    ),
    (
        "target",
        &[
            "name",
            "url",
            "endpoint",
            "region",
            "path_style",
            "timeout",
            "retry",
            "ssh",
            "upload",
            "download",
            "concurrency",
            "write_only",
            "data_class",
            "class",
            "retention",
            "prune",
        ],
    ),
    (
        "retention",
        &[
            "last", "hourly", "daily", "weekly", "monthly", "yearly", "within",
        ],
    ),
    ("schedule", &["backup"]),
    ("pack", &["archive_size", "level", "threads"]),
    ("spool", &["limit"]),
];

pub(super) fn keys_and_secrets(place: &Place<'_>) -> Result<(), ConfigError> {
    let document = DeTable::parse(place.text).map_err(|e| place.syntax(&e))?;
    check_table(place, document.get_ref(), TOP, true)
}

fn check_table(
    place: &Place<'_>,
    table: &DeTable<'_>,
    known: &[&str],
    is_top: bool,
) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name: &str = key.get_ref();
        if matches!(name, "identity" | "identities") {
            return Err(place.identity(&key.span(), format!("the key {name:?}")));
        }
        if !known.contains(&name) {
            return Err(ConfigError::UnknownKey {
                file: place.file.to_owned(),
                line: place.line(&key.span()),
                key: name.to_owned(),
                nearest: nearest(name, known).map(str::to_owned),
            });
        }
        // A target may have a retention of its own.
        let is_table = is_top || name == "retention";
        let inner = TABLES.iter().find(|(table, _)| is_table && *table == name);
        check_value(place, value, inner.map_or(&[], |(_, keys)| keys))?;
    }
    Ok(())
}

fn check_value(
    place: &Place<'_>,
    value: &toml::Spanned<DeValue<'_>>,
    known: &[&str],
) -> Result<(), ConfigError> {
    match value.get_ref() {
        DeValue::String(text) => match private_part(text) {
            Some(what) => Err(place.identity(&value.span(), format!("this is {what}"))),
            None => Ok(()),
        },
        DeValue::Array(items) => items
            .iter()
            .try_for_each(|item| check_value(place, item, known)),
        DeValue::Table(table) => check_table(place, table, known, false),
        _ => Ok(()),
    }
}

/// The known key that looks most like `key`, if one does at all.
pub(super) fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key = key.to_lowercase().replace('-', "_");
    let scored = known.iter().map(|name| (distance(&key, name), *name));
    let (steps, name) = scored.min()?;
    let is_part = name.contains(key.as_str()) || key.contains(name);
    (steps <= 1 + key.len().min(name.len()) / 3 || is_part).then_some(name)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let swap = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = swap.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
