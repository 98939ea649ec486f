//! Packs a 23-bit checksum of a row into the unused high bits of one of its integer columns.

use super::{ChunkHash, ChunkPlace};
use crate::base::ids::Hash;
use crate::format::manifest::{ArchiveKind, ArchiveRow};

/// Chunks, and tar streams too, are smaller than a terabyte.
const VALUE_BITS: u32 = 40;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
/// The checksum's bits. The sign bit stays zero.
const CHECK_MASK: u64 = (1 << 23) - 1;

/// Returns `value` with `check` above it. A value that is too large is cut, so the row will fail
/// its checksum.
pub(super) fn pack(value: u64, check: u64) -> i64 {
    ((check << VALUE_BITS) | (value & VALUE_MASK)) as i64
}

/// Returns the value and the checksum that were packed.
pub(super) fn unpack(packed: i64) -> (u64, u64) {
    let packed = packed as u64;
    (packed & VALUE_MASK, (packed >> VALUE_BITS) & CHECK_MASK)
}

fn check(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first) & CHECK_MASK
}

pub(super) fn of_chunk(hash: &ChunkHash, place: &ChunkPlace) -> u64 {
    check(&[
        hash,
        &place.archive.to_le_bytes(),
        &place.offset.to_le_bytes(),
        &place.length.to_le_bytes(),
    ])
}

/// `n` is the number by which chunks name it: another one would mean another archive.
pub(super) fn of_archive(n: i64, row: &ArchiveRow, tar_bytes: u64, tar_blake3: &Hash) -> u64 {
    check(&[
        &n.to_le_bytes(),
        &row.id.writer.0,
        &row.id.counter.to_le_bytes(),
        kind_text(row.kind).as_bytes(),
        &row.blake3.0,
        &row.sha256.0,
        &row.bytes.to_le_bytes(),
        row.recipient_set.as_bytes(),
        &row.head_sha256.0,
        &tar_bytes.to_le_bytes(),
        &tar_blake3.0,
    ])
}

/// Returns the text of a kind in rows.
pub(super) fn kind_text(kind: ArchiveKind) -> &'static str {
    match kind {
        ArchiveKind::Data => "data",
        ArchiveKind::Index => "index",
    }
}

/// Returns the checksum that a catalog of version 1 stored for the row.
pub(super) fn of_archive_1(n: i64, row: &ArchiveRow, tar_bytes: u64, tar_blake3: &Hash) -> u64 {
    check(&[
        &n.to_le_bytes(),
        &crate::format::json::json_line(row),
        &tar_bytes.to_le_bytes(),
        &tar_blake3.0,
    ])
}

#[cfg(test)]
mod tests {
    use super::super::{Catalog, NewArchive, NewChunk};
    use super::*;
    use crate::base::ids::ArchiveId;
    use crate::format::manifest::ArchiveKind;

