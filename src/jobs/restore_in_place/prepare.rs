//! Plans a restore in place: which content goes where. Changes nothing.

mod places;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::because::{Because, InPlaceRefusal, code};
use super::candidate::{ContentFacts, InPlaceCandidate};
use super::plan::{InPlacePlan, ItemKind, LeftSource, PlannedItem, VERSION};
use super::requirements;
use super::slot::Slot;
use super::{InPlaceRequest, validation};
use crate::base::clock;
use crate::base::ids::ulid;
use crate::base::openat::Dir;
use crate::config::{Config, Source, SourceKind};
use crate::jobs::error::JobError;
use crate::jobs::in_place_content::{ContentOrigin, InPlaceContent};
use crate::producer::{self, SourceFacts};

/// Plans the restore of `content`. Everything that would make it fail, and can be known now, is a
/// refusal.
pub(super) fn prepare(
    config: &Config,
    request: &InPlaceRequest,
    content: &InPlaceContent,
) -> Result<InPlacePlan, JobError> {
    let chosen = chosen_sources(config, request)?;
    let facts = producer::facts_of(&content.dir);
    let mut refusals = validation::refusals(content, &chosen)?;
    let mut left = Vec::new();
    let mut warnings = Vec::new();
    let mut candidates = Vec::new();
    let root = Dir::open_trusted(&content.dir)?;
    for source in chosen {
        let fact = facts.sources.iter().find(|fact| fact.to == source.to);
        match candidate(config, request, content, &root, source, fact) {
            SourceFound::Here(candidate) => candidates.push(*candidate),
            SourceFound::Refused(because) => refusals.push(because),
            SourceFound::Left(why) => {
                if source.is_vector_store() {
                    warnings.push(no_vectors());
                }
                left.push(LeftSource {
                    name: source.name.clone(),
                    why,
                });
            }
        }
    }
    if candidates.is_empty() && refusals.is_empty() {
        let why = left.iter().map(|one| format!("{}: {}", one.name, one.why));
        let why = why.collect::<Vec<_>>().join("; ");
        let text = format!("the content holds none of the chosen sources ({why})");
        let next = "`sealift list` shows the snapshots, and `sealift ls` what is in one";
        refusals.push(Because::new(code::NOTHING, text, next));
    }
    if let Some(wrong) = wrong_deployment(config, request, content, &facts) {
        refusals.push(wrong);
    }
    refusals.extend(candidates.iter().filter_map(requirements::rights));
    if !refusals.is_empty() {
        return Err(JobError::work(InPlaceRefusal { because: refusals }));
    }
    let stamp = places::safety_stamp(config, &candidates)?;
    let id = ulid(clock::now());
    let preserve = request.preserve.unwrap_or(config.restore.preserve);
    let items: Vec<PlannedItem> = candidates
        .iter()
        .map(|one| places::item(config, preserve, one, &id, stamp))
        .collect::<Result<_, JobError>>()?;
    refusals.extend(requirements::refusals(
        config,
        &candidates,
        &items,
        content,
    )?);
    if !refusals.is_empty() {
        return Err(JobError::work(InPlaceRefusal { because: refusals }));
    }
    let line = |line: &Option<crate::config::CommandLine>| line.as_ref().map(ToString::to_string);
    let checks = config.checks.iter().filter(|check| check.in_restore);
    Ok(InPlacePlan {
        version: VERSION,
        id,
        made_at: clock::in_seconds(clock::now()),
        stamp: content.stamp,
        host: content.host.clone(),
        origin: content.origin.to_string(),
        content: content.dir.clone(),
        safety_stamp: stamp,
        items,
        left,
        warnings,
        stop: line(&config.restore.stop),
        start: line(&config.restore.start),
        checks: match request.checks {
            true => checks.map(|check| check.name.clone()).collect(),
            false => Vec::new(),
        },
    })
}

