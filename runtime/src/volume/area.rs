//! A volume's directory and its lock.
//!
//! `volumes/NAME/_data` is the content, where docker has it. Beside it lies `lock`: held exclusively by who makes, fills
//! or removes the volume, shared by who needs it to stay until a container's record refers to it. A lock dies with
//! its process. Whoever removes a volume first marks the lock file, so that one who has waited for the lock knows that what
//! it has got is the lock of a volume that is gone, and begins again.
//!
//! `filling` and `filled` are two stages of the first filling: what is in `filling` is incomplete and is thrown away by
//! the next who looks; what is in `filled` is complete and is moved on by the next who looks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use wharf_images::snapshot::{Rootfs, remove_tree};

use super::work::{Done, Work, install};
use crate::error::{Error, Result};
use crate::paths;

/// One volume's directory.
#[derive(Debug)]
pub struct Area {
    volumes: PathBuf,
    name: String,
}

impl Area {
    /// That of the volume `name` below the directory of all volumes. The name has been checked.
    pub fn new(volumes: &Path, name: &str) -> Self {
        Area { volumes: volumes.to_owned(), name: name.to_owned() }
    }

    fn dir(&self) -> PathBuf {
        self.volumes.join(&self.name)
    }

    /// The content.
    pub fn data(&self) -> PathBuf {
        self.dir().join("_data")
    }

    /// Makes the directories and takes the exclusive lock, waiting for others.
    pub fn make(&self) -> Result<File> {
        self.held(|file| file.lock())
    }

    /// Makes the directories and takes the shared lock, waiting for an exclusive one.
    pub fn share(&self) -> Result<File> {
        self.held(|file| file.lock_shared())
    }

