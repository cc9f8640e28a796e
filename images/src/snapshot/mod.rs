//! Snapshots: unpacked layers and the writable layers of containers.
//!
//! A snapshot is *active* (writable, named by a key such as a container's id) or *committed* (read-only, named by
//! its chain id). The life of one:
//!
//! - `prepare_layer(parent chain)` gives an active directory to unpack one layer into; `commit_layer` gives it its
//!   chain id by a rename, so a committed snapshot is whole. Whoever comes second finds it there.
//! - `prepare(key, diff_ids)` makes a container's writable layer on top of committed ones and says how to see the whole
//!   as one tree ([`Rootfs`]); `mounts(key)` says so again; `remove(key)` takes it away.
//!
//! Every driver runs the same suite (`suite.rs`).
//!
//! Bytes first, then the name: a layer is unpacked in a temporary directory and gets its name by a rename, so a crash
//! leaves nothing but temporary directories, which the sweep removes. Removal takes the name away first. A power cut may
//! cost layers that nobody has [settled](Snapshots::settle); they are then missing, not damaged.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Class, Error, Result};

mod area;
mod copy;
mod extract;
mod merge;
mod overlay;
mod remove;
#[cfg(test)]
mod rootless;
#[cfg(test)]
pub(crate) mod suite;

pub use area::usage as tree_usage;
pub use copy::Copy;
pub use extract::{extract, install};
pub use merge::{export, export_changes, export_dir};
pub use overlay::Overlay;
pub use remove::{help_to_remove, remove_tree};

/// The environment variable that overrides which driver is used: `overlay` or `copy`.
pub const DRIVER_VARIABLE: &str = "WHARF_SNAPSHOTTER";

/// How to see a snapshot as one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// A union to be mounted (or interpreted by the vfs): `lower` topmost first.
    Overlay {
        /// Read-only directories, topmost first. Empty: there is no union, `upper` is the whole tree.
        lower: Vec<PathBuf>,
        /// The writable directory.
        upper: PathBuf,
        /// Overlayfs's work directory, on the same filesystem; there when `lower` is not empty.
        work: PathBuf,
    },
    /// One directory that already is the whole tree.
    Dir(PathBuf),
}

/// One change against the layers below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// `A`.
    Added,
    /// `C`.
    Changed,
    /// `D`.
    Deleted,
}

/// Bytes and files a snapshot takes by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Bytes of files' content, as docker counts a container's size.
    pub content: u64,
    /// Inodes.
    pub inodes: u64,
}

/// A driver.
pub trait Snapshots: Send + Sync {
    /// `overlay` or `copy`.
    fn name(&self) -> &'static str;

    /// True when the layers' chain (lowest first) is committed.
    fn contains(&self, diff_ids: &[Digest]) -> bool;

    /// True when the last layer of the chain is committed, whatever there is of those below it. With `overlay` layers
    /// come in any order; with `copy` this is [`Snapshots::contains`].
    fn has_layer(&self, diff_ids: &[Digest]) -> bool;

    /// Gives an empty directory, or for `copy` one that holds the parent's tree, to unpack the last layer of `diff_ids` into.
    /// With `overlay` layers are independent and may be unpacked in parallel and before their parents.
    ///
    /// # Errors
    /// `NotFound` when `copy` misses the parent.
    fn prepare_layer(&self, diff_ids: &[Digest]) -> Result<PathBuf>;

    /// How layers are to be unpacked for this driver.
    fn whiteouts(&self) -> crate::layer::Whiteouts;

    /// Commits what was unpacked into `dir`. If another process was faster, ours is thrown away.
    ///
    /// # Errors
    /// The disk's.
    fn commit_layer(&self, diff_ids: &[Digest], dir: PathBuf) -> Result<()>;

    /// What [`Snapshots::prepare`] will answer for this key and chain: to plan with, while nothing is made yet.
    ///
    /// # Errors
    /// `InvalidInput` for what cannot be a key.
    fn plan(&self, key: &str, diff_ids: &[Digest]) -> Result<Rootfs>;

