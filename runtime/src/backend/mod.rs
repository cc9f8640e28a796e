//! The backends: what can run a [`crate::task::TaskSpec`].

#[cfg(feature = "wasm")]
pub mod wasm;
