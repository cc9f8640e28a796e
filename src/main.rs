//! The `wharf` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    match wharf::runtime::helper_main() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(125)),
        None => wharf::cli::main(),
    }
}
