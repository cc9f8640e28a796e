//! Removing trees of which their user owns the top, and not always all: what a container's other users made belongs to
//! subordinate ids, whose directories are closed to an ordinary user.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::os;

/// Who removes what this process may not.
static HELPER: OnceLock<fn(&Path) -> Result<()>> = OnceLock::new();

/// Names who removes a tree when this process may not: this crate makes no processes.
pub fn help_to_remove(helper: fn(&Path) -> Result<()>) {
    // The first to be named is as good.
    let _ = HELPER.set(helper);
}

/// Removes the tree at `path`, whatever its modes and however deep it is. Missing is no error.
///
/// # Errors
/// The disk's, or what the helper says.
pub fn remove_tree(path: &Path) -> Result<()> {
    match (os::remove_tree(path), HELPER.get()) {
        (Err(e), Some(help)) if e.kind() == ErrorKind::PermissionDenied => help(path),
        (removed, _) => removed.map_err(|e| Error::io("remove", path, e)),
    }
}
