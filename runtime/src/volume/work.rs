//! What is done with a volume's files. They need not all be this user's: what a container's other users made belongs to
//! subordinate ids, and a mode may keep even its owner out. Root of a user namespace that maps these ids may do it all.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wharf_images::Class;
use wharf_images::snapshot::{self, Rootfs};

use crate::error::Result;
use crate::{linux, paths};

/// One piece of work.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Copies what `rootfs` has at `path` into the directory `to`, made anew.
    Extract { rootfs: Rootfs, path: String, to: PathBuf },
    /// The same, into an empty directory that is there.
    Fill { rootfs: Rootfs, path: String, dir: PathBuf },
    /// Moves what is in one directory into another.
    Install { from: PathBuf, to: PathBuf },
    /// Writes a directory as a tar archive.
    Export { dir: PathBuf },
    /// Counts a directory's bytes.
    Size { dir: PathBuf },
    /// Removes a directory with all in it.
    Remove { dir: PathBuf },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Done {
    /// It is done.
    All,
    /// The image has nothing there.
    Nothing,
    /// So many bytes.
    Bytes(u64),
}

impl Work {
    /// Does it: as who we are if that may, since another process takes time.
    pub(crate) fn carry_out(&self, out: &mut dyn Write) -> Result<Done> {
        // What these have written cannot be written again.
        let once = matches!(self, Work::Fill { .. } | Work::Export { .. });
        if linux::is_root() {
            return self.directly(out);
        }
        if once {
            return linux::archives::as_root(self, out);
        }
        match self.directly(out) {
            Err(e) if e.class() == Class::Forbidden => linux::archives::as_root(self, out),
            other => other,
        }
    }

    /// Does it as who we are.
    pub(crate) fn directly(&self, out: &mut dyn Write) -> Result<Done> {
        let found = |found: bool| if found { Done::All } else { Done::Nothing };
        Ok(match self {
            Work::Extract { rootfs, path, to } => {
                snapshot::remove_tree(to)?;
                paths::make_dir(to)?;
                found(snapshot::extract(rootfs, path, to)?)
            }
            Work::Fill { rootfs, path, dir } => found(snapshot::extract(rootfs, path, dir)?),
            Work::Install { from, to } => snapshot::install(from, to).map(|()| Done::All)?,
            Work::Export { dir } => snapshot::export_dir(dir, out).map(|()| Done::All)?,
            Work::Size { dir } => Done::Bytes(snapshot::tree_usage(dir)?.content),
            Work::Remove { dir } => snapshot::remove_tree(dir).map(|()| Done::All)?,
        })
    }
}

/// Moves what is in `from` into `to`.
pub(super) fn install(from: PathBuf, to: PathBuf) -> Result<()> {
    Work::Install { from, to }.carry_out(&mut io::sink()).map(drop)
}
