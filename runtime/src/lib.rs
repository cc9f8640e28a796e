//! The Wharf engine: containers, their backends, their monitors and their records.
//!
//! [`Engine`] is the facade that the command line, the API server and embedders call. The way of a container:
//!
//! 1. [`Engine::create`] turns a [`ContainerConfig`] into bytes (a writable layer, a compiled module) and then a record.
//! 2. [`Engine::start`] makes a monitor process, which plans a [`task::TaskSpec`] (pure data), and has a
//!    [`task::Backend`] make a task of it.
//! 3. The monitor keeps the log, answers on the container's socket, and writes the exit record.
//! 4. [`Engine::remove`] deletes the record, then the bytes.

#![warn(missing_docs)]

pub mod backend;
pub mod config;
pub mod container;
pub mod engine;
pub mod error;
pub mod events;
pub mod files;
pub mod health;
pub mod look;
pub mod mode;
pub mod monitor;
mod names;
pub mod network;
pub mod paths;
pub mod plan;
pub mod restart;
pub mod signal;
pub mod state;
pub mod store;
pub mod task;
pub mod volume;
pub mod walls;
#[cfg(feature = "wasm")]
mod wasi;

#[cfg(all(target_os = "linux", not(feature = "portable")))]
pub mod linux;
#[cfg(not(all(target_os = "linux", not(feature = "portable"))))]
#[path = "portable/mod.rs"]
pub mod linux;

pub use config::ContainerConfig;
pub use engine::Engine;
pub use error::{Error, Result};

/// What an executed helper of ours must do, and nothing else: call it first in `main`, before any thread exists.
/// Some is the exit code.
///
/// The engine executes this program again to be a container's monitor, when the process that asks has threads and cannot
/// fork one, to stand before a container's files, and to compile a module, because a hostile one may take all the memory its process may have.
pub fn helper_main() -> Option<i32> {
    let args: Vec<_> = std::env::args_os().take(MOST_HELPER_ARGS).collect();
    if let Some(code) = linux::helper_main(&args) {
        return Some(code);
    }
    #[cfg(feature = "wasm")]
    if let [_, verb, request] = args.as_slice()
        && verb == backend::wasm::compile::SUBCOMMAND
    {
        return Some(backend::wasm::compile::child_main(request.to_str()?));
    }
    None
}

/// The program, the monitor's name and its five arguments.
const MOST_HELPER_ARGS: usize = 7;
