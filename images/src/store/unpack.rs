//! From stored layers to committed snapshots, each layer once.

use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::{ImageStore, insert_image};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::files;
use crate::image::{Blob, Image, Layer};
use crate::layer::{self, Options, Whiteouts};
use crate::lease::Lease;
use crate::os;
use crate::reporter::{Progress, Reporter};
use crate::snapshot::Rootfs;
use crate::wasm::Magic;

/// A layer may grow to this many times its stored size (real ones grow to ten times; a bomb to a thousand),
const MAX_EXPANSION: u64 = 256;
/// but always to this size,
const ALWAYS_ALLOWED: u64 = 2 << 30;
/// and never beyond this one.
const MAX_UNPACKED: u64 = 64 << 30;
/// Most files of a layer.
const MAX_ENTRIES: u64 = 2_000_000;

impl ImageStore {
    /// Unpacks those of the image's layers that are not yet unpacked.
    ///
    /// # Errors
    /// `Corrupt` when a layer is not what the config's diff_id says; else the layer's: see [`crate::layer`].
    pub fn ensure_unpacked(&self, image: &Image, reporter: &dyn Reporter) -> Result<()> {
        let chain = image.diff_ids();
        if chain.is_empty() || self.snapshots.contains(&chain) {
            return Ok(());
        }
        let _lease = Lease::take(&self.root)?;
        let layers: Vec<&Blob> = image.layers.iter().filter_map(tar).collect();
        if layers.len() != chain.len() {
            return Err(Error::new(Class::Corrupt, format!("the config of {} does not list its layers", image.id)));
        }
        let missing: Vec<usize> = (0..chain.len()).filter(|&i| !self.snapshots.has_layer(&chain[..=i])).collect();
        let work = |position: usize| -> Result<()> {
            let blob = layers[position];
            let id = blob.digest.short();
            reporter.report(Progress::Phase { id, phase: "Extracting" });
            let mut reader = std::io::BufReader::with_capacity(256 * 1024, self.content.open_blob(&blob.digest)?);
            self.unpack_layer(&chain[..=position], blob, &mut reader)?;
            reporter.report(Progress::Phase { id, phase: "Pull complete" });
            Ok(())
        };
        // A driver that applies whiteouts needs the parent first; the others take layers in any order.
        let workers = match self.snapshots.whiteouts() {
            Whiteouts::Apply => 1,
            Whiteouts::Overlay => std::thread::available_parallelism().map_or(1, usize::from).min(missing.len()),
        };
        in_parallel(workers, &missing, &work)?;
        self.note_program(image)
    }

    /// Unpacks the last layer of `chain` from a stream of the blob's bytes, as they are in a registry.
    ///
    /// # Errors
    /// `Corrupt` when the layer is not what its diff_id says.
    pub fn unpack_layer(&self, chain: &[Digest], blob: &Blob, reader: &mut dyn Read) -> Result<()> {
        let Some(diff_id) = chain.last() else { return Ok(()) };
        let path = self.snapshots.prepare_layer(chain)?;
        let dir = Dir::open_ambient_dir(&path, ambient_authority()).map_err(|e| Error::io("open", &path, e))?;
        let options = Options {
            algorithm: diff_id.algorithm(),
            whiteouts: Some(self.snapshots.whiteouts()),
            max_bytes: blob.size.saturating_mul(MAX_EXPANSION).clamp(ALWAYS_ALLOWED, MAX_UNPACKED),
            max_entries: MAX_ENTRIES,
            privileged: os::own_ids().0 == 0,
        };
        let unpacked = layer::unpack(reader, &blob.media_type, &dir, &options)?;
        if unpacked.diff_id != *diff_id {
            return Err(Error::new(
                Class::Corrupt,
                format!("a layer unpacks to {} and the image's config promised {diff_id}", unpacked.diff_id),
            ));
        }
        self.note_size(diff_id, unpacked.bytes)?;
        self.snapshots.commit_layer(chain, path)
    }

    /// Looks at the program's first bytes, once the layers are unpacked, where nothing else told the style.
    pub(super) fn decide_style(&self, image: &mut Image) -> Result<bool> {
        let Some(program) = image.undecided_program() else { return Ok(false) };
        // A bare name is looked up in PATH, which is a Linux matter.
        if !program.contains('/') && !program.ends_with(".wasm") {
            return Ok(false);
        }
        let chain = image.diff_ids();
        if chain.is_empty() || !self.snapshots.contains(&chain) {
            return Ok(false);
        }
        let program = Path::new("/").join(&image.config.working_dir).join(program);
        let magic = self.read_start(&chain, &program, Magic::LEN as u64)?;
        Ok(magic.is_some_and(|bytes| image.decide_by_magic(&bytes)))
    }

    /// The first bytes of a regular file of an image's root filesystem, `limit` at most. `None` when there is none.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn read_start(&self, chain: &[Digest], path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
        // A writable layer is made for the look, because it shows where the layers are; nothing is mounted.
        let key = format!("look-{}", files::unique_name()?);
        let roots = match self.snapshots.prepare(&key, chain)? {
            Rootfs::Overlay { lower, .. } => lower,
            Rootfs::Dir(root) => vec![root],
        };
        let relative = path.strip_prefix("/").unwrap_or(path);
        let found = roots.iter().find_map(|root| read_start(root, relative, limit));
        self.snapshots.remove(&key)?;
        Ok(found)
    }

    /// Corrects the record of an image whose program has shown what it is.
    fn note_program(&self, image: &Image) -> Result<()> {
        let mut decided = image.clone();
        if !self.decide_style(&mut decided)? {
            return Ok(());
        }
        self.db.write(|tx| {
            // The same config may be recorded under several documents and platforms.
            let rows: Vec<(String, String)> = tx
                .prepare("SELECT platform, image FROM images WHERE id = ?1")?
                .query_map([decided.id.as_str()], |r| Ok((r.get(0)?, r.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (platform, json) in rows {
                let mut recorded = super::from_json(&json)?;
                recorded.style = decided.style;
                recorded.style_reason.clone_from(&decided.style_reason);
                recorded.wasm.clone_from(&decided.wasm);
                insert_image(tx, &platform, &recorded)?;
            }
            Ok(())
        })
    }
}

fn tar(layer: &Layer) -> Option<&Blob> {
    match layer {
        Layer::Tar(blob) => Some(blob),
        Layer::Wasm(_) | Layer::Other(_) => None,
    }
}

/// The first bytes of a regular file beneath `root`. What cannot be read this way is no sign of anything.
fn read_start(root: &Path, relative: &Path, limit: u64) -> Option<Vec<u8>> {
    let root = Dir::open_ambient_dir(root, ambient_authority()).ok()?;
    if !root.metadata(relative).ok()?.is_file() {
        return None;
    }
    let mut start = Vec::new();
    root.open(relative).ok()?.take(limit).read_to_end(&mut start).ok()?;
    Some(start)
}

/// Does `work` for each item on some threads. The first error ends it; what has begun is still finished.
fn in_parallel(workers: usize, items: &[usize], work: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let lock = || failure.lock().unwrap_or_else(|e| e.into_inner());
    let run = || {
        while lock().is_none() {
            let Some(&item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(error) = work(item) {
                lock().get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..workers {
            scope.spawn(run);
        }
        run();
    });
    let failure = failure.into_inner().unwrap_or_else(|e| e.into_inner());
    failure.map_or(Ok(()), Err)
}
