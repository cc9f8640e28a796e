//! A store for the tests of this crate.

use std::sync::Arc;

use super::{ImageStore, SCHEMA};
use crate::db::Db;
use crate::digest::Digest;

/// A store in a directory of its own.
pub(crate) struct TestStore {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(Db::open(dir.path(), &[SCHEMA]).unwrap());
        let store = ImageStore::open(dir.path(), db).unwrap();
        TestStore { dir, store }
    }

    /// A Linux image of these files, recorded under `name`.
    pub(crate) fn add(&self, name: &str, files: &[(&str, &[u8])]) -> Digest {
        let run = serde_json::json!({"Cmd": ["/bin/sh"], "Labels": {"of": name}});
        let target = crate::image::testing::linux_image(&self.store.content, run, &[files]);
        self.store.set(&name.parse().unwrap(), &target).unwrap();
        target
    }
}

impl std::ops::Deref for TestStore {
    type Target = ImageStore;

    fn deref(&self) -> &ImageStore {
        &self.store
    }
}

/// Nobody uses any image.
pub(crate) fn no_users(_: &Digest) -> Vec<String> {
    Vec::new()
}
