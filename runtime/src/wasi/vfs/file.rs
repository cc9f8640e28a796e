//! An open file.

use std::fs::{File, FileTimes};
use std::sync::Arc;
use std::time::SystemTime;

use cap_std::fs::Metadata;

use super::error::{Code, Result};
use super::node::{Node, Stat};
use super::tree::Part;
use super::union;
use crate::linux::files;

/// The most that one call reads: what a guest asks for beyond that it asks for again.
const MOST_READ: u64 = 1 << 20;

/// A file that a guest has opened. A copy is the same opening.
#[derive(Debug, Clone)]
pub(crate) struct OpenFile {
    file: Arc<File>,
    part: Arc<Part>,
    readable: bool,
    writable: bool,
    /// Where it lies, if that is a layer which is not to be changed.
    lower: Option<Arc<Lower>>,
}

/// The name of a file that lies in a read-only layer.
#[derive(Debug)]
pub(super) struct Lower {
    pub(super) root: Node,
    pub(super) parent: Node,
    pub(super) name: String,
}

impl OpenFile {
    pub(super) fn new(file: Arc<File>, part: Arc<Part>, readable: bool, writable: bool) -> OpenFile {
        if let Some(quota) = &part.quota {
            quota.opened(&file);
        }
        OpenFile { file, part, readable, writable, lower: None }
    }

    pub(super) fn in_lower_layer(file: Arc<File>, part: Arc<Part>, lower: Lower) -> OpenFile {
        OpenFile { file, part, readable: true, writable: false, lower: Some(Arc::new(lower)) }
    }

    /// True if it was opened for reading.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// True if it was opened for writing.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// What it is.
    pub(crate) fn stat(&self) -> Result<Stat> {
        Ok(Stat::of(&Metadata::from_file(&self.file)?))
    }

    /// Reads at most `most` bytes at `offset`. None is the end of the file.
    pub(crate) fn read(&self, most: u64, offset: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if !self.readable {
            return Err(Code::BadDescriptor);
        }
        files::read_at(&self.file, &mut bytes, most.min(MOST_READ) as usize, offset)?;
        Ok(bytes)
    }

    /// Writes at `offset`; says how much of it.
    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        self.may_write()?;
        let end = offset.checked_add(bytes.len() as u64).ok_or(Code::FileTooLarge)?;
        self.grow_to(|_| Ok(end), || Ok(files::write_at(&self.file, bytes, offset)?))
    }

    /// Writes at the end; says how much of it.
    pub(crate) fn append(&self, bytes: &[u8]) -> Result<usize> {
        self.may_write()?;
        let end = |file: &File| Ok(file.metadata()?.len().saturating_add(bytes.len() as u64));
        self.grow_to(end, || Ok(files::append(&self.file, bytes)?))
    }

    /// Makes it that long, with zeros if it was shorter.
    pub(crate) fn set_size(&self, size: u64) -> Result<()> {
        self.may_write()?;
        // No file can be so large, whatever room there is.
        i64::try_from(size).map_err(|_| Code::FileTooLarge)?;
        let Some(quota) = &self.part.quota else { return Ok(self.file.set_len(size)?) };
        quota.resize(&self.file, size, true, || Ok(self.file.set_len(size)?))
    }

    /// Sets its times; `None` leaves one as it is. Needs no right to write its content.
    pub(crate) fn set_times(&mut self, accessed: Option<SystemTime>, modified: Option<SystemTime>) -> Result<()> {
        if self.part.read_only {
            return Err(Code::ReadOnly);
        }
        if let Some(lower) = self.lower.take() {
            // From here on it is the copy: a reader sees no difference.
            self.file = Arc::new(union::copy_up_and_open(&lower)?);
        }
        Ok(self.file.set_times(times(accessed, modified))?)
    }

    /// Brings its content to the disk, and with `all` what is known about it.
    pub(crate) fn sync(&self, all: bool) -> Result<()> {
        if !self.writable {
            return Ok(());
        }
        Ok(if all { self.file.sync_all() } else { self.file.sync_data() }?)
    }

    /// Tells the system how it will be used.
    pub(crate) fn advise(&self, offset: u64, length: u64, advice: files::Advice) -> Result<()> {
        Ok(files::advise(&self.file, offset, length, advice)?)
    }

    fn may_write(&self) -> Result<()> {
        if self.writable { Ok(()) } else { Err(Code::BadDescriptor) }
    }

    /// Writes up to `end`, if the quota allows it.
    fn grow_to<T>(&self, end: impl FnOnce(&File) -> Result<u64>, write: impl FnOnce() -> Result<T>) -> Result<T> {
        match &self.part.quota {
            None => write(),
            Some(quota) => quota.resize(&self.file, end(&self.file)?, false, write),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Some(quota) = &self.part.quota
            && Arc::strong_count(&self.file) == 1
        {
            quota.closed(&self.file);
        }
    }
}

pub(super) fn times(accessed: Option<SystemTime>, modified: Option<SystemTime>) -> FileTimes {
    let mut times = FileTimes::new();
    if let Some(accessed) = accessed {
        times = times.set_accessed(accessed);
    }
    if let Some(modified) = modified {
        times = times.set_modified(modified);
    }
    times
}
