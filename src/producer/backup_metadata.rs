//! `backup-metadata.json`: the keys of AtoCore's procedure, and Sealift's own under `sealift`.
//!
//! Sealift, AtoCore or any other tool that makes such snapshots may have written it. So reading is
//! lenient: it uses only the keys it needs, and unknown keys are no error.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::clock;
use crate::base::ids::Stamp;
use crate::base::openat::Dir;
use crate::config::{Check, Source, SourceKind};
use crate::format::index::{DatabaseRecord, Skipped, SourceRecord};
use crate::state::staged_snapshot::LeftOut;

pub(super) const FILE_NAME: &str = "backup-metadata.json";
/// Larger files are refused.
const MAX_BYTES: u64 = 64 << 20;
const VECTOR_STORE_NOTE: &str =
    "no vector store in this snapshot: after a restore, SQL and vectors may disagree";

/// The file, as Sealift writes it.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    created_at: String,
    stamp: Stamp,
    backup_root: String,
    #[serde(flatten)]
    atocore: Option<AtoCore>,
    pub sealift: SealiftSection,
}

/// The keys of AtoCore's `create_runtime_backup`. The path of a missing source is empty.
#[derive(Debug, Serialize)]
struct AtoCore {
    db_snapshot_path: String,
    db_size_bytes: u64,
    registry_snapshot_path: String,
    chroma_snapshot_included: bool,
    chroma_snapshot_path: String,
    chroma_snapshot_files: u64,
    chroma_snapshot_bytes: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    vector_store_note: &'static str,
}

/// The keys under `sealift`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SealiftSection {
    pub version: String,
    pub host: String,
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    pub sources: Vec<SourceEntry>,
    pub validation: ValidationSection,
    /// For people: a reader checks the databases themselves.
    #[serde(skip_deserializing)]
    pub databases: Vec<DatabaseRecord>,
    pub skipped: Vec<Skipped>,
}

/// The result of the validation when the snapshot was made.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ValidationSection {
    pub valid: bool,
    pub checked_at: DateTime<Utc>,
    pub errors: Vec<String>,
    pub details: Vec<String>,
}

/// The entry of one source in `backup-metadata.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SourceEntry {
    pub name: String,
    /// `sqlite`, `json`, `tree` or `command`.
    pub kind: String,
    /// Its path on the host, or its command line.
    pub path: String,
    /// Its place in the snapshot.
    pub to: String,
    /// It is copied into the snapshot. False: the packer reads it in place.
    pub stage: bool,
    /// A damaged database in it makes the snapshot invalid. Always set for other kinds than trees.
    pub strict: bool,
    /// If it fails there is no snapshot.
    #[serde(skip_serializing_if = "is_false")]
    pub required: bool,
    /// The snapshot holds it. False: it is optional and was missing, or it was left out.
    pub present: bool,
    /// Files in its copy; 0 if it is read in place.
    pub files: u64,
    /// Sum of those files' sizes.
    pub bytes: u64,
    /// Why it was left out. `None`: it did not fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// The end of its commands' stderr, by the keys `before`, `command` and `after`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stderr: BTreeMap<String, String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl SourceEntry {
    /// Returns the entry of a source that is about to be taken.
    pub(crate) fn of(source: &Source) -> Self {
        let (path, stage, strict) = match &source.kind {
            SourceKind::Sqlite { path } | SourceKind::Json { path } => {
                (path.display().to_string(), true, true)
            }
            SourceKind::Tree(tree) => {
                let strict = tree.check == Check::Strict;
                (tree.path.display().to_string(), tree.stage, strict)
            }
            SourceKind::Command { command } => (command.to_string(), true, true),
        };
        Self {
            name: source.name.clone(),
            kind: source.kind.name().to_owned(),
            path,
            to: source.to.clone(),
            stage,
            strict,
            required: source.required,
            present: true,
            files: 0,
            bytes: 0,
            left_out: None,
            stderr: BTreeMap::new(),
        }
    }
}

/// Returns the sources that were left out because they failed.
pub(super) fn left_out(entries: &[SourceEntry]) -> Vec<LeftOut> {
    let left_out = entries.iter().filter_map(|entry| entry.left_out.clone());
    left_out.collect()
}

/// Returns the index's records of the sources that the snapshot holds.
pub(super) fn records(entries: &[SourceEntry]) -> Vec<SourceRecord> {
    let present = entries.iter().filter(|entry| entry.present);
    present
        .map(|entry| SourceRecord {
            kind: entry.kind.clone(),
            path: entry.path.clone(),
            to: entry.to.clone(),
            stage: entry.stage,
        })
        .collect()
}

/// The result of a check of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validation {
    /// Whether a restore from the snapshot gives what it promises.
    pub valid: bool,
    /// Codes, each once.
    pub errors: Vec<String>,
    /// The databases that could be read, by path within the snapshot.
    pub databases: Vec<DatabaseRecord>,
    /// The findings behind the codes and further remarks, for people.
    pub details: Vec<String>,
    /// Paths of files whose check took too much time or memory to be completed.
    pub unchecked: Vec<String>,
    /// The sources that were left out because they failed when the snapshot was made.
    pub left_out: Vec<LeftOut>,
}

/// The facts about a snapshot that do not concern a single source.
pub(super) struct About<'a> {
    pub host: &'a str,
    pub stamp: Stamp,
    pub created_at: DateTime<Utc>,
    /// The path of the snapshot after publication.
    pub dir: &'a Path,
    pub tags: &'a [String],
    pub note: Option<&'a str>,
}

