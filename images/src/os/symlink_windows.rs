//! Windows keeps apart symlinks to files and to directories. A layer does not say which it means, so the target is
//! looked at, and what is not there yet is taken for a file.

use std::io;
use std::path::Path;

use cap_std::fs::Dir;

/// Makes the symlink `name` in `dir`.
pub(crate) fn make_in(dir: &Dir, target: impl AsRef<Path>, name: impl AsRef<Path>) -> io::Result<()> {
    let beside = name.as_ref().parent().unwrap_or(Path::new("")).join(target.as_ref());
    match dir.metadata(beside) {
        Ok(metadata) if metadata.is_dir() => dir.symlink_dir(target, name),
        _ => dir.symlink_file(target, name),
    }
}
