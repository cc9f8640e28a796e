//! A child process made by `clone3` that goes on in our own code: no exec of a helper, no lookup of a program.
//!
//! The monitor is single-threaded, so memory that the child inherits is whole and it may allocate; that, and the pidfd
//! the kernel hands back at birth (no race over a pid that was used again), is why this exists beside
//! [`std::process::Command`]. See clone(2), pidfd_open(2), waitid(2), close_range(2).

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};

/// The code of a child whose closure panicked.
const PANICKED: i32 = 70;

/// How a child is made.
#[derive(Debug, Default, Clone, Copy)]
pub struct SpawnOptions<'a> {
    /// Namespaces the child is born into: `CLONE_NEWPID`, `CLONE_NEWUSER`, ... of clone(2).
    pub namespaces: i32,
    /// The cgroup (version 2) the child is born into.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The child is our parent's child, not ours: the parent reaps it.
    pub sibling: bool,
}

/// A child made by [`spawn`]. Dropping it neither kills nor reaps it.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: File,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code, 0 to 255.
    Exited(i32),
    /// This signal killed it.
    Signalled(i32),
}

impl Ended {
    /// The code a shell gives it: its own, or 128 and the signal's number.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Signalled(signal) => 128 + signal,
        }
    }
}

/// Makes a child that runs `body` and exits with what it returns (70 when it panics); the child never returns from here.
///
/// Call it in a process with one thread: locks that other threads hold (the allocator's) stay held in the child for ever.
///
/// # Errors
/// The kernel's: `EPERM` without the right to make the namespaces, `EAGAIN` at a limit of processes, `EACCES` or
/// `EBUSY` when the cgroup does not take it.
pub fn spawn(options: SpawnOptions<'_>, body: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: i32 = -1;
    let mut flags = options.namespaces as u32 as u64 | libc::CLONE_PIDFD as u64;
    if options.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    if options.sibling {
        flags |= libc::CLONE_PARENT as u64;
    }
    // SAFETY: every field of the kernel's struct is an integer, for which zero means "not given".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = if options.sibling { 0 } else { libc::SIGCHLD as u64 };
    args.cgroup = options.cgroup.map_or(0, |fd| fd.as_raw_fd() as u64);
    // SAFETY: without CLONE_VM the child has a copy of our memory and stack, as after fork; `args` and `pidfd` outlive
    // the call.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = catch_unwind(AssertUnwindSafe(body)).unwrap_or(PANICKED);
            exit_now(code)
        }
        pid => {
            // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as u32, pidfd: File::from(pidfd) })
        }
    }
}

/// Becomes this user and group where files are concerned: who may do what with them, and whose new ones are (setfsuid(2)).
///
/// # Errors
/// When the kernel does not allow it.
pub fn set_file_user(id: u32) -> io::Result<()> {
    // SAFETY: the calls take numbers. They have no error to return: asked again, they say how it is.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsgid, id);
        libc::syscall(libc::SYS_setfsuid, id);
        (libc::syscall(libc::SYS_setfsgid, id), libc::syscall(libc::SYS_setfsuid, id))
    };
    if now == (id.into(), id.into()) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// Ends this process at once: no destructors, no buffers flushed, which belong to the process we were forked from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) is always allowed.
    unsafe { libc::_exit(code) }
}

/// Not in libc as a 64-bit number: its constant overflows `c_int`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

impl Child {
    /// A child somebody else made for us ([`SpawnOptions::sibling`]), from its pid and pidfd.
    pub fn from_parts(pid: u32, pidfd: OwnedFd) -> Self {
        Child { pid, pidfd: File::from(pidfd) }
    }

    /// Gives up the child for its pidfd.
    pub fn into_pidfd(self) -> OwnedFd {
        self.pidfd.into()
    }

