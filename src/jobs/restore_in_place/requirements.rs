//! What must be true before a restore in place begins: rights, room, separate places, commands, and
//! that nothing uses the data that could not be stopped.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, accessat};

use super::because::{Because, code};
use super::candidate::InPlaceCandidate;
use super::digest::entries;
use super::plan::{ItemKind, PlannedItem};
use super::slot::Slot;
use crate::base::fs::lacks_room;
use crate::base::open_files::{WatchedFile, WatchedFiles, users_of};
use crate::base::openat::{Dir, Meta};
use crate::base::sqlite::SIDECARS;
use crate::base::units::size;
use crate::config::{CommandLine, Config};
use crate::jobs::in_place_content::InPlaceContent;

const STICKY: u32 = 0o1000;

/// Returns every reason against beginning.
pub(super) fn refusals(
    config: &Config,
    candidates: &[InPlaceCandidate<'_>],
    items: &[PlannedItem],
    content: &InPlaceContent,
) -> io::Result<Vec<Because>> {
    let mut refusals = overlaps(config, items, content);
    if let Some(dir) = &config.restore.preserve_dir {
        refusals.extend(preserve_dir(dir)?);
    }
    refusals.extend(room(candidates, items)?);
    let commands = [
        &config.restore.stop,
        &config.restore.start,
        &config.restore.stopped,
    ];
    refusals.extend(commands.into_iter().flatten().filter_map(missing_command));
    if config.restore.stop.is_none() {
        let watched = watched(items)?;
        refusals.extend(users_of(&watched).into_iter().map(|user| {
            let text = format!("{user}, and [restore] has no `stop` to stop it with");
            let next =
                "stop it, or name the commands: stop = \"...\" and start = \"...\" in [restore]";
            Because::new(code::IN_USE, text, next)
        }));
    }
    Ok(refusals)
}

/// Refuses places that are within each other: an exchange of one would move the other.
fn overlaps(config: &Config, items: &[PlannedItem], content: &InPlaceContent) -> Vec<Because> {
    let mut refusals = Vec::new();
    for item in items.iter().filter(|item| item.kind == ItemKind::Tree) {
        let other = items
            .iter()
            .find(|other| other.name != item.name && other.live.starts_with(&item.live));
        if let Some(other) = other {
            let text = format!(
                "{} is inside {}: both cannot be exchanged at once",
                other.name, item.name
            );
            let next = format!("restore one of them at a time: --only {}", item.name);
            refusals.push(Because::new(code::OVERLAP, text, next));
        }
        let own = [
            ("the state directory", Some(&config.state)),
            (
                "the directory of the safety copies",
                config.restore.preserve_dir.as_ref(),
            ),
            ("the content", Some(&content.dir)),
        ];
        for (what, path) in own {
            let real =
                path.map(|path| Dir::resolve(path).map_or(path.clone(), |found| found.path()));
            if let Some(real) = real.filter(|real| real.starts_with(&item.live)) {
                let text = format!("{what}, {}, is inside {}", real.display(), item.name);
                let next = format!("move it out of {}", item.live.display());
                refusals.push(Because::new(code::OVERLAP, text, next));
            }
        }
    }
    for (number, item) in items.iter().enumerate() {
        let same = items[..number].iter().find(|other| other.live == item.live);
        if let Some(same) = same {
            let text = format!(
                "{} and {} are both at {}",
                same.name,
                item.name,
                item.live.display()
            );
            let next = "correct `map` in [restore]";
            refusals.push(Because::new(code::OVERLAP, text, next));
        }
    }
    refusals
}

/// Refuses an item that this user may not exchange, or whose owners he may not set.
pub(super) fn rights(one: &InPlaceCandidate<'_>) -> Option<Because> {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return None;
    }
    let next = "run it as root";
    let name = &one.source.name;
    let dir = one.live.dir.path().display();
    let access = Access::WRITE_OK | Access::EXEC_OK;
    let is_writable = accessat(&one.live.dir, ".", access, AtFlags::EACCESS).is_ok();
    let is_held = Meta::of_fd(&one.live.dir).is_ok_and(|dir| {
        let is_owner = |meta: &Meta| meta.uid() == user.as_raw();
        let is_others = one.there.as_ref().is_some_and(|there| !is_owner(there));
        dir.permissions() & STICKY != 0 && !is_owner(&dir) && is_others
    });
    if !is_writable || is_held {
        let text = format!("this user may not exchange {name} in {dir}");
        return Some(Because::new(code::NO_RIGHTS, text, next));
    }
    let groups = rustix::process::getgroups().unwrap_or_default();
    let own_group = rustix::process::getegid();
    let is_ours = |(uid, gid): (u32, u32)| {
        let is_group = gid == own_group.as_raw() || groups.iter().any(|one| one.as_raw() == gid);
        uid == user.as_raw() && is_group
    };
    let foreign = one
        .content
        .owners
        .iter()
        .find(|(owner, _)| !is_ours(**owner));
    foreign.map(|((uid, gid), path)| {
        let text = format!("{path} belongs to {uid}:{gid}, and only root can set that owner");
        Because::new(code::NO_RIGHTS, text, next)
    })
}

