//! Copies new content beside its live path, while the service still runs: as a reflink where the
//! file system can, with owner, permissions and attributes, flushed, read back and checked.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use super::because::{Because, code};
use super::digest::{Digest, digest, entries};
use super::plan::{ItemKind, PlannedItem, ThingId};
use super::requirements::is_database_name;
use super::slot::Slot;
use crate::base::error_chain::with_causes;
use crate::base::ids::Hash;
use crate::base::openat::{
    ACCESS_LISTS, Dir, FileOwner, Kind, Meta, chmod_fd, chown_fd, set_mtime_fd, set_xattr_fd,
};
use crate::base::sqlite::{self, Budget, Depth, Place};
use crate::format::index::{EntryRef, EntryType};
use crate::format::restored::RestoredRecord;
use crate::producer::{CopyMtime, Original, dress, dress_entry};
use crate::restore::mode_without;

const BUFFER_BYTES: usize = 1 << 18;

/// The new content of one item, as it is beside its live path.
pub(super) struct StagedItem {
    pub(super) id: ThingId,
    pub(super) digest: Digest,
    /// Sentences on what could not be kept or checked.
    pub(super) notes: BTreeSet<String>,
}

/// Copies `from`, the content of `item`, to `to`. `record` has the hash, owner and permissions of
/// each file.
pub(super) fn stage(
    item: &PlannedItem,
    from: &Slot,
    to: &Slot,
    record: Option<&RestoredRecord>,
) -> Result<StagedItem, Because> {
    let failed =
        |error: io::Error| Because::io(format!("cannot copy the new {}", item.name), &error);
    let mut copy = StagingCopy {
        item,
        record,
        hashes: HashMap::new(),
        notes: BTreeSet::new(),
    };
    match item.kind {
        ItemKind::Tree => copy.tree(from, to),
        ItemKind::Database | ItemKind::File => {
            copy.file(&from.dir, from.name(), &to.dir, to.name(), b"")
        }
    }
    .map_err(failed)?;
    to.dir.sync().map_err(failed)?;
    let StagingCopy {
        hashes, mut notes, ..
    } = copy;
    let mut wrong = None;
    let mut files = 0u64;
    let read = digest(to, |rel, hash| {
        files += 1;
        let path = path_in_content(item, rel);
        let recorded = record.map(|record| record.hash_of(&path));
        let is_right = recorded.is_none_or(|recorded| recorded == Some(hash))
            && hashes.get(rel).is_none_or(|read| *read == hash);
        if !is_right {
            wrong.get_or_insert_with(|| String::from_utf8_lossy(&path).into_owned());
        }
        Ok(())
    })
    .map_err(failed)?;
    if let Some(path) = wrong {
        let text =
            format!("{path} is not what it was when it was verified: the copy has another hash");
        let next = "restore it again from where it came from; if that fails too, suspect the disk";
        return Err(Because::new(code::CONTENT_CHANGED, text, next));
    }
    let recorded = record.map(|record| files_below(record, &item.to));
    if let Some(recorded) = recorded.filter(|recorded| *recorded != files) {
        let text = format!(
            "the content of {} has {files} files, and had {recorded} when it was verified",
            item.name
        );
        let next = "keep other programs away from it, and restore it again";
        return Err(Because::new(code::CONTENT_CHANGED, text, next));
    }
    check_databases(item, to, &read, &mut notes)?;
    let meta = to.meta().map_err(failed)?;
    let meta = meta.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    Ok(StagedItem {
        id: ThingId::of(&meta),
        digest: read,
        notes,
    })
}

