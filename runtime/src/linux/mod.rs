//! Everything Linux-only.

pub mod capabilities;
pub mod cgroup;
pub(crate) mod client;
#[cfg(feature = "wasm")]
pub mod compiler;
pub mod jail;
pub(crate) mod landlock;
pub mod monitor;
pub(crate) mod plan;
pub mod private;
pub mod process;
pub mod seccomp;
pub mod session;
pub(crate) mod signals;
pub mod spec;
pub(crate) mod streams;
pub(crate) mod supervisor;
pub(crate) mod system;
pub mod terminal;
#[cfg(feature = "wasm")]
pub mod wasm_task;

pub(crate) use system::random;
pub use system::{create_private_dir, give_back_memory, is_root, wait_for_change};
