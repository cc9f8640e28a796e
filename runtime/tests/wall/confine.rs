//! Filters, capabilities and the jail, each in a child that is confined for good.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use libc::{EACCES, ENOSYS, EPERM};
use wharf_runtime::linux::capabilities::{CapSet, ProcessCaps, own_bounding};
use wharf_runtime::linux::jail::{self, Jail, Walls};
use wharf_runtime::linux::seccomp;

use super::Test;
use super::process::{Child, Ended, errno, in_child};

pub const TESTS: &[Test] = &[
    ("seccomp::docker_refuses", docker_refuses),
    ("seccomp::docker_allows", docker_allows),
    ("seccomp::foreign_calls_kill", foreign_calls_kill),
    ("seccomp::a_profile_of_ones_own", own_profile),
    ("seccomp::cost", filter_cost),
    ("capabilities::root", root),
    ("capabilities::user", user),
    ("jail::files", jail_files),
    ("jail::special_files", jail_special_files),
    ("jail::everything_else", jail_rest),
    ("jail::unprivileged", jail_unprivileged),
    ("jail::keeps_files_capabilities", jail_capabilities),
    ("jail::another_user", jail_user),
    ("jail::refuses_several_threads", jail_threads),
    ("jail::cost", jail_cost),
];

const CLONE_NEWUSER: u64 = 0x1000_0000;

/// What a new process of this program would do under docker's profile.
fn confined(work: impl FnOnce()) {
    let filter = seccomp::docker_default(CapSet::DOCKER);
    in_child(|| {
        filter.install().expect("install");
        work();
    });
}

fn docker_refuses() {
    confined(|| {
        for (name, number) in [
            ("mount", libc::SYS_mount),
            ("umount2", libc::SYS_umount2),
            ("keyctl", libc::SYS_keyctl),
            ("add_key", libc::SYS_add_key),
            ("bpf", libc::SYS_bpf),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("pivot_root", libc::SYS_pivot_root),
            ("reboot", libc::SYS_reboot),
            ("setns", libc::SYS_setns),
        ] {
            assert_eq!(errno(number, [0; 4]), EPERM, "{name}");
        }
        assert_eq!(errno(libc::SYS_unshare, [CLONE_NEWUSER, 0, 0, 0]), EPERM);
        assert_eq!(errno(libc::SYS_clone, [CLONE_NEWUSER | libc::SIGCHLD as u64, 0, 0, 0]), EPERM);
        assert_eq!(errno(libc::SYS_socket, [libc::AF_ALG as u64, libc::SOCK_SEQPACKET as u64, 0, 0]), EPERM);
        assert_eq!(errno(libc::SYS_socket, [libc::AF_VSOCK as u64, libc::SOCK_STREAM as u64, 0, 0]), EPERM);
        assert_eq!(errno(libc::SYS_clone3, [0; 4]), ENOSYS);
        assert_eq!(errno(5000, [0; 4]), ENOSYS, "newer than the profile");
    });
}

fn docker_allows() {
    confined(|| {
        assert_eq!(errno(libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0, 0]), 0);
        assert_eq!(errno(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]), 0);
        assert_eq!(errno(libc::SYS_personality, [0x4_0000, 0, 0, 0]), EPERM);
        assert!(fs::read_dir("/proc/self").expect("readdir").count() > 10);
        assert_eq!(std::thread::spawn(|| 7).join().expect("a thread"), 7);
        let status = std::process::Command::new("/bin/sh").args(["-c", "ls / | grep -q bin"]).status().expect("exec");
        assert!(status.success());
    });
}

