//! The VFS: each call of SQLite is told to the disk first, and then done by SQLite's own VFS.
//!
//! A file of ours is a small head, with SQLite's own file right behind it in the memory that SQLite has
//! given us. What the disk does not keep account of (locks, shared memory, sizes) goes straight on.

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    mem::size_of,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
    sync::{Arc, LazyLock},
};

use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_FULL, SQLITE_IOERR, SQLITE_IOERR_CLOSE, SQLITE_IOERR_FSYNC,
    SQLITE_IOERR_READ, SQLITE_IOERR_SHMSIZE, SQLITE_NOMEM, SQLITE_OK, SQLITE_OPEN_CREATE,
    SQLITE_OPEN_MAIN_JOURNAL, SQLITE_OPEN_SUPER_JOURNAL, SQLITE_OPEN_WAL, sqlite3_file,
    sqlite3_initialize, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use crate::{
    disk::{Fault, FileNumber},
    machine::Machine,
};

/// Makes the VFS SQLite's default, for all databases that are opened from now on.
pub(crate) fn install() {
    LazyLock::force(&ORIGINAL);
}

/// SQLite's own VFS. Looked for once, before ours takes its place.
struct Original(*mut sqlite3_vfs);

// SAFETY: SQLite's VFS is never freed, and made to be called from any thread.
unsafe impl Send for Original {}
// SAFETY: as above.
unsafe impl Sync for Original {}

static ORIGINAL: LazyLock<Original> = LazyLock::new(|| {
    // SAFETY: SQLite is ready after this call, which may come from any thread.
    assert_eq!(unsafe { sqlite3_initialize() }, SQLITE_OK);
    // SAFETY: SQLite is ready, and a null name means the default.
    let original = unsafe { sqlite3_vfs_find(ptr::null()) };
    assert!(!original.is_null(), "SQLite has a VFS");
    // SAFETY: the default VFS lives as long as the process.
    let template = unsafe { *original };
    let head = c_int::try_from(size_of::<Head>()).expect("a head is small");
    let ours = sqlite3_vfs {
        szOsFile: head + template.szOsFile,
        pNext: ptr::null_mut(),
        zName: c"esl-faulty-disk".as_ptr(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        ..template
    };
    // SAFETY: what is registered is leaked, so it lives as long as the process. The functions that are
    // taken over from the template look at nothing in it but `mxPathname`.
    assert_eq!(unsafe { sqlite3_vfs_register(Box::leak(Box::new(ours)), 1) }, SQLITE_OK);
    Original(original)
});

/// What stands before SQLite's own file.
#[repr(C, align(8))]
struct Head {
    base: sqlite3_file,
    /// From `Box::into_raw`; null if the file is on no machine.
    handle: *mut Handle,
}

/// A file that is open.
struct Handle {
    machine: Arc<Machine>,
    number: FileNumber,
    name: String,
    /// How many failed syncs it was told of.
    seen: u64,
    /// Its first sync makes the names in its folder durable, as SQLite's own VFS does it.
    syncs_folder: bool,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without the mapping of files, which would pass by all this.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Calls a method of SQLite's own file.
macro_rules! pass {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let file = inner($file);
        // SAFETY: whoever calls has a file that `open` has opened, and so has the one behind it; all
        // methods of the second version are there.
        unsafe {
            let method = (*(*file).pMethods).$method.expect("SQLite's own VFS has all methods");
            method(file $(, $argument)*)
        }
    }};
}

/// Calls a function of SQLite's own VFS.
macro_rules! original {
    ($function:ident $(, $argument:expr)*) => {{
        let vfs = ORIGINAL.0;
        // SAFETY: the VFS lives as long as the process, and the arguments are those SQLite gave to ours.
        unsafe { (*vfs).$function.expect("SQLite's own VFS is complete")(vfs $(, $argument)*) }
    }};
}

fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // Within the memory that `szOsFile` has asked for.
    file.wrapping_byte_add(size_of::<Head>())
}

fn handle<'f>(file: *mut sqlite3_file) -> &'f mut Handle {
    // SAFETY: SQLite uses a file from one thread at a time, between `open` and `close`; `open` has put
    // the handle there, and `close` takes it away.
    unsafe { &mut *(*file.cast::<Head>()).handle }
}

fn code(fault: Fault) -> c_int {
    match fault {
        Fault::NoPower => SQLITE_IOERR,
        Fault::Sync => SQLITE_IOERR_FSYNC,
        Fault::Full => SQLITE_FULL,
        Fault::Read => SQLITE_IOERR_READ,
    }
}

fn machine_of(name: *const c_char) -> Option<(Arc<Machine>, String)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite gives a string that ends with a zero, and is there during the call.
    let name = unsafe { CStr::from_ptr(name) };
    Machine::of(Path::new(OsStr::from_bytes(name.to_bytes())))
}

