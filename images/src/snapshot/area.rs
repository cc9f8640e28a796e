//! The directory of one driver, as both use it:
//!
//! ```text
//! layers/NAME/fs      a committed layer (or, for copy, a whole tree)
//! layers/NAME/boot    until the layer is known to be on the disk: the boot that wrote it
//! active/KEY/layers   the chain that KEY stands on, one digest a line; not there if it is empty
//! active/KEY/...      its writable directories
//! spare/N             a writable layer that nothing was ever written to, for the next container
//! tmp/RANDOM          what is being unpacked or deleted; nothing here has a meaning after a crash
//! ```
//!
//! Writing hundreds of megabytes through to the disk would take most of a pull's time, and a layer can be unpacked again
//! from its blob, which is synced. So a commit does not sync: it notes the boot (`random/boot_id`, random(4)). While the
//! machine has not restarted, what is in the page cache is as good as on the disk; after a restart a layer that nobody
//! has [settled](Area::settle) counts as missing, and the next pull or create makes it anew, without the network.
//!
//! Why nobody settles sooner than the sweep (after `rmi` and `prune`, when the person has what they asked for): the only
//! way to know that a tree is on the disk is fsync(2) of each of its files, or syncfs(2), which waits for all that
//! anybody has written to the file system. At the end of a pull either would double its time; sync_file_range(2) says
//! nothing of names and sizes; and a process left behind to do it would outlive the command that a script, a test or a
//! unit believes to be over, hold the disk busy for whoever comes next, and keep a directory in use that may be about to
//! be removed. The price is paid at most once a restart for each image, by the first who needs it, and is the time of
//! unpacking it: about ten milliseconds a megabyte.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::files;
use crate::os;

use super::{Usage, remove_tree};

/// Spare layers: as many as containers may end at a time. A directory costs most file systems far more than a new name.
const SPARES: usize = 4;

/// One driver's directory.
#[derive(Debug, Clone)]
pub(super) struct Area {
    root: PathBuf,
}

impl Area {
    /// Opens the area at `root`. Its directories are made once; that `active` is there says that all are.
    pub(super) fn open(root: &Path) -> Result<Self> {
        let area = Area { root: root.to_owned() };
        if fs::symlink_metadata(root.join("active")).is_err() {
            for name in ["layers", "tmp", "spare", "active"] {
                let dir = root.join(name);
                fs::create_dir_all(&dir).map_err(|e| Error::io("create", &dir, e))?;
            }
            // Where layers are written.
            os::spread(&root.join("tmp"));
            os::make_private(root).map_err(|e| Error::io("chmod", root, e))?;
        }
        Ok(area)
    }

    /// The tree of the committed layer `name`.
    pub(super) fn layer(&self, name: &str) -> PathBuf {
        self.root.join("layers").join(name).join("fs")
    }

