//! Makes a component of the core module on stdin, as the module cache does. `tests/guests/build` uses it.

use std::io::{Read, Write};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut module = Vec::new();
    std::io::stdin().read_to_end(&mut module)?;
    let component = wharf_runtime::backend::wasm::adapt::adapt(&module, None)?;
    std::io::stdout().write_all(&component)?;
    Ok(())
}
