//! The second wall of a wasm guest: after its process has opened what it needs, it gives up everything else.
//!
//! The first wall is wasmtime's sandbox. Should a guest break it, it finds itself in a process that can reach the
//! container's own trees and nothing beside: Landlock refuses other files, ports and peers; the system call filter
//! refuses sockets, programs, other processes and new executable memory; capabilities are gone. Works unprivileged.
//!
//! [`enter`] costs about 140 µs in a process just forked, page faults included. What a kernel lacks is reported in [`Walls`], not an error.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Uid, geteuid, getpid, getrlimit, parent_process_death_signal,
    set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitiesSecureBits, set_capabilities_secure_bits, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::capabilities::{CapSet, ProcessCaps};
use super::cgroup::Layout;
use super::landlock::{self, Abi};
use super::process;
use super::seccomp::Filter;
use super::seccomp::policy::{ALLOW, Check, ERRNO, Op, Policy, Rule};
use super::seccomp::syscalls::Arch;
use crate::error::{Class, Error, Result};
pub use crate::walls::Walls;

/// What the process keeps.
#[derive(Debug, Default)]
pub struct Jail<'a> {
    /// Trees and files that can be read.
    pub read_only: Vec<BorrowedFd<'a>>,
    /// Trees and files that can be read, written, made and removed. No devices, sockets or pipes can be made in them.
    pub read_write: Vec<BorrowedFd<'a>>,
    /// The same, where overlayfs's whiteouts can be made: devices 0/0, which stand for nothing. And pipes and sockets.
    pub unions: Vec<BorrowedFd<'a>>,
    /// The greatest number of open files; as it is when `None`.
    pub open_files: Option<u64>,
    /// Capabilities to keep, if the process has them. [`FILES`] lets root write another user's directory that was
    /// mounted for it. They are kept only where Landlock stands, which confines them to the trees above.
    pub capabilities: CapSet,
    /// Of root's processes: the user to become for other processes. Files it reaches and makes as root all the same, or
    /// volumes and images would look otherwise to it than to others; Landlock says which.
    pub user: Option<u32>,
}

/// `CAP_DAC_OVERRIDE` and `CAP_FOWNER`.
pub const FILES: CapSet = CapSet(1 << 1 | 1 << 3);

/// The first of the users that processes are given: a range that nothing else is given by systemd's account of them
/// (<https://systemd.io/UIDS-GIDS/>), nor by anybody else we know.
const FIRST_USER: u32 = 0x7000_0000;

/// A user for the process of the container with this id, that probably no other process has.
pub fn user_of(id: &str) -> Option<u32> {
    u32::from_str_radix(id.get(..7)?, 16).ok().map(|number| FIRST_USER + number)
}

/// What a wasm guest's process is confined by on this machine, in so far as that can be told without trying.
pub fn offered() -> Walls {
    let mut walls = Walls { no_new_privileges: true, ..Walls::default() };
    walls.stand_behind(Abi::of_kernel());
    walls.seccomp = std::fs::exists("/proc/sys/kernel/seccomp/actions_avail").unwrap_or(false);
    if !walls.seccomp {
        walls.missing.push("the kernel has no system call filter".to_owned());
    }
    walls.cgroup = *Layout::get() != Layout::None;
    if !walls.cgroup {
        walls.missing.push("there is no cgroup that this user may write".to_owned());
    }
    walls
}

impl Walls {
    /// Notes what this version of Landlock does, or that there is none.
    fn stand_behind(&mut self, abi: Option<Abi>) {
        match abi {
            Some(abi) => (self.landlock, self.tcp, self.scoped) = (Some(abi.0), abi.tcp(), abi.scoped()),
            None => self.missing.push("the kernel has no Landlock, or it is switched off".to_owned()),
        }
    }
}