/// 32-bit calls, and x32's, have other numbers: answering them by ours would open a way around the filter.
#[cfg(target_arch = "x86_64")]
fn foreign_calls_kill() {
    let filter = seccomp::docker_default(CapSet::DOCKER);
    let x32 = || errno(0x4000_0000 + libc::SYS_getpid, [0; 4]);
    let i386 = || {
        let mut result = 20; // getpid there
        // SAFETY: enters the kernel by the 32-bit gate with a number and no pointers; it changes rax alone.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _)
        };
        i32::from(result > 0)
    };
    for call in [&x32 as &dyn Fn() -> i32, &i386] {
        let mut child = Child::new(|| {
            filter.install().expect("install");
            call()
        });
        child.go();
        assert_eq!(child.wait(), Ended::Signal(libc::SIGSYS));
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign_calls_kill() {}

fn own_profile() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71},
        {"names": ["dup3"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 77, "op": "SCMP_CMP_EQ"}]}]}"#;
    let profile = seccomp::profile::resolve(json, CapSet::EMPTY).expect("a profile");
    let filter = seccomp::compile(&profile).expect("compile");
    in_child(|| {
        filter.install().expect("install");
        assert_eq!(fs::create_dir("/tmp/never").expect_err("mkdir").raw_os_error(), Some(71));
        assert_eq!(errno(libc::SYS_dup3, [0, 77, 0, 0]), EPERM);
        assert_eq!(errno(libc::SYS_dup3, [0, 78, 0, 0]), 0);
    });
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Runs `work` in children and gathers how long each says it took.
fn timed(work: impl Fn() -> Duration) -> Duration {
    let (read, write) = rustix::pipe::pipe().expect("pipe");
    let times = (0..25).map(|_| {
        in_child(|| {
            let took = work().as_nanos() as u64;
            rustix::io::write(&write, &took.to_le_bytes()).expect("write");
        });
        let mut bytes = [0; 8];
        rustix::io::read(&read, &mut bytes).expect("read");
        Duration::from_nanos(u64::from_le_bytes(bytes))
    });
    median(times.collect())
}

fn filter_cost() {
    let made = timed(|| {
        let start = Instant::now();
        std::hint::black_box(seccomp::docker_default(CapSet::DOCKER));
        start.elapsed()
    });
    let filter = seccomp::docker_default(CapSet::DOCKER);
    let installed = timed(|| {
        let start = Instant::now();
        filter.install().expect("install");
        start.elapsed()
    });
    println!("docker's filter, {} instructions: make {made:?}, install {installed:?}", filter.len());
    assert!(installed < Duration::from_micros(500), "the search tree is what makes it cheap");
}

/// A line of `/proc/self/status`, as a number in hexadecimal.
fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number")
}

fn root() {
    in_child(|| {
        let caps = ProcessCaps::docker(CapSet::DOCKER, true).clamp(own_bounding());
        caps.lower_bounding().expect("bounding");
        caps.apply().expect("apply");
        let docker = CapSet::DOCKER.intersection(CapSet(0xa80425fb)).0;
        assert_eq!(docker, 0xa80425fb, "docker's own number");
        for (set, expected) in
            [("CapBnd", docker), ("CapEff", docker), ("CapPrm", docker), ("CapInh", 0), ("CapAmb", 0)]
        {
            assert_eq!(status(set), expected, "{set}");
        }
        assert_eq!(errno(libc::SYS_sethostname, [0; 4]), EPERM);
        let dir = tempfile::tempdir().expect("tempdir");
        std::os::unix::fs::chown(dir.path(), Some(5), Some(5)).expect("chown is one of them");
        std::os::unix::fs::chown(dir.path(), Some(0), Some(0)).expect("chown back");
    });
}

fn user() {
    in_child(|| {
        let caps = ProcessCaps::docker(CapSet::DOCKER, false).clamp(own_bounding());
        caps.lower_bounding().expect("bounding");
        assert_eq!(errno(libc::SYS_setresgid, [1000; 4]), 0);
        assert_eq!(errno(libc::SYS_setresuid, [1000; 4]), 0);
        caps.apply().expect("apply");
        assert_eq!((status("CapBnd"), status("CapEff"), status("CapPrm")), (CapSet::DOCKER.0, 0, 0));
        // And with a capability of its own, kept over execve by ambient.
    });
    in_child(|| {
        let chown = CapSet::named("CHOWN").expect("a name");
        let all =
            ProcessCaps { bounding: chown, effective: chown, permitted: chown, inheritable: chown, ambient: chown };
        all.lower_bounding().expect("bounding");
        assert_eq!(errno(libc::SYS_setresuid, [1000; 4]), 0);
        all.apply().expect("apply");
        let output = std::process::Command::new("grep").args(["CapEff", "/proc/self/status"]).output().expect("grep");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "CapEff:\t0000000000000001\n");
    });
}

/// Runs `work` in a jail with `read` (has `file`) to be read and `write` to be written, both in a new directory.
fn jailed(before: impl FnOnce(), work: impl FnOnce(&std::path::Path, Walls)) {
    let dir = tempfile::tempdir().expect("tempdir");
    let permissions = |mode| <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(mode);
    fs::set_permissions(dir.path(), permissions(0o777)).expect("chmod");
    for name in ["read", "write"] {
        fs::create_dir(dir.path().join(name)).expect("mkdir");
        fs::write(dir.path().join(name).join("file"), "text").expect("write");
        fs::set_permissions(dir.path().join(name), permissions(0o777)).expect("chmod");
    }
    fs::write(dir.path().join("outside"), "text").expect("write");
    in_child(|| {
        before();
        let read = fs::File::open(dir.path().join("read")).expect("open");
        let write = fs::File::open(dir.path().join("write")).expect("open");
        let jail = Jail { read_only: vec![read.as_fd()], read_write: vec![write.as_fd()], ..Jail::default() };
        let walls = jail::enter(&jail).expect("enter");
        work(dir.path(), walls);
    });
}

