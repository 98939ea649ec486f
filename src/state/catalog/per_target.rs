//! What the catalog knows of one target as a whole: its newest publication, its archives and their
//! readings.

use chrono::{DateTime, Utc};
use rusqlite::OptionalExtension as _;

use super::{Catalog, CatalogError};
use crate::base::ids::Stamp;

/// The snapshot of the highest sequence that was published on a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewestPublication {
    /// The snapshot's stamp.
    pub stamp: Stamp,
    /// The snapshot's sequence.
    pub sequence: u64,
    /// When this host published it there, or learned that it is there.
    pub published_at: DateTime<Utc>,
}

/// The archives that a target confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoredOnTarget {
    /// Their number.
    pub archives: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// The last readings of the archives that a target has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadingSummary {
    /// When the archive was read that was not read for longest. `None`: none was read.
    pub oldest: Option<DateTime<Utc>>,
    /// Archives that were damaged when they were last read.
    pub damaged: u64,
}

impl Catalog {
    /// Returns the snapshot of the highest sequence that was published on `target`.
    pub fn newest_publication(
        &self,
        target: &str,
    ) -> Result<Option<NewestPublication>, CatalogError> {
        let sql = "SELECT s.stamp, s.sequence, p.published_at FROM publications p JOIN snapshots s USING(core)
                   WHERE p.target=?1 AND p.state='published' ORDER BY s.sequence DESC LIMIT 1";
        let row = self.db.query_row(sql, [target], |row| {
            let (stamp, sequence) = (row.get::<_, String>(0)?, row.get::<_, i64>(1)?);
            Ok((stamp, sequence.cast_unsigned(), row.get::<_, String>(2)?))
        });
        let row = row.optional().map_err(self.fail())?;
        // A damaged row counts as not known, as everywhere here.
        Ok(row.and_then(|(stamp, sequence, published_at)| {
            let published_at = DateTime::parse_from_rfc3339(&published_at).ok()?;
            Some(NewestPublication {
                stamp: stamp.parse().ok()?,
                sequence,
                published_at: published_at.to_utc(),
            })
        }))
    }

    /// Returns number and size of the archives that `target` confirmed.
    pub fn stored_on(&self, target: &str) -> Result<StoredOnTarget, CatalogError> {
        let sql = "SELECT count(*), coalesce(sum(a.bytes), 0) FROM placements p
                   JOIN archives a ON a.n=p.archive WHERE p.target=?1";
        let stored = self.db.query_row(sql, [target], |row| {
            Ok(StoredOnTarget {
                archives: row.get::<_, i64>(0)?.cast_unsigned(),
                bytes: row.get::<_, i64>(1)?.cast_unsigned(),
            })
        });
        stored.map_err(self.fail())
    }

    /// Returns the readings of the archives that `target` has, as this host knows it.
    pub fn reading_summary(&self, target: &str) -> Result<ReadingSummary, CatalogError> {
        // Times in RFC 3339 and UTC sort as text.
        let sql = "SELECT min(iif(c.ok=1, c.checked_at, NULL)), coalesce(sum(c.ok=0), 0)
                   FROM placements p JOIN archives a ON a.n=p.archive
                   JOIN checks c ON c.target=p.target AND c.blake3=a.blake3 WHERE p.target=?1";
        let row = self.db.query_row(sql, [target], |row| {
            Ok((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(1)?))
        });
        let (oldest, damaged) = row.map_err(self.fail())?;
        let oldest = oldest.and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
        Ok(ReadingSummary {
            oldest: oldest.map(|at| at.to_utc()),
            damaged: damaged.cast_unsigned(),
        })
    }

    /// Returns when `verify` last found nothing wrong on `target`; `None`: never.
    pub fn verified_at(&self, target: &str) -> Result<Option<DateTime<Utc>>, CatalogError> {
        let text = self.meta(&verified_key(target))?.unwrap_or_default();
        let at = DateTime::parse_from_rfc3339(&text).ok();
        Ok(at.map(|at| at.to_utc()))
    }

    /// Records that `verify` found nothing wrong on `target`.
    pub fn set_verified(&self, target: &str, at: DateTime<Utc>) -> Result<(), CatalogError> {
        self.set_meta(&verified_key(target), &at.to_rfc3339())
    }
}

fn verified_key(target: &str) -> String {
    format!("verified:{target}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::Hash;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_775_541_600 + second, 0).unwrap()
    }

    #[test]
    fn each_target_has_its_own_figures() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).unwrap();
        let core = |byte: u8| format!("x'{}'", format!("{byte:02x}").repeat(32));
        let mut sql = String::new();
        for (n, bytes) in [(1, 100), (2, 20), (3, 3)] {
            let hash = core(n);
            sql += &format!(
                "INSERT INTO archives VALUES({n}, zeroblob(8), {n}, 'data', {hash}, zeroblob(32), {bytes},
                   's', zeroblob(32), 0, zeroblob(32), 0);
                 INSERT INTO snapshots VALUES({hash}, {n}, '2026040{n}T060000Z', 'name', 0, 0, 0);
                 INSERT INTO placements VALUES({n}, 's3');"
            );
        }
        sql += "DELETE FROM placements WHERE archive=3; INSERT INTO placements VALUES(3, 'disk');";
        catalog.db.execute_batch(&sql).unwrap();
        let published = |target, byte, state, second| {
            let hash = Hash([byte; 32]);
            catalog
                .set_publication(target, &hash, state, at(second))
                .unwrap();
        };
        use super::super::PublicationState::{GivenUp, Published};
        published("s3", 2, Published, 9);
        published("s3", 1, Published, 50);
        published("s3", 3, GivenUp, 70);
        let newest = catalog.newest_publication("s3").unwrap().unwrap();
        assert_eq!((newest.sequence, newest.published_at), (2, at(9)));
        assert_eq!(newest.stamp.to_string(), "20260402T060000Z");
        assert_eq!(catalog.newest_publication("disk").unwrap(), None);
        let (archives, bytes) = (2, 120);
        assert_eq!(
            catalog.stored_on("s3").unwrap(),
            StoredOnTarget { archives, bytes }
        );

        let none = ReadingSummary::default();
        assert_eq!(catalog.reading_summary("s3").unwrap(), none);
        let check = |target, byte, second, whole| {
            let check = super::super::ArchiveCheck {
                at: at(second),
                whole,
            };
            catalog
                .set_check(target, &Hash([byte; 32]), &check)
                .unwrap();
        };
        check("s3", 1, 30, Some(true));
        check("s3", 2, 10, Some(false));
        // The target does not have it any more.
        check("s3", 3, 5, Some(false));
        check("disk", 3, 20, Some(true));
        let found = catalog.reading_summary("s3").unwrap();
        let oldest = Some(at(30));
        assert_eq!(found, ReadingSummary { oldest, damaged: 1 });
        check("s3", 2, 20, Some(true));
        let oldest = Some(at(20));
        assert_eq!(
            catalog.reading_summary("s3").unwrap(),
            ReadingSummary { oldest, damaged: 0 }
        );

        assert_eq!(catalog.verified_at("s3").unwrap(), None);
        catalog.set_verified("s3", at(7)).unwrap();
        assert_eq!(catalog.verified_at("s3").unwrap(), Some(at(7)));
        assert_eq!(catalog.verified_at("disk").unwrap(), None);
    }
}