/// Confines the calling process for good. To be called while it has one thread, after everything is open (also
/// through `/proc/self`) and compiled code is mapped, and before guest code runs.
///
/// # Errors
/// `Internal` when the process has several threads, which would stay outside; the kernel's when it refuses what every
/// kernel can do. The process must end then.
pub fn enter(jail: &Jail<'_>) -> Result<Walls> {
    only_thread()?;
    let filter = Filter::of(&policy(Arch::NATIVE, getpid().as_raw_nonzero().get() as u64), 0)?;
    let mut walls = Walls::default();
    lower(Resource::Core, 0)?;
    if let Some(files) = jail.open_files {
        lower(Resource::Nofile, files)?;
    }
    set_no_new_privs(true).map_err(|e| Error::os("set no_new_privs", e))?;
    walls.no_new_privileges = true;
    // Nobody of the same user may attach a debugger or read its memory.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| Error::os("make undumpable", e))?;

    let abi = Abi::of_kernel();
    if let Some(abi) = abi {
        landlock::restrict(abi, &jail.read_only, &jail.read_write, &jail.unions)
            .map_err(|e| Error::os("confine with Landlock", e))?;
    }
    walls.stand_behind(abi);

    if let Some(user) = jail.user.filter(|_| super::is_root())
        && let Err(e) = become_user(user)
    {
        walls.missing.push(format!("a user id of its own: {e}"));
    }
    walls.user = geteuid().as_raw();

    let held = held_capabilities().map_err(|e| Error::os("read capabilities", e))?;
    let kept = if walls.landlock.is_some() { jail.capabilities.intersection(held) } else { CapSet::EMPTY };
    if held != CapSet::EMPTY {
        let caps = ProcessCaps { effective: kept, permitted: kept, ..ProcessCaps::default() };
        caps.apply().map_err(|e| Error::os("drop capabilities", e))?;
    }
    walls.capabilities = kept.names().collect();

    match filter.install() {
        Ok(()) => walls.seccomp = true,
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            walls.missing.push(format!("the kernel takes no system call filter: {e}"));
        }
        Err(e) => return Err(Error::os("install the system call filter", e)),
    }
    Ok(walls)
}

/// Takes another user id and group id, but for files. Capabilities stay as they are.
fn become_user(id: u32) -> io::Result<()> {
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_SETUID_FIXUP)?;
    // Lost with the ids (prctl(2)).
    let at_parents_death = parent_process_death_signal()?;
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?;
    process::set_file_user(0)?;
    Ok(set_parent_process_death_signal(at_parents_death)?)
}

/// Landlock, capabilities and filters are a thread's; one that runs already would stay outside.
fn only_thread() -> Result<()> {
    // Two links of the directory itself and one for each thread.
    let links = rustix::fs::stat("/proc/self/task").map_err(|e| Error::io("stat", "/proc/self/task", e))?.st_nlink;
    if links > 3 {
        return Err(Error::new(Class::Internal, format!("cannot confine a process of {} threads", links - 2)));
    }
    Ok(())
}

fn lower(resource: Resource, limit: u64) -> Result<()> {
    let now = getrlimit(resource);
    let least = |old: Option<u64>| Some(old.map_or(limit, |old| old.min(limit)));
    setrlimit(resource, Rlimit { current: least(now.current), maximum: least(now.maximum) })
        .map_err(|e| Error::os("lower a resource limit", e))
}

fn held_capabilities() -> io::Result<CapSet> {
    Ok(CapSet(rustix::thread::capabilities(None)?.permitted.bits()))
}

/// Calls that need no look at their arguments: memory, files (Landlock says which), waiting, time, threads, and
/// streams over sockets that were passed in.
///
/// Landlock has no say in changing a file's mode or owner, so those are left out but for open files; nor in times and
/// in looking at metadata, which guests need by path and which remain possible outside the trees.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    // Memory.
    "brk", "madvise", "membarrier", "memfd_create", "mincore", "mremap", "munmap", "msync",
    // Files.
    "access", "close", "close_range", "copy_file_range", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64",
    "fallocate", "fchmod", "fchown", "fcntl", "fdatasync", "fgetxattr", "flistxattr",
    "flock", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "getcwd", "getdents64", "link",
    "linkat", "lseek", "lstat", "mkdir", "mkdirat", "newfstatat", "open", "openat", "openat2", "pread64", "preadv",
    "preadv2", "pwrite64", "pwritev", "pwritev2", "read", "readlink", "readlinkat", "readv", "rename", "renameat",
    "renameat2", "rmdir", "sendfile", "splice", "stat", "statfs", "statx", "symlink", "symlinkat", "sync_file_range",
    "syncfs", "umask", "unlink", "unlinkat", "utimensat", "write", "writev",
    // Waiting and time.
    "clock_getres", "clock_gettime", "clock_nanosleep", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2",
    "epoll_wait", "eventfd2", "futex", "futex_waitv", "gettimeofday", "nanosleep", "pipe2", "poll", "ppoll",
    "pselect6", "restart_syscall", "select", "time", "timerfd_create", "timerfd_gettime", "timerfd_settime",
    // Signals, threads and the process itself.
    "exit", "exit_group", "getcpu", "getegid", "geteuid", "getgid", "getpid", "getppid", "getrandom", "getrlimit",
    "getrusage", "gettid", "getuid", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigreturn",
    "rt_sigsuspend", "rt_sigtimedwait", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address",
    "sigaltstack", "signalfd4", "sysinfo", "uname",
    // Streams and listeners that were passed in.
    "accept", "accept4", "getpeername", "getsockname", "getsockopt", "recvfrom", "recvmsg", "setsockopt", "shutdown",
];

