//! Takes content and returns extents: known chunks become extents into earlier archives, new ones
//! become members of the open archive.

use std::collections::{HashMap, HashSet, VecDeque};

use super::chunk_hash::Chunk;
use super::dedup::{ArchiveChunks, Dedup, ReusableArchives};
use super::error::PackError;
use super::request::OnSealed;
use super::seal::{SealedArchive, Sealer, Texture};
use super::usage::{UsableArchive, Usage, uses};
use crate::base::ids::ArchiveId;
use crate::format::archive::tar_member::{BLOCK_BYTES, TarMember, padding};
use crate::format::archive_table::{ArchiveKind, ArchiveRow};
use crate::format::extent::Extent;
use crate::state::catalog::Catalog;

/// A member to append.
#[derive(Debug, Clone, Default)]
pub(super) struct NewMember {
    pub(super) header: TarMember,
    /// The nature of the data.
    pub(super) texture: Texture,
}

impl NewMember {
    /// Returns the same member at another path and with another size.
    pub(super) fn at(&self, path: Vec<u8>, size: usize) -> Self {
        let header = TarMember {
            path,
            size: size as u64,
            ..self.header.clone()
        };
        Self {
            header,
            texture: self.texture,
        }
    }
}

/// An archive whose tar stream is being written, or is complete and being sealed.
struct UnsealedArchive {
    id: ArchiveId,
    kind: ArchiveKind,
    tar_bytes: u64,
    chunks: ArchiveChunks,
}

/// How to make new archives.
pub(super) struct ArchiveSettings {
    /// Name of the set of their recipients.
    pub(super) recipient_set: String,
    /// Bytes of tar stream after which an archive is closed.
    pub(super) archive_bytes: u64,
}

/// Writes the archives of one run.
pub(super) struct ArchiveWriter<'a> {
    dedup: Dedup<'a>,
    sealer: Sealer,
    settings: ArchiveSettings,
    next_id: ArchiveId,
    open: Option<UnsealedArchive>,
    sealing: VecDeque<UnsealedArchive>,
    on_sealed: &'a mut OnSealed<'a>,
    usage: Usage,
    /// Number of archives that were sealed.
    pub(super) sealed_archives: u64,
    /// Ciphertext bytes of those archives.
    pub(super) sealed_bytes: u64,
}

impl<'a> ArchiveWriter<'a> {
    /// `reusable` are the archives of earlier runs that may be used.
    pub(super) fn new(
        catalog: &'a mut Catalog,
        sealer: Sealer,
        settings: ArchiveSettings,
        reusable: ReusableArchives<'a>,
        on_sealed: &'a mut OnSealed<'a>,
    ) -> Result<Self, PackError> {
        let next_id = catalog.next_archive_id()?;
        Ok(Self {
            dedup: Dedup::new(catalog, reusable)?,
            sealer,
            settings,
            next_id,
            open: None,
            sealing: VecDeque::new(),
            on_sealed,
            usage: Usage::default(),
            sealed_archives: 0,
            sealed_bytes: 0,
        })
    }

    /// Returns where a chunk is, if an archive of `kind` has it that may be used.
    pub(super) fn find(
        &mut self,
        chunk: &Chunk,
        kind: ArchiveKind,
    ) -> Result<Option<Extent>, PackError> {
        let unsealed = self.open.iter().chain(&self.sealing);
        for archive in unsealed.filter(|archive| archive.kind == kind) {
            if let Some((offset, length)) = archive.chunks.get(&chunk.hash) {
                return Ok(Some(Extent {
                    archive: Some(archive.id),
                    offset: *offset,
                    length: *length,
                }));
            }
        }
        self.dedup.find(chunk, kind)
    }

    /// Returns the archives that may be used now. Called before the first archive is sealed, these
    /// are the archives of earlier runs.
    pub(super) fn usable_ids(&self) -> HashSet<ArchiveId> {
        self.dedup.usable_ids()
    }

    /// Counts that the snapshot uses these bytes of each archive's stream.
    pub(super) fn count_reused(&mut self, uses: &[(ArchiveId, u64)]) {
        self.usage.add(uses);
    }

    /// Counts that the snapshot uses `extents`.
    pub(super) fn count_live(&mut self, extents: &[Extent]) {
        self.count_reused(&uses(extents));
    }

