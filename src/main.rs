//! The `wharf` program.

#![cfg_attr(target_os = "linux", no_main)]

#[cfg(target_os = "linux")]
mod entry;

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    run().into()
}

/// Gives the code to exit with.
fn run() -> u8 {
    match wharf::runtime::helper_main() {
        Some(code) => u8::try_from(code).unwrap_or(125),
        None => wharf::cli::main(),
    }
}
