//! Content in, extents out: known chunks become extents into earlier archives, new ones members of
//! the open archive.
//!
//! A chunk counts as known if it lies in an archive that may be used: sealed to at least today's
//! recipients, and on every target or in the spool (the caller says which), or in one that this run
//! is making. Rows go into the catalog only when the archive is sealed and durable.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::chunk::Chunk;
use super::filter::Filter;
use super::member::{BLOCK_BYTES, Member, padding};
use super::rest::Rest;
use super::seal::{SealedArchive, Sealer, Texture};
use super::telling::{Batch, Telling};
use super::{OnSealed, PackError};
use crate::catalog::{Catalog, CatalogArchive, ChunkHash, ChunkPlace, ChunkTable, NewArchive};
use crate::ids::{ArchiveId, Hash};
use crate::index::Extent;
use crate::manifest::{ArchiveKind, ArchiveRow};

/// The archives that `extents` lie in, and how much of each one's tar stream they take: with header and
/// padding, or an archive of small files would pass for a mostly dead one.
pub fn uses(extents: &[Extent]) -> Vec<(ArchiveId, u64)> {
    let mut uses = BTreeMap::new();
    for extent in extents {
        if let Some(id) = extent.archive {
            let member_bytes = BLOCK_BYTES + padding(extent.length);
            *uses.entry(id).or_insert(0) += extent.length + member_bytes as u64;
        }
    }
    uses.into_iter().collect()
}

/// So many look-ups are worth reading the whole catalog into memory,
const MANY_LOOKUPS: usize = 8192;
/// if it has no more chunks than this: what fits in 22 MB.
const MOST_IN_TABLE: usize = 450_000;

/// A run that is killed loses what it sealed and the catalog was not told of: a gigabyte,
const MOST_NEW_ARCHIVES: usize = 16;
/// or the work of so long. Where archives come slowly, each is dear.
const LONGEST_UNTOLD: Duration = Duration::from_secs(30);

/// New chunks are as good as random among the old, so telling a catalog of a few writes almost all of its pages
/// anew. It is told when they are a third of what it has, and between what four archives of pages hold and what
/// fits in some 40 MB.
fn tell_at(catalog_chunks: usize) -> usize {
    const FEWEST_NEW_CHUNKS: usize = 65_536;
    const MOST_NEW_CHUNKS: usize = 300_000;
    (catalog_chunks / 3).clamp(FEWEST_NEW_CHUNKS, MOST_NEW_CHUNKS)
}

/// An archive whose tar stream is being written, or written and being sealed.
struct Pending {
    id: ArchiveId,
    kind: ArchiveKind,
    tar_bytes: u64,
    chunks: HashMap<ChunkHash, (u64, u64), RandomState>,
}

/// An archive that this snapshot may name.
#[derive(Debug, Clone)]
pub struct Usable {
    /// The catalog's number of it, once the catalog was told.
    pub n: Option<i64>,
    pub row: ArchiveRow,
    pub tar_bytes: u64,
    pub tar_blake3: Hash,
}

impl From<CatalogArchive> for Usable {
    fn from(archive: CatalogArchive) -> Self {
        Self {
            n: Some(archive.n),
            row: archive.row,
            tar_bytes: archive.tar_bytes,
            tar_blake3: archive.tar_blake3,
        }
    }
}

pub struct Store<'a> {
    catalog: &'a mut Catalog,
    sealer: Sealer,
    recipient_set: String,
    archive_bytes: u64,
    by_number: HashMap<i64, ArchiveId>,
    usable: HashMap<ArchiveId, Usable>,
    next_id: ArchiveId,
    /// Of a catalog that was empty when this run began: what it has by now. A first push spares looking up
    /// almost all of its chunks.
    added: Option<Filter>,
    /// Look-ups in the catalog so far.
    lookups: usize,
    /// All that the catalog has, once there were many.
    table: Option<ChunkTable>,
    open: Option<Pending>,
    sealing: VecDeque<Pending>,
    /// Sealed, durable, and the catalog has not heard of it.
    new: Batch,
    /// What it is hearing of.
    telling: Option<Telling>,
    /// So many new chunks are worth telling it.
    tell_at: usize,
    told: Instant,
    on_sealed: &'a mut OnSealed<'a>,
    /// `None`: `usable` is all that may be used.
    pub rest: Option<Rest<'a>>,
    /// Bytes of tar stream that the snapshot's extents use, by archive.
    live: HashMap<ArchiveId, u64>,
    pub sealed_archives: u64,
    pub sealed_bytes: u64,
}