/// Returns the sources that the request means, in the configuration's order.
fn chosen_sources<'a>(
    config: &'a Config,
    request: &InPlaceRequest,
) -> Result<Vec<&'a Source>, JobError> {
    for name in &request.only {
        if !config.sources.iter().any(|source| source.name == *name) {
            let names = config.sources.iter().map(|source| source.name.as_str());
            let names = names.collect::<Vec<_>>().join(", ");
            let text = format!("there is no source {name:?}; there are: {names}");
            return Err(JobError::request(text));
        }
    }
    let is_chosen =
        |source: &&Source| request.only.is_empty() || request.only.contains(&source.name);
    Ok(config.sources.iter().filter(is_chosen).collect())
}

/// What became of one source.
enum SourceFound<'a> {
    Here(Box<InPlaceCandidate<'a>>),
    /// It stays as it is, because of this.
    Left(String),
    Refused(Because),
}

fn candidate<'a>(
    config: &Config,
    request: &InPlaceRequest,
    content: &InPlaceContent,
    root: &Dir,
    source: &'a Source,
    fact: Option<&SourceFacts>,
) -> SourceFound<'a> {
    let is_local = content.origin == ContentOrigin::LocalSnapshot;
    let mapped = config.restore.map.get(&source.name);
    if mapped.is_none() && source.is_of_snapshot() {
        return SourceFound::Left(format!(
            "it is copied from a snapshot of its file system; `map` in [restore] can name where {:?} belongs",
            source.name
        ));
    }
    let (kind, path) = match (&source.kind, mapped) {
        (SourceKind::Command { .. }, None) => {
            return SourceFound::Left(format!(
                "it is the output of a command; `map` in [restore] can name a path for {:?}",
                source.name
            ));
        }
        (SourceKind::Command { .. }, Some(path)) => (ItemKind::File, path),
        (SourceKind::Sqlite { path }, mapped) => (ItemKind::Database, mapped.unwrap_or(path)),
        (SourceKind::Json { path }, mapped) => (ItemKind::File, mapped.unwrap_or(path)),
        (SourceKind::Tree(tree), mapped) => (ItemKind::Tree, mapped.unwrap_or(&tree.path)),
    };
    if is_local && fact.is_some_and(|fact| fact.present && !fact.staged) {
        return SourceFound::Left(
            "it was read in place, so it is on the targets only: restore it with --from".to_owned(),
        );
    }
    let at = OsStr::from_bytes(source.to.as_bytes());
    let meta = match root.try_meta(at) {
        Ok(Some(meta)) if fact.is_none_or(|fact| fact.present) => meta,
        Ok(_) if request.only.contains(&source.name) => {
            let text = format!("the content does not hold {}", source.name);
            return SourceFound::Refused(Because::new(
                code::NOTHING,
                text,
                "name another snapshot",
            ));
        }
        Ok(_) => {
            return SourceFound::Left("the content does not hold it; it stays as it is".to_owned());
        }
        Err(error) => {
            return SourceFound::Refused(Because::io(format!("cannot read {}", source.to), &error));
        }
    };
    let is_right = match kind {
        ItemKind::Tree => meta.is_dir(),
        ItemKind::Database | ItemKind::File => meta.is_file(),
    };
    if !is_right {
        return SourceFound::Refused(wrong_kind(&content.dir.join(&source.to), kind));
    }
    match open(source, kind, path, content, root) {
        Ok(candidate) => SourceFound::Here(Box::new(candidate)),
        Err(because) => SourceFound::Refused(because),
    }
}

fn wrong_kind(path: &Path, kind: ItemKind) -> Because {
    let expected = match kind {
        ItemKind::Tree => "a directory",
        ItemKind::Database | ItemKind::File => "a file",
    };
    let text = format!("{} is not {expected}", path.display());
    Because::new(
        code::WRONG_KIND,
        text,
        "move it away, or correct the configuration",
    )
}

