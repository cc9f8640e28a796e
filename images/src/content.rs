//! Content-addressed bytes: an OCI image layout on disk (`ROOT/content`), so that any OCI tool reads it as it is
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>).
//!
//! Bytes come in through a [`Writer`] (`ROOT/ingest`): hashed while written, checked for size and digest,
//! synced, renamed. A blob that has its name is whole. A writer of the same digest in another process waits for
//! the first one and then finds the blob there; an interrupted one leaves its bytes for the next to resume.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::Result;

/// The blobs of one root directory.
#[derive(Debug, Clone)]
pub struct ContentStore {
    root: PathBuf,
}

/// An ingest under way. Dropped without [`Writer::commit`], it leaves its bytes to be resumed.
#[derive(Debug)]
pub struct Writer {
    // the helper fills this in: file under an exclusive lock, hasher, offset, expected digest and size
}

/// What [`ContentStore::writer`] found.
#[derive(Debug)]
pub enum Ingest {
    /// The blob is already whole (perhaps another process has just brought it).
    Present,
    /// The caller must bring the bytes from [`Writer::offset`] on.
    Write(Writer),
}

impl ContentStore {
    /// Opens the layout in `root`, making it when it is missing.
    ///
    /// # Errors
    /// Fails when the directories cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        Ok(ContentStore { root: root.to_owned() })
    }

    /// The layout's directory (what skopeo calls `oci:DIR`).
    pub fn layout_dir(&self) -> PathBuf {
        self.root.join("content")
    }

    /// Where the blob is, whether it exists or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.join("content/blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// True when the blob is here, whole.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// `NotFound` when it is not here.
    pub fn open_blob(&self, _digest: &Digest) -> Result<File> {
        todo!()
    }

    /// Reads a small blob (a manifest, a config) of at most `limit` bytes.
    ///
    /// # Errors
    /// `NotFound`, or `LimitExceeded`.
    pub fn read(&self, _digest: &Digest, _limit: u64) -> Result<Vec<u8>> {
        todo!()
    }

    /// Takes in small bytes that are already in memory; their SHA-256 is their name.
    ///
    /// # Errors
    /// Fails when they cannot be written.
    pub fn put(&self, _bytes: &[u8]) -> Result<Digest> {
        todo!()
    }

    /// Begins, resumes or waits for the ingest of the blob `digest` of `size` bytes (`None`: unknown).
    ///
    /// # Errors
    /// Fails when the ingest file cannot be opened or locked.
    pub fn writer(&self, _digest: &Digest, _size: Option<u64>) -> Result<Ingest> {
        todo!()
    }

    /// Begins an ingest whose digest is known only at its end (archives, commits).
    ///
    /// # Errors
    /// Fails when the ingest file cannot be made.
    pub fn anonymous_writer(&self) -> Result<Writer> {
        todo!()
    }
}

impl Writer {
    /// How many bytes are here already: where the caller goes on (HTTP Range).
    pub fn offset(&self) -> u64 {
        todo!()
    }

    /// Throws away what is here, because the source cannot resume.
    ///
    /// # Errors
    /// Fails when the file cannot be truncated.
    pub fn restart(&mut self) -> Result<()> {
        todo!()
    }

    /// Takes more bytes.
    ///
    /// # Errors
    /// `Corrupt` as soon as there are more bytes than the size; the disk's errors.
    pub fn write(&mut self, _bytes: &[u8]) -> Result<()> {
        todo!()
    }

    /// Checks size and digest, syncs, and gives the blob its name.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are not the blob; they are then thrown away.
    pub fn commit(self) -> Result<Digest> {
        todo!()
    }
}
