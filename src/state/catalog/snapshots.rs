//! The catalog's rows of snapshots, of their publication on each target, and of runs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;
use rusqlite::{OptionalExtension as _, Row, params};

use super::publication_state::PublicationState;
use super::{Catalog, CatalogError, about, receipt_keys};
use crate::base::ids::{Hash, Stamp, WriterId};
use crate::format::known::Made;
use crate::format::manifest::{Known, Manifest, ManifestName};

/// A snapshot that this host made, or found on a target as its own past.
#[derive(Debug, Clone)]
pub struct SnapshotRow {
    /// Sequence, stamp and core hash.
    pub known: Known,
    /// The name of its manifest.
    pub name: ManifestName,
    /// Size of all its content in bytes.
    pub bytes: u64,
    /// Size of the content that was new with it, in bytes.
    pub new_bytes: u64,
}

/// States by core hash, in a map with a fast hash function: there may be thousands.
type StatesByCore = HashMap<Hash, PublicationState, RandomState>;

/// The states of all snapshots on a target, by core hash.
pub type Publications = Arc<StatesByCore>;

/// A group of earlier snapshots in the same pages of a manifest, and the manifest that first had
/// exactly these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownGroup {
    /// The number of the group.
    pub number: u64,
    /// The hash of its rows.
    pub rows: Hash,
    /// The first manifest with exactly this group.
    pub made: Made,
}

/// A run of `backup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// The number of the run.
    pub id: i64,
    /// RFC 3339. `None` in a damaged row only.
    pub started_at: Option<String>,
    /// RFC 3339. `None`: the run is under way, or it was killed.
    pub ended_at: Option<String>,
    /// Such as `complete`. `None` as for `ended_at`.
    pub outcome: Option<String>,
    /// What the run reported in one line. `None` as for `ended_at`.
    pub message: Option<String>,
}

/// The key in `meta` of the sequence of the manifest to which the groups belong.
const KNOWN_GROUPS_OF: &str = "known groups of";

/// Returns `None` for a damaged row.
fn read_snapshot(row: &Row<'_>) -> rusqlite::Result<Option<SnapshotRow>> {
    let text = |column: usize| -> rusqlite::Result<&str> { Ok(row.get_ref(column)?.as_str()?) };
    let (stamp, name) = (text(2)?, text(3)?);
    let (core, sequence) = (Hash(row.get(0)?), row.get::<_, i64>(1)? as u64);
    let (bytes, new_bytes) = (row.get::<_, i64>(4)? as u64, row.get::<_, i64>(5)? as u64);
    let parsed = stamp.parse::<Stamp>().ok().and_then(|parsed| {
        let name = ManifestName::parse_with(name, stamp, parsed)?;
        Some((parsed, name))
    });
    let Some((stamp, name)) = parsed else {
        return Ok(None);
    };
    let known = Known {
        sequence,
        stamp,
        core,
    };
    Ok(Some(SnapshotRow {
        known,
        name,
        bytes,
        new_bytes,
    }))
}

/// Catalog entry: a target lost the snapshot `stamp`.
fn lost_key(stamp: Stamp) -> String {
    format!("lost {stamp}")
}

/// How this catalog learned of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotOrigin {
    /// This host made it.
    MadeHere,
    /// It was found on a target, and this catalog did not know it.
    FoundOnTarget,
}

impl Catalog {
    /// Returns the groups of the manifest before `sequence`, or of an earlier attempt at this one;
    /// none if the catalog has those of another manifest.
    pub fn known_groups(&self, sequence: u64) -> Result<Vec<KnownGroup>, CatalogError> {
        let of = self.meta(KNOWN_GROUPS_OF)?;
        let of = of.and_then(|text| text.parse::<u64>().ok());
        if !of.is_some_and(|of| of == sequence || of.checked_add(1) == Some(sequence)) {
            return Ok(Vec::new());
        }
        let mut query = self
            .db
            .prepare("SELECT number,rows,writer,sequence FROM known_groups")
            .map_err(self.fail())?;
        let rows = query
            .query_map([], |row| {
                Ok(KnownGroup {
                    number: row.get::<_, i64>(0)? as u64,
                    rows: Hash(row.get(1)?),
                    made: (WriterId(row.get(2)?), row.get::<_, i64>(3)? as u64),
                })
            })
            .map_err(self.fail())?;
        rows.collect::<Result<_, _>>().map_err(self.fail())
    }