/// Opens the live path of a source, and looks at its content.
fn open<'a>(
    source: &'a Source,
    kind: ItemKind,
    path: &Path,
    content: &InPlaceContent,
    root: &Dir,
) -> Result<InPlaceCandidate<'a>, Because> {
    let unread =
        |error: std::io::Error| Because::io(format!("cannot read {}", path.display()), &error);
    let resolved = Dir::resolve(path).map_err(unread)?;
    let mut missing = resolved.missing.clone();
    let live = match (resolved.other.is_some(), missing.len()) {
        (true, _) | (false, 1) => Slot {
            dir: resolved.dir,
            name: missing.pop().unwrap_or_default(),
        },
        (false, 0) => {
            let Some((dir, name)) = resolved.above else {
                let text = "the root directory cannot be exchanged";
                return Err(Because::new(code::MOUNT_POINT, text, inside_next(source)));
            };
            Slot { dir, name }
        }
        _ => {
            let parent = path.parent().unwrap_or(path).display();
            let text = format!("the directory of {} is missing: {parent}", source.name);
            let next =
                format!("make it, with its owner and mode: install -d -o OWNER -m MODE {parent}");
            return Err(Because::new(code::NO_PARENT, text, next));
        }
    };
    let there = live.meta().map_err(unread)?;
    let is_right = there.is_none_or(|there| match kind {
        ItemKind::Tree => there.is_dir(),
        ItemKind::Database | ItemKind::File => there.is_file(),
    });
    if !is_right {
        return Err(wrong_kind(path, kind));
    }
    if live.dir.is_mounted(&live.name).map_err(unread)? {
        let text = format!(
            "{} is a mount point, which cannot be exchanged",
            path.display()
        );
        return Err(Because::new(code::MOUNT_POINT, text, inside_next(source)));
    }
    let facts = ContentFacts::read(root, source, content.record.as_ref());
    let content =
        facts.map_err(|error| Because::io(format!("cannot read {}", source.to), &error))?;
    Ok(InPlaceCandidate {
        source,
        live,
        there,
        content,
        kind,
    })
}

fn inside_next(source: &Source) -> String {
    format!(
        "stop what uses it, and restore into it: sealift restore STAMP {} --to DIR --overwrite; or mount its \
         parent directory instead",
        source.to
    )
}

fn no_vectors() -> Because {
    Because::new(
        code::CHROMA_MISSING,
        "the content has no vector store, so SQL and vectors may disagree: the vectors that are there stay, answers \
         may lack results and are never wrong",
        "ingest the documents again, or restore a snapshot that has the vector store",
    )
}

/// Returns the refusal of content from another deployment, unless the operator wants it.
fn wrong_deployment(
    config: &Config,
    request: &InPlaceRequest,
    content: &InPlaceContent,
    facts: &producer::SnapshotFacts,
) -> Option<Because> {
    if request.from_other_host {
        return None;
    }
    let host = Some(content.host.as_str()).filter(|host| !host.is_empty());
    let other_host = host.filter(|host| *host != config.host.as_str());
    let is_elsewhere = |fact: &&SourceFacts| {
        let own = config.sources.iter().find(|source| source.to == fact.to);
        let own = own.and_then(|source| match &source.kind {
            SourceKind::Sqlite { path } | SourceKind::Json { path } => Some(path),
            SourceKind::Tree(tree) => Some(&tree.path),
            SourceKind::Command { .. } => None,
        });
        matches!((own, &fact.path), (Some(own), Some(path)) if own != path)
    };
    let elsewhere = facts.sources.iter().find(is_elsewhere);
    let elsewhere = elsewhere.and_then(|fact| fact.path.as_ref());
    let from = elsewhere.map_or(String::new(), |path| format!(" from {}", path.display()));
    let text = match (other_host, elsewhere) {
        (None, None) => return None,
        (Some(host), _) => format!("this snapshot was made by host {host:?}{from}"),
        (None, Some(_)) => format!("this snapshot was made{from}, which is not this host's path"),
    };
    let next = "do not trust it with this host's data; if it is meant: the same command with --from-other-host";
    Some(Because::new(code::WRONG_DEPLOYMENT, text, next))
}