    /// True when the layer `name` is committed, and whole even if the machine was cut off since.
    pub(super) fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.layer(name)).is_ok()
            && match fs::read(self.boot_note(name)) {
                Ok(boot) => boot == os::boot_id().as_bytes(),
                Err(e) => e.kind() == ErrorKind::NotFound,
            }
    }

    fn boot_note(&self, name: &str) -> PathBuf {
        self.root.join("layers").join(name).join("boot")
    }

    /// Brings all committed layers to the disk for good. Slow: for when nobody waits.
    pub(super) fn settle(&self) -> Result<()> {
        let all = names(&self.root.join("layers"))?;
        let unsettled: Vec<&String> =
            all.iter().filter(|name| self.boot_note(name).exists() && self.has(name)).collect();
        if unsettled.is_empty() {
            return Ok(());
        }
        os::sync_tree(&self.root).map_err(|e| Error::io("sync", &self.root, e))?;
        for note in unsettled.into_iter().map(|name| self.boot_note(name)) {
            match fs::remove_file(&note) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", note, e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a temporary directory.
    pub(super) fn temporary(&self) -> Result<PathBuf> {
        let path = self.temporary_name()?;
        fs::create_dir(&path).map_err(|e| Error::io("create", &path, e))?;
        Ok(path)
    }

    fn temporary_name(&self) -> Result<PathBuf> {
        Ok(self.root.join("tmp").join(files::unique_name()?))
    }

    /// Commits `tree`, the `fs` of a temporary directory, as `name`. Whoever comes second is thrown away.
    pub(super) fn commit(&self, tree: &Path, name: &str) -> Result<()> {
        let temporary = tree.parent().filter(|p| p.parent() == Some(&self.root.join("tmp"))).ok_or_else(|| {
            Error::new(Class::InvalidInput, format!("{} was not prepared as a layer", tree.display()))
        })?;
        write_new(&temporary.join("boot"), os::boot_id().as_bytes())?;
        let committed = self.root.join("layers").join(name);
        if fs::rename(temporary, &committed).is_ok() {
            return Ok(());
        }
        if self.has(name) {
            return self.discard(temporary);
        }
        // What has the name is from before a restart and not to be trusted.
        self.discard(&committed)?;
        match fs::rename(temporary, &committed) {
            Ok(()) => Ok(()),
            Err(_) if self.has(name) => self.discard(temporary),
            Err(e) => Err(Error::io("rename", committed, e)),
        }
    }

    /// Removes a directory of this area and all in it: its name first, then its bytes. Missing is no error.
    pub(super) fn discard(&self, path: &Path) -> Result<()> {
        let doomed = if path.starts_with(self.root.join("tmp")) {
            path.to_owned()
        } else {
            let doomed = self.temporary_name()?;
            match fs::rename(path, &doomed) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
                other => other.map_err(|e| Error::io("rename", path, e))?,
            }
            doomed
        };
        remove_tree(&doomed)
    }

    /// Makes the directory of the writable layer `key`, or takes one that was put aside, which the answer says.
    pub(super) fn new_active(&self, key: &str, maybe_spare: bool) -> Result<(PathBuf, bool)> {
        let dir = self.active(key)?;
        // Nothing is renamed over a directory that has something in it (rename(2), `ENOTEMPTY`).
        if maybe_spare && (0..SPARES).any(|n| fs::rename(self.spare(n), &dir).is_ok()) {
            return Ok((dir, true));
        }
        fs::create_dir(&dir).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => Error::new(Class::Conflict, format!("snapshot {key} exists already")),
            _ => Error::io("create", &dir, e),
        })?;
        Ok((dir, false))
    }

    /// Puts the directory of a writable layer aside for another. False when there are enough.
    pub(super) fn put_aside(&self, dir: &Path) -> bool {
        (0..SPARES).any(|n| fs::rename(dir, self.spare(n)).is_ok())
    }

    /// Notes the chain that the writable layer in `dir` stands on.
    pub(super) fn note_chain(&self, dir: &Path, chain: &[Digest]) -> Result<()> {
        if chain.is_empty() {
            return Ok(());
        }
        let lines: String = chain.iter().flat_map(|digest| [digest.as_str(), "\n"]).collect();
        write_new(&dir.join("layers"), lines.as_bytes())
    }

    fn spare(&self, n: usize) -> PathBuf {
        self.root.join("spare").join(n.to_string())
    }

    /// The directory of the writable layer `key`, whether it is there or not.
    ///
    /// A key becomes a file name, so it is checked like one.
    pub(super) fn active(&self, key: &str) -> Result<PathBuf> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if key.is_empty() || key.len() > 128 || key.starts_with('.') || !key.bytes().all(fits) {
            return Err(Error::new(Class::InvalidInput, format!("{key:?} cannot name a snapshot")));
        }
        Ok(self.root.join("active").join(key))
    }

    /// The chain that `key` stands on, lowest first.
    pub(super) fn chain(&self, key: &str) -> Result<Vec<Digest>> {
        let dir = self.active(key)?;
        match fs::read_to_string(dir.join("layers")) {
            Ok(text) => text.lines().map(str::parse).collect(),
            Err(e) if e.kind() == ErrorKind::NotFound && fs::symlink_metadata(&dir).is_ok() => Ok(Vec::new()),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(Error::new(Class::NotFound, format!("no such snapshot: {key}")))
            }
            Err(e) => Err(Error::io("read", dir.join("layers"), e)),
        }
    }

    /// The writable layers' keys, sorted.
    pub(super) fn keys(&self) -> Result<Vec<String>> {
        names(&self.root.join("active"))
    }

    /// The chains of all writable layers. The caller keeps others from making new ones.
    pub(super) fn chains(&self) -> Result<Vec<Vec<Digest>>> {
        let chains = self.keys()?.into_iter().map(|key| self.chain(&key));
        // One may be removed meanwhile.
        chains.filter(|chain| !matches!(chain, Err(e) if e.class() == Class::NotFound)).collect()
    }

    /// Removes the committed layers that `keep` does not want, and all temporary directories. Returns the bytes freed.
    pub(super) fn sweep(&self, keep: impl Fn(&str) -> bool) -> Result<u64> {
        let mut freed = 0;
        let mut discard = |path: &Path| -> Result<()> {
            // What may not be looked into can be removed all the same.
            freed += usage(path).map_or(0, |usage| usage.bytes);
            self.discard(path)
        };
        for name in names(&self.root.join("layers"))?.iter().filter(|name| !keep(name)) {
            discard(&self.root.join("layers").join(name))?;
        }
        for name in names(&self.root.join("tmp"))? {
            discard(&self.root.join("tmp").join(name))?;
        }
        (0..SPARES).try_for_each(|n| self.discard(&self.spare(n)))?;
        Ok(freed)
    }
}

/// The error of a layer that should be there.
pub(super) fn missing(digest: &Digest) -> Error {
    Error::new(Class::NotFound, format!("layer {} is not unpacked", digest.short())).with_hint("pull the image again")
}

/// Writes a small new file.
pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || fs::File::create(path)?.write_all(bytes);
    write().map_err(|e| Error::io("write", path, e))
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let list = || -> std::io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let mut names = list().map_err(|e| Error::io("list", dir, e))?;
    names.sort();
    Ok(names)
}

/// What the tree at `path` takes; a file with several names counts once. What vanishes meanwhile counts nothing.
///
/// # Errors
/// The disk's.
pub fn usage(path: &Path) -> Result<Usage> {
    let mut usage = Usage::default();
    os::walk(path, &mut |metadata: &os::Meta| {
        usage.bytes += metadata.bytes;
        usage.content += metadata.content;
        usage.inodes += 1;
    })
    .map_err(|e| Error::io("walk", path, e))?;
    Ok(usage)
}