    /// Replaces the groups by those of the manifest `sequence`.
    pub fn set_known_groups(
        &mut self,
        sequence: u64,
        groups: &[KnownGroup],
    ) -> Result<(), CatalogError> {
        let fail = self.fail();
        let tx = self.db.transaction().map_err(&fail)?;
        tx.execute("DELETE FROM known_groups", []).map_err(&fail)?;
        for group in groups {
            let (writer, made) = (&group.made.0.0[..], group.made.1 as i64);
            tx.execute(
                "INSERT INTO known_groups VALUES(?1,?2,?3,?4)",
                params![group.number as i64, &group.rows.0[..], writer, made],
            )
            .map_err(&fail)?;
        }
        let of = sequence.to_string();
        tx.execute(
            "INSERT OR REPLACE INTO meta VALUES(?1,?2)",
            [KNOWN_GROUPS_OF, &of],
        )
        .map_err(&fail)?;
        tx.commit().map_err(&fail)
    }

    /// Records a snapshot.
    pub fn add_snapshot(
        &self,
        manifest: &Manifest,
        origin: SnapshotOrigin,
    ) -> Result<(), CatalogError> {
        let core = &manifest.core;
        let row = SnapshotRow {
            known: Known {
                sequence: core.sequence,
                stamp: core.stamp,
                core: manifest.core_hash,
            },
            name: manifest.name(),
            bytes: core.totals.bytes,
            new_bytes: core.totals.new_bytes,
        };
        self.db
            .execute(
                "INSERT OR REPLACE INTO snapshots VALUES(?1,?2,?3,?4,?5,?6,?7)",
                params![
                    &manifest.core_hash.0[..],
                    core.sequence as i64,
                    core.stamp.to_string(),
                    row.name.to_string(),
                    core.totals.bytes as i64,
                    core.totals.new_bytes as i64,
                    origin == SnapshotOrigin::FoundOnTarget
                ],
            )
            .map_err(self.fail())?;
        self.cached_snapshots.change(|rows| {
            let rows = Arc::make_mut(rows);
            rows.retain(|one| one.known.core != row.known.core);
            let place = |known: &Known| (known.sequence, known.core);
            let at = rows.partition_point(|one| place(&one.known) < place(&row.known));
            rows.insert(at, row);
        });
        Ok(())
    }

    /// Returns every live snapshot, by sequence.
    pub fn snapshots(&self) -> Result<Arc<Vec<SnapshotRow>>, CatalogError> {
        self.cached_snapshots
            .get(self.version()?, || Ok(Arc::new(self.read_snapshots()?)))
    }

    fn read_snapshots(&self) -> Result<Vec<SnapshotRow>, CatalogError> {
        let mut query = self
            .db
            .prepare("SELECT core,sequence,stamp,name,bytes,new_bytes FROM snapshots")
            .map_err(self.fail())?;
        let mut rows = query.query([]).map_err(self.fail())?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(self.fail())? {
            // Everything that this program wrote can be parsed; a damaged row is ignored.
            found.extend(read_snapshot(row).map_err(self.fail())?);
        }
        // SQLite takes longer to sort.
        found.sort_unstable_by(|a, b| {
            let (a, b) = (&a.known, &b.known);
            (a.sequence.cmp(&b.sequence)).then_with(|| a.core.cmp(&b.core))
        });
        Ok(found)
    }

    /// Forgets a snapshot and its publications.
    pub fn forget_snapshot(&self, core: &Hash) -> Result<(), CatalogError> {
        self.cached_snapshots.forget();
        self.cached_publications.forget();
        for sql in [
            "DELETE FROM snapshots WHERE core=?1",
            "DELETE FROM publications WHERE core=?1",
        ] {
            self.db.execute(sql, [&core.0[..]]).map_err(self.fail())?;
        }
        let keys = [about::key(core), receipt_keys::key(core)];
        self.db
            .execute("DELETE FROM meta WHERE key IN (?1, ?2)", keys)
            .map(drop)
            .map_err(self.fail())
    }

    /// Records what became of the snapshot `core` on `target`.
    pub fn set_publication(
        &self,
        target: &str,
        core: &Hash,
        state: PublicationState,
        at: chrono::DateTime<chrono::Utc>,
    ) -> Result<(), CatalogError> {
        self.db
            .execute(
                "INSERT OR REPLACE INTO publications VALUES(?1,?2,?3,?4)",
                params![target, &core.0[..], at.to_rfc3339(), state.as_str()],
            )
            .map_err(self.fail())?;
        self.cached_publications.change(|all| {
            let states = all.entry(target.to_owned()).or_default();
            Arc::make_mut(states).insert(*core, state);
        });
        Ok(())
    }

