//! Where the cgroup of a container is that nobody has recorded yet.
//!
//! `run` makes a container's cgroup before its record. When it is killed between the two, the sweep looks for the cgroup
//! below the usual parent; of one that `--cgroup-parent` has put elsewhere only this note tells.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::error::{Error, Result};
use crate::plan;

/// A link, because that is read and written at once.
const NAME: &str = "cgroup-parent";

/// Leaves the note in the container's directory of the run.
///
/// # Errors
/// The disk's.
pub(crate) fn leave(run: &Path, parent: &str) -> Result<()> {
    let path = run.join(NAME);
    symlink(parent, &path).map_err(|e| Error::io("make the link", path, e))
}

/// The parent that was noted, if one was.
pub(crate) fn read(run: &Path) -> Option<String> {
    let noted = fs::read_link(run.join(NAME)).ok()?.into_os_string().into_string().ok()?;
    // It becomes a path, of which things are removed.
    plan::is_inner(&noted).then_some(noted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_path_of_a_cgroup_is_believed() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()), None);
        for (noted, believed) in [("machines/web", true), ("../etc", false), ("/etc", false)] {
            leave(dir.path(), noted).expect("a note");
            assert_eq!(read(dir.path()).as_deref(), believed.then_some(noted));
            fs::remove_file(dir.path().join(NAME)).expect("removed");
        }
    }
}
