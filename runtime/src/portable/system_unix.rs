//! What is asked of the system where it is a Unix.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Only native debuggers and profilers read how compiled guests are unwound, and registering it costs start-up time.
pub const NATIVE_UNWIND_INFO: bool = false;

/// Ports on which old connections linger (TIME_WAIT) are given to who asks for them.
pub(super) const ASKS_FOR_LINGERING_PORTS: bool = true;

/// Makes a directory that nobody else may enter.
///
/// # Errors
/// The disk's.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Makes a directory that others may enter.
///
/// # Errors
/// The disk's.
pub fn create_open_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(path)
}

/// The command's process gets no signals of our terminal, and lives on when we end.
pub(super) fn detach(command: &mut Command) {
    command.process_group(0);
}

/// Nothing is inherited here but what a command is given.
pub(super) fn keep_streams() {}

/// The exit code of a process, as shells say it.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
