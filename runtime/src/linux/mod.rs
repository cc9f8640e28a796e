//! Everything Linux-only.

pub(crate) mod ahead;
pub(crate) mod archives;
pub mod backend;
mod caller;
pub mod capabilities;
pub mod cgroup;
mod cgroup_note;
mod channel;
pub(crate) mod client;
#[cfg(feature = "wasm")]
pub mod compiler;
mod container;
mod datagrams;
mod devices;
#[cfg(all(test, feature = "wasm"))]
pub(crate) mod escape;
mod exec;
#[cfg(feature = "wasm")]
pub(crate) mod files;
pub(crate) mod gate;
#[cfg(feature = "wasm")]
mod http_task;
mod init;
pub mod jail;
#[cfg(feature = "wasm")]
mod jailed;
pub(crate) mod journal;
mod kernel;
pub(crate) mod landlock;
mod launch;
#[cfg(feature = "wasm")]
mod line;
pub mod monitor;
mod mounts;
mod neighbour;
pub mod network;
pub(crate) mod plan;
pub mod private;
pub mod process;
mod propagation;
mod question;
mod resolver;
mod rootfs;
pub mod seccomp;
pub mod session;
pub(crate) mod signals;
mod sockets;
pub mod spec;
pub(crate) mod streams;
pub(crate) mod supervisor;
pub(crate) mod system;
pub mod terminal;
pub(crate) mod top;
mod tty;
mod user;
pub(crate) mod usernet;
pub mod userns;
pub mod volume;
#[cfg(feature = "wasm")]
pub mod wasm_task;

/// What one of our helpers does, if this program was executed under its name. Gives the exit code.
pub(crate) fn helper_main(args: &[std::ffi::OsString]) -> Option<i32> {
    match args {
        [name, rest @ ..] if name == monitor::REEXEC => Some(monitor::main(rest)),
        [name, rest @ ..] if name == archives::REEXEC => Some(archives::main(rest)),
        _ => None,
    }
}

/// Refuses what no container of this system can have; what has no effect is named in a warning.
///
/// # Errors
/// `InvalidInput`, naming the flag.
pub(crate) fn check(config: &crate::config::ContainerConfig) -> crate::error::Result<Vec<String>> {
    config.limits.check_reservation()?;
    check_limits(&config.limits)
}

/// The paths of `/proc` and `/sys` that are hidden from an unprivileged Linux container, and those that it can only read.
pub fn hidden_paths(config: &crate::config::ContainerConfig) -> (Vec<String>, Vec<String>) {
    // It was made with these options, so they can be understood.
    let options = spec::security::SecurityOptions::parse(&config.security_opt).unwrap_or_default();
    spec::security::hidden(&options, &spec::security::thermal_throttle())
}

pub use backend::LinuxBackend;
pub(crate) use cgroup::check_limits;
pub use question::Question;
pub use system::{
    NATIVE_UNWIND_INFO, Watch, create_open_dir, create_private_dir, give_back_memory, is_root, open_lock,
    wait_for_change,
};
pub(crate) use system::{file_id, random};
