//! What a WebAssembly guest that has broken wasmtime's sandbox would still stand behind. The process that hosts it says
//! so itself, after it has confined itself and before it runs guest code.

use serde::{Deserialize, Serialize};

/// The parts of the second wall.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Walls {
    /// The version of Landlock that confines it to its own files; `None` where there is none.
    pub landlock: Option<u32>,
    /// Landlock refuses TCP ports.
    pub tcp: bool,
    /// Landlock refuses abstract sockets and signals to processes outside.
    pub scoped: bool,
    /// The system call filter.
    pub seccomp: bool,
    /// No execve can give privileges.
    pub no_new_privileges: bool,
    /// The capabilities that are left.
    pub capabilities: Vec<String>,
    /// A cgroup of the container's own.
    pub cgroup: bool,
    /// The user that the process is to other processes.
    pub user: u32,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}