    /// Returns what became of the snapshot `core` on `target`, or `None` if it is still to be
    /// shipped there.
    pub fn publication(
        &self,
        target: &str,
        core: &Hash,
    ) -> Result<Option<PublicationState>, CatalogError> {
        let mut query = self
            .db
            .prepare_cached("SELECT state FROM publications WHERE target=?1 AND core=?2")
            .map_err(self.fail())?;
        let text: Option<String> = query
            .query_row(params![target, &core.0[..]], |row| row.get(0))
            .optional()
            .map_err(self.fail())?;
        Ok(text.and_then(|text| PublicationState::parse(&text)))
    }

    /// Returns when this host last noted anything about `target`, in RFC 3339; `None`: never.
    pub fn noted_at(&self, target: &str) -> Result<Option<String>, CatalogError> {
        let sql = "SELECT max(published_at) FROM publications WHERE target=?1";
        self.db
            .query_row(sql, [target], |row| row.get(0))
            .map_err(self.fail())
    }

    /// Returns the states of all snapshots on `target`, by core hash.
    pub fn publications(&self, target: &str) -> Result<Publications, CatalogError> {
        let all = self
            .cached_publications
            .get(self.version()?, || self.read_publications())?;
        Ok(all.get(target).cloned().unwrap_or_default())
    }

    fn read_publications(&self) -> Result<BTreeMap<String, Publications>, CatalogError> {
        let mut query = self
            .db
            .prepare("SELECT target, core, state FROM publications ORDER BY target, core")
            .map_err(self.fail())?;
        let mut rows = query.query([]).map_err(self.fail())?;
        // The number of snapshots, if they were read before.
        let expected = self.cached_snapshots.peek(|rows| rows.len()).unwrap_or(0);
        let mut all: Vec<(String, StatesByCore)> = Vec::new();
        while let Some(row) = rows.next().map_err(self.fail())? {
            let mut read = || -> rusqlite::Result<()> {
                let target = row.get_ref(0)?.as_str()?;
                // A text that no version wrote is a damaged row: the snapshot counts as not shipped
                // yet.
                let Some(state) = PublicationState::parse(row.get_ref(2)?.as_str()?) else {
                    return Ok(());
                };
                if all.last().is_none_or(|(last, _)| last != target) {
                    let hasher = RandomState::default();
                    let states = StatesByCore::with_capacity_and_hasher(expected, hasher);
                    all.push((target.to_owned(), states));
                }
                let core = Hash(row.get(1)?);
                if let Some((_, states)) = all.last_mut() {
                    states.insert(core, state);
                }
                Ok(())
            };
            read().map_err(self.fail())?;
        }
        let shared = all.into_iter();
        Ok(shared
            .map(|(target, states)| (target, Arc::new(states)))
            .collect())
    }

    /// Returns whether any snapshot was published on `target` and is not known to be gone.
    pub fn has_published(&self, target: &str) -> Result<bool, CatalogError> {
        let sql = "SELECT EXISTS(SELECT 1 FROM publications WHERE target=?1 AND state='published')";
        self.db
            .query_row(sql, [target], |row| row.get(0))
            .map_err(self.fail())
    }

    /// Returns the snapshot of the highest sequence that was published on `target`.
    pub fn last_published(&self, target: &str) -> Result<Option<Known>, CatalogError> {
        let row = self
            .db
            .query_row(
                "SELECT s.core, s.sequence, s.stamp FROM publications p JOIN snapshots s USING(core)
                 WHERE p.target=?1 AND p.state='published' ORDER BY s.sequence DESC LIMIT 1",
                [target],
                |row| {
                    let (core, sequence) = (Hash(row.get(0)?), row.get::<_, i64>(1)? as u64);
                    Ok((core, sequence, row.get::<_, String>(2)?))
                },
            )
            .optional()
            .map_err(self.fail())?;
        // A stamp that is none is a damaged row: it counts as not known, as everywhere here.
        Ok(row.and_then(|(core, sequence, stamp)| {
            let stamp = stamp.parse().ok()?;
            Some(Known {
                sequence,
                stamp,
                core,
            })
        }))
    }

    /// Forgets what was published on `target`: a listing showed that it is not there any more.
    pub fn forget_publications(&self, target: &str) -> Result<(), CatalogError> {
        self.cached_publications.forget();
        self.db
            .execute("DELETE FROM publications WHERE target=?1", [target])
            .map(drop)
            .map_err(self.fail())
    }

    /// Records the begin of a run, and returns its id for [`Self::end_run`].
    pub fn begin_run(&self, at: chrono::DateTime<chrono::Utc>) -> Result<i64, CatalogError> {
        self.db
            .execute("INSERT INTO runs(started_at) VALUES(?1)", [at.to_rfc3339()])
            .map_err(self.fail())?;
        Ok(self.db.last_insert_rowid())
    }

