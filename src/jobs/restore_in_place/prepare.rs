//! Plans a restore in place: which content goes where. Changes nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::because::{Because, InPlaceRefusal, code};
use super::digest;
use super::plan::{
    InPlacePlan, ItemKind, LeftSource, OldContent, PlannedItem, PlannedPlace, ThingId, VERSION,
};
use super::requirements::{self, ContentFacts};
use super::slot::Slot;
use super::{InPlaceRequest, validation};
use crate::base::clock;
use crate::base::ids::{Stamp, ulid};
use crate::base::openat::{Dir, Meta};
use crate::config::{Check, Config, Preserve, Source, SourceKind};
use crate::jobs::error::JobError;
use crate::jobs::in_place_content::{ContentOrigin, InPlaceContent};
use crate::producer::{self, SourceFacts};

/// Longest name of a file.
const NAME_BYTES: usize = 255;

/// One source with its live path and its content.
pub(super) struct Candidate<'a> {
    pub(super) source: &'a Source,
    /// The open directory of the live path, and the name in it.
    pub(super) live: Slot,
    /// What is there now. `None`: nothing.
    pub(super) there: Option<Meta>,
    pub(super) content: ContentFacts,
    kind: ItemKind,
}

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
            Found::Here(candidate) => candidates.push(*candidate),
            Found::Refused(because) => refusals.push(because),
            Found::Left(why) => {
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
        let text = "the content holds none of the chosen sources";
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
    let stamp = safety_stamp(config, &candidates)?;
    let id = ulid(clock::now());
    let preserve = request.preserve.unwrap_or(config.restore.preserve);
    let items: Vec<PlannedItem> = candidates
        .iter()
        .map(|one| item(config, preserve, one, &id, stamp))
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
enum Found<'a> {
    Here(Box<Candidate<'a>>),
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
) -> Found<'a> {
    let is_local = content.origin == ContentOrigin::LocalSnapshot;
    let mapped = config.restore.map.get(&source.name);
    let (kind, path) = match (&source.kind, mapped) {
        (SourceKind::Command { .. }, None) => {
            return Found::Left(format!(
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
        return Found::Left(
            "it was read in place, so it is on the targets only: restore it with --from".to_owned(),
        );
    }
    let at = OsStr::from_bytes(source.to.as_bytes());
    let meta = match root.try_meta(at) {
        Ok(Some(meta)) if fact.is_none_or(|fact| fact.present) => meta,
        Ok(_) if request.only.contains(&source.name) => {
            let text = format!("the content does not hold {}", source.name);
            return Found::Refused(Because::new(code::NOTHING, text, "name another snapshot"));
        }
        Ok(_) => return Found::Left("the content does not hold it; it stays as it is".to_owned()),
        Err(error) => {
            return Found::Refused(Because::io(format!("cannot read {}", source.to), &error));
        }
    };
    let is_right = match kind {
        ItemKind::Tree => meta.is_dir(),
        ItemKind::Database | ItemKind::File => meta.is_file(),
    };
    if !is_right {
        return Found::Refused(wrong_kind(&content.dir.join(&source.to), kind));
    }
    match open(source, kind, path, content, root) {
        Ok(candidate) => Found::Here(Box::new(candidate)),
        Err(because) => Found::Refused(because),
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
) -> Result<Candidate<'a>, Because> {
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
    Ok(Candidate {
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

/// Returns the first stamp from now on that no safety copy has.
fn safety_stamp(config: &Config, candidates: &[Candidate<'_>]) -> Result<Stamp, JobError> {
    let mut stamp = Stamp::at(clock::now())?;
    for _ in 0..10_000 {
        let mut is_free = true;
        for one in candidates {
            for kind in [SAFETY, FAILED, DISCARDED] {
                let beside = one.live.with(format!(".{kind}-{stamp}").as_bytes());
                is_free &= !beside.is_taken()?;
                if let Some(dir) = &config.restore.preserve_dir {
                    is_free &= match Dir::open(dir) {
                        Ok(dir) => dir.try_meta(format!("{kind}-{stamp}"))?.is_none(),
                        Err(_) => true,
                    };
                }
            }
        }
        if is_free {
            break;
        }
        stamp = stamp.next();
    }
    Ok(stamp)
}

const SAFETY: &str = "pre-restore";
const FAILED: &str = "failed-restore";
const DISCARDED: &str = "post-restore";

fn item(
    config: &Config,
    preserve: Preserve,
    one: &Candidate<'_>,
    id: &str,
    stamp: Stamp,
) -> Result<PlannedItem, JobError> {
    let name = one.live.name().as_bytes();
    let beside = |kind: &str| {
        let ending = format!(".sealift-{kind}-{id}");
        // Room for the endings of a database's sidecars, and for the dot.
        let kept = &name[..name.len().min(NAME_BYTES - ending.len() - 16)];
        format!(".{}{ending}", String::from_utf8_lossy(kept))
    };
    let is_across = match &config.restore.preserve_dir {
        None => false,
        Some(dir) => {
            let nearest = Dir::resolve(dir)?.dir;
            Meta::of_fd(&nearest)?.dev() != Meta::of_fd(&one.live.dir)?.dev()
        }
    };
    let place = |kind: &str, dir: Option<&PathBuf>| match dir {
        Some(dir) => PlannedPlace {
            base: dir.clone(),
            rel: format!("{kind}-{stamp}/{}", one.source.to),
        },
        None => PlannedPlace {
            base: one.live.dir.path().to_owned(),
            rel: format!("{}.{kind}-{stamp}", String::from_utf8_lossy(name)),
        },
    };
    let dir = config.restore.preserve_dir.as_ref();
    // What comes back out of the way is renamed, so it stays on its file system.
    let near = dir.filter(|_| !is_across);
    let old = match &one.there {
        None => None,
        Some(meta) => Some(OldContent {
            id: ThingId::of(meta),
            bytes: occupied(&one.live, meta)?,
            uid: meta.uid(),
            gid: meta.gid(),
            mode: meta.permissions(),
        }),
    };
    let is_tree = one.kind == ItemKind::Tree;
    Ok(PlannedItem {
        name: one.source.name.clone(),
        kind: one.kind,
        to: one.source.to.clone(),
        live: one.live.path(),
        staged: beside("new"),
        aside: beside("old"),
        safety: place(SAFETY, dir),
        failed: place(FAILED, near),
        discarded: place(DISCARDED, near),
        copies: preserve == Preserve::Copy || is_across,
        owner: one.source.owner.filter(|_| !is_tree),
        mode: one.source.mode.filter(|_| !is_tree),
        is_lenient: matches!(&one.source.kind, SourceKind::Tree(tree) if tree.check == Check::Report),
        files: one.content.files,
        bytes: one.content.bytes,
        old,
    })
}

/// Returns the bytes of what is at `slot`.
fn occupied(slot: &Slot, meta: &Meta) -> std::io::Result<u64> {
    if !meta.is_dir() {
        return Ok(meta.size());
    }
    let mut bytes = 0u64;
    for found in digest::entries(&slot.open_dir()?)? {
        let (_, meta) = found?;
        if meta.is_file() {
            bytes = bytes.saturating_add(meta.size());
        }
    }
    Ok(bytes)
}