impl<'a> Store<'a> {
    pub fn new(
        catalog: &'a mut Catalog,
        sealer: Sealer,
        recipient_set: String,
        archive_bytes: u64,
        usable: Vec<Usable>,
        on_sealed: &'a mut OnSealed<'a>,
    ) -> Result<Self, PackError> {
        let next_id = catalog.next_archive_id()?;
        let added = (!catalog.has_chunks()?).then(Filter::new);
        let tell_at = tell_at(catalog.about_chunks()?);
        Ok(Self {
            catalog,
            sealer,
            recipient_set,
            archive_bytes,
            by_number: usable
                .iter()
                .filter_map(|u| Some((u.n?, u.row.id)))
                .collect(),
            usable: usable.into_iter().map(|u| (u.row.id, u)).collect(),
            next_id,
            added,
            lookups: 0,
            table: None,
            open: None,
            sealing: VecDeque::new(),
            new: Batch::default(),
            telling: None,
            tell_at,
            told: Instant::now(),
            on_sealed,
            rest: None,
            live: HashMap::new(),
            sealed_archives: 0,
            sealed_bytes: 0,
        })
    }

    /// Where a chunk of `kind` lies already, if in an archive that may be used.
    pub fn find(&mut self, chunk: &Chunk, kind: ArchiveKind) -> Result<Option<Extent>, PackError> {
        let pending = self.open.iter().chain(&self.sealing);
        for archive in pending.filter(|archive| archive.kind == kind) {
            if let Some((offset, length)) = archive.chunks.get(&chunk.hash) {
                return Ok(Some(Extent {
                    archive: Some(archive.id),
                    offset: *offset,
                    length: *length,
                }));
            }
        }
        let telling = self.telling.as_ref();
        let sealed = self.new.find(&chunk.hash);
        let sealed = sealed.or_else(|| telling?.batch.find(&chunk.hash));
        if let Some((found, extent)) = sealed {
            return Ok((found == kind).then_some(extent));
        }
        if self
            .added
            .as_ref()
            .is_some_and(|added| !added.may_hold(&chunk.hash))
        {
            return Ok(None);
        }
        let Some(place) = self.look_up(&chunk.hash)? else {
            return Ok(None);
        };
        if !self.by_number.contains_key(&place.archive) {
            self.look_at_rest(place.archive)?;
        }
        let Some(id) = self.by_number.get(&place.archive) else {
            return Ok(None);
        };
        let fits = self.usable.get(id).is_some_and(|u| u.row.kind == kind);
        let same = place.length == chunk.length as u64;
        Ok((fits && same).then_some(Extent {
            archive: Some(*id),
            offset: place.offset,
            length: place.length,
        }))
    }

    /// A chunk that was looked for lies in the archive `n`, which is none of those that may be used so far.
    fn look_at_rest(&mut self, n: i64) -> Result<(), PackError> {
        let Some(rest) = &mut self.rest else {
            return Ok(());
        };
        for more in rest.look(n, self.catalog)? {
            self.by_number.extend(more.n.map(|n| (n, more.row.id)));
            self.usable.entry(more.row.id).or_insert(more);
        }
        Ok(())
    }

    fn look_up(&mut self, hash: &ChunkHash) -> Result<Option<ChunkPlace>, PackError> {
        self.lookups += 1;
        if self.lookups == MANY_LOOKUPS && self.added.is_none() {
            self.table = self.catalog.chunk_table(MOST_IN_TABLE)?;
        }
        match &self.table {
            Some(table) => Ok(table.get(hash)),
            None => {
                if self.telling.is_none() {
                    self.catalog.begin_lookups()?;
                }
                Ok(self.catalog.find_chunk(hash)?)
            }
        }
    }