/// Refuses a directory for safety copies in which nothing can be made.
fn preserve_dir(path: &Path) -> io::Result<Option<Because>> {
    let resolved = Dir::resolve(path)?;
    let shown = path.display();
    if resolved.other.is_some() {
        let text = format!("`preserve_dir` {shown} is not a directory");
        return Ok(Some(Because::new(
            code::WRONG_KIND,
            text,
            "name another one in [restore]",
        )));
    }
    let access = Access::WRITE_OK | Access::EXEC_OK;
    Ok(
        match accessat(&resolved.dir, ".", access, AtFlags::EACCESS) {
            Ok(()) => None,
            Err(errno) => {
                let what = format!("no safety copy can be made in {shown}");
                Some(Because::io(what, &errno.into()))
            }
        },
    )
}

/// Refuses what does not fit: new content beside the live paths, and safety copies.
fn room(candidates: &[InPlaceCandidate<'_>], items: &[PlannedItem]) -> io::Result<Vec<Because>> {
    // By device: a directory on it, and the bytes.
    let mut needs: HashMap<u64, (Dir, u64)> = HashMap::new();
    let mut need = |dir: Dir, bytes: u64| -> io::Result<()> {
        let device = Meta::of_fd(&dir)?.dev();
        let entry = needs.entry(device).or_insert((dir, 0));
        entry.1 = entry.1.saturating_add(bytes);
        Ok(())
    };
    for (one, item) in candidates.iter().zip(items) {
        if !can_clone(one.content.sample.as_ref(), &one.live.dir) {
            need(one.live.dir.clone(), one.content.bytes)?;
        }
        if let Some(old) = item.old.as_ref().filter(|_| item.copies) {
            let dir = Dir::resolve(&item.safety.base)?.dir;
            if !can_clone(
                Some(&one.live).filter(|_| item.kind != ItemKind::Tree),
                &dir,
            ) {
                need(dir, old.bytes)?;
            }
        }
    }
    let mut refusals = Vec::new();
    for (dir, bytes) in needs.into_values() {
        if let Some(free) = lacks_room(&dir, bytes) {
            let text = format!(
                "{} are needed at {}, and {} are free there",
                size(bytes),
                dir.path().display(),
                size(free)
            );
            let next = "make room there; `--preserve move` with a `preserve_dir` on the file system of the data needs \
                        none for the safety copy";
            refusals.push(Because::new(code::NO_SPACE, text, next));
        }
    }
    Ok(refusals)
}

/// Whether the file system shares blocks between the file and a new one in `dir`: then a copy needs
/// no room.
fn can_clone(sample: Option<&Slot>, dir: &Dir) -> bool {
    let cloned = sample.and_then(|sample| {
        let from = sample.open_file().ok()?;
        let to = dir.unnamed_file().ok()?;
        rustix::fs::ioctl_ficlone(&to, &from).ok()
    });
    cloned.is_some()
}

/// Refuses a command whose program does not exist. Of a shell line nothing is known.
fn missing_command(line: &CommandLine) -> Option<Because> {
    let CommandLine::Words(words) = line else {
        return None;
    };
    let program = Path::new(words.first().map_or("", String::as_str));
    let is_there = |path: &Path| rustix::fs::access(path, Access::EXEC_OK).is_ok();
    let is_found = match program.components().count() {
        1 => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|dir| is_there(&dir.join(program)))
        }
        _ => is_there(program),
    };
    let text = format!("the program {} is not there", program.display());
    let next = "correct the command in [restore]";
    (!is_found).then(|| Because::new(code::COMMAND_MISSING, text, next))
}

/// Returns the files of the items' live content: of databases whatever opens them counts, of other
/// files only what writes to them.
pub(super) fn watched(items: &[PlannedItem]) -> io::Result<WatchedFiles> {
    let mut watched = WatchedFiles::new();
    for item in items {
        let live = item.slots()?.live;
        match item.kind {
            ItemKind::Tree => watch_tree(&live, &mut watched)?,
            _ => watch_file(&live, item.is_database(), &mut watched)?,
        }
    }
    Ok(watched)
}

fn watch_file(slot: &Slot, is_database: bool, watched: &mut WatchedFiles) -> io::Result<()> {
    let sidecars = SIDECARS.iter().filter(|_| is_database);
    let all = sidecars
        .map(|ending| slot.with(ending))
        .chain([slot.clone()]);
    for one in all {
        if let Some(meta) = one.meta()? {
            let path = one.path();
            watched.insert(meta.id(), WatchedFile { path, is_database });
        }
    }
    Ok(())
}

fn watch_tree(slot: &Slot, watched: &mut WatchedFiles) -> io::Result<()> {
    let Some(meta) = slot.meta()? else {
        return Ok(());
    };
    if !meta.is_dir() {
        return Ok(());
    }
    let root = slot.open_dir()?;
    for found in entries(&root)? {
        let (rel, meta) = found?;
        if meta.is_file() {
            let path: PathBuf = slot.path().join(OsStr::from_bytes(&rel));
            let is_database = is_database_name(&rel);
            watched.insert(meta.id(), WatchedFile { path, is_database });
        }
    }
    Ok(())
}

/// Returns whether a file in a tree is a database or belongs to one, by its name.
pub(super) fn is_database_name(rel: &[u8]) -> bool {
    let stem = SIDECARS.iter().find_map(|ending| rel.strip_suffix(*ending));
    let stem = stem.unwrap_or(rel);
    [b".sqlite3".as_slice(), b".sqlite", b".db"]
        .iter()
        .any(|ending| stem.ends_with(ending))
}
