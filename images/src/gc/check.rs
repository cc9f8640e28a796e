//! `wharf system check`: is all that is recorded here, whole, and nothing else?
//!
//! What a kill leaves behind in the ordinary way (blobs not yet recorded, an ingest to be continued, an `index.json` one
//! step behind) is no problem: the next pull, sweep or change of a name puts it right.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use super::{abandoned_ingests, blobs, files_in, reach, remove_file, sweep_lock};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::store::{ImageStore, Users};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// A blob's bytes are not those of its name.
    Damaged {
        /// Its name.
        digest: Digest,
        /// The digest of its bytes.
        found: Digest,
    },
    /// A recorded image lacks a blob.
    Missing {
        /// Which blob.
        digest: Digest,
        /// The image's name, or its digest.
        image: String,
    },
    /// A recorded image cannot be read.
    Unreadable {
        /// The image's name, or its digest.
        image: String,
        /// Why.
        why: String,
    },
    /// An ingest that nobody has continued for a day.
    Abandoned(PathBuf),
    /// A file in the layout that is no blob.
    Stray(PathBuf),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Damaged { digest, found } => write!(f, "blob {digest} is damaged: its bytes are {found}"),
            Problem::Missing { digest, image } => write!(f, "image {image}: blob {digest} is missing; pull it again"),
            Problem::Unreadable { image, why } => write!(f, "image {image}: {why}"),
            Problem::Abandoned(path) => write!(f, "{}: an ingest that was never finished", path.display()),
            Problem::Stray(path) => write!(f, "{}: not a blob", path.display()),
        }
    }
}

/// Looks at every blob and every record. Reads all content once.
///
/// # Errors
/// The database's and the disk's.
pub fn check(store: &ImageStore) -> Result<Vec<Problem>> {
    store.write_index()?;
    let mut problems = Vec::new();
    for (digest, path) in blobs(store)? {
        let found = hash(&digest, &path)?;
        if found.as_ref().is_some_and(|found| *found != digest) {
            problems.extend(found.map(|found| Problem::Damaged { digest, found }));
        }
    }
    check_records(store, &mut problems)?;
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        for (name, path) in files_in(&store.content.blob_dir(algorithm))? {
            if format!("{}:{name}", algorithm.name()).parse::<Digest>().is_err() {
                problems.push(Problem::Stray(path));
            }
        }
    }
    problems.extend(abandoned_ingests(store)?.into_iter().map(Problem::Abandoned));
    Ok(problems)
}

fn check_records(store: &ImageStore, problems: &mut Vec<Problem>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for record in store.records()? {
        let image = record.reference.map_or_else(|| record.target.to_string(), |r| r.familiar());
        let recorded = match store.resolve(record.target.as_str(), None).and_then(|recorded| {
            // The record may know more than the content still does.
            Image::read(&store.content, &record.target, None).map(|_| recorded)
        }) {
            Ok(recorded) => recorded,
            Err(error) => {
                problems.push(Problem::Unreadable { image, why: error.to_string() });
                continue;
            }
        };
        for layer in &recorded.layers {
            let digest = &layer.blob().digest;
            if !store.content.contains(digest) && seen.insert(digest.clone()) {
                problems.push(Problem::Missing { digest: digest.clone(), image: image.clone() });
            }
        }
    }
    Ok(())
}

/// Puts right what can be: removes damaged blobs, strays and abandoned ingests, and sweeps. Returns what remains, which
/// needs a pull.
///
/// # Errors
/// `Unavailable` while the store is in use; the disk's.
pub fn repair(store: &ImageStore, users: Users<'_>) -> Result<Vec<Problem>> {
    let problems = check(store)?;
    {
        let _lock = sweep_lock(store)?;
        for problem in &problems {
            match problem {
                Problem::Damaged { digest, .. } => remove_file(&store.content.path(digest))?,
                Problem::Abandoned(path) | Problem::Stray(path) => remove_file(path)?,
                Problem::Missing { .. } | Problem::Unreadable { .. } => 0,
            };
        }
    }
    super::sweep(store, users)?;
    check(store)
}

/// What a sweep would remove: unreached blobs, in bytes.
///
/// # Errors
/// The database's and the disk's.
pub fn reclaimable(store: &ImageStore) -> Result<u64> {
    let reached = reach(store)?;
    let mut bytes = 0;
    for (digest, _) in blobs(store)? {
        if !reached.blobs.contains(&digest) {
            bytes += store.content.size(&digest).unwrap_or(0);
        }
    }
    Ok(bytes)
}

/// The digest of a file's bytes; `None` when a sweep was faster.
fn hash(digest: &Digest, path: &std::path::Path) -> Result<Option<Digest>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0u8; 256 * 1024];
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io("read", path, e))? {
            0 => return Ok(Some(hasher.finish())),
            n => hasher.update(&buffer[..n]),
        }
    }
}
