//! Wharf runs containers: WebAssembly and Linux images, without a daemon.
//!
//! With `default-features = false` this crate is the engine alone, for embedders. The feature `cli` (on by default)
//! adds the command line that the `wharf` program is made of.

#![warn(missing_docs)]

pub use wharf_images as images;
pub use wharf_runtime as runtime;

#[cfg(feature = "cli")]
pub mod cli;
