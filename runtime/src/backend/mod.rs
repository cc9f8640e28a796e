//! The backends: what can run a [`crate::task::TaskSpec`].

#[cfg(feature = "wasm")]
pub(crate) mod modules;
#[cfg(not(feature = "wasm"))]
#[path = "modules_disabled.rs"]
pub(crate) mod modules;
#[cfg(feature = "wasm")]
pub mod wasm;

/// A compiled program of a wasm container.
pub(crate) struct Program {
    /// Where it is.
    pub path: std::path::PathBuf,
    /// It answers HTTP requests, instead of running once.
    pub serves: bool,
}
