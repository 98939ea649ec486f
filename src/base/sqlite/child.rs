//! The child: this program, started again to open one database within limits and to answer.
//!
//! Its stdin is the database's directory, its stdout a socket to the parent, its stderr the
//! directory of a copy. The request is in its environment, which holds nothing else. The child
//! opens the copy, which is ours, then confines itself to the database's directory, and only then
//! opens the database, which anyone may have written.

use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;

use super::code::{self, is_busy};
use super::confine::{self, Access};
use super::connection::{failed, open};
use super::header::super_journal;
use super::inspect::{inspect, limit};
use super::inspection::Depth;
use super::message::{
    ARGUMENT, ChildAnswer, ChildWork, NamedFile, Request, Step, VARIABLE, Way, milliseconds,
};
use super::{paged, place, query, vfs};

/// How long SQLite waits for a lock before we check the deadline.
const BUSY_SLICE: Duration = Duration::from_millis(100);
/// Pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(7);
/// The first version of SQLite that deletes no file which a planted journal names.
pub(super) const SAFE_SQLITE: i32 = 3_054_001;

/// Does the child's work if this process was started as one. Returns whether it was.
///
/// Every answer goes to the parent. If the parent ends, this process ends.
pub fn serve() -> bool {
    if paged::serve() {
        return true;
    }
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != ARGUMENT) {
        return false;
    }
    let request = std::env::var_os(VARIABLE).map(OsStringExt::into_vec);
    let request = request.and_then(|text| serde_json::from_slice::<Request>(&text).ok());
    let stdout = rustix::stdio::stdout().try_clone_to_owned();
    // Started by hand or by another version: no parent waits for an answer.
    let (Some(request), Ok(stdout)) = (request, stdout) else {
        return true;
    };
    if request.version != env!("CARGO_PKG_VERSION") || !confine::end_with(request.parent) {
        return true;
    }
    let mut child = Child {
        parent: UnixStream::from(stdout),
        started: Instant::now(),
        waited: Duration::ZERO,
    };
    if let Err(answer) = child.work(&request) {
        child.answer(&answer);
    }
    true
}

struct Child {
    parent: UnixStream,
    started: Instant,
    /// How long this process has waited for a lock.
    waited: Duration,
}

/// Returns the answer for a system call that failed in `step`.
fn system(step: Step) -> impl Fn(std::io::Error) -> ChildAnswer {
    move |error| ChildAnswer::System {
        step,
        errno: error.raw_os_error().unwrap_or(0),
    }
}

impl Child {
    fn answer(&mut self, answer: &ChildAnswer) {
        if let Ok(mut line) = serde_json::to_vec(answer) {
            line.push(b'\n');
            // A parent that is gone needs no answer.
            let _ = self.parent.write_all(&line);
        }
    }

    fn work(&mut self, request: &Request) -> Result<(), ChildAnswer> {
        let start = system(Step::Start);
        confine::limit(request.cpu_seconds, request.file_bytes).map_err(&start)?;
        let database = &request.database;
        match &request.work {
            ChildWork::Check { depth } => {
                self.enter(database, Access::Read)?;
                self.check(database, *depth)
            }
            ChildWork::Lock { busy_ms, depth } => {
                self.enter(database, Access::Read)?;
                self.lock(database, Duration::from_millis(*busy_ms), *depth)
            }
            ChildWork::Copy { busy_ms, way, copy } => {
                let target = open_copy(copy)?;
                let access = match way {
                    Way::Immutable => Access::Read,
                    Way::ReadOnly | Way::Writable => Access::Write,
                };
                self.enter(database, access)?;
                self.copy(database, target, Duration::from_millis(*busy_ms), *way)
            }
            ChildWork::CloseUp { busy_ms } => {
                self.enter(database, Access::Write)?;
                self.close_up(database, Duration::from_millis(*busy_ms))
            }
            ChildWork::Query {
                busy_ms,
                way,
                query,
            } => {
                // The log of a database that is in use has an index that readers write to.
                let access = match way {
                    Way::Immutable => Access::Read,
                    Way::ReadOnly | Way::Writable => Access::Write,
                };
                self.enter(database, access)?;
                let value = query::run(database, query, *way, Duration::from_millis(*busy_ms))?;
                self.answer(&value);
                Ok(())
            }
        }
    }

    /// Goes to the database's directory, and gives up access to everything outside it.
    fn enter(&self, database: &NamedFile, access: Access) -> Result<(), ChildAnswer> {
        let start = system(Step::Start);
        rustix::process::fchdir(rustix::stdio::stdin()).map_err(|e| start(e.into()))?;
        confine::to_working_directory(access).map_err(start)?;
        vfs::allow(database);
        Ok(())
    }

    fn check(&mut self, database: &NamedFile, depth: Depth) -> Result<(), ChildAnswer> {
        let conn = open(database, Way::Immutable).map_err(failed(Step::Check))?;
        self.report(&conn, depth)
    }

    fn report(&mut self, conn: &Connection, depth: Depth) -> Result<(), ChildAnswer> {
        let checked = limit(conn).and_then(|()| inspect(conn, depth));
        let mut inspection = checked.map_err(failed(Step::Check))?;
        let pages = conn.query_row("PRAGMA page_size", [], |row| row.get(0));
        inspection.page_size = pages.unwrap_or(0);
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let spent = Duration::try_from(spent).unwrap_or_else(|_| self.started.elapsed());
        self.answer(&ChildAnswer::Checked {
            inspection,
            cpu_ms: milliseconds(spent),
        });
        Ok(())
    }

