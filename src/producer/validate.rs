//! Checks whether a directory is a snapshot that can be restored from. The codes are those of
//! AtoCore's procedure.
//!
//! The metadata of a snapshot that Sealift made names its content; one that AtoCore made has
//! AtoCore's layout. A directory that is neither (no metadata, and no stamp as its name) promises
//! only that its databases are whole. The check writes nothing and trusts nothing that it can check
//! itself.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use super::backup_metadata::{FILE_NAME, Metadata, SourceEntry, Validation};
use super::json::{self, JsonVerdict};
use super::probe_file::{is_called_database, read_head};
use super::snapshot_dir::INVALID;
use super::snapshot_path::{below, snapshot_path};
use crate::base::error_chain::with_causes;
use crate::base::ids::Stamp;
use crate::base::openat::{Chosen, Dir};
use crate::base::sqlite::{self, Budget, Place};
use crate::base::walk::{Filter, Found, Walked, walk};
use crate::format::index::{DatabaseRecord, Skipped};

/// Checks the snapshot directory `dir`.
pub fn validate(dir: &Path) -> Validation {
    let missing = |detail: String| Validation {
        valid: false,
        errors: vec!["snapshot_missing".to_owned()],
        details: vec![detail],
        ..Validation::default()
    };
    let shown = dir.display();
    match Chosen::open(dir) {
        Ok(chosen) if chosen.is_dir() => validate_open(&chosen),
        Ok(_) => missing(format!("{shown} is not a directory")),
        Err(e) if e.kind() == io::ErrorKind::NotFound => missing(format!("{shown} is not there")),
        Err(e) => missing(format!("{shown} cannot be read: {e}")),
    }
}

/// Checks the snapshot directory `chosen`.
pub(super) fn validate_open(chosen: &Chosen) -> Validation {
    let dir = chosen.dir();
    let mut checker = Checker::new(dir);
    let metadata = Metadata::read(dir);
    let mut left_out = Vec::new();
    match &metadata {
        Ok(Some(Metadata {
            sealift: Some(section),
            ..
        })) => {
            for entry in &section.sources {
                checker.check(entry, None);
                left_out.extend(entry.left_out.clone());
            }
        }
        Ok(None) if !is_named_as_snapshot(chosen.path()) => checker.plain_directory(),
        found => {
            let known = found.as_ref().ok().and_then(Option::as_ref);
            match found {
                Err(what) => checker.error("metadata_invalid", format!("{FILE_NAME}: {what}")),
                Ok(None) => checker.error("metadata_invalid", format!("{FILE_NAME} is missing")),
                Ok(Some(_)) => {}
            }
            // Without metadata its maker is unknown: the check takes AtoCore's layout if there is
            // one.
            if known.is_some() || dir.meta("db").is_ok_and(|meta| meta.is_dir()) {
                for entry in atocore_layout(dir, known) {
                    checker.check(&entry, None);
                }
            }
        }
    }
    Validation {
        left_out,
        ..checker.take().finish()
    }
}

/// Whether the name is a stamp, or that of a snapshot that was kept aside.
fn is_named_as_snapshot(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let stamp = name.strip_prefix(INVALID).unwrap_or(&name);
    stamp.parse::<Stamp>().is_ok()
}

/// Returns the sources of AtoCore's layout, as its metadata and the directory show them.
pub(super) fn atocore_layout(dir: &Dir, metadata: Option<&Metadata>) -> Vec<SourceEntry> {
    let says = |key| metadata.map_or("", |metadata| metadata.text(key));
    let there = |place: &str| dir.meta(place).is_ok();
    let file_name = |path: &str, default: &str| {
        let name = Path::new(path).file_name();
        name.map_or(default.to_owned(), |name| {
            name.to_string_lossy().into_owned()
        })
    };
    let entry = |name: &str, kind: &str, to: String, present: bool| SourceEntry {
        name: name.to_owned(),
        kind: kind.to_owned(),
        to,
        stage: true,
        strict: true,
        present,
        ..SourceEntry::default()
    };
    let database = format!("db/{}", file_name(says("db_snapshot_path"), "atocore.db"));
    let registry = says("registry_snapshot_path");
    let registry_to = format!("config/{}", file_name(registry, "project-registry.json"));
    let has_registry = !registry.is_empty() || there(&registry_to);
    let has_chroma = metadata.is_some_and(Metadata::says_chroma) || there("chroma");
    vec![
        entry("db", "sqlite", database, true),
        entry("registry", "json", registry_to, has_registry),
        entry("chroma", "tree", "chroma".to_owned(), has_chroma),
    ]
}

