//! A lease protects what is being brought in and is not yet recorded.
//!
//! It is a shared lock on one file of the root directory; [`crate::gc`] sweeps only under the exclusive lock.
//! A lock dies with its process, so a crash leaves no lease behind. (The house rule: liveness is a held lock.)

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};

/// Protection from the sweep for as long as it is held.
#[derive(Debug)]
pub struct Lease(#[allow(dead_code, reason = "held for its lock")] File);

/// The right to sweep: nobody holds a [`Lease`].
#[derive(Debug)]
pub struct SweepLock(#[allow(dead_code, reason = "held for its lock")] File);

fn open(root: &Path) -> Result<File> {
    let path = root.join("lease.lock");
    OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|e| Error::io("open", path, e))
}

impl Lease {
    /// Takes a lease in `root`, waiting for a sweep under way to end.
    ///
    /// # Errors
    /// Fails when the lock file cannot be opened.
    pub fn take(root: &Path) -> Result<Self> {
        let file = open(root)?;
        file.lock_shared().map_err(|e| Error::io("lock", root.join("lease.lock"), e))?;
        Ok(Lease(file))
    }
}

impl SweepLock {
    /// Takes the right to sweep, or `None` while somebody holds a lease.
    ///
    /// # Errors
    /// Fails when the lock file cannot be opened.
    pub fn try_take(root: &Path) -> Result<Option<Self>> {
        let file = open(root)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(SweepLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", root.join("lease.lock"), e)),
        }
    }
}
