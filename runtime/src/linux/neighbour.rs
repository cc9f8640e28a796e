//! Another container whose namespaces a container joins: `--pid container:X`, `--ipc container:X`.
//!
//! A stored process id is never believed: the number may be another process's by now. Its monitor is asked while a
//! descriptor of the process is held (pidfd_open(2)); the monitor has not reaped its child when it answers, so if our
//! descriptor's process lives after the answer, it is that child. From then on the number and the start of the process
//! together stand for it: the plan is data, and whoever executes it looks again.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstatfs, openat2};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::mounts::TMPFS;
use super::process;
use super::spec::mounts::SHARED;
use crate::config::IpcMode;
use crate::container::{BackendKind, Container};
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::monitor::client;
use crate::monitor::protocol::{Reply, Request};
use crate::task::Neighbour;

/// The container that is joined, which must run.
///
/// # Errors
/// `NotFound`; `Conflict` when it does not run or is a guest's, which has no namespaces to join.
pub(super) fn find(engine: &Engine, name: &str) -> Result<(Container, Neighbour)> {
    let container = engine.container(name)?;
    if container.backend() == BackendKind::Wasm {
        let message = format!("container {name} runs a WebAssembly image: it has no namespaces to join");
        return Err(Error::new(Class::Conflict, message));
    }
    let stopped = || Error::new(Class::Conflict, format!("container {name} is not running"));
    let pid = container.state.pid.filter(|_| container.state.state.is_live()).ok_or_else(stopped)?;
    let descriptor = descriptor(pid).ok_or_else(stopped)?;
    let started = start_of(pid).ok_or_else(stopped)?;
    match client::ask(engine, &container.id, &Request::Processes)? {
        Reply::Processes { pids, .. } if pids.first() == Some(&pid) => {}
        _ => return Err(stopped()),
    }
    if process::is_readable(&descriptor) {
        return Err(stopped());
    }
    Ok((container, Neighbour { pid, started }))
}

/// The same, whose shared memory is joined: it must allow that.
///
/// # Errors
/// As [`find`], and in docker's words when it does not.
pub(super) fn find_shareable(engine: &Engine, name: &str) -> Result<Neighbour> {
    let (container, neighbour) = find(engine, name)?;
    match container.config.ipc {
        IpcMode::Shareable => Ok(neighbour),
        _ => Err(Error::new(
            Class::InvalidInput,
            format!("container {name}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"),
        )),
    }
}

/// A descriptor of the process.
///
/// # Errors
/// `Conflict` when it has ended.
pub(super) fn open(neighbour: &Neighbour) -> Result<OwnedFd> {
    let opened = descriptor(neighbour.pid).filter(|_| start_of(neighbour.pid) == Some(neighbour.started));
    // The start was read of the number: it is our process's only if that has not ended meanwhile.
    opened
        .filter(|descriptor| !process::is_readable(descriptor))
        .ok_or_else(|| Error::new(Class::Conflict, "the container whose namespaces are to be joined has ended"))
}

fn descriptor(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()
}

/// proc_pid_stat(5): `starttime` is field 22. The name in field 2 may hold anything, so fields are counted from its end.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// While it lives, children are born into the other container's pid namespace.
pub(super) struct Nursery {
    own: OwnedFd,
}

impl Nursery {
    /// Enters it. For a process with one thread.
    ///
    /// # Errors
    /// `Conflict` when the other container has ended; the kernel's.
    pub fn enter(neighbour: &Neighbour) -> Result<Nursery> {
        const OWN: &str = "/proc/self/ns/pid";
        let own = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| Error::io("open", OWN, e))?;
        move_into_thread_name_spaces(open(neighbour)?.as_fd(), ThreadNameSpaceType::PROCESS_ID)
            .map_err(|e| Error::os("join the other container's pid namespace", e))?;
        Ok(Nursery { own })
    }

    /// Leaves it again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn leave(self) -> Result<()> {
        move_into_thread_name_spaces(self.own.as_fd(), ThreadNameSpaceType::PROCESS_ID)
            .map_err(|e| Error::os("return to our own pid namespace", e))
    }
}

/// A copy of the mount at `/dev/shm` of the mount namespace we are in, which a container may have changed: it must be a
/// file system in memory, and nothing on the way to it a link.
pub(super) fn shared_memory() -> Result<OwnedFd> {
    let failed = |e| Error::io("share", SHARED, e);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = openat2(CWD, SHARED, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(failed)?;
    if fstatfs(&place).map_err(failed)?.f_type as u64 != TMPFS {
        return Err(Error::new(Class::Forbidden, "the other container has something else than memory at /dev/shm"));
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(&place, "", flags).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_nobody() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let neighbour = Neighbour { pid: child.id(), started: start_of(child.id()).unwrap() };
        assert!(open(&neighbour).is_ok());
        let another = Neighbour { started: neighbour.started + 1, ..neighbour };
        assert_eq!(open(&another).unwrap_err().class(), Class::Conflict);
        child.kill().unwrap();
        // A zombie has its number and its start, but has ended.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while open(&neighbour).is_ok() {
            assert!(std::time::Instant::now() < end, "it does not end");
        }
        child.wait().unwrap();
        assert_eq!(open(&neighbour).unwrap_err().class(), Class::Conflict);
    }
}
