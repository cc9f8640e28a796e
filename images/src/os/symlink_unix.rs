//! Symlinks on Unix: any text is a target.

use std::io;
use std::path::Path;

use cap_std::fs::Dir;

/// Makes the symlink `name` in `dir`.
pub(crate) fn make_in(dir: &Dir, target: impl AsRef<Path>, name: impl AsRef<Path>) -> io::Result<()> {
    dir.symlink_contents(target, name)
}
