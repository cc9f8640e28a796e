//! The filesystem that a wasm guest sees: one tree, made of the image's layers, the container's own layer, and mounts.
//!
//! It needs no mount, no root and no Linux. Every part is a directory that was opened before the guest ran, held as a
//! [`cap_std::fs::Dir`]; no path of the host is looked up after that, and no name that a guest says is resolved from
//! anywhere else.
//!
//! - [`node`] is a directory of the tree and the way from one name to the next: through mounts, down the layers, along
//!   symlinks, which are resolved with the container's root as their root (as `openat2(2)` does with
//!   `RESOLVE_IN_ROOT`).
//! - [`directory`] is what a guest does with a directory that it holds; [`file`] with a file.
//! - [`union`] changes what lies in read-only layers, by overlayfs's rules and with its marks
//!   (<https://docs.kernel.org/filesystems/overlayfs.html>), so that the kernel and the image store read the result.
//! - [`quota`] counts what a writable layer holds.
//!
//! Where there is one layer and no mount below, which is the common case, a call of the guest is one call of
//! `cap_std`, with the whole path: the kernel resolves it. Only when that is refused, because the path leads out of the
//! directory or to an absolute symlink, it is walked name by name.
//!
//! Nothing is cached between calls but open directories: another process may work in the same tree.

mod directory;
mod error;
mod file;
mod names;
mod node;
mod quota;
#[cfg(test)]
mod tests;
mod tree;
mod union;

pub(crate) use directory::{Directory, Entry, How, Opened};
pub(crate) use error::Code;
pub(crate) use file::OpenFile;
pub(crate) use node::{Stat, unix_time};
pub(crate) use quota::Quota;
pub use tree::Held;
pub(crate) use tree::{Source, Vfs};
