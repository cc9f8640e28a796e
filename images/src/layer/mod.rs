//! Unpacking one tar layer into a directory, expecting it to be hostile.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/layer.md>. The way of the bytes: [`decode`] undoes the
//! compression, [`pipe`] hashes them and carries them to a second thread, [`entries`] reads the archive, [`path`]
//! judges names, [`apply`] writes. Everything is written by us, on descriptors resolved beneath the directory, so no
//! name leads out of it.

use std::io::Read;
use std::path::Path;

use cap_std::fs::Dir;

use crate::digest::{Algorithm, Digest};
use crate::error::{Class, Error, Result};
use crate::os::DirAt;
use crate::tree::{Placing, Room};

mod apply;
#[cfg(test)]
mod attacks;
pub(crate) mod decode;
pub(crate) mod entries;
pub(crate) mod entry;
mod path;
mod pipe;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub(crate) mod write;

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
    /// What the layer's diff_id is to be compared with.
    pub algorithm: Algorithm,
    /// What to do with whiteouts. `None`: the archive is no layer, and names that look like them are names.
    pub whiteouts: Option<Whiteouts>,
    /// Most bytes the layer may take on disk.
    pub max_bytes: u64,
    /// Most entries it may have.
    pub max_entries: u64,
    /// Keep owners, device nodes and set-id bits (we are root, or root of a user namespace that maps the owners);
    /// otherwise all belongs to the caller.
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
    /// What was left out, in words for people: devices without privilege, xattrs that are not an image's to set.
    /// At most [`MAX_NOTES`].
    pub notes: Vec<String>,
}

/// Most notes kept of one layer.
pub const MAX_NOTES: usize = 16;

/// Reads a layer of `media_type` from `reader` to its end and unpacks it into `dir`. Compression is told by the first
/// bytes: gzip, zstd or none.
///
/// # Errors
/// `Corrupt`, `LimitExceeded`, `Unsupported` (another compression, a sparse file), or the disk's. What was written so
/// far stays; the caller removes it.
pub fn unpack(reader: &mut dyn Read, media_type: &str, dir: &Dir, options: &Options) -> Result<Unpacked> {
    // Headers and padding count too, or an archive of empty entries or trailing zeros would never end.
    let stream = options.max_entries.saturating_mul(2048).saturating_add(options.max_bytes).saturating_add(1 << 20);
    let root = DirAt::of(dir).map_err(|e| Error::io("open", "layer", e))?;
    unpack_with(reader, media_type, options.algorithm, stream, |pieces| apply::apply(pieces, root, options, None, None))
}

/// Makes an archive of somebody's files, in which no name has a meaning of its own, the content of the empty directory
/// `dir`. It has no limits but the disk's; with `privileged` owners, device nodes and set-id bits are kept.
///
/// # Errors
/// As [`unpack`]; `Corrupt` when there is not even an empty archive.
pub fn unpack_archive(reader: &mut dyn Read, dir: &Dir, privileged: bool) -> Result<Unpacked> {
    let algorithm = Algorithm::Sha256;
    let options = Options { algorithm, whiteouts: None, max_bytes: u64::MAX, max_entries: u64::MAX, privileged };
    let unpacked = unpack(reader, "archive", dir, &options).map_err(of_archive)?;
    if unpacked.diff_id == Digest::of(b"") {
        return Err(Error::new(Class::Corrupt, "archive: it is empty, as no tar archive is"));
    }
    Ok(unpacked)
}

/// What is said of layers, of what is none.
fn of_archive(error: Error) -> Error {
    match error {
        Error::Message { class, message, hint } => {
            let message = match message.strip_prefix("layer: ") {
                Some(rest) => format!("archive: {rest}"),
                None => message,
            };
            Error::Message { class, message, hint }
        }
        Error::Io { op, path, source } if path == Path::new("layer") => Error::io(op, "archive", source),
        other => other,
    }
}

/// Unpacks an archive of somebody's files, in which no name has a meaning of its own, into a directory that has others'
/// files too. It has no limits but the disk's, and those of `room` in its mount.
///
/// # Errors
/// As [`unpack`]; `InvalidInput` where `placing` forbids to replace something.
pub(crate) fn place(
    reader: &mut dyn Read,
    root: DirAt,
    placing: &Placing,
    room: Option<(&Room<'_>, u64)>,
) -> Result<Unpacked> {
    let options = Options {
        whiteouts: None,
        max_bytes: u64::MAX,
        max_entries: u64::MAX,
        privileged: placing.keep_owners || placing.owner.is_some(),
        algorithm: Algorithm::Sha256,
    };
    unpack_with(reader, "archive", options.algorithm, u64::MAX, |pieces| {
        apply::apply(pieces, root, &options, Some(placing), room)
    })
    .map_err(of_archive)
}

fn unpack_with(
    reader: &mut dyn Read,
    media_type: &str,
    algorithm: Algorithm,
    limit: u64,
    apply: impl FnOnce(&mut pipe::Pieces) -> Result<apply::Applied> + Send,
) -> Result<Unpacked> {
    let mut decoder = decode::Decoder::open(reader, media_type)?;
    let (diff_id, applied) = pipe::run(&mut decoder, algorithm, limit, apply)?;
    Ok(Unpacked { diff_id, bytes: applied.bytes, entries: applied.entries, notes: applied.notes })
}

/// A stream that broke: our own errors come back as they were, bad compression is the layer's fault.
fn stream_error(error: std::io::Error) -> Error {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => {
            Error::new(Class::Corrupt, format!("layer: damaged or cut short: {error}"))
        }
        // zstd reports bad frames as "other".
        ErrorKind::Other if error.get_ref().is_some() => match error.downcast::<Error>() {
            Ok(ours) => ours,
            Err(error) => Error::new(Class::Corrupt, format!("layer: {error}")),
        },
        _ => Error::io("read", "layer", error),
    }
}
