//! Writing files so that a power cut or a kill leaves the old one or the new one, never a half.
//!
//! The order is the usual one: write under another name, fsync the file, rename, fsync the directory
//! (<https://man7.org/linux/man-pages/man2/fsync.2.html>: syncing a file does not sync its name).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Class, Error, Result};
use crate::os;

/// Sixteen hexadecimal digits that nobody else will choose, for a temporary name.
pub(crate) fn unique_name() -> Result<String> {
    let mut random = [0u8; 8];
    os::random(&mut random)
        .map_err(|e| Error::new(Class::Internal, format!("the system gives no random bytes: {e}")))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(random)))
}

/// Replaces the file `path` by `bytes`. Callers of the same path exclude each other by a lock of their own.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial).map_err(|e| Error::io("create", &partial, e))?;
    file.write_all(bytes).map_err(|e| Error::io("write", &partial, e))?;
    file.sync_all().map_err(|e| Error::io("sync", &partial, e))?;
    rename_durably(&partial, path)
}

/// Gives the synced file `from` the name `to`, for good.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename", from, e))?;
    let Some(parent) = to.parent() else { return Ok(()) };
    // A system that cannot open a directory as a file (Windows) has no such sync to do.
    match File::open(parent) {
        Ok(directory) => directory.sync_all().map_err(|e| Error::io("sync", parent, e)),
        Err(_) => Ok(()),
    }
}

/// Makes a directory and those above it.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))
}

/// Removes a file that somebody else may have removed before.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}