    /// Appends a member with `data`, which consists of `chunks`. Returns the data's extent.
    pub(super) fn append(
        &mut self,
        kind: ArchiveKind,
        member: &NewMember,
        data: &[u8],
        chunks: &[Chunk],
    ) -> Result<Extent, PackError> {
        let limit = self.settings.archive_bytes;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.kind != kind || open.tar_bytes >= limit)
        {
            self.end_archive()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let id = self.next_id;
                self.next_id.counter += 1;
                self.open.insert(UnsealedArchive {
                    id,
                    kind,
                    tar_bytes: 0,
                    chunks: HashMap::default(),
                })
            }
        };
        let header = member.header.header();
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
        self.collect_ready()?;
        Ok(extent)
    }

    /// Appends a member that no extent names to the open archive, if that is of `kind` and not
    /// full: no archive is made for it alone.
    pub(super) fn append_last(
        &mut self,
        kind: ArchiveKind,
        member: &NewMember,
        data: &[u8],
    ) -> Result<(), PackError> {
        let limit = self.settings.archive_bytes;
        let has_room = |open: &UnsealedArchive| open.kind == kind && open.tar_bytes < limit;
        if !data.is_empty() && self.open.as_ref().is_some_and(has_room) {
            self.append(kind, member, data, &[])?;
        }
        Ok(())
    }

    /// Ends the open archive, if any; the next member begins another.
    pub(super) fn end_archive(&mut self) -> Result<(), PackError> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        self.sealer.write(&[0; 2 * BLOCK_BYTES], Texture::Other)?;
        open.tar_bytes += 2 * BLOCK_BYTES as u64;
        self.sealer.finish_archive()?;
        self.sealing.push_back(open);
        self.collect_ready()
    }

    /// Ends the open archive and waits until all archives are sealed and durable. Their commit to
    /// the catalog begins.
    pub(super) fn flush(&mut self) -> Result<(), PackError> {
        self.end_archive()?;
        self.dedup.commit()?;
        self.collect_all()?;
        self.dedup.commit()
    }

    /// Flushes, and waits until all archives are committed to the catalog.
    pub(super) fn finish(&mut self) -> Result<(), PackError> {
        self.flush()?;
        self.dedup.wait()
    }

    /// Handles the archives that are sealed by now.
    fn collect_ready(&mut self) -> Result<(), PackError> {
        while let Some(sealed) = self.sealer.try_next_sealed()? {
            self.handle_sealed(sealed)?;
        }
        Ok(())
    }

    /// Waits for all archives that are being sealed, and handles them.
    fn collect_all(&mut self) -> Result<(), PackError> {
        while let Some(sealed) = self.sealer.next_sealed()? {
            self.handle_sealed(sealed)?;
        }
        Ok(())
    }

    /// Handles the oldest archive that is being sealed, which is durable in the spool now.
    fn handle_sealed(&mut self, sealed: SealedArchive) -> Result<(), PackError> {
        let Some(archive) = self.sealing.pop_front() else {
            return Ok(());
        };
        if archive.tar_bytes != sealed.tar_bytes {
            return Err(PackError::StreamMismatch(archive.id));
        }
        let row = ArchiveRow {
            id: archive.id,
            kind: archive.kind,
            blake3: sealed.blake3,
            sha256: sealed.sha256,
            bytes: sealed.bytes,
            recipient_set: self.settings.recipient_set.clone(),
            head_sha256: sealed.head_sha256,
        };
        self.sealed_archives += 1;
        self.sealed_bytes += sealed.bytes;
        let tar = (sealed.tar_bytes, sealed.tar_blake3);
        self.dedup.add(row.clone(), tar, archive.chunks)?;
        // This may wait for free space in the spool.
        (self.on_sealed)(&row).map_err(PackError::Stopped)
    }

    /// Returns the archives of `kind` that the snapshot uses, by id. All of them must be sealed
    /// ([`Self::flush`]).
    pub(super) fn used(&self, kind: ArchiveKind) -> Result<Vec<&UsableArchive>, PackError> {
        let mut used = Vec::new();
        for (id, _) in self.usage.iter() {
            let usable = self.dedup.usable(id).ok_or(PackError::Unsealed(*id))?;
            if usable.row.kind == kind {
                used.push(usable);
            }
        }
        used.sort_by_key(|usable| usable.row.id);
        Ok(used)
    }

    /// Returns live bytes by the catalog's archive number. All archives must be committed
    /// ([`Self::finish`]).
    pub(super) fn live_by_number(&self) -> HashMap<i64, u64> {
        let number = |id| self.dedup.usable(id)?.number;
        self.usage
            .iter()
            .filter_map(|(id, bytes)| Some((number(id)?, bytes)))
            .collect()
    }
}

impl ArchiveWriter<'_> {
    /// Returns the catalog's numbers of the archives that the caller looked at late and that are to
    /// be packed again.
    pub(super) fn retired_of_rest(&self) -> impl Iterator<Item = i64> {
        self.dedup.retired_of_rest()
    }
}