    fn held(&self, take: impl Fn(&File) -> io::Result<()>) -> Result<File> {
        let path = self.dir().join("lock");
        loop {
            paths::make_dir(&self.dir())?;
            let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
            let file = match open {
                // Removed since the line above.
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(|e| Error::io("open", &path, e))?,
            };
            take(&file).map_err(|e| Error::io("lock", &path, e))?;
            if is_gone(&file, &path)? {
                continue;
            }
            let data = self.data();
            match crate::linux::create_open_dir(&data) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(Error::io("create directory", data, e)),
                _ => return Ok(file),
            }
        }
    }

    /// Takes the lock under which the volume is mounted and unmounted. It is another one, because whoever mounts for a
    /// container that is not yet recorded holds the shared lock already.
    pub fn lock_mount(&self) -> Result<File> {
        let path = self.dir().join("mounting");
        let file = File::create(&path).map_err(|e| Error::io("open", &path, e))?;
        file.lock().map_err(|e| Error::io("lock", path, e))?;
        Ok(file)
    }

    /// Takes the exclusive lock of what is there, if nobody holds it.
    pub fn try_lock(&self) -> Result<Option<File>> {
        let path = self.dir().join("lock");
        let file = match OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| Error::io("open", &path, e))?,
        };
        match file.try_lock() {
            Ok(()) => Ok((!is_gone(&file, &path)?).then_some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", path, e)),
        }
    }

    /// True when nobody holds its lock.
    pub fn is_idle(&self) -> Result<bool> {
        let path = self.dir().join("lock");
        match File::open(&path).map(|file| file.try_lock_shared()) {
            Ok(Ok(())) => Ok(true),
            Ok(Err(TryLockError::WouldBlock)) => Ok(false),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
            Ok(Err(TryLockError::Error(e))) | Err(e) => Err(Error::io("lock", path, e)),
        }
    }

    /// True when there is content.
    pub fn holds_something(&self) -> bool {
        is_empty(&self.data()).is_ok_and(|empty| !empty)
    }

    /// Removes the directory, whatever it holds.
    pub fn discard(&self) -> Result<()> {
        Ok(remove_tree(&self.dir())?)
    }

    /// Takes all of it away. Its record is gone already.
    pub fn remove(&self, mut lock: File) -> Result<()> {
        let path = self.dir().join("lock");
        lock.write_all(b"gone").map_err(|e| Error::io("write", &path, e))?;
        // Whoever gets it now finds the mark, and tries again. Not every system renames a directory in which a file is open.
        drop(lock);
        // From here on its name is free for another; what cannot be removed at once is left for the sweep.
        let aside = self.volumes.join(format!("{REMOVED}{}", crate::names::new_id()?));
        let dir = self.dir();
        let end = Instant::now() + PATIENCE;
        loop {
            match fs::rename(&dir, &aside) {
                Err(e) if e.kind() == ErrorKind::PermissionDenied && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => break other.map_err(|e| Error::io("rename", dir, e))?,
            }
        }
        Ok(remove_tree(&aside)?)
    }

    /// Fills the volume, whose exclusive lock is held, with what `rootfs` has at `path`, unless there is something in it.
    pub fn fill(&self, rootfs: &Rootfs, path: &str) -> Result<()> {
        let (filling, filled, data) = (self.dir().join("filling"), self.dir().join("filled"), self.data());
        remove_tree(&filling)?;
        if !filled.exists() {
            if !is_empty(&data)? {
                return Ok(());
            }
            let work = Work::Extract { rootfs: rootfs.clone(), path: path.to_owned(), to: filling.clone() };
            if work.carry_out(&mut io::sink())? == Done::Nothing {
                return Ok(remove_tree(&filling)?);
            }
            fs::rename(&filling, &filled).map_err(|e| Error::io("rename", &filling, e))?;
        }
        install(filled, data)
    }

    /// A new empty directory on the volume's own disk, for bytes that become its content all at once by
    /// [`Area::take`]. The exclusive lock is held.
    pub fn staging(&self) -> Result<PathBuf> {
        let filling = self.dir().join("filling");
        remove_tree(&filling)?;
        paths::make_dir(&filling)?;
        Ok(filling)
    }

    /// Throws away what was put into [`Area::staging`].
    pub fn unstage(&self) -> Result<()> {
        Ok(remove_tree(&self.dir().join("filling"))?)
    }

    /// Makes what was put into [`Area::staging`] the content.
    pub fn take(&self) -> Result<()> {
        let (filling, filled) = (self.dir().join("filling"), self.dir().join("filled"));
        fs::rename(&filling, &filled).map_err(|e| Error::io("rename", &filling, e))?;
        install(filled, self.data())
    }

    /// True when there is no directory for its content.
    pub fn is_lost(&self) -> Result<bool> {
        let data = self.data();
        data.try_exists().map(|there| !there).map_err(|e| Error::io("look at", data, e))
    }

    /// True when somebody died while filling it.
    pub fn is_half_full(&self) -> bool {
        self.dir().join("filled").exists() || self.dir().join("filling").exists()
    }
}

/// How long somebody who looks at a lock may keep its directory from being renamed, where that counts.
const PATIENCE: Duration = Duration::from_secs(1);

/// The mark of a lock file whose volume was removed.
fn is_gone(file: &File, path: &Path) -> Result<bool> {
    Ok(file.metadata().map_err(|e| Error::io("look at", path, e))?.len() > 0)
}

/// True when there is nothing in the directory. One that is closed to us a container has made its own: that is something.
pub fn is_empty(dir: &Path) -> Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Ok(false),
        Err(e) => Err(Error::io("read", dir, e)),
    }
}

/// True for the directory of a volume that was being removed when somebody died.
pub fn was_removed(name: &str) -> bool {
    name.starts_with(REMOVED)
}

/// How the directory of a removed volume is called until it is gone. No volume's name begins so.
const REMOVED: &str = ".removed-";

/// The directories of volumes, and of what was not wholly removed.
pub fn names(volumes: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(volumes) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", volumes, e)),
    };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
