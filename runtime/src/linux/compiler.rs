//! The limits of the process that compiles WebAssembly: setrlimit(2), prctl(2) `PR_SET_NO_NEW_PRIVS`.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::backend::wasm::compile::Limits;
use crate::error::{Error, Result};

/// Puts limits on this process, for the rest of its life. Each hard limit is the soft one, so it cannot be raised again.
///
/// # Errors
/// The kernel's.
pub fn confine(limits: &Limits) -> Result<()> {
    let set = |resource, value| {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(resource, limit).map_err(|e| Error::os("limit the compiler", e))
    };
    set(Resource::As, limits.memory)?;
    set(Resource::Cpu, limits.cpu_seconds)?;
    set(Resource::Fsize, limits.artifact)?;
    set(Resource::Core, 0)?;
    rustix::thread::set_no_new_privs(true).map_err(|e| Error::os("limit the compiler", e))
}

/// The kernel ended it because its CPU time was over.
pub fn ended_by_cpu_limit(status: ExitStatus) -> bool {
    // At a hard limit that equals the soft one, the kernel sends SIGKILL.
    matches!(status.signal(), Some(libc::SIGXCPU | libc::SIGKILL))
}
