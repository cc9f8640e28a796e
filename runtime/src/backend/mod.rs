//! The backends: what can run a [`crate::task::TaskSpec`].

#[cfg(feature = "wasm")]
pub(crate) mod modules;
#[cfg(not(feature = "wasm"))]
#[path = "modules_disabled.rs"]
pub(crate) mod modules;
#[cfg(feature = "wasm")]
pub mod wasm;