    /// Makes the writable layer `key` on top of the chain.
    ///
    /// # Errors
    /// `NotFound` when a layer is missing, `Conflict` when the key exists.
    fn prepare(&self, key: &str, diff_ids: &[Digest]) -> Result<Rootfs>;

    /// How to see the writable layer `key`.
    ///
    /// # Errors
    /// `NotFound`.
    fn mounts(&self, key: &str) -> Result<Rootfs>;

    /// Takes the writable layer away. Removing what is not there is no error.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&self, key: &str) -> Result<()>;

    /// What the writable layer takes by itself.
    ///
    /// # Errors
    /// `NotFound`.
    fn usage(&self, key: &str) -> Result<Usage>;

    /// What the writable layer changed, sorted by path; paths begin with a slash.
    ///
    /// # Errors
    /// `NotFound`.
    fn changes(&self, key: &str) -> Result<Vec<(String, ChangeKind)>>;

    /// The writable layers' keys.
    ///
    /// # Errors
    /// The disk's.
    fn keys(&self) -> Result<Vec<String>>;

    /// Brings what is committed to the disk for good. Until then a restart of the machine makes [`Snapshots::contains`]
    /// say no, and the layers are unpacked again. Takes as long as the disk does: call it when nobody waits.
    ///
    /// # Errors
    /// The disk's.
    fn settle(&self) -> Result<()>;

    /// Removes committed layers that `keep` (by diff_id chain) does not name, and leftovers of unpackings that died.
    /// The caller holds the [`crate::lease::SweepLock`]. Settles what stays. Returns the bytes freed.
    ///
    /// # Errors
    /// The disk's.
    fn sweep(&self, keep: &[Vec<Digest>]) -> Result<u64>;
}