/// The findings of the check of one source, or of all.
#[derive(Default)]
pub(super) struct Findings {
    /// Codes, each once.
    pub errors: Vec<String>,
    /// The findings behind the codes and further remarks, for people.
    pub details: Vec<String>,
    databases: Vec<DatabaseRecord>,
    unchecked: Vec<String>,
    /// Remarks for the operator; nothing is missing because of them.
    pub notes: Vec<String>,
    /// Items for the snapshot's list: damage that does not make it invalid, and files that were not
    /// checked.
    pub reports: Vec<Skipped>,
}

impl Findings {
    /// Adds the findings of another source.
    pub(crate) fn append(&mut self, mut other: Self) {
        other.errors.retain(|code| !self.errors.contains(code));
        self.errors.append(&mut other.errors);
        self.details.append(&mut other.details);
        self.databases.append(&mut other.databases);
        self.unchecked.append(&mut other.unchecked);
        self.notes.append(&mut other.notes);
        self.reports.append(&mut other.reports);
    }

    /// Returns the result; without codes the snapshot is valid.
    pub(crate) fn finish(mut self) -> Validation {
        self.databases.sort_by(|a, b| a.path.cmp(&b.path));
        Validation {
            valid: self.errors.is_empty(),
            errors: self.errors,
            databases: self.databases,
            details: self.details,
            unchecked: self.unchecked,
            left_out: Vec::new(),
        }
    }
}

/// Checks a snapshot, source by source.
pub(super) struct Checker<'a> {
    dir: &'a Dir,
    found: Findings,
    /// The time for all databases of trees together.
    checks: Budget,
}

impl<'a> Checker<'a> {
    /// Returns a checker of the snapshot in `dir`.
    pub(crate) fn new(dir: &'a Dir) -> Self {
        Self {
            dir,
            found: Findings::default(),
            checks: Budget::of_run(),
        }
    }

    /// Returns the findings since the last call.
    pub(crate) fn take(&mut self) -> Findings {
        std::mem::take(&mut self.found)
    }

    fn error(&mut self, code: impl Into<String>, detail: String) {
        let code = code.into();
        if !self.found.errors.contains(&code) {
            self.found.errors.push(code);
        }
        self.found.details.push(detail);
    }

    /// Checks one source. `databases` are the paths of a tree's databases, if the caller knows
    /// them.
    pub(crate) fn check(&mut self, entry: &SourceEntry, databases: Option<&[Vec<u8>]>) {
        if !entry.present || !entry.stage {
            return;
        }
        let at = snapshot_path(&entry.to);
        let is_tree = entry.kind == "tree";
        let is_there = self.dir.meta(&at).is_ok_and(|meta| match is_tree {
            true => meta.is_dir(),
            false => meta.is_file(),
        });
        if !is_there {
            let code = match (entry.name.as_str(), is_tree) {
                ("chroma", true) => "chroma_snapshot_missing".to_owned(),
                (name, _) => format!("{name}_missing"),
            };
            return self.error(code, format!("{}: missing", entry.to));
        }
        match entry.kind.as_str() {
            "sqlite" => self.database(entry, &entry.to, &at, true),
            "json" => match json::check(self.dir, &at) {
                JsonVerdict::Json => {}
                JsonVerdict::Lenient(what) => {
                    let note = format!("{}: {what}; stored as it is", entry.to);
                    self.found.details.push(note.clone());
                    self.found.notes.push(note);
                }
                JsonVerdict::Invalid(what) => {
                    let code = format!("{}_invalid_json", entry.name);
                    self.error(code, format!("{}: {what}", entry.to));
                }
                JsonVerdict::Unchecked(why) => self.leave_unchecked(&entry.to, &why),
            },
            "tree" => match databases {
                Some(known) => self.tree(entry, known),
                None => {
                    let found = self.find_databases(entry);
                    self.tree(entry, &found);
                }
            },
            _ => {}
        }
    }

    fn tree(&mut self, entry: &SourceEntry, databases: &[Vec<u8>]) {
        let root = snapshot_path(&entry.to);
        for rel in databases {
            let name = String::from_utf8_lossy(rel);
            let shown = match entry.to.as_str() {
                "" => name.into_owned(),
                to => format!("{to}/{name}"),
            };
            self.database(entry, &shown, &below(&root, rel), false);
        }
    }