/// Returns the number of files that the record has at or below `at`, by each of their names.
fn files_below(record: &RestoredRecord, at: &str) -> u64 {
    let is_below = |path: &[u8]| {
        let rest = path.strip_prefix(at.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    };
    let entries = record.entries.iter().filter(|entry| {
        matches!(entry.kind, EntryType::File | EntryType::Hardlink) && is_below(entry.path)
    });
    entries.count() as u64
}

/// Returns the path in the content of a path below an item.
fn path_in_content(item: &PlannedItem, rel: &[u8]) -> Vec<u8> {
    match rel {
        b"" => item.to.clone().into_bytes(),
        rel => [item.to.as_bytes(), b"/", rel].concat(),
    }
}

/// Runs `integrity_check` on the databases of the staged content.
fn check_databases(
    item: &PlannedItem,
    to: &Slot,
    read: &Digest,
    notes: &mut BTreeSet<String>,
) -> Result<(), Because> {
    let budget = match item.kind {
        ItemKind::Tree => Budget::of_run(),
        _ => Budget::of_own(),
    };
    let mut check = |place: io::Result<Place>, shown: &str| {
        let opened = place.and_then(|place| Ok((place.open()?, place)));
        let (file, place) =
            opened.map_err(|error| Because::io(format!("cannot read the new {shown}"), &error))?;
        let wrong = match sqlite::inspect_at(&place, &file, Depth::Indexes, &budget) {
            Ok(found) if found.is_ok() => return Ok(()),
            Ok(found) => found.integrity,
            Err(error) => match error.unchecked() {
                Some(why) => {
                    notes.insert(format!("{shown} was not checked as a database: {why}"));
                    return Ok(());
                }
                None => with_causes(&error),
            },
        };
        if item.is_lenient {
            notes.insert(format!("{shown} fails integrity_check: {wrong}"));
            return Ok(());
        }
        let code = format!("{}_integrity_check_failed", item.name);
        let next = "restore an older snapshot, or the same one from a target; if that fails too, suspect the disk";
        Err(Because::new(&code, format!("{shown}: {wrong}"), next))
    };
    match item.kind {
        ItemKind::Database => check(Place::within(&to.dir, to.name(), &item.live), &item.name),
        ItemKind::File => Ok(()),
        ItemKind::Tree => {
            let root = to.open_dir();
            let root = root.map_err(|error| Because::io("cannot open the new tree", &error))?;
            for rel in &read.databases {
                let at = OsStr::from_bytes(rel);
                let shown = format!("{}/{}", item.name, at.to_string_lossy());
                check(Place::below(&root, at), &shown)?;
            }
            Ok(())
        }
    }
}

struct StagingCopy<'a> {
    item: &'a PlannedItem,
    record: Option<&'a RestoredRecord>,
    /// The hashes of what was read and written, by path below the item.
    hashes: HashMap<Vec<u8>, Hash>,
    notes: BTreeSet<String>,
}

