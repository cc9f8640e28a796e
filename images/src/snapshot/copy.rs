//! The copy driver: every committed chain is a whole tree, made from its parent's by reflink where the filesystem can
//! and by copying where not. It needs no mount, no root and no Linux; what it costs is disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::area::{Area, missing, usage};
use super::{ChangeKind, Rootfs, Snapshots, Usage, chain_id, merge};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::layer::Whiteouts;
use crate::os;

/// The driver.
#[derive(Debug)]
pub struct Copy {
    area: Area,
}

impl Copy {
    /// Its name.
    pub const NAME: &'static str = "copy";

    /// Opens the driver in `dir`, its own directory.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Copy { area: Area::open(dir)? })
    }

    /// Makes `to` a copy of the tree of the chain; an empty directory for no layers.
    fn copy_of(&self, diff_ids: &[Digest], to: &Path) -> Result<()> {
        os::make_dir(to, 0o755).map_err(|e| Error::io("create", to, e))?;
        let (Some(chain), Some(top)) = (chain_id(diff_ids), diff_ids.last()) else { return Ok(()) };
        if !self.area.has(chain.hex()) {
            return Err(missing(top));
        }
        os::copy_tree(&self.area.layer(chain.hex()), to).map_err(|e| Error::io("copy a layer to", to, e))
    }
}

impl Snapshots for Copy {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn contains(&self, diff_ids: &[Digest]) -> bool {
        chain_id(diff_ids).is_none_or(|chain| self.area.has(chain.hex()))
    }

    fn has_layer(&self, diff_ids: &[Digest]) -> bool {
        self.contains(diff_ids)
    }

    fn prepare_layer(&self, diff_ids: &[Digest]) -> Result<PathBuf> {
        let below = diff_ids.split_last().map_or(&[][..], |(_, below)| below);
        let temporary = self.area.temporary()?;
        let tree = temporary.join("fs");
        self.copy_of(below, &tree).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = self.area.discard(&temporary);
        })?;
        Ok(tree)
    }

    fn whiteouts(&self) -> Whiteouts {
        Whiteouts::Apply
    }

    fn commit_layer(&self, diff_ids: &[Digest], dir: PathBuf) -> Result<()> {
        let chain = chain_id(diff_ids).ok_or_else(|| Error::new(Class::InvalidInput, "a chain without layers"))?;
        self.area.commit(&dir, chain.hex())
    }

    fn plan(&self, key: &str, _diff_ids: &[Digest]) -> Result<Rootfs> {
        Ok(Rootfs::Dir(self.area.active(key)?.join("fs")))
    }

    fn prepare(&self, key: &str, diff_ids: &[Digest]) -> Result<Rootfs> {
        if let (false, Some(top)) = (self.contains(diff_ids), diff_ids.last()) {
            return Err(missing(top));
        }
        let (dir, _) = self.area.new_active(key, false)?;
        let made = self.area.note_chain(&dir, diff_ids).and_then(|()| self.copy_of(diff_ids, &dir.join("fs")));
        made.inspect_err(|_| {
            let _ = self.area.discard(&dir);
        })?;
        self.plan(key, diff_ids)
    }

    fn mounts(&self, key: &str) -> Result<Rootfs> {
        let chain = self.area.chain(key)?;
        self.plan(key, &chain)
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.area.discard(&self.area.active(key)?)
    }

    fn usage(&self, key: &str) -> Result<Usage> {
        self.area.chain(key)?;
        usage(&self.area.active(key)?.join("fs"))
    }

    fn changes(&self, key: &str) -> Result<Vec<(String, ChangeKind)>> {
        let below = chain_id(&self.area.chain(key)?).map(|chain| self.area.layer(chain.hex()));
        merge::changes(&self.area.active(key)?.join("fs"), below.iter().map(AsRef::as_ref), true)
    }

    fn keys(&self) -> Result<Vec<String>> {
        self.area.keys()
    }

    fn settle(&self) -> Result<()> {
        self.area.settle()
    }

    fn sweep(&self, keep: &[Vec<Digest>]) -> Result<u64> {
        let used = self.area.chains()?;
        // A chain needs its parents only while they are copied from, but they make the next pull cheap.
        let prefixes =
            |chain: &Vec<Digest>| (1..=chain.len()).filter_map(|n| chain_id(&chain[..n])).collect::<Vec<_>>();
        let wanted: HashSet<String> =
            keep.iter().chain(&used).flat_map(prefixes).map(|chain| chain.hex().to_owned()).collect();
        let freed = self.area.sweep(|name| wanted.contains(name))?;
        self.area.settle()?;
        Ok(freed)
    }
}
