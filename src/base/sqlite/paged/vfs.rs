//! The file system layer of the child's SQLite: one database, whose bytes the parent sends.
//!
//! There is no other file: no journal, no log, no temporary file, and nothing is written. The
//! database never changes (`SQLITE_IOCAP_IMMUTABLE`), so nothing is locked.
//!
//! A database in the mode of a write-ahead log that was copied without its log is complete, but
//! SQLite would want a log and shared memory for it. So the two bytes of the header that name the
//! mode say "journal" here. SQLite uses them for nothing else.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use rusqlite::ffi;

use super::super::vfs::keep_relative;
use super::channel;

/// The name by which the database is opened.
pub(super) const DATABASE: &str = "database";
const NAME: &CStr = c"sealift-pages";
/// The bytes of the header that name the mode, and their values.
const MODE_BYTES: std::ops::Range<u64> = 18..20;
const MODE_JOURNAL: u8 = 1;
const MODE_LOG: u8 = 2;

/// Returns the name of this layer; the first call registers it.
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

fn register() -> c_int {
    // SAFETY: SQLite initialises itself; a null name asks for the default layer, which lives for
    // ever.
    let usual = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    if usual.is_null() {
        return ffi::SQLITE_ERROR;
    }
    // SAFETY: `usual` points to a complete structure of plain data, which is copied. Of it, the
    // functions for time, sleep and random numbers stay, which use no file of the layer.
    let mut ours = unsafe { std::ptr::read(usual) };
    ours.zName = NAME.as_ptr();
    ours.pNext = std::ptr::null_mut();
    ours.szOsFile = size_of::<ffi::sqlite3_file>() as c_int;
    ours.xOpen = Some(open);
    ours.xDelete = Some(delete);
    ours.xAccess = Some(access);
    ours.xFullPathname = Some(keep_relative);
    ours.xDlOpen = Some(no_library);
    // SAFETY: SQLite keeps the pointer as long as the process lives, and so does what it points to.
    unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 0) }
}

/// The functions of an open file. Version 1 has no shared memory and no mapping.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(refuse_write),
    xTruncate: Some(refuse_truncate),
    xSync: Some(ignore_number),
    xFileSize: Some(file_size),
    xLock: Some(ignore_number),
    xUnlock: Some(ignore_number),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(no_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// SQLite's `xOpen`: opens the database, and nothing else.
unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    _: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    opened: *mut c_int,
) -> c_int {
    let is_database = flags & ffi::SQLITE_OPEN_MAIN_DB != 0;
    let methods = match is_database {
        true => &raw const METHODS,
        // So SQLite does not close what was not opened.
        false => std::ptr::null(),
    };
    // SAFETY: SQLite passes room for `szOsFile` bytes, which is the size of this structure.
    unsafe { (*file).pMethods = methods };
    if !is_database {
        return ffi::SQLITE_CANTOPEN;
    }
    if !opened.is_null() {
        // SAFETY: it is not null, so it points to a number of SQLite's.
        unsafe { *opened = ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_READONLY };
    }
    ffi::SQLITE_OK
}

/// SQLite's `xDelete`.
unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    ffi::SQLITE_IOERR_DELETE
}

/// SQLite's `xAccess`: there is no other file.
unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    _: *const c_char,
    _: c_int,
    exists: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a pointer to a number of its own.
    unsafe { *exists = 0 };
    ffi::SQLITE_OK
}

/// SQLite's `xDlOpen`: no extension is loaded.
unsafe extern "C" fn no_library(_: *mut ffi::sqlite3_vfs, _: *const c_char) -> *mut c_void {
    std::ptr::null_mut()
}

/// SQLite's `xClose`.
unsafe extern "C" fn close(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_OK
}

/// SQLite's `xRead`. What is beyond the end is zeros.
unsafe extern "C" fn read(
    _: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    length: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(length), Ok(offset)) = (usize::try_from(length), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    let buffer = buffer.cast::<u8>();
    // SAFETY: SQLite passes a buffer of `length` bytes, which nothing else uses during the call;
    // they are written before they are borrowed.
    let into = unsafe {
        std::ptr::write_bytes(buffer, 0, length);
        std::slice::from_raw_parts_mut(buffer, length)
    };
    read_as_journaled(into, offset)
}

/// Reads the content as that of a database without a log.
fn read_as_journaled(into: &mut [u8], offset: u64) -> c_int {
    let Ok(bytes) = channel::read_at(into, offset) else {
        return ffi::SQLITE_IOERR_READ;
    };
    for (at, byte) in (offset..).zip(&mut into[..bytes]) {
        if at >= MODE_BYTES.end {
            break;
        }
        if at >= MODE_BYTES.start && *byte == MODE_LOG {
            *byte = MODE_JOURNAL;
        }
    }
    match bytes == into.len() {
        true => ffi::SQLITE_OK,
        false => ffi::SQLITE_IOERR_SHORT_READ,
    }
}

/// SQLite's `xWrite`.
unsafe extern "C" fn refuse_write(
    _: *mut ffi::sqlite3_file,
    _: *const c_void,
    _: c_int,
    _: ffi::sqlite3_int64,
) -> c_int {
    ffi::SQLITE_READONLY
}

/// SQLite's `xTruncate`.
unsafe extern "C" fn refuse_truncate(_: *mut ffi::sqlite3_file, _: ffi::sqlite3_int64) -> c_int {
    ffi::SQLITE_READONLY
}

/// SQLite's `xSync`, `xLock` and `xUnlock`: nothing is written, and nothing changes.
unsafe extern "C" fn ignore_number(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// SQLite's `xFileSize`.
unsafe extern "C" fn file_size(_: *mut ffi::sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    let Ok(bytes) = i64::try_from(channel::bytes()) else {
        return ffi::SQLITE_IOERR_FSTAT;
    };
    // SAFETY: SQLite passes a pointer to a number of its own.
    unsafe { *size = bytes };
    ffi::SQLITE_OK
}

/// SQLite's `xCheckReservedLock`: nothing is locked.
unsafe extern "C" fn is_reserved(_: *mut ffi::sqlite3_file, reserved: *mut c_int) -> c_int {
    // SAFETY: SQLite passes a pointer to a number of its own.
    unsafe { *reserved = 0 };
    ffi::SQLITE_OK
}

/// SQLite's `xFileControl`: none is known.
unsafe extern "C" fn no_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

/// SQLite's `xSectorSize`.
unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// SQLite's `xDeviceCharacteristics`.
unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_IMMUTABLE
}