    /// The archives that were usable when this run began: what an earlier snapshot said of a file may
    /// stand if it lies in these.
    pub fn reusable(&self) -> HashSet<ArchiveId> {
        self.usable.keys().copied().collect()
    }

    /// Notes that the snapshot uses so many bytes of each archive's stream.
    pub fn count_reused(&mut self, uses: &[(ArchiveId, u64)]) {
        for (id, bytes) in uses {
            *self.live.entry(*id).or_default() += bytes;
        }
    }

    /// Notes that the snapshot uses `extents`.
    pub fn count_live(&mut self, extents: &[Extent]) {
        self.count_reused(&uses(extents));
    }

    /// Appends a member with `data`, which is `chunks` one after the other; gives where it lies.
    pub fn append(
        &mut self,
        kind: ArchiveKind,
        member: &Member,
        data: &[u8],
        chunks: &[Chunk],
    ) -> Result<Extent, PackError> {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.kind != kind || open.tar_bytes >= self.archive_bytes)
        {
            self.end_archive()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let id = self.next_id;
                self.next_id.counter += 1;
                self.open.insert(Pending {
                    id,
                    kind,
                    tar_bytes: 0,
                    chunks: HashMap::default(),
                })
            }
        };
        let header = member.header();
        let start = open.tar_bytes + header.len() as u64;
        let mut offset = start;
        for chunk in chunks {
            let place = (offset, chunk.length as u64);
            open.chunks.entry(chunk.hash).or_insert(place);
            offset += chunk.length as u64;
        }
        let fill = padding(data.len() as u64);
        open.tar_bytes = start + (data.len() + fill) as u64;
        let extent = Extent {
            archive: Some(open.id),
            offset: start,
            length: data.len() as u64,
        };
        self.sealer.write(&header, Texture::Other)?;
        self.sealer.write(data, member.texture)?;
        self.sealer
            .write(&[0; BLOCK_BYTES][..fill], Texture::Other)?;
        self.collect(false)?;
        Ok(extent)
    }

    /// Ends the open archive, if any; the next member begins another.
    pub fn end_archive(&mut self) -> Result<(), PackError> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        self.sealer.write(&[0; 2 * BLOCK_BYTES], Texture::Other)?;
        open.tar_bytes += 2 * BLOCK_BYTES as u64;
        self.sealer.finish_archive()?;
        self.sealing.push_back(open);
        self.collect(false)
    }

    /// Ends the open archive and waits until all are sealed and durable. The catalog hears of them meanwhile.
    pub fn flush(&mut self) -> Result<(), PackError> {
        self.end_archive()?;
        self.tell()?;
        self.collect(true)?;
        self.tell()
    }

    /// The same, and waits until they are in the catalog.
    pub fn finish(&mut self) -> Result<(), PackError> {
        self.flush()?;
        self.hear()
    }

    fn collect(&mut self, all: bool) -> Result<(), PackError> {
        while let Some(sealed) = self.sealer.next_sealed(all)? {
            let Some(pending) = self.sealing.pop_front() else {
                break;
            };
            self.take_sealed(pending, sealed)?;
        }
        Ok(())
    }

    /// An archive is durable in the spool.
    fn take_sealed(&mut self, pending: Pending, sealed: SealedArchive) -> Result<(), PackError> {
        if pending.tar_bytes != sealed.tar_bytes {
            return Err(PackError::StreamMismatch(pending.id));
        }
        let row = ArchiveRow {
            id: pending.id,
            kind: pending.kind,
            blake3: sealed.blake3,
            sha256: sealed.sha256,
            bytes: sealed.bytes,
            recipient_set: self.recipient_set.clone(),
            head_sha256: sealed.head_sha256,
        };
        if let Some(added) = &mut self.added {
            pending.chunks.keys().for_each(|hash| added.add(hash));
        }
        let (tar_bytes, tar_blake3) = (sealed.tar_bytes, sealed.tar_blake3);
        let archive = NewArchive {
            row: row.clone(),
            tar_bytes,
            tar_blake3,
        };
        self.new.add(archive, pending.chunks);
        let usable = Usable {
            n: None,
            row: row.clone(),
            tar_bytes,
            tar_blake3,
        };
        self.usable.insert(row.id, usable);
        self.sealed_archives += 1;
        self.sealed_bytes += sealed.bytes;
        if self.telling.as_ref().is_some_and(Telling::is_over) {
            self.hear()?;
        }
        if self.new.len_chunks() >= self.tell_at
            || self.new.archives.len() >= MOST_NEW_ARCHIVES
            || self.told.elapsed() >= LONGEST_UNTOLD
        {
            self.tell()?;
        }
        // This may wait for room in the spool.
        (self.on_sealed)(&row).map_err(PackError::Stopped)
    }

    /// Begins to tell the catalog of what was sealed. What dies before it has heard is stored again.
    fn tell(&mut self) -> Result<(), PackError> {
        self.hear()?;
        self.told = Instant::now();
        let batch = std::mem::take(&mut self.new);
        if !batch.is_empty() {
            // Or its log would grow as long as there are look-ups.
            self.catalog.end_lookups()?;
            self.telling = Some(Telling::start(self.catalog, batch)?);
        }
        Ok(())
    }

    /// Waits until the catalog has heard what it is being told.
    fn hear(&mut self) -> Result<(), PackError> {
        let Some(telling) = self.telling.take() else {
            return Ok(());
        };
        let (batch, numbers) = telling.wait()?;
        self.catalog.note_recorded()?;
        if let Some(table) = &mut self.table {
            for chunk in batch.chunks() {
                let place = ChunkPlace {
                    archive: numbers[chunk.archive as usize],
                    offset: chunk.offset,
                    length: chunk.length,
                };
                table.insert(chunk.hash, &place);
            }
        }
        for (n, archive) in numbers.into_iter().zip(&batch.archives) {
            self.by_number.insert(n, archive.row.id);
            if let Some(usable) = self.usable.get_mut(&archive.row.id) {
                usable.n = Some(n);
            }
        }
        self.tell_at = tell_at(self.catalog.about_chunks()?);
        Ok(())
    }

    /// The archives that the snapshot uses, by id. All of them must be sealed ([`Self::flush`]).
    pub fn used(&self, kind: ArchiveKind) -> Result<Vec<&Usable>, PackError> {
        let mut used = Vec::new();
        for id in self.live.keys() {
            let usable = self.usable.get(id).ok_or(PackError::Unsealed(*id))?;
            if usable.row.kind == kind {
                used.push(usable);
            }
        }
        used.sort_by_key(|usable| usable.row.id);
        Ok(used)
    }

    /// Live bytes by the catalog's archive number ([`Self::finish`]).
    pub fn live_by_number(&self) -> HashMap<i64, u64> {
        let number = |id| self.usable.get(id)?.n;
        self.live
            .iter()
            .filter_map(|(id, bytes)| Some((number(id)?, *bytes)))
            .collect()
    }

    pub fn catalog(&mut self) -> &mut Catalog {
        self.catalog
    }
}