impl Document {
    pub(crate) fn new(
        about: &About<'_>,
        sources: Vec<SourceEntry>,
        validation: &Validation,
        skipped: Vec<Skipped>,
    ) -> Self {
        Self {
            created_at: about.created_at.to_rfc3339_opts(SecondsFormat::Secs, false),
            stamp: about.stamp,
            backup_root: about.dir.display().to_string(),
            atocore: AtoCore::of(about.dir, &sources),
            sealift: SealiftSection {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                host: about.host.to_owned(),
                tags: about.tags.to_vec(),
                note: about.note.map(str::to_owned),
                sources,
                validation: ValidationSection {
                    valid: validation.valid,
                    checked_at: clock::in_seconds(about.created_at),
                    errors: validation.errors.clone(),
                    details: validation.details.clone(),
                },
                databases: validation.databases.clone(),
                skipped,
            },
        }
    }

    /// Writes the file into `dir`. Returns its content.
    pub(crate) fn write(&self, dir: &Dir) -> io::Result<Value> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let mut file = dir.create_file(FILE_NAME, 0o600)?;
        file.write_all(&text)?;
        file.sync_all()?;
        dir.sync()?;
        Ok(serde_json::to_value(self)?)
    }
}

impl AtoCore {
    /// Returns `None` if this is not a snapshot of an AtoCore.
    fn of(dir: &Path, sources: &[SourceEntry]) -> Option<Self> {
        let find = |name: &str| {
            sources
                .iter()
                .find(|entry| entry.name == name && entry.present)
        };
        let path = |entry: Option<&SourceEntry>| {
            entry.map_or(String::new(), |entry| {
                dir.join(&entry.to).display().to_string()
            })
        };
        let database = find("db").filter(|entry| entry.to.starts_with("db/"))?;
        let chroma = find("chroma");
        Some(Self {
            db_snapshot_path: path(Some(database)),
            db_size_bytes: database.bytes,
            registry_snapshot_path: path(find("registry")),
            chroma_snapshot_included: chroma.is_some(),
            chroma_snapshot_path: path(chroma),
            chroma_snapshot_files: chroma.map_or(0, |entry| entry.files),
            chroma_snapshot_bytes: chroma.map_or(0, |entry| entry.bytes),
            vector_store_note: match chroma {
                Some(_) => "",
                None => VECTOR_STORE_NOTE,
            },
        })
    }
}

/// The file, as it was read.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub value: Value,
    /// `None`: Sealift did not write it.
    pub sealift: Option<SealiftSection>,
}

impl Metadata {
    /// Reads the file in `dir`. `Ok(None)`: there is none. `Err` says what is wrong with it.
    pub(crate) fn read(dir: &Dir) -> Result<Option<Self>, String> {
        let file = match dir.open_file(FILE_NAME) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| e.to_string())?.0,
        };
        let mut bytes = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|e| e.to_string())?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("it has more than {} MiB", MAX_BYTES >> 20));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if !value.is_object() {
            return Err("it is not a JSON object".to_owned());
        }
        let sealift = match value.get("sealift") {
            None | Some(Value::Null) => None,
            Some(section) => {
                let section: SealiftSection =
                    Deserialize::deserialize(section).map_err(|e| format!("`sealift`: {e}"))?;
                section.check()?;
                Some(section)
            }
        };
        Ok(Some(Self { value, sealift }))
    }

    /// Returns the places of the sources that the directory holds.
    pub(super) fn places(&self) -> BTreeSet<String> {
        let sections = self.sealift.iter().flat_map(|section| &section.sources);
        let there = sections.filter(|source| source.present && source.left_out.is_none());
        there.map(|source| source.to.clone()).collect()
    }

    /// Returns whether it calls its snapshot valid. `None`: it says nothing of that.
    pub(crate) fn valid(&self) -> Option<bool> {
        match &self.sealift {
            Some(section) => Some(section.validation.valid),
            None => self.value.get("valid").and_then(Value::as_bool),
        }
    }

    /// Returns the snapshot's stamp, from its key or from the directory's name in `backup_root`.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let root = self.text("backup_root");
        let name = Path::new(root).file_name().and_then(|name| name.to_str());
        let name = name.and_then(|name| name.parse().ok());
        self.text("stamp").parse().ok().or(name)
    }

    /// Returns the text of a key, or an empty one if it is missing or null.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.value.get(key).and_then(Value::as_str).unwrap_or("")
    }

    /// Whether it promises a vector store.
    pub(crate) fn says_chroma(&self) -> bool {
        let keys = [
            "chroma_snapshot_included",
            "chroma_included",
            "include_chroma",
        ];
        let says = |key: &&str| self.value.get(*key).and_then(Value::as_bool) == Some(true);
        keys.iter().any(says) || !self.text("chroma_snapshot_path").is_empty()
    }
}

impl SealiftSection {
    /// Refuses places that lead out of the snapshot.
    fn check(&self) -> Result<(), String> {
        for entry in &self.sources {
            let mut parts = Path::new(&entry.to).components();
            if entry.to.is_empty() || !parts.all(|part| matches!(part, Component::Normal(_))) {
                return Err(format!("{:?} is not a place within a snapshot", entry.to));
            }
        }
        Ok(())
    }
}
