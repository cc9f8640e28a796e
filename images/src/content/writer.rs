//! One ingest: from bytes that arrive, perhaps in several attempts, to a blob that is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::ContentStore;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Class, Error, Result};
use crate::files;
use crate::lease::Lease;

/// An ingest under way. Dropped without [`Writer::commit`], it leaves its bytes to be resumed
/// (an anonymous one, which nobody could find again, leaves nothing).
#[derive(Debug)]
pub struct Writer {
    store: ContentStore,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    offset: u64,
    expected: Option<Digest>,
    size: Option<u64>,
    _lease: Lease,
}

/// What [`ContentStore::writer`] found.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "made once for each blob")]
pub enum Ingest {
    /// The blob is already whole (perhaps another process has just brought it).
    Present,
    /// The caller must bring the bytes from [`Writer::offset`] on.
    Write(Writer),
}

/// Opens an ingest file and waits until it is ours alone.
pub(super) fn open_locked(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(|e| Error::io("open", path, e))?;
    file.lock().map_err(|e| Error::io("lock", path, e))?;
    Ok(file)
}

impl Writer {
    pub(super) fn resume(
        store: ContentStore,
        file: File,
        path: PathBuf,
        expected: Digest,
        size: Option<u64>,
        lease: Lease,
    ) -> Result<Self> {
        let hasher = Hasher::new(expected.algorithm());
        let mut writer = Writer { store, file, path, hasher, offset: 0, expected: Some(expected), size, _lease: lease };
        writer.hash_what_is_here()?;
        if writer.size.is_some_and(|size| writer.offset > size) {
            writer.restart()?;
        }
        Ok(writer)
    }

    pub(super) fn anonymous(store: ContentStore, file: File, path: PathBuf, lease: Lease) -> Self {
        let hasher = Hasher::new(Algorithm::Sha256);
        Writer { store, file, path, hasher, offset: 0, expected: None, size: None, _lease: lease }
    }

    fn hash_what_is_here(&mut self) -> Result<()> {
        let mut buffer = vec![0u8; 256 * 1024];
        loop {
            let n = self.file.read(&mut buffer).map_err(|e| Error::io("read", &self.path, e))?;
            if n == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer[..n]);
            self.offset += n as u64;
        }
    }

    fn algorithm(&self) -> Algorithm {
        self.expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm)
    }

    /// How many bytes are here already: where the caller goes on (HTTP Range).
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes that are here, and those that come, for reading meanwhile. They are not verified yet.
    ///
    /// # Errors
    /// Fails when the file cannot be opened.
    pub fn reader(&self) -> Result<File> {
        File::open(&self.path).map_err(|e| Error::io("open", &self.path, e))
    }

    /// Throws away what is here, because the source cannot resume.
    ///
    /// # Errors
    /// Fails when the file cannot be truncated.
    pub fn restart(&mut self) -> Result<()> {
        use std::io::Seek;
        self.file.set_len(0).map_err(|e| Error::io("truncate", &self.path, e))?;
        self.file.rewind().map_err(|e| Error::io("seek", &self.path, e))?;
        self.hasher = Hasher::new(self.algorithm());
        self.offset = 0;
        Ok(())
    }

    /// Takes more bytes.
    ///
    /// # Errors
    /// `Corrupt` as soon as there are more bytes than the size; the disk's errors.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.offset + bytes.len() as u64;
        if let Some(size) = self.size.filter(|size| end > *size) {
            return Err(self.refuse(format!("is longer than its {size} bytes")));
        }
        self.file.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))?;
        self.hasher.update(bytes);
        self.offset = end;
        Ok(())
    }

    /// Checks size and digest, syncs, and gives the blob its name.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are not the blob; they are then thrown away.
    pub fn commit(mut self) -> Result<Digest> {
        if let Some(size) = self.size.filter(|size| self.offset != *size) {
            let offset = self.offset;
            return Err(self.refuse(format!("has {offset} bytes instead of {size}")));
        }
        let found = self.hasher.clone().finish();
        if self.expected.as_ref().is_some_and(|expected| *expected != found) {
            return Err(self.refuse(format!("has the digest {found}")));
        }
        if !self.store.contains(&found) {
            self.file.sync_all().map_err(|e| Error::io("sync", &self.path, e))?;
            files::rename_durably(&self.path, &self.store.path(&found))?;
        } else if self.expected.is_some() {
            files::remove_if_there(&self.path)?;
        }
        Ok(found)
    }

    /// Bad bytes must not be resumed. The file stays, empty: another writer may be waiting for its lock.
    fn refuse(&mut self, why: String) -> Error {
        let name = self.expected.as_ref().map_or("content", Digest::as_str).to_owned();
        match self.restart() {
            Ok(()) => Error::new(Class::Corrupt, format!("{name} {why}"))
                .with_hint("the source sent something else than it promised; try again, or another source"),
            Err(error) => error,
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Writer::write(self, bytes).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.expected.is_none() {
            // After a commit it has left this name, and there is nothing to remove.
            let _ = fs::remove_file(&self.path);
        }
    }
}
