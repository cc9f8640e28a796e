//! A directory that only we may enter, and files in it that only we have written.
//!
//! Compiled modules are code that is trusted blindly, so before one is loaded its owner and mode are looked at on the
//! opened file itself: no link, no other user's file, no file that others may write. See open(2), `O_NOFOLLOW`.

use std::fs::{DirBuilder, File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Class, Error, Result};

/// Makes a directory that only we may enter (0700); one that is there already must be such.
///
/// # Errors
/// `Forbidden` when it belongs to another user or lets others write.
pub fn create_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::io("create", path, e))?;
    let metadata = std::fs::symlink_metadata(path).map_err(|e| Error::io("look at", path, e))?;
    if !metadata.is_dir() {
        return Err(Error::new(Class::Forbidden, format!("{} is not a directory", path.display())));
    }
    ours(path, &metadata)
}

/// Opens a file in such a directory.
///
/// # Errors
/// `NotFound`; `Forbidden` when it is not a plain file of ours that only we may write.
pub fn open(path: &Path) -> Result<File> {
    let file =
        File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(|e| Error::io("open", path, e))?;
    let metadata = file.metadata().map_err(|e| Error::io("look at", path, e))?;
    if !metadata.is_file() {
        return Err(Error::new(Class::Forbidden, format!("{} is not a plain file", path.display())));
    }
    ours(path, &metadata)?;
    Ok(file)
}

/// A path that leads to the open file itself, whatever its name means by now.
pub fn reopen(file: &File, _path: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn ours(path: &Path, metadata: &Metadata) -> Result<()> {
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() == us && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    let message = format!("{} could have been written by others than user {us}", path.display());
    let hint = format!("make sure that nobody has, then: chown {us} and chmod go-w; or remove it");
    Err(Error::new(Class::Forbidden, message).with_hint(hint))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn only_our_own_files_are_opened() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        create_dir(&dir).unwrap();
        create_dir(&dir).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);

        let file = dir.join("file");
        fs::write(&file, "x").unwrap();
        let opened = open(&file).unwrap();
        assert_eq!(fs::read(reopen(&opened, &file)).unwrap(), b"x");

        let link = dir.join("link");
        symlink(&file, &link).unwrap();
        assert!(open(&link).is_err());
        assert_eq!(open(&dir).unwrap_err().class(), Class::Forbidden);
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(open(&file).unwrap_err().class(), Class::Forbidden);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        chown(&file, Some(12345), None).expect("needs root");
        assert_eq!(open(&file).unwrap_err().class(), Class::Forbidden);
    }

    #[test]
    fn a_directory_others_can_write_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d");
        create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
        assert_eq!(create_dir(&dir).unwrap_err().class(), Class::Forbidden);
    }
}
