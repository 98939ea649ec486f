//! Finds out what a backup would take of a source. Nothing is copied, no command runs, and no lock
//! is acquired.
//!
//! Files are counted as the packer counts them: one with several names once, and a database without
//! its logs, whose content is in its copy. A file counts only if it can be opened, as a backup
//! opens it.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::demands;
use super::error::{SourceError, cannot, is_missing};
use super::probe_file::read_head;
use super::source_roots::with_hollows;
use crate::base::openat::{Chosen, Dir, Kind, Meta};
use crate::base::sqlite::{self, Place, SIDECARS};
use crate::base::walk::{DropCause, Dropped, Filter, Found, Walked, walk, walk_noting_dropped};
use crate::config::{Config, Source, SourceKind, TreeSource};
use crate::format::index::Skipped;

/// What a backup would take of one source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceSurvey {
    /// Number of files.
    pub files: u64,
    /// Sum of their sizes, as far as it is known.
    pub bytes: u64,
    /// Whether a backup would take as many bytes: a command's output and the log of a database have
    /// sizes that only a backup finds out.
    pub is_exact: bool,
    /// What the filter leaves out, by its reason: first each exclude pattern, in order.
    pub dropped: Vec<DroppedTotal>,
    /// What cannot be read, and why.
    pub skipped: Vec<Skipped>,
    /// Remarks for the operator.
    pub notes: Vec<String>,
}

/// What one reason leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DroppedTotal {
    /// The exclude pattern, or the reason in words.
    pub why: String,
    /// Whether [`Self::why`] is a pattern.
    pub is_pattern: bool,
    /// Number of files.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
}

/// Opens the source as a backup does. `None`: an optional source is missing, or only its commands
/// know what it has.
pub fn find_source(source: &Source) -> Result<Option<Chosen>, SourceError> {
    if source.is_of_snapshot() {
        return Ok(None);
    }
    let path = match &source.kind {
        SourceKind::Command { .. } => return Ok(None),
        SourceKind::Sqlite { path } | SourceKind::Json { path } => path,
        SourceKind::Tree(tree) => &tree.path,
    };
    let chosen = match Chosen::open(path) {
        Err(e) if is_missing(&e) && source.optional => return Ok(None),
        Err(e) if is_missing(&e) => return Err(SourceError::Missing(path.clone())),
        other => other.map_err(cannot("read", path))?,
    };
    if let SourceKind::Tree(tree) = &source.kind {
        demands::check(tree, &chosen)?;
        if tree.stage && !chosen.is_dir() {
            return Err(SourceError::NotADirectory(path.clone()));
        }
    }
    Ok(Some(chosen))
}

/// Called with the path in the snapshot and the metadata of each file of a tree that is read in
/// place, in path order.
type OnFile<'a> = dyn FnMut(&[u8], &Meta) + 'a;

/// Looks at the sources of one backup.
pub struct Surveyor<'a> {
    config: &'a Config,
    /// The files with several names in trees that are read in place, by device and inode.
    links: HashSet<(u64, u64)>,
}

impl<'a> Surveyor<'a> {
    /// A surveyor for the sources of `config`.
    pub fn new(config: &'a Config) -> Self {
        let links = HashSet::new();
        Self { config, links }
    }

    /// Looks at `source`. `on_file` gets each file that is read in place.
    pub fn survey(
        &mut self,
        source: &Source,
        on_file: &mut OnFile<'_>,
    ) -> Result<SourceSurvey, SourceError> {
        let Some(chosen) = find_source(source)? else {
            let is_command = matches!(source.kind, SourceKind::Command { .. });
            let mut survey = SourceSurvey {
                files: u64::from(is_command),
                is_exact: !is_command && !source.is_of_snapshot(),
                ..SourceSurvey::default()
            };
            if source.is_of_snapshot() {
                let note = "only its `before` makes what it has, so it was not looked at";
                survey.notes.push(format!("{}: {note}", source.name));
            }
            return Ok(survey);
        };
        match &source.kind {
            SourceKind::Tree(tree) => self.tree(source, tree, &chosen, on_file),
            _ => file(source, &chosen),
        }
    }