impl Drop for ArchiveWriter<'_> {
    /// Keeps the sealed archives of a run that fails: the next run continues with them.
    fn drop(&mut self) {
        // The caller's refusal of an archive does not keep the others from being recorded.
        while let Err(PackError::Stopped(_)) = self.collect_all() {}
        // Archives that cannot be recorded are stored again; the run has its own error. If one
        // batch fails, the next is still tried.
        let _ = self.dedup.wait();
        let _ = self.dedup.commit();
        let _ = self.dedup.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::chunk_hash::short;
    use super::super::request::LookAtRest;
    use super::super::rest::RestOfArchives;
    use super::super::seal::Recipients;
    use super::*;
    use crate::base::ids::Hash;
    use crate::state::spool::Spool;

    const RECIPIENT: &str = "age1wwtd50lehm54edva2yxgj558d044pfqq6hm87qvx9qssys4qha5swez2ur";

    fn chunk_of(content: &[u8]) -> Chunk {
        Chunk {
            hash: short(&Hash::blake3(content)),
            length: content.len(),
        }
    }

    fn append(store: &mut ArchiveWriter<'_>, content: &[u8]) -> Extent {
        let member = NewMember::default().at(b"files/f".to_vec(), content.len());
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

    fn settings(archive_bytes: u64) -> ArchiveSettings {
        ArchiveSettings {
            recipient_set: "set".to_owned(),
            archive_bytes,
        }
    }

    fn no_earlier<'a>(look: &'a mut LookAtRest<'a>) -> ReusableArchives<'a> {
        ReusableArchives {
            usable: Vec::new(),
            rest: RestOfArchives::new(None, look),
        }
    }

    #[test]
    fn a_chunk_is_found_in_every_state_of_its_archive() {
        let temp = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(&temp.path().join("catalog.db")).unwrap();
        let sealer = sealer(temp.path());
        let mut reported = 0;
        let on_sealed: &mut OnSealed<'_> = &mut |_| {
            reported += 1;
            Ok(())
        };
        let settings = settings(1 << 20);
        let look: &mut LookAtRest<'_> = &mut |_| Ok(Vec::new());
        let none = no_earlier(look);
        let mut store =
            ArchiveWriter::new(&mut catalog, sealer, settings, none, on_sealed).unwrap();
        let content = b"a chunk".repeat(100);
        let (chunk, data) = (chunk_of(&content), ArchiveKind::Data);
        assert_eq!(store.find(&chunk, data).unwrap(), None);
        let extent = append(&mut store, &content);
        let found =
            |store: &mut ArchiveWriter<'_>| store.find(&chunk, data).unwrap() == Some(extent);
        assert!(found(&mut store), "open");
        store.end_archive().unwrap();
        assert!(found(&mut store), "being sealed");
        store.collect_all().unwrap();
        assert!(store.sealing.is_empty() && !store.dedup.writer.new.is_empty());
        assert!(found(&mut store), "sealed");
        store.dedup.commit().unwrap();
        let writer = &store.dedup.writer;
        assert!(writer.is_committing() && writer.new.is_empty());
        assert!(found(&mut store), "being committed");
        assert_eq!(store.used(data).unwrap().len(), 1);
        assert_eq!(store.find(&chunk, ArchiveKind::Index).unwrap(), None);
        append(&mut store, &b"another".repeat(100));
        store.finish().unwrap();
        assert!(!store.dedup.writer.is_committing());
        assert!(found(&mut store), "committed");
        assert_eq!(store.live_by_number().len(), 2);
        drop(store);
        assert_eq!(catalog.archives().unwrap().len(), 2);
        assert_eq!(reported, 2);
    }

    /// A log with an open lookup cannot be reset, and would keep every commit.
    #[test]
    fn the_catalogs_log_does_not_grow_with_every_commit() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("catalog.db");
        let mut catalog = Catalog::open(&path).unwrap();
        let ignore: &mut OnSealed<'_> = &mut |_| Ok(());
        let sealer = sealer(temp.path());
        let look: &mut LookAtRest<'_> = &mut |_| Ok(Vec::new());
        let (settings, none) = (settings(1), no_earlier(look));
        let mut store = ArchiveWriter::new(&mut catalog, sealer, settings, none, ignore).unwrap();
        // As if an earlier run had committed some: every chunk is looked up.
        store.dedup.added = None;
        let mut number = 0u64;
        let unknown = |store: &mut ArchiveWriter<'_>| {
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
            let member = NewMember::default().at(b"blocks/f".to_vec(), data.len());
            store
                .append(ArchiveKind::Data, &member, &data, &chunks)
                .unwrap();
            unknown(&mut store);
            store.flush().unwrap();
            unknown(&mut store);
            store.finish().unwrap();
            unknown(&mut store);
            // A log below four megabytes is not reset.
            let (file, log) = (bytes(""), bytes("-wal"));
            assert!(
                log < file + (6 << 20),
                "{log} bytes of log, {file} in the file"
            );
        }
    }
}
