//! The sweep: what no record reaches and no lease protects goes away.
//!
//! It runs under the [`SweepLock`], so while it runs nobody brings anything in, makes a container or reads a layer to
//! unpack it. It only ever deletes what nothing names, so it may be killed at any point. Order: records of doomed
//! targets, then blobs, unpacked layers, abandoned ingests.

pub mod check;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::digest::{Algorithm, Digest};
use crate::error::{Class, Error, Result};
use crate::image::Image;
use crate::image::document::{ConfigFile, Document, MAX_DOCUMENT, media_type};
use crate::lease::SweepLock;
use crate::store::{ImageStore, Users};

/// An ingest nobody has continued for so long is abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What the records reach.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) chains: Vec<Vec<Digest>>,
}

/// Sweeps, unless somebody holds a lease. Returns the bytes freed, or `None` when it could not begin.
/// `users` says which containers need an image, by its id.
///
/// # Errors
/// The database's and the disk's; what remains then is for the next sweep.
pub fn sweep(store: &ImageStore, users: Users<'_>) -> Result<Option<u64>> {
    let Some(_lock) = SweepLock::try_take(&store.root)? else { return Ok(None) };
    settle_doomed(store, users)?;
    let reached = reach(store)?;
    let mut freed = 0;
    for (digest, path) in blobs(store)? {
        if !reached.blobs.contains(&digest) {
            freed += remove_file(&path)?;
        }
    }
    freed += store.snapshots.sweep(&reached.chains)?;
    store.forget_sizes(&reached.chains)?;
    for path in abandoned_ingests(store)? {
        freed += remove_file(&path)?;
    }
    Ok(Some(freed))
}

/// Forgets doomed targets, or lets live those that a container has taken since. Under the lock no container is being
/// made, so what the users say now holds.
fn settle_doomed(store: &ImageStore, users: Users<'_>) -> Result<()> {
    let doomed: Vec<String> = store.db.read(|c| {
        c.prepare_cached("SELECT target FROM image_targets WHERE doomed = 1")?
            .query_map([], |r| r.get(0))?
            .collect::<rusqlite::Result<_>>()
    })?;
    for target in doomed {
        let digest: Digest = target.parse()?;
        let needed = store.ids_of(&digest)?.iter().any(|id| !users(id).is_empty());
        let statement = if needed {
            "UPDATE image_targets SET doomed = 0 WHERE target = ?1"
        } else {
            "DELETE FROM image_targets WHERE target = ?1 AND doomed = 1
             AND NOT EXISTS (SELECT 1 FROM image_names WHERE target = ?1)"
        };
        store.db.write(|tx| tx.execute(statement, [&target]).map_err(Error::from))?;
    }
    Ok(())
}

/// All that the records reach: by the documents, and by what was understood of them when they were recorded, so that a
/// damaged document does not take its layers along.
pub(crate) fn reach(store: &ImageStore) -> Result<Reached> {
    let mut reached = Reached::default();
    let targets: Vec<String> = store.db.read(|c| {
        c.prepare_cached("SELECT target FROM image_targets")?
            .query_map([], |r| r.get(0))?
            .collect::<rusqlite::Result<_>>()
    })?;
    let images: Vec<String> = store.db.read(|c| {
        c.prepare_cached("SELECT image FROM images")?.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()
    })?;
    for image in images {
        let image: Image = serde_json::from_str(&image).map_err(|e| Error::json("image record", e))?;
        reached.blobs.extend([image.target.clone(), image.manifest.clone(), image.id.clone()]);
        reached.blobs.extend(image.layers.iter().map(|layer| layer.blob().digest.clone()));
        reached.chains.push(image.diff_ids());
    }
    for target in targets {
        reach_document(store, &target.parse()?, &mut reached)?;
    }
    Ok(reached)
}

fn reach_document(store: &ImageStore, first: &Digest, reached: &mut Reached) -> Result<()> {
    let mut pending = vec![first.clone()];
    let mut seen = HashSet::new();
    while let Some(digest) = pending.pop() {
        reached.blobs.insert(digest.clone());
        if !seen.insert(digest.clone()) {
            continue;
        }
        // Missing and damaged documents are the check's to tell; a failing disk must stop the sweep.
        let document = match store.content.read(&digest, MAX_DOCUMENT).and_then(|bytes| Document::parse(&bytes, None)) {
            Ok(document) => document,
            Err(Error::Io { op, path, source }) => return Err(Error::Io { op, path, source }),
            Err(_) => continue,
        };
        match document {
            Document::Index(index) => pending.extend(index.manifests.into_iter().map(|entry| entry.digest)),
            Document::Manifest(manifest) => {
                reached.blobs.insert(manifest.config.digest.clone());
                reached.blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
                if media_type::is_image_config(&manifest.config.media_type)
                    && let Ok(bytes) = store.content.read(&manifest.config.digest, MAX_DOCUMENT)
                    && let Ok(config) = ConfigFile::parse(&bytes)
                {
                    reached.chains.extend(config.rootfs.map(|rootfs| rootfs.diff_ids));
                }
            }
        }
    }
    Ok(())
}

/// The files in a directory, by name. Names that are not UTF-8 come as they best can.
fn files_in(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", dir, e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io("read", dir, e))?;
        files.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    files.sort();
    Ok(files)
}

fn blobs(store: &ImageStore) -> Result<Vec<(Digest, PathBuf)>> {
    let mut blobs = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for (name, path) in files_in(&store.content.blob_dir(algorithm))? {
            if let Ok(digest) = format!("{}:{name}", algorithm.name()).parse() {
                blobs.push((digest, path));
            }
        }
    }
    Ok(blobs)
}

fn abandoned_ingests(store: &ImageStore) -> Result<Vec<PathBuf>> {
    let mut abandoned = Vec::new();
    for (name, path) in files_in(&store.content.ingest_dir())? {
        let age = fs::metadata(&path)
            .and_then(|m| m.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if !name.starts_with('.') && age.is_some_and(|age| age > ABANDONED) {
            abandoned.push(path);
        }
    }
    Ok(abandoned)
}

/// Removes a file; returns the bytes it had.
fn remove_file(path: &Path) -> Result<u64> {
    let size = fs::metadata(path).map_or(0, |m| m.len());
    match fs::remove_file(path) {
        Ok(()) => Ok(size),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(Error::io("remove", path, e)),
    }
}

/// The lock that a repair needs, or why it cannot be had.
fn sweep_lock(store: &ImageStore) -> Result<SweepLock> {
    SweepLock::try_take(&store.root)?.ok_or_else(|| {
        Error::new(Class::Unavailable, "the image store is in use (a pull, a build, or a container being made)")
            .with_hint("try again when it has ended")
    })
}

#[cfg(test)]
mod tests;