fn jail_files() {
    jailed(
        || {},
        |dir, walls| {
            assert!(walls.landlock.is_some(), "this kernel has no Landlock: {walls:?}");
            let refused = |result: std::io::Result<()>| result.expect_err("allowed").raw_os_error();
            assert_eq!(fs::read_to_string(dir.join("read/file")).expect("read"), "text");
            assert_eq!(refused(fs::write(dir.join("read/file"), "x")), Some(EACCES));
            assert_eq!(refused(fs::write(dir.join("read/new"), "x")), Some(EACCES));
            assert_eq!(refused(fs::read(dir.join("outside")).map(drop)), Some(EACCES));
            assert_eq!(refused(fs::read("/etc/passwd").map(drop)), Some(EACCES));
            assert_eq!(refused(fs::read("/proc/self/maps").map(drop)), Some(EACCES));
            let write = dir.join("write");
            fs::write(write.join("new"), "x").expect("write");
            fs::create_dir(write.join("dir")).expect("mkdir");
            fs::rename(write.join("new"), write.join("dir/moved")).expect("rename across directories");
            fs::hard_link(write.join("file"), write.join("hard")).expect("link");
            std::os::unix::fs::symlink("/etc/passwd", write.join("link")).expect("symlink");
            assert_eq!(refused(fs::read(write.join("link")).map(drop)), Some(EACCES), "out by a symlink");
            assert_eq!(refused(fs::rename(dir.join("read/file"), write.join("taken"))), Some(EACCES));
            fs::remove_dir_all(write.join("dir")).expect("remove");
        },
    );
}

/// What stands for nothing by itself can be made where a union is, and a device nowhere.
fn jail_special_files() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let dir = tempfile::tempdir().expect("tempdir");
    for name in ["union", "plain"] {
        fs::create_dir(dir.path().join(name)).expect("mkdir");
    }
    in_child(|| {
        let union = fs::File::open(dir.path().join("union")).expect("open");
        let plain = fs::File::open(dir.path().join("plain")).expect("open");
        let jail = Jail { unions: vec![union.as_fd()], read_write: vec![plain.as_fd()], ..Jail::default() };
        let walls = jail::enter(&jail).expect("enter");
        assert!(walls.landlock.is_some() && walls.seccomp, "{walls:?}");
        let make = |at: &str, kind, device| {
            let made = mknodat(CWD, dir.path().join(at), kind, Mode::from_raw_mode(0o600), device);
            made.map_err(rustix::io::Errno::raw_os_error)
        };
        assert_eq!(make("union/pipe", FileType::Fifo, 0), Ok(()));
        assert_eq!(make("union/socket", FileType::Socket, 0), Ok(()));
        assert_eq!(make("union/whiteout", FileType::CharacterDevice, 0), Ok(()));
        for (kind, device) in [
            (FileType::CharacterDevice, makedev(1, 3)),
            (FileType::BlockDevice, makedev(8, 0)),
            (FileType::BlockDevice, 0),
        ] {
            assert_eq!(make("union/device", kind, device), Err(EPERM), "{kind:?}");
        }
        for kind in [FileType::Fifo, FileType::Socket, FileType::CharacterDevice] {
            assert_eq!(make("plain/special", kind, 0), Err(EACCES), "{kind:?}");
        }
        // No one is at the other end, and nobody outside can be called by it.
        assert_eq!(errno(libc::SYS_connect, [0; 4]), EPERM);
    });
}