    fn tree(
        &mut self,
        source: &Source,
        tree: &TreeSource,
        chosen: &Chosen,
        on_file: &mut OnFile<'_>,
    ) -> Result<SourceSurvey, SourceError> {
        let mut survey = SourceSurvey {
            is_exact: true,
            ..SourceSurvey::default()
        };
        if !chosen.is_dir() {
            let meta = chosen.meta();
            survey.files = u64::from(meta.is_file());
            survey.bytes = if meta.is_file() { meta.len() } else { 0 };
            on_file(source.to.as_bytes(), meta);
            return Ok(survey);
        }
        let filter = with_hollows(self.config, &tree.filter);
        let mut walk = walk_noting_dropped(chosen.dir(), &filter).map_err(SourceError::Walk)?;
        // The copies of a staged tree have no name in common with another source's.
        let mut own_links = HashSet::new();
        let links = match tree.stage {
            true => &mut own_links,
            false => &mut self.links,
        };
        let mut totals = DroppedTotals::of(&filter);
        let mut prefix = source.to.clone().into_bytes();
        prefix.push(b'/');
        loop {
            let walked = walk.next();
            for dropped in walk.take_dropped() {
                totals.add(chosen.dir(), &filter, &dropped);
            }
            let found = match walked {
                None => break,
                Some(Walked::Note(note)) => {
                    survey.notes.push(note);
                    continue;
                }
                Some(Walked::Skipped(skipped)) => {
                    let path = format!("{}/{}", source.to, skipped.path);
                    survey.skipped.push(Skipped { path, ..skipped });
                    continue;
                }
                Some(Walked::Found(found)) => found,
            };
            if let Some(reason) = unreadable(&found, tree.stage) {
                let path = format!("{}/{}", source.to, String::from_utf8_lossy(&found.rel));
                survey.skipped.push(Skipped { path, reason });
                continue;
            }
            if !found.meta.is_file() {
                continue;
            }
            if let Some(database) = is_log_of_database(&found, &filter) {
                survey.is_exact &= !database.is_live;
                continue;
            }
            if found.meta.nlink() > 1 && !links.insert(found.meta.id()) {
                continue;
            }
            survey.files += 1;
            survey.bytes += found.meta.len();
            if !tree.stage {
                let path = [prefix.as_slice(), found.rel.as_slice()].concat();
                on_file(&path, &found.meta);
            }
        }
        survey.dropped = totals.finish();
        Ok(survey)
    }
}

/// Looks at a database or a JSON file.
fn file(source: &Source, chosen: &Chosen) -> Result<SourceSurvey, SourceError> {
    let path = chosen.path();
    let opened = chosen.dir().open_file(chosen.name());
    let (_, meta) = opened.map_err(cannot("read", path))?;
    let place = Place::below(chosen.dir(), chosen.name()).map_err(cannot("read", path))?;
    let is_database = matches!(source.kind, SourceKind::Sqlite { .. });
    Ok(SourceSurvey {
        files: 1,
        bytes: meta.len(),
        is_exact: !(is_database && place.has_live_journal()),
        ..SourceSurvey::default()
    })
}

/// Returns why a backup could not read the thing; `None` if it can.
fn unreadable(found: &Found, is_staged: bool) -> Option<String> {
    match found.meta.kind() {
        Kind::File => {
            let error = found.root.open_file(found.rel()).err()?;
            match error.kind() {
                std::io::ErrorKind::NotFound => Some("it vanished meanwhile".to_owned()),
                std::io::ErrorKind::PermissionDenied => Some("permission denied".to_owned()),
                _ => Some(error.to_string()),
            }
        }
        Kind::BlockDevice | Kind::CharDevice
            if is_staged && !rustix::process::geteuid().is_root() =>
        {
            Some("only root can copy a device".to_owned())
        }
        _ => None,
    }
}

