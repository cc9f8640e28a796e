//! The counterpart of `os/private_unix.rs`: what is made in the user's own directory inherits its rights.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Makes a new file.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    File::create_new(path)
}

/// Makes a directory and those above it.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}
