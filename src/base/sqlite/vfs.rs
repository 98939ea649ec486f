//! The file system layer of the child's SQLite: it reaches the database and its sidecars in the
//! working directory, and no other file.
//!
//! SQLite by itself makes a path absolute, looks at each of its parts, and then opens it from the
//! root: a user who can rename one of those directories can make it open another file. Here the
//! name stays relative to the working directory, which is an open descriptor, and `fstat` verifies
//! each opened file: the database must be the file that the parent opened, its log and journal must
//! be regular files. `O_NONBLOCK` avoids waiting for a FIFO that took a file's place. No file but
//! the database and its `-wal`, `-shm` and `-journal` is opened or deleted, whatever a journal
//! says.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, OnceLock};

use rusqlite::ffi;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::message::{Identity, NamedFile};
use crate::base::lock::lock;

/// The files that SQLite may open.
struct Allowed {
    /// The database's name as SQLite uses it: `./name`.
    database: Vec<u8>,
    identity: Identity,
    /// Whether another file had that name when SQLite opened it.
    exchanged: bool,
}

static ALLOWED: Mutex<Option<Allowed>> = Mutex::new(None);

fn allowed() -> MutexGuard<'static, Option<Allowed>> {
    lock(&ALLOWED)
}

/// Returns the database's path for SQLite, which cannot be taken for a URI, a device or a path
/// elsewhere.
pub(super) fn path(name: &[u8]) -> Vec<u8> {
    [b"./", name].concat()
}

/// Lets SQLite open `database`, in the working directory, and its sidecars; no other file from now
/// on.
pub(super) fn allow(database: &NamedFile) {
    *allowed() = Some(Allowed {
        database: path(&database.name),
        identity: database.identity,
        exchanged: false,
    });
}

/// Returns whether another file had the database's name when SQLite opened it.
pub(super) fn was_exchanged() -> bool {
    allowed().as_ref().is_some_and(|allowed| allowed.exchanged)
}

/// Returns the name of the file system layer that obeys [`allow`]; the first call registers it.
pub(super) fn name() -> rusqlite::Result<&'static CStr> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    match *REGISTERED.get_or_init(register) {
        ffi::SQLITE_OK => Ok(NAME),
        code => Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(code),
            Some("its file system layer cannot be set up".to_owned()),
        )),
    }
}

const NAME: &CStr = c"sealift";

fn register() -> c_int {
    // SAFETY: SQLite initialises itself; a null name asks for the default layer, which lives for
    // ever.
    let usual = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    if usual.is_null() {
        return ffi::SQLITE_ERROR;
    }
    // SAFETY: `usual` points to a complete structure of plain data, which is copied.
    let mut ours = unsafe { std::ptr::read(usual) };
    let Some(set) = ours.xSetSystemCall else {
        return ffi::SQLITE_ERROR;
    };
    type OpenCall = unsafe extern "C" fn(*const c_char, c_int, c_int) -> c_int;
    type UnlinkCall = unsafe extern "C" fn(*const c_char) -> c_int;
    // SAFETY: SQLite calls these back with the very types that it documents for `open` and `unlink`
    // in its table of system calls; the cast is that table's own.
    let (open, unlink) = unsafe {
        (
            std::mem::transmute::<OpenCall, unsafe extern "C" fn()>(open),
            std::mem::transmute::<UnlinkCall, unsafe extern "C" fn()>(unlink),
        )
    };
    for (call, function) in [(c"open", open), (c"unlink", unlink)] {
        // SAFETY: `usual` is SQLite's own, and no database is open yet.
        let code = unsafe { set(usual, call.as_ptr(), Some(function)) };
        if code != ffi::SQLITE_OK {
            return code;
        }
    }
    ours.zName = NAME.as_ptr();
    ours.xFullPathname = Some(keep_relative);
    ours.pNext = std::ptr::null_mut();
    // SAFETY: SQLite keeps the pointer as long as the process lives, and so does what it points to.
    unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 0) }
}

/// SQLite's `xFullPathname`: returns the path as it is.
pub(super) unsafe extern "C" fn keep_relative(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    bytes: c_int,
    full: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a string that ends in zero.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    if usize::try_from(bytes).is_ok_and(|room| path.len() <= room) {
        // SAFETY: `full` has room for `bytes`, and the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(path.as_ptr().cast(), full, path.len()) };
        return ffi::SQLITE_OK;
    }
    ffi::SQLITE_CANTOPEN
}

/// Sets `errno` as SQLite expects it of a failed call, and returns -1.
fn fail(errno: Errno) -> c_int {
    // SAFETY: it is this thread's own.
    unsafe { *libc::__errno_location() = errno.raw_os_error() };
    -1
}

/// SQLite's `open`.
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    // SAFETY: SQLite passes a string that ends in zero.
    let path = unsafe { CStr::from_ptr(path) };
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    match open_allowed(path, flags, Mode::from_raw_mode(mode.cast_unsigned())) {
        Ok(file) => file.into_raw_fd(),
        Err(errno) => fail(errno),
    }
}

fn open_allowed(path: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let mut allowed = allowed();
    let allowed = allowed.as_mut().ok_or(Errno::ACCESS)?;
    let name = path.to_bytes();
    // The directory is opened to flush what was created in it.
    let is_directory = name == b".";
    if !is_directory && !is_part(name, &allowed.database) {
        return Err(Errno::ACCESS);
    }
    let strictly = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags | strictly, mode)?;
    let stat = rustix::fs::fstat(&file)?;
    let wanted = match is_directory {
        true => FileType::Directory,
        false => FileType::RegularFile,
    };
    if name == allowed.database && Identity::of(&stat) != allowed.identity {
        allowed.exchanged = true;
        return Err(Errno::ACCESS);
    }
    match FileType::from_raw_mode(stat.st_mode) == wanted {
        true => Ok(file),
        false => Err(Errno::ACCESS),
    }
}

/// SQLite's `unlink`.
unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: SQLite passes a string that ends in zero.
    let path = unsafe { CStr::from_ptr(path) };
    let is_sidecar = allowed().as_ref().is_some_and(|allowed| {
        path.to_bytes() != allowed.database && is_part(path.to_bytes(), &allowed.database)
    });
    if !is_sidecar {
        return fail(Errno::ACCESS);
    }
    match rustix::fs::unlink(path) {
        Ok(()) => 0,
        Err(errno) => fail(errno),
    }
}

/// Returns whether `path` is the database or one of its sidecars.
fn is_part(path: &[u8], database: &[u8]) -> bool {
    let rest = path.strip_prefix(database);
    rest.is_some_and(|rest| rest.is_empty() || super::header::SIDECARS.contains(&rest))
}

/// Removes the modules of virtual tables from SQLite: their code never runs on a foreign file, and
/// the check leaves their tables out (it would read a full-text index twice, for half of its time).
/// The tables in which a virtual table keeps its content are ordinary ones, and checked.
pub(super) fn drop_modules(conn: &rusqlite::Connection) -> rusqlite::Result<()> {
    // SAFETY: the handle is open as long as `conn`, which no other thread uses meanwhile (it is not
    // `Sync`); a null list means all modules. No statement is prepared yet that could be using one.
    let code = unsafe { ffi::sqlite3_drop_modules(conn.handle(), std::ptr::null_mut()) };
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(rusqlite::Error::SqliteFailure(
            ffi::Error::new(code),
            Some("its modules cannot be removed".to_owned()),
        )),
    }
}