impl Drop for Store<'_> {
    /// A run that fails keeps what it has sealed: the next one goes on from there.
    fn drop(&mut self) {
        // Nobody need hear of it any more, so it is no matter that they do not want to.
        while let Err(PackError::Stopped(_)) = self.collect(true) {}
        // What cannot be kept is stored again; the run has its own error. One batch that could not be told of
        // does not keep the next from it.
        let _ = self.hear();
        let _ = self.tell();
        let _ = self.hear();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::chunk::short;
    use super::super::seal::Recipients;
    use super::*;
    use crate::spool::Spool;

    const RECIPIENT: &str = "age1wwtd50lehm54edva2yxgj558d044pfqq6hm87qvx9qssys4qha5swez2ur";

    fn chunk_of(content: &[u8]) -> Chunk {
        Chunk {
            hash: short(&Hash::blake3(content)),
            length: content.len(),
        }
    }

    fn append(store: &mut Store<'_>, content: &[u8]) -> Extent {
        let member = Member {
            path: b"files/f".to_vec(),
            size: content.len() as u64,
            ..Member::default()
        };
        let chunk = chunk_of(content);
        let extent = store.append(ArchiveKind::Data, &member, content, &[chunk]);
        let extent = extent.unwrap();
        store.count_live(&[extent]);
        extent
    }

    fn sealer(dir: &Path) -> Sealer {
        let spool = Spool::open(&dir.join("spool")).unwrap();
        let recipients = Recipients::load(&[RECIPIENT.to_owned()], dir).unwrap();
        Sealer::start(Arc::new(recipients), spool, 3, 1).unwrap()
    }

    /// It may lie in an archive that is open, being sealed, sealed, being told of, or told of.
    #[test]
    fn a_chunk_is_found_wherever_its_archive_stands() {
        let temp = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(&temp.path().join("catalog.db")).unwrap();
        let (sealer, set) = (sealer(temp.path()), "set".to_owned());
        let mut heard_of = 0;
        let on_sealed: &mut OnSealed<'_> = &mut |_| {
            heard_of += 1;
            Ok(())
        };
        let mut store = Store::new(&mut catalog, sealer, set, 1 << 20, vec![], on_sealed).unwrap();
        let content = b"a chunk".repeat(100);
        let (chunk, data) = (chunk_of(&content), ArchiveKind::Data);
        assert_eq!(store.find(&chunk, data).unwrap(), None);
        let extent = append(&mut store, &content);
        let found = |store: &mut Store<'_>| store.find(&chunk, data).unwrap() == Some(extent);
        assert!(found(&mut store), "open");
        store.end_archive().unwrap();
        assert!(found(&mut store), "being sealed");
        store.collect(true).unwrap();
        assert!(store.sealing.is_empty() && !store.new.is_empty());
        assert!(found(&mut store), "sealed");
        store.tell().unwrap();
        assert!(store.telling.is_some() && store.new.is_empty());
        assert!(found(&mut store), "being told of");
        assert_eq!(store.used(data).unwrap().len(), 1);
        assert_eq!(store.find(&chunk, ArchiveKind::Index).unwrap(), None);
        append(&mut store, &b"another".repeat(100));
        store.finish().unwrap();
        assert!(store.telling.is_none());
        assert!(found(&mut store), "told of");
        assert_eq!(store.live_by_number().len(), 2);
        assert_eq!(store.catalog().archives().unwrap().len(), 2);
        drop(store);
        assert_eq!(heard_of, 2);
    }

    /// A log that is read from cannot be begun anew, and would have all that was ever told.
    #[test]
    fn the_catalogs_log_does_not_grow_with_what_it_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("catalog.db");
        let mut catalog = Catalog::open(&path).unwrap();
        let nobody: &mut OnSealed<'_> = &mut |_| Ok(());
        let sealer = sealer(temp.path());
        let mut store = Store::new(&mut catalog, sealer, "set".into(), 1, vec![], nobody).unwrap();
        // As if it had been told of some by an earlier run: all that is asked for is looked up.
        store.added = None;
        let mut number = 0u64;
        let unknown = |store: &mut Store<'_>| {
            assert_eq!(
                store
                    .find(&chunk_of(b"unknown"), ArchiveKind::Data)
                    .unwrap(),
                None
            );
        };
        let bytes = |ending: &str| {
            let name = temp.path().join(format!("catalog.db{ending}"));
            std::fs::metadata(name).unwrap().len()
        };
        for _ in 0..6 {
            let chunks: Vec<Chunk> = (0..30_000)
                .map(|_| {
                    number += 1;
                    chunk_of(&number.to_le_bytes())
                })
                .collect();
            let data = vec![0; chunks.len() * 8];
            let member = Member {
                path: b"blocks/f".to_vec(),
                size: data.len() as u64,
                ..Member::default()
            };
            store
                .append(ArchiveKind::Data, &member, &data, &chunks)
                .unwrap();
            unknown(&mut store);
            store.flush().unwrap();
            unknown(&mut store);
            store.finish().unwrap();
            unknown(&mut store);
            // Below four megabytes it is not tidied up.
            let (file, log) = (bytes(""), bytes("-wal"));
            assert!(
                log < file + (6 << 20),
                "{log} bytes of log, {file} in the file"
            );
        }
    }
}