unsafe extern "C" fn open(
    _vfs: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let Some((machine, short)) = machine_of(name) else {
        // The memory is large enough for SQLite's own file, which needs no head.
        return original!(xOpen, name, file, flags, out_flags);
    };
    // SAFETY: the memory is SQLite's, for the file that is being opened. Without methods, SQLite does not
    // close what was not opened.
    unsafe { (*file).pMethods = ptr::null() };
    let mut disk = machine.disk();
    let is_there = machine.folder().join(&short).exists();
    if !is_there && flags & SQLITE_OPEN_CREATE == 0 {
        return SQLITE_CANTOPEN;
    }
    let number = match disk.open(&short, is_there) {
        Ok(number) => number,
        Err(Fault::Full) => return SQLITE_CANTOPEN,
        Err(fault) => return code(fault),
    };
    let seen = disk.failures(number);
    let result = original!(xOpen, name, inner(file), flags, out_flags);
    drop(disk);
    if result == SQLITE_OK {
        let new = SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL;
        let syncs_folder = flags & SQLITE_OPEN_CREATE != 0 && flags & new != 0;
        let opened = Handle { machine, number, name: short, seen, syncs_folder };
        // SAFETY: the memory is that of a head, with the other file behind it.
        unsafe {
            (*file.cast::<Head>()).handle = Box::into_raw(Box::new(opened));
            (*file).pMethods = &raw const METHODS;
        }
    }
    result
}

unsafe extern "C" fn delete(_vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    let Some((machine, short)) = machine_of(name) else {
        return original!(xDelete, name, sync);
    };
    let mut disk = machine.disk();
    if let Err(fault) = disk.delete(&short, sync != 0) {
        return code(fault);
    }
    original!(xDelete, name, 0)
}

unsafe extern "C" fn access(
    _vfs: *mut sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    if let Some((machine, _)) = machine_of(name)
        && let Err(fault) = machine.disk().demand_power()
    {
        return code(fault);
    }
    original!(xAccess, name, flags, out)
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let result = pass!(file, xClose);
    // SAFETY: the handle is from `Box::into_raw`, and SQLite closes a file once.
    drop(unsafe { Box::from_raw((*file.cast::<Head>()).handle) });
    if result == SQLITE_OK { SQLITE_OK } else { SQLITE_IOERR_CLOSE }
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    buffer: *mut c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    let result = handle(file).machine.disk().read();
    match result {
        Ok(()) => pass!(file, xRead, buffer, length, offset),
        Err(Fault::Read) => {
            // Half of it has come when it fails.
            _ = pass!(file, xRead, buffer, length / 2, offset);
            code(Fault::Read)
        }
        Err(fault) => code(fault),
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    data: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    let handle = handle(file);
    let (Ok(start), Ok(count)) = (usize::try_from(offset), usize::try_from(length)) else {
        return SQLITE_NOMEM;
    };
    // SAFETY: SQLite says how much data there is.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), count) };
    let mut disk = handle.machine.disk();
    let (room, result) = disk.write(handle.number, start, bytes);
    let room = c_int::try_from(room).expect("no more than was given");
    if room > 0 {
        let written = pass!(file, xWrite, data, room, offset);
        if written != SQLITE_OK {
            return written;
        }
    }
    result.map_or_else(code, |()| SQLITE_OK)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, length: i64) -> c_int {
    let handle = handle(file);
    let Ok(to) = usize::try_from(length) else { return SQLITE_NOMEM };
    let mut disk = handle.machine.disk();
    match disk.truncate(handle.number, to) {
        Ok(()) => pass!(file, xTruncate, length),
        Err(fault) => code(fault),
    }
}

/// Nothing is really synced: the disk's account says what would be.
unsafe extern "C" fn sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    let handle = handle(file);
    let mut disk = handle.machine.disk();
    if let Err(fault) = disk.sync(handle.number, &handle.name, &mut handle.seen) {
        return code(fault);
    }
    if std::mem::take(&mut handle.syncs_folder) {
        disk.sync_folder();
    }
    SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut i64) -> c_int {
    with_power(file, || pass!(file, xFileSize, size))
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    with_power(file, || pass!(file, xLock, level))
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    with_power(file, || pass!(file, xCheckReservedLock, out))
}

unsafe extern "C" fn file_control(
    file: *mut sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    pass!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    part: c_int,
    size: c_int,
    extends: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let number = usize::try_from(part).unwrap_or(0);
    let shared = handle(file).machine.disk().share(number, extends != 0);
    match shared {
        Ok(()) => pass!(file, xShmMap, part, size, extends, out),
        Err(Fault::Full) => SQLITE_IOERR_SHMSIZE,
        Err(fault) => code(fault),
    }
}

unsafe extern "C" fn shm_lock(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // Memory and locks need no disk, and what is held must be let go.
    pass!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    pass!(file, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, deletes: c_int) -> c_int {
    pass!(file, xShmUnmap, deletes)
}

fn with_power(file: *mut sqlite3_file, work: impl FnOnce() -> c_int) -> c_int {
    let power = handle(file).machine.disk().demand_power();
    match power {
        Ok(()) => work(),
        Err(fault) => code(fault),
    }
}
