//! Where an instance keeps its things. State survives a reboot; what is in the run directory (locks, sockets) need not.

use std::env;
use std::path::{Path, PathBuf};
use std::{fs, io};

use wharf_images::Class;

use crate::error::{Error, Result};
use crate::linux;

/// The directories of one instance.
#[derive(Debug, Clone)]
pub struct Paths {
    /// State: database, content, snapshots, logs.
    pub root: PathBuf,
    /// Locks and sockets.
    pub run: PathBuf,
}

impl Paths {
    /// The directories for `--root` (and a run directory elsewhere), or this user's own.
    ///
    /// # Errors
    /// `InvalidInput` when the environment has no home for an ordinary user.
    pub fn new(root: Option<&Path>, run: Option<&Path>) -> Result<Self> {
        if let Some(root) = root {
            let root = std::path::absolute(root).map_err(|e| Error::io("resolve", root, e))?;
            let run = run.map_or_else(|| root.join("run"), Path::to_owned);
            return Ok(Paths { root, run });
        }
        if linux::is_root() {
            return Ok(Paths { root: "/var/lib/wharf".into(), run: "/run/wharf".into() });
        }
        let variable = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let data = variable("XDG_DATA_HOME")
            .or_else(|| variable("HOME").map(|h| h.join(".local/share")))
            .or_else(|| variable("LOCALAPPDATA"))
            .ok_or_else(|| {
                Error::new(Class::InvalidInput, "no home directory: neither XDG_DATA_HOME nor HOME is set")
                    .with_hint("set HOME, or name a directory with --root")
            })?;
        let root = data.join("wharf");
        let run = variable("XDG_RUNTIME_DIR").map_or_else(|| root.join("run"), |r| r.join("wharf"));
        Ok(Paths { root, run })
    }

    /// The container's directory: log, exit record, files it mounts.
    pub fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// The container's log.
    pub fn log(&self, id: &str) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }

    /// The container's exit record.
    pub fn exit_record(&self, id: &str) -> PathBuf {
        self.container(id).join("exit.json")
    }

    /// The container's directory of run-time things. Its monitor holds a lock on it ([`linux::open_lock`]).
    pub fn run_container(&self, id: &str) -> PathBuf {
        self.run.join("containers").join(id)
    }

    /// The directory of all volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// The socket on which its monitor answers.
    pub fn socket(&self, id: &str) -> PathBuf {
        self.run_container(id).join("sock")
    }
}

/// Makes a directory and its parents, for our eyes only. Cheap when it is there.
///
/// # Errors
/// The disk's.
pub fn make_dir(path: &Path) -> Result<()> {
    let exists = |e: &io::Error| e.kind() == io::ErrorKind::AlreadyExists;
    match linux::create_private_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), make_dir)?;
            match linux::create_private_dir(path) {
                Err(e) if !exists(&e) => Err(Error::io("create directory", path, e)),
                _ => Ok(()),
            }
        }
        Err(e) if !exists(&e) => Err(Error::io("create directory", path, e)),
        _ => Ok(()),
    }
}

/// Removes a directory and all in it. What is not there is no error.
///
/// # Errors
/// The disk's.
pub fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}