/// A database that a log belongs to.
struct LoggedDatabase {
    /// Whether the log has content that the database's file lacks.
    is_live: bool,
}

/// Returns the database whose log this file is, if that database is taken: its copy has the log's
/// content.
fn is_log_of_database(found: &Found, filter: &Filter) -> Option<LoggedDatabase> {
    let endings = SIDECARS.iter();
    let stem = endings
        .copied()
        .find_map(|ending| found.rel.strip_suffix(ending))?;
    let name = OsStr::from_bytes(stem);
    let meta = found.root.meta(name).ok().filter(Meta::is_file)?;
    if filter.leaves_out_file(stem, meta.len()) {
        return None;
    }
    let head = read_head(&found.root, name).ok()?;
    let is_database = sqlite::is_sqlite(&head) && sqlite::page_size(&head).is_some();
    let place = Place::below(&found.root, name).ok()?;
    is_database.then(|| LoggedDatabase {
        is_live: place.has_live_journal(),
    })
}

/// What is left out, by its reason.
struct DroppedTotals<'a> {
    patterns: &'a [String],
    totals: BTreeMap<DropCause, DroppedTotal>,
}

impl<'a> DroppedTotals<'a> {
    /// One total for each pattern that can leave something out.
    fn of(filter: &'a Filter) -> Self {
        let patterns = &filter.excludes;
        let numbered = patterns.iter().enumerate();
        let leaving =
            numbered.filter(|(_, line)| !line.starts_with(['!', '#']) && !line.is_empty());
        let totals =
            leaving.map(|(number, _)| (DropCause::Pattern(number), DroppedTotal::default()));
        Self {
            patterns,
            totals: totals.collect(),
        }
    }

    fn add(&mut self, root: &Dir, filter: &Filter, dropped: &Dropped) {
        let total = self.totals.entry(dropped.cause).or_default();
        let rel = OsStr::from_bytes(&dropped.rel);
        let (files, bytes) = match dropped.is_dir {
            false => match root.meta(rel) {
                Ok(meta) if meta.is_file() => (1, meta.len()),
                _ => (0, 0),
            },
            true => below(root, rel, filter),
        };
        total.files += files;
        total.bytes += bytes;
    }

    fn finish(self) -> Vec<DroppedTotal> {
        let named = self.totals.into_iter().map(|(cause, total)| {
            let (is_pattern, why) = match cause {
                DropCause::Pattern(line) => (true, self.patterns[line].clone()),
                DropCause::TooLarge => (false, "larger than max_file_size".to_owned()),
                DropCause::Marker(name) => {
                    let name = String::from_utf8_lossy(name);
                    (false, format!("in a directory with a {name}"))
                }
            };
            DroppedTotal {
                why,
                is_pattern,
                ..total
            }
        });
        named.collect()
    }
}

/// Returns the number of the files below a directory that is left out, and the sum of their sizes,
/// as far as this user can read it.
fn below(root: &Dir, rel: &OsStr, filter: &Filter) -> (u64, u64) {
    let everything = Filter {
        one_file_system: filter.one_file_system,
        hollow: filter.hollow.clone(),
        ..Filter::everything()
    };
    let Ok(dir) = root.sub(rel) else {
        return (0, 0);
    };
    let Ok(walk) = walk(&dir, &everything) else {
        return (0, 0);
    };
    let mut links = HashSet::new();
    let mut totals = (0, 0);
    for walked in walk {
        let Walked::Found(found) = walked else {
            continue;
        };
        let is_new = found.meta.nlink() == 1 || links.insert(found.meta.id());
        if found.meta.is_file() && is_new {
            totals = (totals.0 + 1, totals.1 + found.meta.len());
        }
    }
    totals
}
