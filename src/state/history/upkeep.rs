//! What keeps the history small: taking rows out, and returning their room to the disk.

use std::path::Path;

use rusqlite::params;

use super::{History, HistoryError};

impl History {
    /// Returns the state directory.
    pub fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Takes out the row of a run that turned out to be none: another process was at work.
    pub fn withdraw_run(&self, id: &str) -> Result<(), HistoryError> {
        let sql = "DELETE FROM runs WHERE id=?1 AND ended_at IS NULL";
        self.db.execute(sql, [id]).map(drop).map_err(self.fail())
    }

    /// Returns the ids that begin with `start`, newest first, at most `limit`.
    pub fn run_ids(&self, start: &str, limit: u32) -> Result<Vec<String>, HistoryError> {
        let sql =
            "SELECT id FROM runs WHERE substr(id, 1, length(?1))=?1 ORDER BY id DESC LIMIT ?2";
        let mut query = self.db.prepare(sql).map_err(self.fail())?;
        let rows = query.query_map(params![start, limit], |row| row.get(0));
        let ids = rows.and_then(Iterator::collect::<Result<_, _>>);
        ids.map_err(self.fail())
    }

    /// Returns the bytes of the file that are in use. The others are free for later rows.
    pub fn used_bytes(&self) -> Result<u64, HistoryError> {
        let sql = "SELECT (page_count - freelist_count) * page_size
                   FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()";
        let bytes = self.db.query_row(sql, [], |row| row.get::<_, i64>(0));
        bytes
            .map(|bytes| bytes.max(0).cast_unsigned())
            .map_err(self.fail())
    }

    /// Takes the reports out of the oldest `number` runs that have one, except those of the newest
    /// `keep` runs. Returns how many there were.
    pub fn forget_reports(&self, number: u32, keep: u32) -> Result<usize, HistoryError> {
        let sql = "UPDATE runs SET report=NULL WHERE id IN (
               SELECT id FROM runs WHERE report IS NOT NULL
                 AND id NOT IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?2)
               ORDER BY id LIMIT ?1)";
        self.db
            .execute(sql, params![number, keep])
            .map_err(self.fail())
    }

    /// Returns the room of deleted rows to the disk.
    pub fn compact(&self) -> Result<(), HistoryError> {
        self.db
            .execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")
            .map_err(self.fail())
    }
}
