//! OCI images for Wharf: names, content, registries, layers and snapshots.
//!
//! The life of an image, in the order in which the modules meet it:
//!
//! 1. A [`Reference`] names it (docker's normalisation).
//! 2. [`registry`] or [`archive`] brings its bytes; [`content::ContentStore`] takes them in while hashing,
//!    and gives them a name only when size and [`Digest`] are right.
//! 3. [`image`] reads manifest and config, and says what kind of image it is.
//! 4. [`layer`] unpacks each layer once, into a committed snapshot of [`snapshot::Snapshots`].
//! 5. [`store::ImageStore`] records the name, last of all: what is recorded is complete.
//! 6. What no record reaches, and no [`lease::Lease`] protects, [`gc`] sweeps.
//!
//! Nothing here knows a command line, a progress bar or a container: callers pass a [`Reporter`].

#![warn(missing_docs)]

pub mod archive;
pub mod content;
pub mod db;
pub mod digest;
pub mod error;
pub mod events;
mod files;
pub mod gc;
#[cfg(test)]
mod hostile;
pub mod image;
pub mod layer;
pub mod lease;
#[cfg_attr(all(target_os = "linux", not(feature = "portable")), path = "os/linux/mod.rs")]
#[cfg_attr(not(all(target_os = "linux", not(feature = "portable"))), path = "os/portable.rs")]
mod os;
pub mod pack;
#[cfg_attr(unix, path = "os/private_unix.rs")]
#[cfg_attr(not(unix), path = "os/private_other.rs")]
mod private;
pub mod reference;
pub mod registry;
pub mod reporter;
pub mod snapshot;
pub mod store;
#[cfg(all(unix, any(feature = "portable", not(target_os = "linux"))))]
#[path = "os/symlink_unix.rs"]
mod symlink;
#[cfg(windows)]
#[path = "os/symlink_windows.rs"]
mod symlink;
pub mod tree;
pub mod wasm;

pub use digest::Digest;
pub use error::{Class, Error, Result};
pub use image::{Image, Layer, Platform, Style, WasmEntry};
pub use reference::Reference;
pub use reporter::{NoReport, Progress, Reporter};
pub use store::ImageStore;
