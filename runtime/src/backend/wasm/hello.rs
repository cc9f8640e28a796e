//! `wharf/hello`: the image built into the program, which runs with no network and no registry.

/// Its name, as people type it.
pub const NAME: &str = "wharf/hello";

/// The module: WASI preview 1, from `tests/guests/hello.rs`.
pub const WASM: &[u8] = include_bytes!("../../../../tests/guests/hello.wasm");
