//! Content-addressed bytes: an OCI image layout on disk (`ROOT/content`), so that any OCI tool reads it as it is
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>).
//!
//! Bytes come in through a [`Writer`] (`ROOT/ingest`): hashed while written, checked for size and digest,
//! synced, renamed. A blob that has its name is whole. A writer of the same digest in another process waits for
//! the first one and then finds the blob there; an interrupted one leaves its bytes for the next to resume.
//!
//! The lock on an ingest file is on the very file that becomes the blob, so whoever waited for it must look again
//! under which name it now is. That is safe because a file leaves `ingest` only by becoming a blob, and both kinds
//! are unlinked only under the [`SweepLock`](crate::lease::SweepLock), which every writer keeps away by a [`Lease`].

mod writer;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use writer::{Ingest, Writer};

use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Class, Error, Result};
use crate::files;
use crate::lease::Lease;
use crate::os;

/// The blobs of one root directory.
#[derive(Debug, Clone)]
pub struct ContentStore {
    root: PathBuf,
}

impl ContentStore {
    /// Opens the layout in `root`, making it when it is missing.
    ///
    /// # Errors
    /// Fails when the directories cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        let store = ContentStore { root: root.to_owned() };
        let marker = store.layout_dir().join("oci-layout");
        // Written last: where it is, all else is.
        if !marker.exists() {
            store.create(&marker)?;
        }
        Ok(store)
    }

    fn create(&self, marker: &Path) -> Result<()> {
        files::create_dir(&self.root)?;
        os::spread(&self.root);
        files::create_dir(&self.ingest_dir())?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            files::create_dir(&self.blob_dir(algorithm))?;
        }
        let lock_path = self.ingest_dir().join(".create.lock");
        let lock = File::create(&lock_path).map_err(|e| Error::io("create", &lock_path, e))?;
        lock.lock().map_err(|e| Error::io("lock", &lock_path, e))?;
        let index = self.layout_dir().join("index.json");
        if !index.exists() {
            let empty: &[u8] =
                br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
            files::replace(&index, empty)?;
        }
        files::replace(marker, br#"{"imageLayoutVersion":"1.0.0"}"#)
    }

    /// The layout's directory (what skopeo calls `oci:DIR`).
    pub fn layout_dir(&self) -> PathBuf {
        self.root.join("content")
    }

    pub(crate) fn ingest_dir(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn blob_dir(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("content/blobs").join(algorithm.name())
    }

    /// Where the blob is, whether it exists or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blob_dir(digest.algorithm()).join(digest.hex())
    }

    /// True when the blob is here, whole.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// The blob's size in bytes.
    ///
    /// # Errors
    /// `NotFound` when it is not here.
    pub fn size(&self, digest: &Digest) -> Result<u64> {
        let path = self.path(digest);
        fs::metadata(&path).map(|m| m.len()).map_err(|e| missing(digest, path, e))
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// `NotFound` when it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|e| missing(digest, path, e))
    }

    /// Reads a small blob (a manifest, a config) of at most `limit` bytes, and checks that the bytes are the digest's.
    ///
    /// # Errors
    /// `NotFound`, `LimitExceeded`, or `Corrupt` when the file was damaged.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", self.path(digest), e))?;
        if bytes.len() as u64 > limit {
            return Err(Error::new(Class::LimitExceeded, format!("{digest} is larger than {limit} bytes")));
        }
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        let found = hasher.finish();
        if found == *digest {
            Ok(bytes)
        } else {
            Err(Error::new(Class::Corrupt, format!("the stored bytes of {digest} are those of {found}"))
                .with_hint("run `wharf system check --repair` and pull the image again"))
        }
    }

    /// Takes in small bytes that are already in memory; their SHA-256 is their name.
    ///
    /// # Errors
    /// Fails when they cannot be written.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if let Ingest::Write(mut writer) = self.writer(&digest, Some(bytes.len() as u64))? {
            let done = writer.offset() as usize;
            writer.write(&bytes[done..])?;
            writer.commit()?;
        }
        Ok(digest)
    }

    /// Begins, resumes or waits for the ingest of the blob `digest` of `size` bytes (`None`: unknown).
    ///
    /// It blocks the calling thread while another writer of the same digest, in this process or another, is at work.
    ///
    /// # Errors
    /// Fails when the ingest file cannot be opened or locked.
    pub fn writer(&self, digest: &Digest, size: Option<u64>) -> Result<Ingest> {
        if self.contains(digest) {
            return Ok(Ingest::Present);
        }
        let lease = Lease::take(&self.root)?;
        let path = self.ingest_dir().join(format!("{}-{}", digest.algorithm().name(), digest.hex()));
        let file = writer::open_locked(&path)?;
        if self.contains(digest) {
            // Either the file we locked became the blob, or we made this name anew just after. While the blob is here
            // and leased nobody needs the name: whoever else waits for it will find the blob too.
            drop(file);
            files::remove_if_there(&path)?;
            return Ok(Ingest::Present);
        }
        Writer::resume(self.clone(), file, path, digest.clone(), size, lease).map(Ingest::Write)
    }

    /// Begins an ingest whose digest is known only at its end (archives, commits).
    ///
    /// # Errors
    /// Fails when the ingest file cannot be made.
    pub fn anonymous_writer(&self) -> Result<Writer> {
        let lease = Lease::take(&self.root)?;
        let path = self.ingest_dir().join(format!("anonymous-{}", files::unique_name()?));
        let file = writer::open_locked(&path)?;
        Ok(Writer::anonymous(self.clone(), file, path, lease))
    }
}

fn missing(digest: &Digest, path: PathBuf, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::NotFound {
        Error::new(Class::NotFound, format!("content {digest} is not here")).with_hint("pull the image again")
    } else {
        Error::io("open", path, error)
    }
}

#[cfg(test)]
mod tests;
