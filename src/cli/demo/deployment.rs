//! A small AtoCore: accounts under a writer, document chunks, a registry, a Chroma-like store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, params};

use crate::cli::failure::Failure;

const ACCOUNTS: i64 = 1000;
const MONEY: i64 = 1_000_000;
const CHUNKS: u64 = 40_000;
const VECTORS: u64 = 8_000;
const VECTOR_BYTES: u64 = 1536;
/// One row of this many changes in a day.
const CHANGED: u64 = 200;

/// The deployment that the demo backs up.
pub(super) struct Deployment {
    database: PathBuf,
    chroma: PathBuf,
}

/// Pseudo-random numbers that are the same each time (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes());
        words.take(length as usize).collect()
    }

    fn text(&mut self) -> String {
        let words = [
            "seal", "lift", "archive", "vault", "ledger", "vector", "prompt", "context", "chunk",
            "index",
        ];
        let picked = (0..40).map(|_| words[(self.next() % words.len() as u64) as usize]);
        format!(
            "{} {:016x}",
            picked.collect::<Vec<_>>().join(" "),
            self.next()
        )
    }
}

impl Deployment {
    /// Makes it below `root`.
    pub(super) fn build(root: &Path) -> Result<Self, Failure> {
        let deployment = Self {
            database: root.join("data/db/atocore.db"),
            chroma: root.join("data/chroma"),
        };
        let segment = deployment
            .chroma
            .join("6f0c9f4e-0d0b-4f62-9d5e-2f3b8f6a7c11");
        for dir in [&root.join("data/db"), &root.join("config"), &segment] {
            fs::create_dir_all(dir)?;
        }
        fs::write(
            root.join("config/project-registry.json"),
            "{\n  \"projects\": [\n    {\"id\": \"p05-interferometer\", \"root\": \"p05\"}\n  ]\n}\n",
        )?;
        deployment.fill_database()?;
        deployment.fill_chroma(&segment)?;
        Ok(deployment)
    }

    fn fill_database(&self) -> Result<(), Failure> {
        let mut numbers = Numbers(1);
        let mut db = Connection::open(&self.database)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        let tx = db.transaction()?;
        tx.execute_batch(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, money INTEGER NOT NULL);
             CREATE TABLE source_chunks (id INTEGER PRIMARY KEY, text TEXT NOT NULL);",
        )?;
        for id in 0..ACCOUNTS {
            tx.execute(
                "INSERT INTO accounts VALUES (?1, ?2)",
                params![id, MONEY / ACCOUNTS],
            )?;
        }
        for id in 0..CHUNKS {
            tx.execute(
                "INSERT INTO source_chunks VALUES (?1, ?2)",
                params![id.cast_signed(), numbers.text()],
            )?;
        }
        Ok(tx.commit()?)
    }

    fn fill_chroma(&self, segment: &Path) -> Result<(), Failure> {
        let mut numbers = Numbers(2);
        let mut db = Connection::open(self.chroma.join("chroma.sqlite3"))?;
        let tx = db.transaction()?;
        tx.execute_batch(
            "CREATE TABLE embeddings (id INTEGER PRIMARY KEY, document TEXT NOT NULL)",
        )?;
        for id in 0..VECTORS {
            tx.execute(
                "INSERT INTO embeddings VALUES (?1, ?2)",
                params![id.cast_signed(), numbers.text()],
            )?;
        }
        tx.commit()?;
        fs::write(
            segment.join("data_level0.bin"),
            numbers.bytes(VECTORS * VECTOR_BYTES),
        )?;
        fs::write(segment.join("header.bin"), numbers.bytes(100))?;
        Ok(())
    }

    /// Changes half a percent of the rows and vectors, in place.
    pub(super) fn live_a_day(&self) -> Result<(), Failure> {
        use std::os::unix::fs::FileExt as _;
        let mut numbers = Numbers(3);
        let mut db = Connection::open(&self.database)?;
        db.busy_timeout(Duration::from_secs(10))?;
        let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for id in (0..CHUNKS / CHANGED).map(|n| n * CHANGED) {
            let changed = params![id.cast_signed(), numbers.text()];
            tx.execute("UPDATE source_chunks SET text = ?2 WHERE id = ?1", changed)?;
        }
        tx.commit()?;
        let vectors = self
            .chroma
            .join("6f0c9f4e-0d0b-4f62-9d5e-2f3b8f6a7c11/data_level0.bin");
        let file = fs::OpenOptions::new().write(true).open(vectors)?;
        for vector in (0..VECTORS / CHANGED).map(|n| n * CHANGED) {
            file.write_all_at(&numbers.bytes(VECTOR_BYTES), vector * VECTOR_BYTES)?;
        }
        Ok(())
    }

    /// Moves money between accounts until stopped; the sum stays.
    pub(super) fn start_writer(&self) -> Result<Writer, Failure> {
        let mut db = Connection::open(&self.database)?;
        db.busy_timeout(Duration::from_secs(10))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let mut numbers = Numbers(4);
                while !stopped.load(Ordering::Relaxed) {
                    let pick = |n: u64| (n % ACCOUNTS as u64).cast_signed();
                    let (from, to) = (pick(numbers.next()), pick(numbers.next()));
                    let tx =
                        db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
                    tx.execute(
                        "UPDATE accounts SET money = money - 1 WHERE id = ?1",
                        [from],
                    )?;
                    tx.execute("UPDATE accounts SET money = money + 1 WHERE id = ?1", [to])?;
                    tx.commit()?;
                    std::thread::sleep(Duration::from_millis(2));
                }
                Ok(())
            })?;
        Ok(Writer { stop, thread })
    }
}

/// The thread that changes the database.
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<rusqlite::Result<()>>,
}

impl Writer {
    /// Stops it.
    pub(super) fn stop(self) -> Result<(), Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.join();
        Ok(done.map_err(|_| Failure::from_error("the demo's writer failed"))??)
    }
}

/// Requires that the database is sound and the sum of its accounts is unchanged. Returns the number
/// of accounts.
pub(super) fn check_database(path: &Path) -> Result<i64, Failure> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let integrity: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    let (accounts, money): (i64, i64) =
        db.query_row("SELECT count(*), sum(money) FROM accounts", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if integrity != "ok" || (accounts, money) != (ACCOUNTS, MONEY) {
        return Err(Failure::from_error(format!(
            "the restored database is wrong: integrity {integrity}, {accounts} accounts, {money} in all"
        )));
    }
    Ok(accounts)
}
