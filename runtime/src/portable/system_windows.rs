//! What is asked of the system where it is Windows.

#![allow(unsafe_code, reason = "the standard library cannot say that a handle is not inherited")]

use std::ffi::c_void;
use std::io;
use std::os::windows::io::{AsRawHandle, RawHandle};
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// `CREATE_NO_WINDOW` and `CREATE_NEW_PROCESS_GROUP` of CreateProcess.
const DETACHED: u32 = 0x0800_0000 | 0x0000_0200;

/// `HANDLE_FLAG_INHERIT`.
const INHERIT: u32 = 1;

unsafe extern "system" {
    fn SetHandleInformation(object: *mut c_void, mask: u32, flags: u32) -> i32;
}

/// Windows must know how compiled guests are unwound: without it no trap could be caught.
pub const NATIVE_UNWIND_INFO: bool = true;

/// Ports on which old connections linger are given to everybody, and who asks for them gets others' too.
pub(super) const ASKS_FOR_LINGERING_PORTS: bool = false;

/// Makes a directory. What is made in the user's own directory inherits its rights.
///
/// # Errors
/// The disk's.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)
}

/// Makes a directory.
///
/// # Errors
/// The disk's.
pub fn create_open_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)
}

/// The command's process has no console, gets no keys of ours, and lives on when we end.
pub(super) fn detach(command: &mut Command) {
    command.creation_flags(DETACHED);
}

/// Keeps our own streams from the processes that we start: Windows gives a child every handle that may be inherited, and
/// whoever reads our output would wait for the container's end. A stream that a command is given is copied for it.
pub(super) fn keep_streams() {
    let keep = |handle: RawHandle| {
        // SAFETY: it takes a handle and two numbers and changes a flag of the handle; a stream that is not there has no
        // valid handle, which it refuses.
        unsafe { SetHandleInformation(handle, INHERIT, 0) };
    };
    keep(io::stdin().as_raw_handle());
    keep(io::stdout().as_raw_handle());
    keep(io::stderr().as_raw_handle());
}

/// The exit code of a process: its own, or that of an abort when the system ended it with an exception.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status.code().filter(|code| (0..=255).contains(code)).unwrap_or(134)
}