fn jail_rest() {
    let parent = std::process::id();
    jailed(
        || {},
        |dir, walls| {
            assert!(walls.seccomp && walls.no_new_privileges && walls.missing.is_empty(), "{walls:?}");
            assert_eq!(walls.capabilities, Vec::<String>::new());
            for (name, number) in [
                ("socket", libc::SYS_socket),
                ("bind", libc::SYS_bind),
                ("connect", libc::SYS_connect),
                ("listen", libc::SYS_listen),
                ("execve", libc::SYS_execve),
                ("execveat", libc::SYS_execveat),
                ("ptrace", libc::SYS_ptrace),
                ("mount", libc::SYS_mount),
                ("unshare", libc::SYS_unshare),
                ("process_vm_readv", libc::SYS_process_vm_readv),
                ("pidfd_open", libc::SYS_pidfd_open),
                ("io_uring_setup", libc::SYS_io_uring_setup),
                ("bpf", libc::SYS_bpf),
                ("mknodat", libc::SYS_mknodat),
                // Landlock lets these through.
                ("fchmodat", libc::SYS_fchmodat),
                ("fchownat", libc::SYS_fchownat),
                ("setxattr", libc::SYS_setxattr),
                ("setuid", libc::SYS_setuid),
            ] {
                assert_eq!(errno(number, [0; 4]), EPERM, "{name}");
            }
            assert_eq!(errno(libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0]), EPERM, "a new process");
            assert_eq!(errno(libc::SYS_kill, [parent.into(), 0, 0, 0]), EPERM, "a signal to the parent");
            assert_eq!(errno(libc::SYS_kill, [std::process::id().into(), 0, 0, 0]), 0, "a signal to itself");
            assert_eq!(errno(libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0]), EPERM, "typing on the terminal");
            let executable = (libc::PROT_READ | libc::PROT_EXEC) as u64;
            assert_eq!(
                errno(libc::SYS_mmap, [0, 4096, executable, (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64]),
                EPERM
            );
            // A thread, inside the same walls.
            let outside = dir.join("outside");
            let from_thread = std::thread::spawn(move || fs::read(outside).is_err()).join().expect("a thread");
            assert!(from_thread);
        },
    );
}

fn jail_unprivileged() {
    let drop_root = || {
        assert_eq!(errno(libc::SYS_setgroups, [0; 4]), 0);
        assert_eq!(errno(libc::SYS_setresgid, [65534; 4]), 0);
        assert_eq!(errno(libc::SYS_setresuid, [65534; 4]), 0);
    };
    jailed(drop_root, |dir, walls| {
        assert!(walls.landlock.is_some() && walls.seccomp, "{walls:?}");
        assert!(fs::read(dir.join("outside")).is_err());
        fs::write(dir.join("write/mine"), "x").expect("write");
    });
}

fn jail_capabilities() {
    let dir = tempfile::tempdir().expect("tempdir");
    std::os::unix::fs::chown(dir.path(), Some(1234), Some(1234)).expect("chown");
    in_child(|| {
        let tree = fs::File::open(dir.path()).expect("open");
        let jail = Jail { read_write: vec![tree.as_fd()], capabilities: jail::FILES, ..Jail::default() };
        let walls = jail::enter(&jail).expect("enter");
        assert_eq!(walls.capabilities, ["CAP_DAC_OVERRIDE", "CAP_FOWNER"]);
        fs::write(dir.path().join("another's"), "x").expect("write in another user's directory");
        fs::remove_file(dir.path().join("another's")).expect("remove");
        assert!(fs::read("/etc/shadow").is_err());
    });
}

/// What root's process is to others, and what it still is to files.
fn jail_user() {
    let dir = tempfile::tempdir().expect("tempdir");
    let other = std::process::id();
    in_child(|| {
        let tree = fs::File::open(dir.path()).expect("open");
        let user = jail::user_of("0123456789abcdef");
        assert_eq!(user, Some(0x7012_3456));
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).expect("prctl");
        let jail = Jail { read_write: vec![tree.as_fd()], user, ..Jail::default() };
        let walls = jail::enter(&jail).expect("enter");
        assert_eq!((walls.user, walls.missing), (0x7012_3456, vec![]));
        assert_eq!(
            (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
            (0x7012_3456, 0x7012_3456)
        );
        fs::write(dir.path().join("made"), "x").expect("write in root's directory");
        assert_eq!(errno(libc::SYS_setresuid, [0; 4]), EPERM, "back");
        assert_eq!(errno(libc::SYS_kill, [other.into(), 0, 0, 0]), EPERM);
    });
    let made = std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir.path().join("made")).expect("made"));
    assert_eq!(made, 0);
}

fn jail_threads() {
    in_child(|| {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        let error = jail::enter(&Jail::default()).expect_err("several threads").to_string();
        assert_eq!(error, "cannot confine a process of 2 threads");
        drop(go);
        let _ = other.join();
    });
}

fn jail_cost() {
    let dir = tempfile::tempdir().expect("tempdir");
    let took = timed(|| {
        let tree = fs::File::open(dir.path()).expect("open");
        let jail = Jail { read_write: vec![tree.as_fd()], ..Jail::default() };
        let start = Instant::now();
        jail::enter(&jail).expect("enter");
        start.elapsed()
    });
    println!("jail: {took:?}");
}