    /// Records the end of a run. `stamp`: that of its snapshot, `None` if it made none.
    pub fn end_run(
        &self,
        id: i64,
        at: chrono::DateTime<chrono::Utc>,
        stamp: Option<Stamp>,
        outcome: &str,
        message: &str,
    ) -> Result<(), CatalogError> {
        self.db
            .execute(
                "UPDATE runs SET ended_at=?2, stamp=COALESCE(?3, stamp), outcome=?4, message=?5 WHERE id=?1",
                params![
                    id,
                    at.to_rfc3339(),
                    stamp.map(|s| s.to_string()),
                    outcome,
                    message
                ],
            )
            .map(drop)
            .map_err(self.fail())
    }

    /// Records the stamp of the snapshot that a run has produced. [`Self::end_run`] may never be
    /// called.
    pub fn set_run_stamp(&self, id: i64, stamp: Stamp) -> Result<(), CatalogError> {
        self.db
            .execute(
                "UPDATE runs SET stamp=?2 WHERE id=?1",
                params![id, stamp.to_string()],
            )
            .map(drop)
            .map_err(self.fail())
    }

    /// Returns the stamps of the snapshots whose runs failed or did not end.
    pub fn unfinished_runs(&self) -> Result<BTreeSet<Stamp>, CatalogError> {
        let sql = "SELECT stamp FROM runs WHERE stamp IS NOT NULL
             AND (outcome IS NULL OR outcome NOT IN ('complete', 'partial'))";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let rows = query.query_map([], |row| row.get::<_, String>(0));
        let mut stamps = BTreeSet::new();
        for row in rows.map_err(self.fail())? {
            // A damaged row is ignored: its snapshot stays.
            stamps.extend(row.map_err(self.fail())?.parse::<Stamp>().ok());
        }
        Ok(stamps)
    }

    /// Remembers that a target lost the snapshot `stamp`, whose row goes: its directory on this
    /// host may be the last copy.
    pub fn note_lost(&self, stamp: Stamp) -> Result<(), CatalogError> {
        self.set_meta(&lost_key(stamp), "")
    }

    /// Returns those of `stamps` whose backup was complete, and whose snapshot no target has lost
    /// since: every target had it.
    pub fn completed(
        &self,
        stamps: impl IntoIterator<Item = Stamp>,
    ) -> Result<BTreeSet<Stamp>, CatalogError> {
        let sql = "SELECT 1 FROM runs WHERE outcome='complete' AND stamp=?1";
        let mut query = self.db.prepare_cached(sql).map_err(self.fail())?;
        let mut completed = BTreeSet::new();
        for stamp in stamps {
            let is_lost = self.meta(&lost_key(stamp))?.is_some();
            if !is_lost && query.exists([stamp.to_string()]).map_err(self.fail())? {
                completed.insert(stamp);
            }
        }
        Ok(completed)
    }

    /// Records the end of the run `id` that began at `started_at`, unless it has one.
    pub fn end_unended_run(
        &self,
        (id, started_at): (i64, &str),
        at: chrono::DateTime<chrono::Utc>,
        outcome: &str,
        message: &str,
    ) -> Result<(), CatalogError> {
        self.db
            .execute(
                "UPDATE runs SET ended_at=?3, outcome=?4, message=?5
                 WHERE id=?1 AND started_at=?2 AND ended_at IS NULL",
                params![id, started_at, at.to_rfc3339(), outcome, message],
            )
            .map(drop)
            .map_err(self.fail())
    }

    /// Returns the newest run; `None` before the first.
    pub fn last_run(&self) -> Result<Option<RunRecord>, CatalogError> {
        self.newest_run("1")
    }

    /// Returns the newest run that ended; `None` if there was none.
    pub fn last_ended_run(&self) -> Result<Option<RunRecord>, CatalogError> {
        self.newest_run("ended_at IS NOT NULL")
    }

    /// Returns the newest run that was complete; `None` if there was none.
    pub fn last_complete_run(&self) -> Result<Option<RunRecord>, CatalogError> {
        self.newest_run("outcome='complete'")
    }

    fn newest_run(&self, condition: &str) -> Result<Option<RunRecord>, CatalogError> {
        let sql = format!(
            "SELECT id, started_at, ended_at, outcome, message FROM runs WHERE {condition}
             ORDER BY id DESC LIMIT 1"
        );
        let row = self.db.query_row(&sql, [], |row| {
            Ok(RunRecord {
                id: row.get(0)?,
                started_at: row.get(1)?,
                ended_at: row.get(2)?,
                outcome: row.get(3)?,
                message: row.get(4)?,
            })
        });
        row.optional().map_err(self.fail())
    }
}
