//! The per-container process: what it says and writes. How it runs is the operating system's affair.

pub(crate) mod begin;
pub(crate) mod client;
pub mod log;
pub mod protocol;
pub mod relay;

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::task::Exit;

/// How a container ended, on disk before anybody is told: it outlives a monitor that dies before the record is changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Code and cause.
    pub exit: Exit,
    /// When.
    pub finished: Timestamp,
}

impl ExitRecord {
    /// Writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|e| wharf_images::Error::json("exit record", e))?;
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, json).map_err(|e| Error::io("write", &temporary, e))?;
        fs::rename(&temporary, path).map_err(|e| Error::io("rename", &temporary, e))
    }

    /// Reads it, if there is one.
    ///
    /// # Errors
    /// `Corrupt` when it is no exit record.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(json) => Ok(Some(
                serde_json::from_slice(&json).map_err(|e| wharf_images::Error::json(path.display().to_string(), e))?,
            )),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path, e)),
        }
    }

    /// Takes it away: the container starts anew.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
            _ => Ok(()),
        }
    }
}
