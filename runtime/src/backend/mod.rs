//! The backends: what can run a [`crate::task::TaskSpec`].

#[path = "modules_disabled.rs"]
pub(crate) mod modules;
#[cfg(feature = "wasm")]
pub mod wasm;
