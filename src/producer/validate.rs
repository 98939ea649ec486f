//! Is this directory a snapshot one can restore from? The codes are those of AtoCore's procedure.
//!
//! A snapshot that Sealift made says in its metadata what it must hold; one that AtoCore made has AtoCore's
//! layout. A directory that is neither (no metadata, and no stamp for a name) promises nothing but
//! that its databases are whole. Nothing is written, and nothing is believed that can be checked.

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
use crate::base::walk::{Filter, Walked, walk};
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
            // Whose snapshot it is can't be told without metadata: look at what there is.
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

/// By a stamp, or as a snapshot that was kept aside.
fn is_named_as_snapshot(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let stamp = name.strip_prefix(INVALID).unwrap_or(&name);
    stamp.parse::<Stamp>().is_ok()
}

/// What AtoCore puts into a snapshot, and what its metadata says of it.
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

/// What was found in one source, or in all of them.
#[derive(Default)]
pub(super) struct Findings {
    /// Codes, each once.
    pub errors: Vec<String>,
    pub details: Vec<String>,
    databases: Vec<DatabaseRecord>,
    unchecked: Vec<String>,
    /// Worth telling, but nothing is missing because of it.
    pub notes: Vec<String>,
    /// What the snapshot is to list: damage that does not make it invalid, and what was not checked.
    pub reports: Vec<Skipped>,
}

impl Findings {
    pub fn append(&mut self, mut other: Self) {
        other.errors.retain(|code| !self.errors.contains(code));
        self.errors.append(&mut other.errors);
        self.details.append(&mut other.details);
        self.databases.append(&mut other.databases);
        self.unchecked.append(&mut other.unchecked);
        self.notes.append(&mut other.notes);
        self.reports.append(&mut other.reports);
    }

    pub fn finish(mut self) -> Validation {
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

/// Collects what is found wrong with a snapshot, source by source.
pub(super) struct Checker<'a> {
    dir: &'a Dir,
    found: Findings,
    /// The time for the databases of trees.
    checks: Budget,
}

impl<'a> Checker<'a> {
    pub fn new(dir: &'a Dir) -> Self {
        Self {
            dir,
            found: Findings::default(),
            checks: Budget::of_run(),
        }
    }

    /// What was found since the last time.
    pub fn take(&mut self) -> Findings {
        std::mem::take(&mut self.found)
    }

    fn error(&mut self, code: impl Into<String>, detail: String) {
        let code = code.into();
        if !self.found.errors.contains(&code) {
            self.found.errors.push(code);
        }
        self.found.details.push(detail);
    }

    /// Checks one source. `databases` are those of a tree, if the caller knows them already.
    pub fn check(&mut self, entry: &SourceEntry, databases: Option<&[Vec<u8>]>) {
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

    /// `promised`: it must be a database; else it is one only if it says so.
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
                wrong(self, "is no SQLite database".to_owned());
            }
            return;
        }
        let own = Budget::of_own();
        // A source of kind `sqlite` is the operator's own; a tree may hold what others put there.
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
                    integrity: inspection.integrity,
                });
            }
            Err(e) => match e.unchecked() {
                Some(why) => self.leave_unchecked(place, why),
                None => wrong(self, with_causes(&e)),
            },
        }
    }

    /// Reports what was not checked to the end: of that nothing is known, so it is not invalid.
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

    fn find_databases(&mut self, entry: &SourceEntry) -> Vec<Vec<u8>> {
        let root = self.dir.sub(snapshot_path(&entry.to));
        let mut found = Vec::new();
        let mut unread = |what: String| {
            let code = format!("{}_integrity_check_failed", entry.name);
            self.error(code, format!("{}: cannot be read: {what}", entry.to));
        };
        let root = match root {
            Ok(root) => root,
            Err(e) => {
                unread(e.to_string());
                return found;
            }
        };
        match walk(&root, &Filter::everything()) {
            Err(e) => unread(with_causes(&e)),
            Ok(walk) => {
                for walked in walk {
                    match walked {
                        Walked::Found(file) if file.meta.is_file() => {
                            let is_one = is_called_database(&file.rel)
                                || read_head(&root, file.rel())
                                    .is_ok_and(|head| sqlite::is_sqlite(&head));
                            if is_one {
                                found.push(file.rel);
                            }
                        }
                        Walked::Found(_) | Walked::Note(_) => {}
                        Walked::Skipped(skipped) => {
                            unread(format!("{}: {}", skipped.path, skipped.reason));
                        }
                    }
                }
            }
        }
        found
    }

    fn plain_directory(&mut self) {
        let detail = format!(
            "no {FILE_NAME}: a directory like any other, so only its databases are checked"
        );
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