    #[test]
    fn a_row_that_is_not_as_it_was_written_counts_as_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let hash = |byte: u8| Hash([byte; 32]);
        let row = ArchiveRow {
            id: ArchiveId {
                writer: catalog.writer(),
                counter: 1,
            },
            kind: ArchiveKind::Data,
            blake3: hash(1),
            sha256: hash(2),
            bytes: 1000,
            recipient_set: "0123456789abcdef".to_owned(),
            head_sha256: hash(3),
        };
        let chunk = NewChunk {
            hash: [7; 24],
            archive: 0,
            offset: 512,
            length: 4096,
        };
        let archive = NewArchive {
            row: row.clone(),
            tar_bytes: 67_108_864,
            tar_blake3: hash(4),
        };
        let n = catalog.commit_archives(&[archive], &[chunk]);
        let place = ChunkPlace {
            archive: n.unwrap()[0],
            offset: 512,
            length: 4096,
        };
        assert_eq!(catalog.find_chunk(&chunk.hash).unwrap(), Some(place));
        let archives = catalog.archives().unwrap();
        assert_eq!(
            (&archives[0].row, archives[0].tar_bytes),
            (&row, 67_108_864)
        );
        for sql in [
            "UPDATE chunks SET offset=offset+1",
            "UPDATE chunks SET offset=offset-1, length=length+1",
            "UPDATE chunks SET length=length-1, archive=archive+1",
        ] {
            catalog.db.execute(sql, []).unwrap();
            catalog.end_lookups().unwrap();
            assert_eq!(catalog.find_chunk(&chunk.hash).unwrap(), None, "{sql}");
        }
        assert_eq!(catalog.next_archive_id().unwrap().counter, 2);
        for (sql, back) in [
            ("UPDATE archives SET n=n+1", "UPDATE archives SET n=n-1"),
            ("UPDATE archives SET sha256=blake3", ""),
        ] {
            assert_eq!(catalog.archives().unwrap().len(), 1);
            catalog.db.execute(sql, []).unwrap();
            catalog.cached_archives.forget();
            assert_eq!(catalog.archives().unwrap().len(), 0, "{sql}");
            catalog.db.execute_batch(back).unwrap();
            catalog.cached_archives.forget();
        }
        // A row with values that no run wrote is unknown, too.
        for sql in [
            "UPDATE chunks SET archive='x'",
            "UPDATE archives SET counter='x'",
        ] {
            catalog.db.execute(sql, []).unwrap();
            catalog.end_lookups().unwrap();
            assert_eq!(catalog.find_chunk(&chunk.hash).unwrap(), None, "{sql}");
            assert_eq!(catalog.archives().unwrap().len(), 0, "{sql}");
        }
        // Its number is unknown, so the catalog continues as another writer.
        let (path, writer) = (catalog.path.clone(), catalog.writer());
        drop(catalog);
        let catalog = Catalog::open(&path).unwrap();
        assert_ne!(catalog.writer(), writer);
    }

    #[test]
    fn a_catalog_of_version_1_is_taken_over_with_its_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.db");
        let mut catalog = Catalog::open(&path).unwrap();
        let writer = catalog.writer();
        let row = ArchiveRow {
            id: ArchiveId { writer, counter: 7 },
            kind: ArchiveKind::Index,
            blake3: Hash([1; 32]),
            sha256: Hash([2; 32]),
            bytes: 1000,
            recipient_set: "0123456789abcdef".to_owned(),
            head_sha256: Hash([3; 32]),
        };
        let (tar_bytes, tar_blake3) = (4096, Hash([4; 32]));
        let archive = NewArchive {
            row: row.clone(),
            tar_bytes,
            tar_blake3,
        };
        let n = catalog.commit_archives(&[archive], &[]).unwrap()[0];
        let old = pack(tar_bytes, of_archive_1(n, &row, tar_bytes, &tar_blake3));
        let set = "UPDATE archives SET tar_bytes=?1";
        catalog.db.execute(set, [old]).unwrap();
        let older = "DROP TABLE in_use; DROP INDEX archive_sizes; DROP INDEX unused_archives;
            DROP INDEX complete_runs; DELETE FROM meta WHERE key='highest archive'; PRAGMA user_version=1";
        catalog.db.execute_batch(older).unwrap();
        drop(catalog);
        let mut catalog = Catalog::open(&path).unwrap();
        assert_eq!(catalog.writer(), writer);
        assert_eq!(catalog.archives().unwrap()[0].row, row);
        assert_eq!(catalog.next_archive_id().unwrap().counter, 8);
        // Which archives the newest snapshot uses is unknown until the next one.
        assert!(catalog.archives_in_use().unwrap().is_empty());
        catalog.set_live_bytes(&[(n, 10)].into()).unwrap();
        assert_eq!(catalog.archives_in_use().unwrap()[0].row, row);
        assert_eq!(catalog.archives_in(&(1..2), "t").unwrap().len(), 1);
    }

    #[test]
    fn what_no_run_wrote_is_damage_and_the_next_run_begins_anew() {
        use super::super::CatalogError;
        type Use = fn(&Catalog) -> Result<(), CatalogError>;
        let snapshots: Use = |catalog| catalog.snapshots().map(drop);
        let next_id: Use = |catalog| catalog.next_archive_id().map(drop);
        let archive = |counter: &str| {
            format!(
                "INSERT INTO archives SELECT 1,unhex(value),{counter},'data',x'01',x'02',3,'s',x'04',5,x'06',7
                 FROM meta WHERE key='writer'"
            )
        };
        for (sql, using) in [
            (
                "INSERT INTO snapshots VALUES(x'00',1,'s','n',1,1,0)",
                snapshots,
            ),
            (
                "INSERT INTO snapshots VALUES(zeroblob(32),'many','s','n',1,1,0)",
                snapshots,
            ),
            (
                "ALTER TABLE snapshots RENAME COLUMN stamp TO stomp",
                snapshots,
            ),
            (&archive("9223372036854775807"), next_id),
            (&archive("-7"), next_id),
            (&archive("'x'"), next_id),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("catalog.db");
            let catalog = Catalog::open(&path).unwrap();
            catalog.db.execute_batch(sql).unwrap();
            let error = using(&catalog).expect_err(sql);
            assert!(
                matches!(error, CatalogError::Damaged { .. }),
                "{sql}: {error:?}"
            );
            drop(catalog);
            let catalog = Catalog::open(&path).unwrap();
            assert!(catalog.replaced.is_some(), "{sql}");
            using(&catalog).expect(sql);
        }
    }

    #[test]
    fn what_is_left_of_a_forgotten_archive_is_not_believed_of_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let writer = catalog.writer();
        let archive = |counter: u8| NewArchive {
            row: ArchiveRow {
                id: ArchiveId {
                    writer,
                    counter: counter.into(),
                },
                kind: ArchiveKind::Data,
                blake3: Hash([counter; 32]),
                sha256: Hash([counter; 32]),
                bytes: 1000,
                recipient_set: "0123456789abcdef".to_owned(),
                head_sha256: Hash([counter; 32]),
            },
            tar_bytes: 10_000,
            tar_blake3: Hash([counter; 32]),
        };
        let chunk = NewChunk {
            hash: [7; 24],
            archive: 0,
            offset: 512,
            length: 4096,
        };
        catalog.commit_archives(&[archive(1)], &[chunk]).unwrap();
        // As a page of the database that is older than the others has it.
        catalog.db.execute("DELETE FROM archives", []).unwrap();
        let n = catalog.commit_archives(&[archive(2)], &[]).unwrap();
        let place = catalog.find_chunk(&chunk.hash).unwrap();
        assert!(place.is_none_or(|place| place.archive != n[0]));
    }
}