impl StagingCopy<'_> {
    fn tree(&mut self, from: &Slot, to: &Slot) -> io::Result<()> {
        let source = from.open_dir()?;
        let root = to.dir.make_dir(to.name(), 0o700)?;
        let mut dirs: Vec<(Vec<u8>, Meta)> = Vec::new();
        // The first name of each file that has several.
        let mut linked: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        for found in entries(&source)? {
            let (rel, meta) = found?;
            let at = OsStr::from_bytes(&rel);
            match meta.kind() {
                Kind::Dir => {
                    root.make_dir(at, 0o700)?;
                    dirs.push((rel, meta));
                }
                Kind::File => {
                    if let Some(first) = linked.get(&meta.id()) {
                        root.link(OsStr::from_bytes(first), &root, at)?;
                        continue;
                    }
                    self.file(&source, at, &root, at, &rel)?;
                    if meta.nlink() > 1 {
                        linked.insert(meta.id(), rel);
                    }
                }
                Kind::Socket | Kind::Unknown => {}
                kind => self.other(&source, &root, at, kind, &meta)?,
            }
        }
        // From the deepest on: what is made in a directory changes its time.
        for (rel, meta) in dirs.iter().rev() {
            let at = OsStr::from_bytes(rel);
            let (own, copy) = (source.sub(at)?, root.sub(at)?);
            self.finish(&own, &copy, meta, rel)?;
        }
        let meta = Meta::of_fd(&source)?;
        self.finish(&source, &root, &meta, b"")?;
        root.sync_file_system()
    }

    fn other(
        &mut self,
        from: &Dir,
        to: &Dir,
        at: &OsStr,
        kind: Kind,
        meta: &Meta,
    ) -> io::Result<()> {
        match kind {
            Kind::Symlink => to.symlink(&from.read_link(at)?, at)?,
            Kind::Fifo => to.make_node(at, kind, None)?,
            _ => {
                let device = (
                    rustix::fs::major(meta.rdev()),
                    rustix::fs::minor(meta.rdev()),
                );
                to.make_node(at, kind, Some(device))?;
            }
        }
        let original = Original::of_pin(&from.pin(at)?);
        dress_entry(to, at, &original, &mut self.notes)?;
        let path = path_in_content(self.item, at.as_bytes());
        if let Some(entry) = self.record.and_then(|record| record.entries.find(&path)) {
            let owner = FileOwner::new(entry.uid, entry.gid)?;
            if to.meta(at)?.uid() != entry.uid || to.meta(at)?.gid() != entry.gid {
                to.set_owner(at, owner)?;
            }
        }
        Ok(())
    }

    /// Copies the file `from_name` of `from` to `to_name` of `to`; `rel` is its path below the
    /// item.
    fn file(
        &mut self,
        from: &Dir,
        from_name: &OsStr,
        to: &Dir,
        to_name: &OsStr,
        rel: &[u8],
    ) -> io::Result<()> {
        let (source, meta) = from.open_file(from_name)?;
        let copy = to.create_file(to_name, 0o600)?;
        if let Some(hash) = copy_content(&source, &copy, meta.size())? {
            self.hashes.insert(rel.to_owned(), hash);
        }
        self.finish(&source, &copy, &meta, rel)?;
        // A tree is flushed as a whole.
        match rel {
            b"" => copy.sync_all(),
            _ => Ok(()),
        }
    }

    /// Sets owner, attributes, permissions and time.
    fn finish(
        &mut self,
        from: impl AsFd,
        to: impl AsFd,
        meta: &Meta,
        rel: &[u8],
    ) -> io::Result<()> {
        let to = to.as_fd();
        dress(
            to,
            &Original::of_fd(from)?,
            CopyMtime::Original,
            &mut self.notes,
        )?;
        let path = path_in_content(self.item, rel);
        let entry = self.record.and_then(|record| record.entries.find(&path));
        let recorded = entry.as_ref().map(|entry| (entry.uid, entry.gid));
        let (uid, gid) = self
            .item
            .owner
            .or(recorded)
            .unwrap_or((meta.uid(), meta.gid()));
        let now = Meta::of_fd(to)?;
        if (now.uid(), now.gid()) != (uid, gid) {
            chown_fd(to, FileOwner::new(uid, gid)?)?;
        }
        let recorded = entry.as_ref();
        let recorded = recorded.map(|entry| self.set_recorded_attributes(to, entry));
        let mode = self.item.mode.or(recorded);
        let mode = mode.unwrap_or(meta.permissions()) & 0o7777;
        if Meta::of_fd(to)?.permissions() != mode {
            chmod_fd(to, mode)?;
        }
        if let Some(entry) = &entry {
            let seconds = i64::try_from(entry.mtime_ns.div_euclid(1_000_000_000));
            let rest = i64::try_from(entry.mtime_ns.rem_euclid(1_000_000_000));
            if let (Ok(seconds), Ok(rest)) = (seconds, rest) {
                set_mtime_fd(to, &crate::base::openat::mtime(seconds, rest))?;
            }
        }
        Ok(())
    }
}

impl StagingCopy<'_> {
    /// Sets the attributes that the record has: a copy may have lost them. Returns the mode to set,
    /// which is no wider for any user than the original was.
    fn set_recorded_attributes(&mut self, to: BorrowedFd<'_>, entry: &EntryRef<'_>) -> u32 {
        let mut mode = entry.mode;
        for (name, value) in entry.xattrs() {
            let Err(error) = set_xattr_fd(to, OsStr::from_bytes(name), value) else {
                continue;
            };
            if name == ACCESS_LISTS[0].as_bytes() {
                mode = mode_without(value, mode);
            }
            let shown = String::from_utf8_lossy(name);
            self.notes
                .insert(format!("the attribute {shown} was not kept: {error}"));
        }
        mode
    }
}

