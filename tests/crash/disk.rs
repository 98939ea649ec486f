//! A directory as a disk that forgets what was not flushed when its power goes.
//!
//! The model is what POSIX promises, no more: the content of a file is durable as it was at its last `fsync`; a
//! name, its removal or its change is durable once the directory that it is in was flushed, and not by flushing the
//! file. A rename is one step. What is not durable may be on the disk nevertheless, each piece by itself: any of the
//! changed names (with the earlier ones of the same name), any of a file's changed blocks, its old length or the new.
//! Modes, owners and times are not lost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, FileTimes};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::calls::Change;
use crate::support::random::Random;

const BLOCK_BYTES: usize = 4096;

/// What is lost when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Losses {
    /// All that was not flushed.
    All,
    /// Some of it, as this seed has it.
    Some(u64),
}

type Id = usize;
/// A name in a directory.
type Slot = (Id, OsString);

#[derive(Debug)]
enum Node {
    Dir {
        names: BTreeMap<OsString, Id>,
        mode: u32,
    },
    File {
        content: Vec<u8>,
    },
    /// A link or a FIFO: as durable as its name.
    Other,
}

/// A change of names that is not durable yet.
#[derive(Debug, Clone)]
enum Renaming {
    Add(Slot, Id),
    Remove(Slot, Id),
    Move(Slot, Slot, Id),
    Exchange(Slot, Slot),
}

impl Renaming {
    fn slots(&self) -> [Option<&Slot>; 2] {
        match self {
            Self::Add(slot, _) | Self::Remove(slot, _) => [Some(slot), None],
            Self::Move(from, to, _) | Self::Exchange(from, to) => [Some(from), Some(to)],
        }
    }

    fn is_in(&self, dir: Id) -> bool {
        self.slots().into_iter().flatten().any(|slot| slot.0 == dir)
    }
}

/// What is on the disk for sure, and what may be.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    /// Second names of files that lost their last one, for it may come back.
    kept: PathBuf,
    nodes: Vec<Node>,
    by_inode: HashMap<u64, Id>,
    pending: Vec<Renaming>,
    lies_of: Option<&'static str>,
    /// Of the call that is under way: what was where it changes something.
    was: [Option<Id>; 2],
}

const ROOT: Id = 0;

impl Disk {
    /// The directory `root` with all that it holds, durably.
    pub fn at(root: &Path) -> Self {
        let root = root.canonicalize().unwrap();
        let mut kept = root.clone().into_os_string();
        kept.push(".kept");
        let kept = PathBuf::from(kept);
        let _ = fs::remove_dir_all(&kept);
        fs::create_dir(&kept).unwrap();
        let mut disk = Self {
            root: root.clone(),
            kept,
            nodes: Vec::new(),
            by_inode: HashMap::new(),
            pending: Vec::new(),
            lies_of: None,
            was: [None, None],
        };
        disk.take_in(&root);
        disk
    }

    /// From now on flushing a file whose name begins so does nothing.
    pub fn lie_of(&mut self, name: &'static str) {
        self.lies_of = Some(name);
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn take_in(&mut self, path: &Path) -> Id {
        let id = self.add_node(path);
        if let Node::File { content } = &mut self.nodes[id] {
            *content = fs::read(path).unwrap();
        }
        if let Node::Dir { .. } = self.nodes[id] {
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                let inner = match self.id_of(&entry.path()) {
                    Some(known) => known, // A hard link.
                    None => self.take_in(&entry.path()),
                };
                self.names(id).insert(entry.file_name(), inner);
            }
        }
        id
    }