    fn lock(
        &mut self,
        database: &NamedFile,
        busy: Duration,
        depth: Option<Depth>,
    ) -> Result<(), ChildAnswer> {
        let fail = failed(Step::Lock);
        let conn = open(database, Way::ReadOnly).map_err(&fail)?;
        conn.busy_timeout(BUSY_SLICE.min(busy)).map_err(&fail)?;
        conn.execute_batch("BEGIN").map_err(&fail)?;
        let locked = self.until(busy, Step::Lock, || {
            // The first read takes the lock, and the transaction keeps it.
            conn.query_row("PRAGMA schema_version", [], |_| Ok(StepResult::Done))
        });
        match locked {
            Err(ChildAnswer::Failed { code, .. }) if code::is_damage(code) => {
                return Err(ChildAnswer::Unlocked);
            }
            other => other?,
        }
        let waited_ms = milliseconds(self.waited);
        self.answer(&ChildAnswer::Held { waited_ms });
        if let Some(depth) = depth {
            let checked = self.report(&conn, depth);
            if let Err(answer) = checked {
                self.answer(&answer);
            }
        }
        // Waits: the parent closes its end when it has read the file.
        let _ = self.parent.read(&mut [0]);
        Ok(())
    }

    fn copy(
        &mut self,
        database: &NamedFile,
        mut copy: Connection,
        busy: Duration,
        way: Way,
    ) -> Result<(), ChildAnswer> {
        if way == Way::Writable {
            may_write(database)?;
        }
        let source = open(database, way).map_err(failed(Step::Open))?;
        let bounded = source.busy_timeout(BUSY_SLICE.min(busy));
        bounded.map_err(failed(Step::Open))?;
        {
            let backup = Backup::new(&source, &mut copy).map_err(failed(Step::Copy))?;
            self.until(busy, Step::Copy, || backup.step(-1))?;
        }
        let closed = copy.close().map_err(|(_, error)| error);
        closed.map_err(failed(Step::FinishCopy))?;
        self.answer(&ChildAnswer::Copied {
            waited_ms: milliseconds(self.waited),
        });
        Ok(())
    }

    /// Takes the database for this process alone, moves the content of its log into its file, and
    /// closes it as its last user does, which removes log and journal.
    fn close_up(&mut self, database: &NamedFile, busy: Duration) -> Result<(), ChildAnswer> {
        let fail = failed(Step::CloseUp);
        may_write(database)?;
        let conn = open(database, Way::Writable).map_err(&fail)?;
        conn.busy_timeout(BUSY_SLICE.min(busy))
            .and_then(|()| conn.execute_batch("PRAGMA locking_mode=EXCLUSIVE"))
            .map_err(&fail)?;
        self.until(busy, Step::CloseUp, || {
            conn.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
            let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
            let is_busy: i64 = conn.query_row(checkpoint, [], |row| row.get(0))?;
            Ok(match is_busy {
                0 => StepResult::Done,
                _ => StepResult::Busy,
            })
        })?;
        // Not before: a database that SQLite cannot read stays as it is.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
            .map_err(&fail)?;
        conn.close().map_err(|(_, error)| fail(error))?;
        self.answer(&ChildAnswer::ClosedUp);
        Ok(())
    }

    /// Repeats `step` until it is done. A database that stays locked for `busy` is an error.
    fn until(
        &mut self,
        busy: Duration,
        what: Step,
        mut step: impl FnMut() -> rusqlite::Result<StepResult>,
    ) -> Result<(), ChildAnswer> {
        let start = Instant::now();
        loop {
            match step() {
                Ok(StepResult::Done) => return Ok(()),
                Ok(_) => {}
                Err(e) if is_busy(&e) => {}
                Err(error) => return Err(failed(what)(error)),
            }
            self.waited = start.elapsed();
            if self.waited >= busy {
                return Err(ChildAnswer::Busy);
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }
}

/// Opens the copy, which is in the directory of stderr, and closes that directory.
fn open_copy(copy: &NamedFile) -> Result<Connection, ChildAnswer> {
    let start = system(Step::Start);
    rustix::process::fchdir(rustix::stdio::stderr()).map_err(|e| start(e.into()))?;
    vfs::allow(copy);
    let fail = failed(Step::OpenCopy);
    let target = open(copy, Way::Writable).map_err(&fail)?;
    // The copy is of no use until it is whole, so it needs no journal; the parent flushes it. Its
    // lock is taken here and kept, so that SQLite does not look for its journal later, in another
    // directory.
    let settings = "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF";
    target.execute_batch(settings).map_err(&fail)?;
    let read = target.query_row("PRAGMA schema_version", [], |_| Ok(()));
    read.map_err(&fail)?;
    let closed = rustix::stdio::dup2_stderr(rustix::stdio::stdout());
    closed.map_err(|e| start(e.into()))?;
    Ok(target)
}

/// Refuses to write if SQLite might delete files: the journal names another one, or SQLite is too
/// old.
fn may_write(database: &NamedFile) -> Result<(), ChildAnswer> {
    if rusqlite::version_number() < SAFE_SQLITE {
        return Err(ChildAnswer::OldSqlite {
            version: rusqlite::version().to_owned(),
        });
    }
    let journal = [database.name.as_slice(), b"-journal"].concat();
    let dir = rustix::stdio::stdin();
    match place::open_regular(dir, &journal) {
        Ok(file) if super_journal(&file) => Err(ChildAnswer::SuperJournal),
        _ => Ok(()),
    }
}