/// Copies the content of `from`, which had this size, into the new file `to`; blocks of zeros
/// become holes. Returns the hash of what was read; `None`: both share their blocks.
pub(super) fn copy_content(from: &File, to: &File, size: u64) -> io::Result<Option<Hash>> {
    if size > 0 && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0u64;
    loop {
        let read = match from.read_at(&mut buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        if buffer[..read].iter().any(|byte| *byte != 0) {
            to.write_all_at(&buffer[..read], at)?;
        }
        at += read as u64;
    }
    // If it ends with a hole.
    to.set_len(at)?;
    Ok(Some(Hash(*hasher.finalize().as_bytes())))
}

/// Copies what is at `from`, a file or a tree, to the free name `to` as it is, flushed, and
/// compares the two. Returns its digest.
pub(super) fn copy_as_it_is(item: &PlannedItem, from: &Slot, to: &Slot) -> io::Result<Digest> {
    let plain = PlannedItem {
        owner: None,
        mode: None,
        ..item.clone()
    };
    let mut copy = StagingCopy {
        item: &plain,
        record: None,
        hashes: HashMap::new(),
        notes: BTreeSet::new(),
    };
    let meta = from.meta()?.ok_or(io::ErrorKind::NotFound)?;
    match meta.is_dir() {
        true => copy.tree(from, to)?,
        false => copy.file(&from.dir, from.name(), &to.dir, to.name(), b"")?,
    }
    to.dir.sync()?;
    let (original, copied) = (digest(from, |_, _| Ok(()))?, digest(to, |_, _| Ok(()))?);
    match original.hash == copied.hash {
        true => Ok(copied),
        false => Err(io::Error::other(match copy.notes.first() {
            Some(note) => format!("the copy differs: {note}"),
            None => "the copy differs from its original, which may have been written to".to_owned(),
        })),
    }
}

/// Returns the databases of an item's content at `slot`, open for writing, to be shut.
pub(super) fn databases(item: &PlannedItem, slot: &Slot) -> io::Result<Vec<File>> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match item.kind {
        ItemKind::File => Ok(Vec::new()),
        ItemKind::Database => match slot.dir.open_to_write(slot.name()) {
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            other => Ok(vec![other?]),
        },
        ItemKind::Tree => {
            if !slot.is_taken()? {
                return Ok(Vec::new());
            }
            let root = slot.open_dir()?;
            let mut found = Vec::new();
            for entry in entries(&root)? {
                let (rel, meta) = entry?;
                let is_database = is_database_name(&rel) && !rel.ends_with(b"-wal");
                if meta.is_file() && is_database && !rel.ends_with(b"-shm") {
                    found.push(root.open_to_write(OsStr::from_bytes(&rel))?);
                }
            }
            Ok(found)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Hash;
    use crate::format::index::Entry;
    use crate::format::restored::{RecordWriter, RestoredFrom, RestoredHeader};

    fn entry(path: &str, kind: EntryType) -> Entry {
        let is_file = kind == EntryType::File;
        Entry {
            path: path.as_bytes().to_vec(),
            kind,
            mode: 0o700,
            uid: 0,
            gid: 0,
            user: None,
            group: None,
            mtime_ns: 0,
            xattrs: Default::default(),
            size: 0,
            blake3: is_file.then(|| Hash::blake3(b"")),
            extents: Vec::new(),
            target: (kind == EntryType::Hardlink).then(|| b"photos/a".to_vec()),
            rdev: None,
            torn: false,
        }
    }

    /// Kind: what vanished from a directory after it was verified is not missed.
    #[test]
    fn the_record_says_how_many_files_an_item_has() {
        let from = RestoredFrom {
            host: "dalidou".parse().unwrap(),
            stamp: "20260407T060000Z".parse().unwrap(),
            sequence: 1,
            signer: "SHA256:x".to_owned(),
            core: Hash::blake3(b"core"),
            paths: Vec::new(),
        };
        let at = "2026-04-08T12:00:00Z".parse().unwrap();
        let header = RestoredHeader::new(&from, Vec::new(), at);
        let mut record = RecordWriter::begin(Vec::new(), &header).unwrap();
        for (path, kind) in [
            ("db", EntryType::File),
            ("photos", EntryType::Dir),
            ("photos-2", EntryType::Dir),
            ("photos-2/a", EntryType::File),
            ("photos/a", EntryType::File),
            ("photos/b", EntryType::Hardlink),
            ("photos/deep", EntryType::Dir),
            ("photos/deep/c", EntryType::File),
        ] {
            record.entry(entry(path, kind)).unwrap();
        }
        let record = record.finish().unwrap();
        let record = RestoredRecord::read(&record[..]).unwrap();
        let count = |at: &str| files_below(&record, at);
        assert_eq!(
            [
                count("db"),
                count("photos"),
                count("photos-2"),
                count("photo")
            ],
            [1, 3, 1, 0]
        );
    }
}
