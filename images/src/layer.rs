//! Unpacking one tar layer into a directory, expecting it to be hostile.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md>. `tar` is used as a reader only; every entry
//! is written through a `cap_std::fs::Dir` or descriptors resolved beneath it, so no name leads out of the directory.

use std::io::Read;

use cap_std::fs::Dir;

use crate::digest::Digest;
use crate::error::Result;

/// How whiteouts are stored in the unpacked directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whiteouts {
    /// As overlayfs wants them: device 0/0 and `trusted.overlay.opaque` (or `user.overlay.*` when not root).
    Overlay,
    /// Carried out: what they name is removed from the directory, which holds the lower layers too.
    Apply,
}

/// Limits and choices of one unpacking.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to do with whiteouts.
    pub whiteouts: Whiteouts,
    /// Most bytes the layer may take on disk.
    pub max_bytes: u64,
    /// Most entries it may have.
    pub max_entries: u64,
    /// Keep owners, device nodes and trusted xattrs (we are root); otherwise all belongs to the caller.
    pub privileged: bool,
}

/// What was unpacked.
#[derive(Debug, Clone)]
pub struct Unpacked {
    /// The digest of the uncompressed tar, to compare with the config's diff_id.
    pub diff_id: Digest,
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

/// Reads a layer of `media_type` (gzip, zstd or plain, else told by magic bytes) from `reader` and unpacks it into `dir`.
///
/// # Errors
/// `Corrupt`, `LimitExceeded`, or the disk's. What was written so far stays; the caller removes it.
pub fn unpack(_reader: &mut dyn Read, _media_type: &str, _dir: &Dir, _options: &Options) -> Result<Unpacked> {
    todo!()
}
