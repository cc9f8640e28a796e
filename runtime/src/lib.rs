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
pub mod monitor;
mod names;
pub mod paths;
pub mod plan;
pub mod signal;
pub mod state;
pub mod store;
pub mod task;

#[cfg(target_os = "linux")]
pub mod linux;
#[cfg(not(target_os = "linux"))]
#[path = "linux_disabled.rs"]
pub mod linux;

pub use config::ContainerConfig;
pub use engine::Engine;
pub use error::{Error, Result};

/// What an executed helper of ours must do, and nothing else: call it first in `main`, before any thread exists.
/// Some is the exit code.
///
/// The engine executes this program (`/proc/self/exe`) again to be a container's monitor, when the process that asks has
/// threads and cannot fork one.
pub fn helper_main() -> Option<i32> {
    let mut args = std::env::args_os();
    if args.next()? != linux::monitor::REEXEC {
        return None;
    }
    Some(linux::monitor::main(&args.collect::<Vec<_>>()))
}
