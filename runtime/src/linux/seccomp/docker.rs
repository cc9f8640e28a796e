//! Docker's default profile: what an ordinary container may ask of the kernel.
//!
//! The facts are those of moby's `profiles/seccomp` (2026): an allow-list; `clone` without new namespaces and
//! `clone3` answered with `ENOSYS` so that the C library falls back to it; five values of `personality`; sockets of
//! listed families only, which leaves out `AF_ALG` and `AF_VSOCK`; and groups that come with a capability. Names that
//! exist on 32-bit or other architectures only are left out: we make filters for x86-64 and arm64.

use super::policy::{ALLOW, Check, ERRNO, Op, Policy, Rule};
use super::syscalls::Arch;
use crate::linux::capabilities::CapSet;

/// Allowed always.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "arch_prctl", "bind", "brk", "cachestat", "capget", "capset",
    "chdir", "chmod", "chown", "clock_adjtime", "clock_getres", "clock_gettime", "clock_nanosleep", "close",
    "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create", "epoll_create1",
    "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait", "epoll_wait_old", "eventfd",
    "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat", "faccessat2", "fadvise64", "fallocate",
    "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "fcntl", "fdatasync",
    "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate",
    "futex", "futex_requeue", "futex_wait", "futex_waitv", "futex_wake", "futimesat", "get_robust_list",
    "get_thread_area", "getcpu", "getcwd", "getdents", "getdents64", "getegid", "geteuid", "getgid", "getgroups",
    "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid",
    "getresuid", "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch", "io_cancel",
    "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit", "ioctl", "ioprio_get", "ioprio_set",
    "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lgetxattr", "link",
    "linkat", "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir",
    "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "modify_ldt", "mprotect", "mq_getsetattr",
    "mq_notify", "mq_open", "mq_timedreceive", "mq_timedsend", "mq_unlink", "mremap", "mseal", "msgctl", "msgget",
    "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat",
    "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "poll", "ppoll", "prctl", "pread64", "preadv", "preadv2", "prlimit64",
    "process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6", "ptrace", "pwrite64", "pwritev",
    "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg", "recvmsg",
    "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "rmdir",
    "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_tgsigqueueinfo", "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity",
    "sched_getattr", "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity",
    "sched_setattr", "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget",
    "semop", "semtimedop", "sendfile", "sendmmsg", "sendmsg", "sendto", "set_robust_list", "set_thread_area",
    "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "setitimer", "setpgid", "setpriority",
    "setregid", "setresgid", "setresuid", "setreuid", "setrlimit", "setsid", "setsockopt", "setuid", "setxattr",
    "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4",
    "socketpair", "splice", "stat", "statfs", "statmount", "statx", "symlink", "symlinkat", "sync", "sync_file_range",
    "syncfs", "sysinfo", "tee", "tgkill", "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime",
    "timer_settime", "timerfd_create", "timerfd_gettime", "timerfd_settime", "times", "tkill", "truncate", "umask",
    "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "write", "writev",
];

/// Allowed with a capability.
#[rustfmt::skip]
const WITH: &[(&str, &[&str])] = &[
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("SYS_ADMIN", &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie",
        "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount",
        "open_tree", "perf_event_open", "quotactl", "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog",
        "umount2", "unshare",
    ]),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    ("SYS_MODULE", &["delete_module", "init_module", "finit_module"]),
    ("SYS_PACCT", &["acct"]),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"]),
    ("SYS_RAWIO", &["iopl", "ioperm"]),
    ("SYS_TIME", &["settimeofday", "clock_settime"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("SYSLOG", &["syslog"]),
    ("BPF", &["bpf"]),
    ("PERFMON", &["perf_event_open"]),
];

/// Values of `personality` that containers may set: Linux, with and without 32-bit addresses or UNAME26, and the
/// question for the present one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// Socket families in ranges, first and last: all that the kernel still has but `AF_ALG` (38; the kernel's crypto,
/// attack surface without use in containers) and `AF_VSOCK` (40; not separated by network namespaces).
const FAMILIES: [(u64, u64); 8] = [(1, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// One bit for each number below 512 in [`ALWAYS`], worked out by the compiler.
static NATIVE: [u64; 8] = bits(Arch::NATIVE);

const fn bits(arch: Arch) -> [u64; 8] {
    let mut bits = [0; 8];
    let mut i = 0;
    while i < ALWAYS.len() {
        if let Some(number) = arch.number(ALWAYS[i]) {
            bits[number as usize / 64] |= 1 << (number % 64);
        }
        i += 1;
    }
    bits
}

/// The profile for a container with these capabilities in its bounding set.
pub fn policy(granted: CapSet, arch: Arch) -> Policy {
    let mut policy = Policy::new(ERRNO | libc::EPERM as u32);
    let bits = if arch == Arch::NATIVE { NATIVE } else { bits(arch) };
    let allow = |checks| Rule { checks, action: ALLOW };
    for number in (0..512u32).filter(|n| bits[*n as usize / 64] >> (n % 64) & 1 == 1) {
        policy.add(number, allow(Vec::new()));
    }
    let mut add = |name: &str, rule| {
        if let Some(number) = arch.number(name) {
            policy.add(number, rule);
        }
    };
    for (capability, names) in WITH {
        if CapSet::named(capability).is_some_and(|cap| granted.contains(cap)) {
            names.iter().for_each(|name| add(name, allow(Vec::new())));
        }
    }
    if CapSet::named("SYS_ADMIN").is_some_and(|cap| !granted.contains(cap)) {
        let no_namespaces = Check { index: 0, op: Op::MaskedEqual(NEW_NAMESPACES), value: 0, negated: false };
        add("clone", allow(vec![no_namespaces]));
        add("clone3", Rule { checks: Vec::new(), action: ERRNO | libc::ENOSYS as u32 });
    }
    for value in PERSONALITIES {
        add("personality", allow(vec![Check { index: 0, op: Op::Equal, value, negated: false }]));
    }
    for (first, last) in FAMILIES {
        add(
            "socket",
            allow(vec![
                Check { index: 0, op: Op::AtLeast, value: first, negated: false },
                Check { index: 0, op: Op::Greater, value: last, negated: true },
            ]),
        );
    }
    policy
}