    /// Its process id as we see it. Signal by [`Child::signal`], never by this.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Becomes readable when the child has ended.
    pub fn pidfd(&self) -> &File {
        &self.pidfd
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// `ESRCH` when it has ended, `EINVAL` when there is no such signal.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        // SAFETY: no pointers but a null one, which means "no siginfo of ours".
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Reaps it if it has ended. Does not wait.
    ///
    /// # Errors
    /// `ECHILD` when it was reaped before.
    pub fn try_wait(&self) -> io::Result<Option<Ended>> {
        self.wait_with(WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// `ECHILD` when it was reaped before.
    pub fn wait(&self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.wait_with(WaitIdOptions::EXITED)? {
                return Ok(ended);
            }
        }
    }

    fn wait_with(&self, options: WaitIdOptions) -> io::Result<Option<Ended>> {
        let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options))?;
        Ok(status.as_ref().and_then(ended))
    }
}

/// What waitid(2) says, if it is an end and not a stop.
pub fn ended(status: &WaitIdStatus) -> Option<Ended> {
    status.exit_status().map(Ended::Exited).or_else(|| status.terminating_signal().map(Ended::Signalled))
}

/// Gives every signal its default action and unblocks all: what a program expects when it starts. Rust's runtime
/// ignores SIGPIPE and the monitor blocks what it reads from a signalfd; both would survive an execve.
pub fn default_signals() {
    // The kernel's struct sigaction: handler (0 is SIG_DFL), flags, restorer, mask.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // By the system call, because the C library refuses two signals of its own, which whoever started us may have
        // ignored.
        // SAFETY: `default` is as long as the kernel's struct at least; it refuses SIGKILL and SIGSTOP, which is as well.
        unsafe {
            let old = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, size_of::<u64>());
        }
    }
    // SAFETY: an all-zero set is an empty set.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// True when there is something to read, or an end.
pub fn is_readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Receives, also what was said before a reset: that is told once, when the other side has closed and left something of
/// ours unread, and what it had said comes after it (unix(7)).
pub fn after_reset<T>(mut receive: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match rustix::io::retry_on_intr(&mut receive) {
        Err(rustix::io::Errno::CONNRESET) => rustix::io::retry_on_intr(receive),
        got => got,
    }
}

/// Marks every descriptor from `first` on close-on-exec, so that the next execve leaves none of ours behind.
///
/// # Errors
/// `ENOSYS` before Linux 5.11.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Closes every descriptor from `first` on. Owners of closed descriptors must not be dropped later in this process.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, 0)
}

/// Closes every descriptor but the standard streams and these. The same holds for the owners of the others.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_all_but(kept: &[i32]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| *fd as u32).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: no pointers. Callers are about to exec or to run code that owns none of these.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if closed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test harness has many threads, so these children allocate nothing.

    #[test]
    fn code_and_signal_come_back() {
        let child = spawn(SpawnOptions::default(), || 42).unwrap();
        assert_eq!(child.wait().unwrap(), Ended::Exited(42));
        assert_eq!(child.try_wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));

        let child = spawn(SpawnOptions::default(), || {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.signal(libc::SIGKILL).unwrap();
        assert_eq!(child.wait().unwrap().code(), 137);
        assert_eq!(child.signal(libc::SIGTERM).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_pid_namespace_starts_at_one() {
        let options = SpawnOptions { namespaces: libc::CLONE_NEWPID, ..Default::default() };
        let child = spawn(options, || rustix::process::getpid().as_raw_nonzero().get()).expect("needs root");
        assert_eq!(child.wait().unwrap(), Ended::Exited(1));
    }

    #[test]
    fn a_sibling_is_its_grandparents_child() {
        let (mut reader, writer) = rustix::pipe::pipe().map(|(r, w)| (File::from(r), w)).unwrap();
        let child = spawn(SpawnOptions::default(), || {
            let inner = spawn(SpawnOptions { sibling: true, ..Default::default() }, || 7);
            let Ok(inner) = inner else { return 1 };
            rustix::io::write(&writer, &inner.pid().to_ne_bytes()).map_or(1, |_| 0)
        })
        .unwrap();
        assert_eq!(child.wait().unwrap(), Ended::Exited(0));
        let mut pid = [0; 4];
        io::Read::read_exact(&mut reader, &mut pid).unwrap();
        let pid = rustix::process::Pid::from_raw(i32::from_ne_bytes(pid)).unwrap();
        let status = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).unwrap();
        assert_eq!(ended(&status.unwrap()), Some(Ended::Exited(7)));
    }
}
