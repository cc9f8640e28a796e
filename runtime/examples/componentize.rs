//! Makes a component of the core module on stdin. `tests/guests/build` uses it.
//!
//! Commands are adapted as the module cache does it. A module without `_start` that carries its component type (a server)
//! is joined with wasmtime's adapter for reactors, as `wasm-tools component new` would do it.

use std::io::{Read, Write};

use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER;
use wharf_images::wasm::Description;
use wit_component::ComponentEncoder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut module = Vec::new();
    std::io::stdin().read_to_end(&mut module)?;
    let component = match Description::read(&module)? {
        Description::Module { functions, .. } if !functions.iter().any(|f| f == "_start") => {
            ComponentEncoder::default()
                .module(&module)
                .and_then(|encoder| encoder.adapter("wasi_snapshot_preview1", ADAPTER))
                .and_then(|mut encoder| encoder.encode())
                .map_err(|e| format!("{e:#}"))?
        }
        _ => wharf_runtime::backend::wasm::adapt::adapt(&module, None)?,
    };
    std::io::stdout().write_all(&component)?;
    Ok(())
}