    /// What has just been made at `path`, without content.
    fn add_node(&mut self, path: &Path) -> Id {
        let meta = fs::symlink_metadata(path).unwrap();
        let node = match () {
            () if meta.is_dir() => Node::Dir {
                names: BTreeMap::new(),
                mode: meta.mode(),
            },
            () if meta.is_file() => Node::File {
                content: Vec::new(),
            },
            () => Node::Other,
        };
        self.nodes.push(node);
        self.by_inode.insert(meta.ino(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn names(&mut self, dir: Id) -> &mut BTreeMap<OsString, Id> {
        match &mut self.nodes[dir] {
            Node::Dir { names, .. } => names,
            other => panic!("{other:?} is no directory"),
        }
    }

    fn id_of(&self, path: &Path) -> Option<Id> {
        let meta = fs::symlink_metadata(path).ok()?;
        self.by_inode.get(&meta.ino()).copied()
    }

    fn slot(&self, path: &Path) -> Option<Slot> {
        let parent = path.parent()?.canonicalize().ok()?;
        Some((self.id_of(&parent)?, path.file_name()?.to_owned()))
    }

    /// Looks at what `change` is about to change.
    pub fn before(&mut self, change: &Change) {
        let before = |path: &Path| self.id_of(path);
        self.was = match change {
            Change::Open(path) | Change::Remove(path) => [before(path), None],
            Change::Rename(from, to) | Change::Exchange(from, to) | Change::Link(from, to) => {
                [before(from), before(to)]
            }
            _ => [None, None],
        };
        match (change, self.was) {
            (Change::Remove(path), [Some(id), _]) => self.keep(path, id),
            (Change::Rename(_, to), [_, Some(id)]) => self.keep(to, id),
            _ => {}
        }
    }

    fn kept_at(&self, id: Id) -> PathBuf {
        self.kept.join(id.to_string())
    }

    fn keep(&self, path: &Path, id: Id) {
        if !matches!(self.nodes[id], Node::Dir { .. }) && !self.kept_at(id).exists() {
            fs::hard_link(path, self.kept_at(id)).unwrap();
        }
    }

    /// Notes what `change` did.
    pub fn after(&mut self, change: &Change, succeeded: bool) {
        if !succeeded {
            return;
        }
        match change {
            Change::Write(_) => {}
            Change::Sync(path, _) if self.lies_about(path) => {}
            Change::Sync(_, file) => self.sync(file),
            Change::SyncAll(_) => self.sync_all(),
            Change::Open(path) if self.was[0].is_some() || path.symlink_metadata().is_err() => {}
            // Two names of one file: nothing was done.
            Change::Rename(..) if self.was[0] == self.was[1] => {}
            _ => {
                let renaming = self.renaming(change);
                let renaming = renaming.unwrap_or_else(|| panic!("{change:?}: {:?}", self.was));
                self.pending.push(renaming);
            }
        }
    }

    fn renaming(&mut self, change: &Change) -> Option<Renaming> {
        let [first, _] = self.was;
        Some(match change {
            Change::Open(path) | Change::MakeDir(path) | Change::MakeOther(path) => {
                let slot = self.slot(path)?;
                Renaming::Add(slot, self.add_node(path))
            }
            Change::Link(_, to) => Renaming::Add(self.slot(to)?, first?),
            Change::Remove(path) => Renaming::Remove(self.slot(path)?, first?),
            Change::Rename(from, to) => Renaming::Move(self.slot(from)?, self.slot(to)?, first?),
            Change::Exchange(from, to) => Renaming::Exchange(self.slot(from)?, self.slot(to)?),
            _ => return None,
        })
    }

    fn sync(&mut self, file: &Path) {
        let meta = fs::metadata(file).unwrap();
        let Some(id) = self.by_inode.get(&meta.ino()).copied() else {
            return; // It never had a name.
        };
        match &mut self.nodes[id] {
            Node::File { content } => *content = fs::read(file).unwrap(),
            Node::Dir { .. } => {
                let touched = self.pending.iter().map(|one| one.is_in(id)).collect();
                self.settle(touched);
            }
            Node::Other => {}
        }
    }

    fn lies_about(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.lies_of.is_some_and(|lie| name.starts_with(lie))
    }

    fn sync_all(&mut self) {
        for (id, path) in self.places() {
            if self.lies_about(&path) {
                continue;
            }
            if let Node::File { content } = &mut self.nodes[id] {
                *content = fs::read(path).unwrap();
            }
        }
        self.settle(vec![true; self.pending.len()]);
    }

    /// Makes the `chosen` of what is pending durable, and what each of them builds on.
    fn settle(&mut self, mut chosen: Vec<bool>) {
        let mut slots: HashSet<Slot> = HashSet::new();
        let mut emptied: HashSet<Id> = HashSet::new();
        for (at, one) in self.pending.iter().enumerate().rev() {
            let mut theirs = one.slots().into_iter().flatten();
            chosen[at] |= theirs.any(|slot| slots.contains(slot) || emptied.contains(&slot.0));
            if chosen[at] {
                slots.extend(one.slots().into_iter().flatten().cloned());
                if let Renaming::Remove(_, id) = one {
                    emptied.insert(*id);
                }
            }
        }
        let pending = std::mem::take(&mut self.pending);
        for (one, chosen) in pending.into_iter().zip(chosen) {
            match chosen {
                true => self.apply(&one),
                false => self.pending.push(one),
            }
        }
    }

    fn apply(&mut self, renaming: &Renaming) {
        match renaming {
            Renaming::Add((dir, name), id) => drop(self.names(*dir).insert(name.clone(), *id)),
            Renaming::Remove((dir, name), _) => drop(self.names(*dir).remove(name)),
            Renaming::Move(from, to, id) => {
                self.names(from.0).remove(&from.1);
                self.names(to.0).insert(to.1.clone(), *id);
            }
            Renaming::Exchange(a, b) => {
                let (was_a, was_b) = (self.names(a.0).remove(&a.1), self.names(b.0).remove(&b.1));
                for (slot, id) in [(a, was_b), (b, was_a)] {
                    if let Some(id) = id {
                        self.names(slot.0).insert(slot.1.clone(), id);
                    }
                }
            }
        }
    }

    /// Where each file and directory is now, by one of its names.
    fn places(&self) -> HashMap<Id, PathBuf> {
        let mut places = HashMap::new();
        let mut dirs = vec![self.kept.clone(), self.root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if let Some(id) = self.id_of(&path) {
                    places.insert(id, path.clone());
                }
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    dirs.push(path);
                }
            }
        }
        places
    }

    /// The power goes: leaves on the disk what is there when it comes back. Gives how many names, and files, are
    /// other than they were.
    pub fn power_off(mut self, losses: Losses) -> (usize, usize) {
        let mut random = match losses {
            Losses::All => None,
            Losses::Some(seed) => Some(Random::new(seed)),
        };
        let pending = self.pending.len();
        if let Some(random) = &mut random {
            let share = random.below(5);
            let kept = (0..pending).map(|_| random.below(4) < share).collect();
            self.settle(kept);
        }
        let names = self.pending.len();
        let old = self.root.with_extension("old");
        let places = self.places();
        let moved = |path: &PathBuf| match path.strip_prefix(&self.root) {
            Ok(inside) => old.join(inside),
            Err(_) => path.clone(),
        };
        let places: HashMap<Id, PathBuf> =
            places.iter().map(|(id, path)| (*id, moved(path))).collect();
        fs::rename(&self.root, &old).unwrap();
        let mut files = 0;
        for (id, path) in &places {
            if let Node::File { content } = &self.nodes[*id] {
                files += usize::from(lose_content(path, content, random.as_mut()));
            }
        }
        self.build(ROOT, &self.root, &places);
        fs::remove_dir_all(&old).unwrap();
        self.forget();
        (names, files)
    }

    /// Nothing happened to the disk.
    pub fn forget(&self) {
        fs::remove_dir_all(&self.kept).unwrap();
    }

    fn build(&self, id: Id, at: &Path, places: &HashMap<Id, PathBuf>) {
        match &self.nodes[id] {
            Node::Dir { names, mode } => {
                fs::create_dir(at).unwrap();
                for (name, inner) in names {
                    self.build(*inner, &at.join(name), places);
                }
                let was = places.get(&id).map(|old| fs::metadata(old).unwrap());
                let mode = was.as_ref().map_or(*mode, fs::Metadata::mode);
                fs::set_permissions(at, fs::Permissions::from_mode(mode)).unwrap();
                if let Some(was) = was {
                    fs::File::open(at).unwrap().set_times(times(&was)).unwrap();
                }
            }
            _ => fs::hard_link(&places[&id], at).unwrap(),
        }
    }
}

/// Makes of a file's content what is there of it after power came back, where `durable` was flushed. The file stays
/// the same one, and bears the same times.
fn lose_content(path: &Path, durable: &[u8], random: Option<&mut Random>) -> bool {
    let now = fs::read(path).unwrap();
    if now == durable {
        return false;
    }
    let mut after = durable.to_vec();
    if let Some(random) = random {
        let share = random.below(5);
        after.resize([durable.len(), now.len()][random.below(2)], 0);
        for at in (0..after.len().min(now.len())).step_by(BLOCK_BYTES) {
            let end = (at + BLOCK_BYTES).min(after.len()).min(now.len());
            if random.below(4) < share {
                after[at..end].copy_from_slice(&now[at..end]);
            }
        }
    }
    let meta = fs::metadata(path).unwrap();
    let mode = meta.permissions();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(after.len() as u64).unwrap();
    file.write_all_at(&after, 0).unwrap();
    file.set_times(times(&meta)).unwrap();
    fs::set_permissions(path, mode).unwrap();
    after != now
}

fn times(meta: &fs::Metadata) -> FileTimes {
    FileTimes::new()
        .set_accessed(meta.accessed().unwrap())
        .set_modified(meta.modified().unwrap())
}
