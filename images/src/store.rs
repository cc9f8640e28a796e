//! The images of one root directory: which names point to which content. The database is the truth;
//! the layout's `index.json` is written from it, for other tools.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::content::ContentStore;
use crate::db::{Db, Schema};
use crate::digest::Digest;
use crate::error::Result;
use crate::image::{Image, Platform};
use crate::reference::Reference;
use crate::snapshot::Snapshots;

/// The tables of this crate.
pub const SCHEMA: Schema = Schema { component: "images", steps: &[] };

/// Names, content and unpacked layers of one root directory.
#[derive(Clone)]
pub struct ImageStore {
    /// The root directory.
    pub root: PathBuf,
    /// Names and relations.
    pub db: Arc<Db>,
    /// Bytes.
    pub content: ContentStore,
    /// Unpacked layers and containers' writable layers.
    pub snapshots: Arc<dyn Snapshots>,
}

/// One row of `wharf images`.
#[derive(Debug, Clone)]
pub struct Record {
    /// The name, or `None` for an image that has lost its last one.
    pub reference: Option<Reference>,
    /// What it points to.
    pub target: Digest,
    /// When the name was last set, seconds since 1970.
    pub updated: i64,
}

/// What removing a name did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// This name is gone ("Untagged: debian:latest").
    Untagged(String),
    /// This content is gone ("Deleted: sha256:...").
    Deleted(Digest),
}

impl ImageStore {
    /// Opens the store in `root` with an open database (see [`SCHEMA`]).
    ///
    /// # Errors
    /// Fails when directories cannot be made.
    pub fn open(_root: &Path, _db: Arc<Db>) -> Result<Self> {
        todo!()
    }

    /// Finds an image by name, tag, digest, id or unambiguous short id.
    ///
    /// # Errors
    /// `NotFound` ("No such image: x"), `InvalidInput` when a short id fits several.
    pub fn resolve(&self, _name: &str, _platform: Option<&Platform>) -> Result<Image> {
        todo!()
    }

    /// Points `reference` to `target`, whose blobs are all here. A name that moves leaves its old image dangling.
    ///
    /// # Errors
    /// `NotFound` when a blob is missing.
    pub fn set(&self, _reference: &Reference, _target: &Digest) -> Result<()> {
        todo!()
    }

    /// All names and all nameless images.
    ///
    /// # Errors
    /// The database's.
    pub fn records(&self) -> Result<Vec<Record>> {
        todo!()
    }

    /// Removes a name, and with the last one the image. `users` says who needs an image (by id): containers' names.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when a container needs it and not `force`.
    pub fn remove(&self, _name: &str, _force: bool, _users: &dyn Fn(&Digest) -> Vec<String>) -> Result<Vec<Removed>> {
        todo!()
    }

    /// Unpacks those of the image's layers that are not yet unpacked.
    ///
    /// # Errors
    /// The layer's: see [`crate::layer`].
    pub fn ensure_unpacked(&self, _image: &Image, _reporter: &dyn crate::Reporter) -> Result<()> {
        todo!()
    }
}