/// Opens the snapshots of the root directory `root` with the best driver that works here for this user. What works is
/// tried once and remembered in `ROOT/snapshots/driver`; `WHARF_SNAPSHOTTER` overrides it.
///
/// # Errors
/// `InvalidInput` when `WHARF_SNAPSHOTTER` names no driver; the disk's.
pub fn open(root: &Path) -> Result<Arc<dyn Snapshots>> {
    let dir = root.join("snapshots");
    if let Some(name) = std::env::var_os(DRIVER_VARIABLE) {
        let name = name.to_string_lossy().into_owned();
        return driver(&dir, name.trim()).ok_or_else(|| {
            Error::new(Class::InvalidInput, format!("{DRIVER_VARIABLE}={name}: no such driver"))
                .with_hint("use overlay or copy")
        })?;
    }
    let choice = dir.join("driver");
    match std::fs::read_to_string(&choice) {
        Ok(name) => {
            if let Some(opened) = driver(&dir, name.trim()) {
                return opened;
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("read", choice, e)),
    }
    std::fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
    let name = if crate::os::overlay_works(&dir) { Overlay::NAME } else { Copy::NAME };
    let opened = driver(&dir, name).ok_or_else(|| Error::new(Class::Internal, format!("no driver {name}")))??;
    area::write_new(&choice, name.as_bytes())?;
    Ok(opened)
}

fn driver(dir: &Path, name: &str) -> Option<Result<Arc<dyn Snapshots>>> {
    match name {
        Overlay::NAME => Some(Overlay::open(&dir.join(name)).map(|driver| Arc::new(driver) as Arc<dyn Snapshots>)),
        Copy::NAME => Some(Copy::open(&dir.join(name)).map(|driver| Arc::new(driver) as Arc<dyn Snapshots>)),
        _ => None,
    }
}

/// The chain id of layers, lowest first: what names the tree they make together. `None` for no layers.
/// <https://github.com/opencontainers/image-spec/blob/v1.1.1/config.md#layer-chainid>
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |chain, digest| Digest::of(format!("{chain} {digest}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_passes_the_suite() {
        suite::run(|dir| Arc::new(Overlay::open(&dir.join("overlay")).unwrap()));
        suite::restart(|dir| Arc::new(Overlay::open(dir).unwrap()), |dir| dir.join("layers"));
    }

    #[test]
    fn copy_passes_the_suite() {
        suite::run(|dir| Arc::new(Copy::open(&dir.join("copy")).unwrap()));
        suite::restart(|dir| Arc::new(Copy::open(dir).unwrap()), |dir| dir.join("layers"));
    }

    #[test]
    fn only_a_layer_that_was_never_written_is_used_again() {
        use std::fs;
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::TempDir::new().unwrap();
        let driver = Overlay::open(dir.path()).unwrap();
        let chain = suite::commit(&driver, &suite::three_layers());
        let prepare = |key: &str, chain: &[Digest]| match driver.prepare(key, chain).unwrap() {
            Rootfs::Overlay { upper, .. } => (fs::metadata(&upper).unwrap().ino(), upper),
            Rootfs::Dir(dir) => panic!("not an overlay: {dir:?}"),
        };
        let spares = || fs::read_dir(dir.path().join("spare")).unwrap().count();
        type Change = (&'static str, fn(&Path));
        let changes: [Change; 5] = [
            ("an entry", |upper| fs::write(upper.join("file"), "x").unwrap()),
            ("an entry that went again", |upper| {
                fs::write(upper.join("file"), "x").unwrap();
                fs::remove_file(upper.join("file")).unwrap();
            }),
            ("a mode", |upper| fs::set_permissions(upper, fs::Permissions::from_mode(0o751)).unwrap()),
            ("something in the work directory", |upper| {
                fs::create_dir_all(upper.with_file_name("work").join("work/deep")).unwrap();
            }),
            ("a file beside", |upper| fs::write(upper.with_file_name("ledger"), "x").unwrap()),
        ];
        let (mut last, upper) = prepare("first", &chain);
        // What the kernel leaves there.
        fs::create_dir(upper.with_file_name("work").join("work")).unwrap();
        driver.remove("first").unwrap();
        for (what, change) in changes {
            // Used again, for another image, with what that one says.
            let (again, upper) = prepare("again", &chain[..1]);
            assert_eq!(again, last, "before {what}");
            assert_eq!(driver.mounts("again").unwrap(), driver.plan("again", &chain[..1]).unwrap());
            assert_eq!(fs::metadata(&upper).unwrap().mode() & 0o7777, 0o755);
            // The clock of files ticks some hundred times a second.
            std::thread::sleep(std::time::Duration::from_millis(20));
            change(&upper);
            driver.remove("again").unwrap();
            assert_eq!(spares(), 0, "{what} was passed on");
            last = prepare("fresh", &chain).0;
            driver.remove("fresh").unwrap();
            assert_eq!(spares(), 1);
        }
        // Two cannot have the same.
        prepare("one", &chain);
        prepare("two", &chain);
        assert_eq!(driver.prepare("two", &chain).unwrap_err().class(), Class::Conflict);
        driver.remove("one").unwrap();
        driver.remove("two").unwrap();
        assert_eq!(spares(), 2);
        driver.sweep(&[]).unwrap();
        assert_eq!(spares(), 0);
    }

    #[test]
    fn chains_are_named_as_the_spec_says() {
        let layer = |text: &str| Digest::of(text.as_bytes());
        let (a, b) = (layer("a"), layer("b"));
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
        assert_eq!(chain_id(&[a.clone(), b.clone()]), Some(Digest::of(format!("{a} {b}").as_bytes())));
    }

    #[test]
    fn the_choice_is_remembered() {
        let root = tempfile::TempDir::new().unwrap();
        assert_eq!(open(root.path()).unwrap().name(), "overlay", "these tests run where overlays can be mounted");
        assert_eq!(std::fs::read_to_string(root.path().join("snapshots/driver")).unwrap(), "overlay");
        assert_eq!(open(root.path()).unwrap().name(), "overlay");
        let mut left: Vec<_> =
            std::fs::read_dir(root.path().join("snapshots")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["driver", "overlay"], "the probe cleans up");
    }
}
