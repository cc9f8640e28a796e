//! The layout's `index.json`: the database's names, for other tools
//! (<https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md#indexjson-file>).
//!
//! Each name is an `org.opencontainers.image.ref.name`, so `skopeo copy oci:ROOT/content:docker.io/library/busybox:1`
//! finds it. The file is written from what the database says once the lock is held, so the last writer is right; one
//! that was killed before it came to write is made good by the next, or by a check.

use std::fs::File;

use serde_json::{Value, json};

use super::ImageStore;
use crate::error::{Error, Result};
use crate::files;
use crate::image::document::media_type;

/// The annotation that names an entry.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

impl ImageStore {
    /// Writes `index.json` anew, unless it already says what it should.
    pub(crate) fn write_index(&self) -> Result<()> {
        let lock_path = self.root.join("index.lock");
        let lock = File::create(&lock_path).map_err(|e| Error::io("create", &lock_path, e))?;
        lock.lock().map_err(|e| Error::io("lock", &lock_path, e))?;
        let mut text = serde_json::to_vec_pretty(&self.index()?).map_err(|e| Error::json("index.json", e))?;
        text.push(b'\n');
        let path = self.content.layout_dir().join("index.json");
        if std::fs::read(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        files::replace(&path, &text)
    }

    fn index(&self) -> Result<Value> {
        let manifests: Vec<Value> = self.db.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT t.target, t.media_type, t.size, n.name
                 FROM image_targets t LEFT JOIN image_names n ON n.target = t.target
                 WHERE t.doomed = 0 ORDER BY n.name, t.target",
            )?;
            let rows = statement.query_map([], |r| {
                let name: Option<String> = r.get(3)?;
                let mut entry = json!({
                    "mediaType": r.get::<_, String>(1)?,
                    "digest": r.get::<_, String>(0)?,
                    "size": r.get::<_, i64>(2)?,
                });
                if let Some(name) = name {
                    entry["annotations"] = json!({ REF_NAME: name });
                }
                Ok(entry)
            })?;
            rows.collect::<rusqlite::Result<_>>()
        })?;
        Ok(json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": manifests}))
    }
}
