//! The overlay driver: layers lie side by side and the kernel (or the vfs) joins them
//! (<https://docs.kernel.org/filesystems/overlayfs.html>).
//!
//! A layer's directory does not depend on what is below it, so it is named by its diff_id: images share equal layers
//! whatever they stand on, and layers unpack in parallel.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::area::{Area, missing, usage};
use super::{ChangeKind, Rootfs, Snapshots, Usage, merge};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::layer::Whiteouts;
use crate::os;

/// The driver.
#[derive(Debug)]
pub struct Overlay {
    area: Area,
}

impl Overlay {
    /// Its name.
    pub const NAME: &'static str = "overlay";

    /// Opens the driver in `dir`, its own directory.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Overlay { area: Area::open(dir)? })
    }

    fn rootfs(&self, dir: &Path, chain: &[Digest]) -> Rootfs {
        Rootfs::Overlay { lower: self.lower(chain), upper: dir.join("upper"), work: dir.join("work") }
    }

    /// The layers' directories, topmost first. An image may have one layer several times, and the kernel refuses to join
    /// a directory with itself; all that the lower one would show is hidden by the upper one.
    fn lower(&self, chain: &[Digest]) -> Vec<PathBuf> {
        let mut seen = HashSet::new();
        chain.iter().rev().filter(|digest| seen.insert(*digest)).map(|digest| self.area.layer(digest.hex())).collect()
    }
}

/// True when the writable layer in `dir` is as it was made: nothing in its upper directory, which was not changed in any
/// way since its chain was noted, and nothing else that does not belong to it.
fn was_never_written(dir: &Path) -> std::io::Result<bool> {
    let is_empty = |dir: &Path| Ok::<_, std::io::Error>(std::fs::read_dir(dir)?.next().is_none());
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    if std::fs::read_dir(dir)?.count() != 3
        || !is_empty(&upper)?
        || !os::is_unchanged_since(&upper, &dir.join("layers"))?
    {
        return Ok(false);
    }
    // The kernel's own directory, which a mount would take away and make anew.
    match std::fs::remove_dir(work.join("work")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Ok(false),
        _ => {}
    }
    is_empty(&work)
}

impl Snapshots for Overlay {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn contains(&self, diff_ids: &[Digest]) -> bool {
        diff_ids.iter().all(|digest| self.area.has(digest.hex()))
    }

    fn has_layer(&self, diff_ids: &[Digest]) -> bool {
        diff_ids.last().is_none_or(|digest| self.area.has(digest.hex()))
    }

    fn prepare_layer(&self, _diff_ids: &[Digest]) -> Result<PathBuf> {
        let tree = self.area.temporary()?.join("fs");
        os::make_dir(&tree, 0o755).map_err(|e| Error::io("create", &tree, e))?;
        Ok(tree)
    }

    fn whiteouts(&self) -> Whiteouts {
        Whiteouts::Overlay
    }

    fn commit_layer(&self, diff_ids: &[Digest], dir: PathBuf) -> Result<()> {
        let digest = diff_ids.last().ok_or_else(|| Error::new(Class::InvalidInput, "a chain without layers"))?;
        self.area.commit(&dir, digest.hex())
    }

    fn plan(&self, key: &str, diff_ids: &[Digest]) -> Result<Rootfs> {
        Ok(self.rootfs(&self.area.active(key)?, diff_ids))
    }

    fn prepare(&self, key: &str, diff_ids: &[Digest]) -> Result<Rootfs> {
        if let Some(digest) = diff_ids.iter().find(|digest| !self.area.has(digest.hex())) {
            return Err(missing(digest));
        }
        let (dir, is_spare) = self.area.new_active(key, !diff_ids.is_empty())?;
        let make = || -> std::io::Result<()> {
            let upper = dir.join("upper");
            // The union's root shows the mode and owner of its topmost directory.
            match diff_ids.last().map(|top| self.area.layer(top.hex())) {
                Some(top) if is_spare => os::renew_dir_like(&upper, &top),
                Some(top) => os::make_dir_like(&upper, &top).and_then(|()| std::fs::create_dir(dir.join("work"))),
                // Nothing to be joined: no union is mounted, which alone needs the other directory.
                None => os::make_dir(&upper, 0o755),
            }
        };
        // The chain last: it tells whether anything was written afterwards.
        let made =
            make().map_err(|e| Error::io("prepare", &dir, e)).and_then(|()| self.area.note_chain(&dir, diff_ids));
        made.inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.area.discard(&dir);
        })?;
        Ok(self.rootfs(&dir, diff_ids))
    }

    fn mounts(&self, key: &str) -> Result<Rootfs> {
        self.plan(key, &self.area.chain(key)?)
    }

    fn remove(&self, key: &str) -> Result<()> {
        let dir = self.area.active(key)?;
        if was_never_written(&dir).unwrap_or(false) && self.area.put_aside(&dir) {
            return Ok(());
        }
        self.area.discard(&dir)
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        self.area.chain(key)?;
        usage(&self.area.active(key)?.join("upper"))
    }

    fn changes(&self, key: &str) -> Result<Vec<(String, ChangeKind)>> {
        let chain = self.area.chain(key)?;
        merge::changes(&self.area.active(key)?.join("upper"), self.lower(&chain).iter().map(AsRef::as_ref), false)
    }

    fn keys(&self) -> Result<Vec<String>> {
        self.area.keys()
    }

    fn settle(&self) -> Result<()> {
        self.area.settle()
    }

    fn sweep(&self, keep: &[Vec<Digest>]) -> Result<u64> {
        let mut wanted: HashSet<String> = keep.iter().flatten().map(|digest| digest.hex().to_owned()).collect();
        for chain in self.area.chains()? {
            wanted.extend(chain.iter().map(|digest| digest.hex().to_owned()));
        }
        let freed = self.area.sweep(|name| wanted.contains(name))?;
        self.area.settle()?;
        Ok(freed)
    }
}