    /// Checks one database. `promised`: it must be one; otherwise only its first bytes decide.
    fn database(&mut self, entry: &SourceEntry, place: &str, at: &OsStr, promised: bool) {
        let wrong = |this: &mut Self, what: String| {
            if entry.strict {
                let code = format!("{}_integrity_check_failed", entry.name);
                return this.error(code, format!("{place}: {what}"));
            }
            this.found.details.push(format!("{place}: {what}"));
            this.found.reports.push(Skipped {
                path: place.to_owned(),
                reason: format!("stored, but it fails integrity_check: {what}"),
            });
        };
        let head = match read_head(self.dir, at) {
            Ok(head) => head,
            Err(e) => return wrong(self, format!("cannot be read: {e}")),
        };
        if !sqlite::is_sqlite(&head) {
            if promised || (entry.strict && !head.is_empty()) {
                wrong(self, "is not a SQLite database".to_owned());
            }
            return;
        }
        let own = Budget::of_own();
        // The operator vouches for a source of kind `sqlite`; others may have put files into a
        // tree.
        let budget = if promised { &own } else { &self.checks };
        let opened = Place::below(self.dir, at).and_then(|place| Ok((place.open()?, place)));
        let (file, at) = match opened {
            Ok(opened) => opened,
            Err(e) => return wrong(self, format!("cannot be read: {e}")),
        };
        match sqlite::inspect_at(&at, &file, sqlite::Depth::Indexes, budget) {
            Ok(inspection) => {
                if !inspection.is_ok() {
                    wrong(self, inspection.integrity.clone());
                }
                if let Some(what) = inspection.unchecked {
                    let note = format!("{place}: stored; only its application can check {what}");
                    self.found.details.push(note.clone());
                    self.found.notes.push(note);
                }
                self.found.databases.push(DatabaseRecord {
                    path: place.to_owned(),
                    page_size: inspection.page_size,
                    tables: inspection.tables,
                    schema: inspection.schema,
                    integrity: inspection.integrity,
                });
            }
            Err(e) => match e.unchecked() {
                Some(why) => self.leave_unchecked(place, why),
                None => wrong(self, with_causes(&e)),
            },
        }
    }

    /// Reports a file whose check was not completed. Nothing is known against it, so it is not
    /// invalid.
    fn leave_unchecked(&mut self, place: &str, why: &str) {
        self.found
            .details
            .push(format!("{place}: not checked: {why}"));
        self.found.unchecked.push(place.to_owned());
        self.found.reports.push(Skipped {
            path: place.to_owned(),
            reason: format!("stored, not checked: {why}"),
        });
    }

    /// Returns the paths of the files in a tree that are databases by name or content. Reports what
    /// cannot be read.
    fn find_databases(&mut self, entry: &SourceEntry) -> Vec<Vec<u8>> {
        let (found, unread) = match self.dir.sub(snapshot_path(&entry.to)) {
            Ok(root) => walk_for_databases(&root),
            Err(e) => (Vec::new(), vec![e.to_string()]),
        };
        for what in unread {
            let code = format!("{}_integrity_check_failed", entry.name);
            self.error(code, format!("{}: cannot be read: {what}", entry.to));
        }
        found
    }

    /// Checks the databases of a directory that is not a snapshot.
    fn plain_directory(&mut self) {
        let detail =
            format!("no {FILE_NAME}: this is no snapshot, so only its databases are checked");
        self.found.details.push(detail);
        let entry = SourceEntry {
            name: "db".to_owned(),
            kind: "tree".to_owned(),
            stage: true,
            strict: true,
            present: true,
            ..SourceEntry::default()
        };
        let found = self.find_databases(&entry);
        self.tree(&entry, &found);
    }
}

/// Returns the paths of the databases below `root`, and descriptions of what cannot be read.
fn walk_for_databases(root: &Dir) -> (Vec<Vec<u8>>, Vec<String>) {
    let (mut found, mut unread) = (Vec::new(), Vec::new());
    let walk = match walk(root, &Filter::everything()) {
        Ok(walk) => walk,
        Err(e) => return (found, vec![with_causes(&e)]),
    };
    let has_magic = |file: &Found| {
        let head = read_head(root, file.rel());
        head.is_ok_and(|head| sqlite::is_sqlite(&head))
    };
    for walked in walk {
        match walked {
            Walked::Found(file)
                if file.meta.is_file() && (is_called_database(&file.rel) || has_magic(&file)) =>
            {
                found.push(file.rel);
            }
            Walked::Found(_) | Walked::Note(_) => {}
            Walked::Skipped(skipped) => {
                unread.push(format!("{}: {}", skipped.path, skipped.reason));
            }
        }
    }
    (found, unread)
}