/// ioctls: is it a terminal and how large, how much is there to read, non-blocking, share a file's blocks, which of its
/// own pages were written (`PAGEMAP_SCAN`, asked of a descriptor opened before).
const IOCTLS: [u64; 7] = [0x5401, 0x802c_542a, 0x5413, 0x541b, 0x5421, 0x4004_9409, 0xc060_6610];
/// prctls: name a thread, name a mapping.
const PRCTLS: [u64; 2] = [15, 0x5356_4d41];
/// `CLONE_THREAD`, and everything that makes a namespace.
const CLONE_THREAD: u64 = 0x0001_0000;
const NEW_NAMESPACES: u64 = 0x7e02_0080;
const PROT_EXEC: u64 = 4;
/// Connects by sending.
const MSG_FASTOPEN: u64 = 0x2000_0000;
const AF_UNIX: u64 = 1;
/// Of a file's mode: which kind it is.
const FILE_KIND: u64 = 0o170_000;
const CHARACTER_DEVICE: u64 = 0o020_000;
const PIPE: u64 = 0o010_000;
const SOCKET: u64 = 0o140_000;

/// What the process may ask of the kernel; `pid` is its own number, the only one it may signal.
fn policy(arch: Arch, pid: u64) -> Policy {
    let mut policy = Policy::new(ERRNO | libc::EPERM as u32);
    let mut add = |name: &str, action, checks: &[Check]| {
        if let Some(number) = arch.number(name) {
            policy.add(number, Rule { checks: checks.to_vec(), action });
        }
    };
    let is = |index, value| Check { index, op: Op::Equal, value, negated: false };
    let bits = |index, mask, value| Check { index, op: Op::MaskedEqual(mask), value, negated: false };
    for name in ALWAYS {
        add(name, ALLOW, &[]);
    }
    // Code was mapped before; no new code comes in.
    for name in ["mmap", "mprotect"] {
        add(name, ALLOW, &[bits(2, PROT_EXEC, 0)]);
    }
    // Whiteouts, and no other device; what a lower layer may have else, where Landlock lets it be.
    for kind in [CHARACTER_DEVICE, PIPE, SOCKET] {
        add("mknodat", ALLOW, &[bits(2, FILE_KIND, kind), is(3, 0)]);
    }
    // Threads only. clone3's flags are behind a pointer; the C library falls back to clone.
    add("clone", ALLOW, &[bits(0, CLONE_THREAD | NEW_NAMESPACES, CLONE_THREAD)]);
    add("clone3", ERRNO | libc::ENOSYS as u32, &[]);
    for name in ["kill", "tgkill"] {
        add(name, ALLOW, &[is(0, pid)]);
    }
    for request in IOCTLS {
        add("ioctl", ALLOW, &[is(1, request)]);
    }
    for request in PRCTLS {
        add("prctl", ALLOW, &[is(0, request)]);
    }
    // Reading its own limits.
    add("prlimit64", ALLOW, &[is(0, 0), is(2, 0)]);
    add("sendto", ALLOW, &[bits(3, MSG_FASTOPEN, 0)]);
    add("sendmsg", ALLOW, &[bits(2, MSG_FASTOPEN, 0)]);
    add("socketpair", ALLOW, &[is(0, AF_UNIX)]);
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one() {
        // A misspelt name would be refused without a word.
        for name in ALWAYS {
            assert!(Arch::X86_64.number(name).is_some(), "{name}");
        }
    }

    #[test]
    fn the_filter_fits() {
        let filter = Filter::of(&policy(Arch::NATIVE, 1), 0).unwrap();
        assert!(filter.len() < 400, "{} instructions", filter.len());
    }
}
