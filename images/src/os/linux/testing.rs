//! Real overlay mounts for tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted overlay; unmounted when dropped.
pub(crate) struct Mounted(TempDir);

impl Mounted {
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(self.0.path()).status().unwrap().success());
    }
}

/// The options of an overlay, as mount(8) takes them.
pub(crate) fn overlay_options(lower: &[PathBuf], upper: &Path, work: &Path) -> String {
    let lower: Vec<String> = lower.iter().map(|dir| dir.display().to_string()).collect();
    format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), upper.display(), work.display())
}

/// Mounts the overlay; needs root.
pub(crate) fn mount_overlay(lower: &[PathBuf], upper: &Path, work: &Path) -> Mounted {
    let point = TempDir::new().unwrap();
    let options = overlay_options(lower, upper, work);
    let status = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(point.path()).status();
    assert!(status.unwrap().success(), "mounting an overlay takes root: {options}");
    Mounted(point)
}
