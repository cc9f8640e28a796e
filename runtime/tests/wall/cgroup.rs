//! Control groups as this machine has them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use wharf_runtime::linux::cgroup::{Cgroup, docker_devices};
use wharf_runtime::task::Limits;

use super::Test;
use super::process::{Child, Ended, in_child};

pub const TESTS: &[Test] = &[
    ("cgroup::memory_limit_kills_and_is_reported", memory_limit),
    ("cgroup::pids_limit_stops_a_fork_bomb", pids_limit),
    ("cgroup::freeze_and_thaw", freeze),
    ("cgroup::cpu_quota", cpu_quota),
    ("cgroup::usage", usage),
    ("cgroup::kill_all_beats_forking", kill_all),
    ("cgroup::devices", devices),
    ("cgroup::clone_into", open_again),
    ("cgroup::contradictions_leave_nothing", contradictions),
    ("cgroup::cost", cost),
];

/// A group of a name of its own that checks, when it is dropped, that nothing is left of it.
struct Group {
    path: String,
    group: Cgroup,
}

fn name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("wharf-wall/{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn group(limits: Limits) -> Group {
    let path = name();
    let group = Cgroup::create(&path, &limits).expect("create");
    Group { path, group }
}

/// Where the group stands, in any hierarchy.
fn places(path: &str) -> Vec<PathBuf> {
    let mounts = fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten().map(|entry| entry.path());
    mounts.chain([PathBuf::from("/sys/fs/cgroup")]).map(|mount| mount.join(path)).filter(|dir| dir.exists()).collect()
}

impl Group {
    /// A child in the group, not yet let go.
    fn child(&self, work: impl FnOnce() -> i32) -> Child {
        let child = Child::new(work);
        self.group.add(child.pid as u32).expect("add");
        child
    }

    fn remove(self) {
        self.group.remove().expect("remove");
        assert_eq!(places(&self.path), Vec::<PathBuf>::new(), "left behind");
        for mount in places("wharf-wall") {
            // Shared by all tests; the last one to leave takes it away.
            let _ = fs::remove_dir(mount);
        }
    }
}

fn touch(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0u8; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    std::hint::black_box(memory)
}

fn memory_limit() {
    let limits = Limits { memory: Some(16 << 20), memory_swap: Some(16 << 20), ..Limits::default() };
    let group = group(limits);
    let mut small = group.child(|| i32::from(touch(4 << 20).len() != 4 << 20));
    small.go();
    assert_eq!(small.wait(), Ended::Exit(0));
    assert!(!group.group.oom_killed());
    assert_eq!(group.group.usage().memory_limit, Some(16 << 20));
    let mut large = group.child(|| touch(64 << 20)[0].into());
    large.go();
    assert_eq!(large.wait(), Ended::Signal(libc::SIGKILL));
    assert!(group.group.oom_killed());
    group.remove();
}

fn pids_limit() {
    let group = group(Limits { pids: Some(5), ..Limits::default() });
    let bomb = || {
        let mut made = 0;
        loop {
            // SAFETY: this child has one thread; its children only sleep.
            match unsafe { libc::fork() } {
                0 => loop {
                    sleep(Duration::from_secs(1));
                },
                -1 => return made,
                _ => made += 1,
            }
            if made > 50 {
                return 99;
            }
        }
    };
    let mut child = group.child(bomb);
    child.go();
    assert_eq!(child.wait(), Ended::Exit(4));
    assert_eq!(group.group.usage().pids, 4);
    // One more after the limit is raised.
    group.group.update(&Limits { pids: Some(6), ..Limits::default() }).expect("update");
    let mut child = group.child(bomb);
    child.go();
    assert_eq!(child.wait(), Ended::Exit(1));
    group.group.kill_all().expect("kill");
    assert!(group.group.pids().is_empty());
    group.remove();
}

/// A number that a child counts up and the parent reads.
fn shared_counter() -> &'static AtomicU64 {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    // SAFETY: a new shared mapping, zeroed and never unmapped, holds a valid AtomicU64.
    unsafe {
        let place = mmap_anonymous(std::ptr::null_mut(), 4096, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        &*place.expect("mmap").cast::<AtomicU64>()
    }
}

fn freeze() {
    let group = group(Limits::default());
    let counter = shared_counter();
    let mut child = group.child(|| {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    child.go();
    let moves = || {
        let before = counter.load(Ordering::Relaxed);
        sleep(Duration::from_millis(30));
        counter.load(Ordering::Relaxed) != before
    };
    assert!(moves());
    group.group.freeze(true).expect("freeze");
    assert!(!moves(), "runs on while frozen");
    group.group.freeze(false).expect("thaw");
    assert!(moves(), "stays frozen");
    // A frozen process must die too.
    group.group.freeze(true).expect("freeze again");
    group.group.kill_all().expect("kill");
    assert_eq!(child.wait(), Ended::Signal(libc::SIGKILL));
    group.remove();
}

fn cpu_quota() {
    let group = group(Limits { nano_cpus: Some(200_000_000), ..Limits::default() });
    let mut child = group.child(|| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(600) {}
        0
    });
    child.go();
    assert_eq!(child.wait(), Ended::Exit(0));
    let used = group.group.usage().cpu_ns as f64 / 600e6;
    // A fifth of a CPU; a period more where the clock of the group starts.
    assert!((0.05..0.45).contains(&used), "{used} of a CPU");
    group.remove();
}

fn usage() {
    let group = group(Limits::default());
    let ready = shared_counter();
    let mut child = group.child(|| {
        let memory = touch(32 << 20);
        // Its own time, not the wall's: the machine may be busy.
        let cpu = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        while (cpu().tv_sec, cpu().tv_nsec) < (0, 50_000_000) {}
        ready.store(1, Ordering::Release);
        sleep(Duration::from_secs(100));
        memory[0].into()
    });
    child.go();
    while ready.load(Ordering::Acquire) == 0 {
        sleep(Duration::from_millis(1));
    }
    let usage = group.group.usage();
    assert!((30 << 20..64 << 20).contains(&usage.memory), "{usage:?}");
    assert!((30_000_000..2_000_000_000).contains(&usage.cpu_ns), "{usage:?}");
    assert_eq!((usage.pids, usage.memory_limit), (1, None));
    group.group.kill_all().expect("kill");
    drop(child);
    group.remove();
}

fn kill_all() {
    let group = group(Limits { pids: Some(100), ..Limits::default() });
    let mut child = group.child(|| {
        // SAFETY: one thread; every child goes on forking as its parent does.
        while unsafe { libc::fork() } >= 0 {
            std::thread::yield_now();
        }
        loop {
            // SAFETY: as above; refused by the limit mostly.
            unsafe { libc::fork() };
        }
    });
    child.go();
    sleep(Duration::from_millis(100));
    assert!(group.group.pids().len() > 50);
    group.group.kill_all().expect("kill");
    drop(child);
    assert!(group.group.pids().is_empty());
    group.remove();
}

fn devices() {
    let group = group(Limits::default());
    group.group.limit_devices(&docker_devices()).expect("limit devices");
    let dir = tempfile::tempdir_in("/root").expect("a directory that is not nodev");
    let disk = dir.path().join("disk");
    let mut child = group.child(|| {
        assert!(fs::File::open("/dev/null").is_ok());
        assert!(fs::File::open("/dev/urandom").is_ok());
        // Docker lets containers make nodes of anything, and use none of it.
        let root = fs::metadata("/").map(|meta| std::os::unix::fs::MetadataExt::dev(&meta)).expect("stat");
        rustix::fs::mknodat(rustix::fs::CWD, &disk, rustix::fs::FileType::BlockDevice, 0o600.into(), root)
            .expect("mknod");
        let error = fs::File::open(&disk).expect_err("the host's disk opens");
        i32::from(error.raw_os_error() != Some(libc::EPERM))
    });
    child.go();
    assert_eq!(child.wait(), Ended::Exit(0));
    group.remove();
}

/// Another process, which knows the path only, finds what is there.
fn open_again() {
    let group = group(Limits::default());
    let child = group.child(|| 0);
    let path = group.path.clone();
    let pid = child.pid;
    in_child(move || {
        let again = Cgroup::open(&path).expect("open");
        assert_eq!(again.pids().iter().map(|pid| pid.as_raw_nonzero().get()).collect::<Vec<_>>(), [pid]);
        again.kill_all().expect("kill");
        again.remove().expect("remove");
    });
    assert_eq!(child.wait(), Ended::Signal(libc::SIGKILL));
    group.remove();
}

fn contradictions() {
    let path = name();
    let limits = Limits { cpuset_cpus: Some("4000".into()), ..Limits::default() };
    let error = Cgroup::create(&path, &limits).expect_err("no such CPU").to_string();
    assert!(error.starts_with("cannot set --cpuset-cpus to 4000: "), "{error}");
    assert_eq!(places(&path), Vec::<PathBuf>::new());
}

/// What a container without limits pays. Told, not judged: this is a debug build.
fn cost() {
    let mut times: Vec<[Duration; 3]> = Vec::new();
    for _ in 0..30 {
        let start = Instant::now();
        let group = group(Limits::default());
        let made = start.elapsed();
        let child = Child::new(|| 0);
        let start = Instant::now();
        group.group.add(child.pid as u32).expect("add");
        let entered = start.elapsed();
        drop(child);
        let start = Instant::now();
        group.group.remove().expect("remove");
        times.push([made, entered, start.elapsed()]);
        group.remove();
    }
    let median = |at: usize| {
        let mut all: Vec<_> = times.iter().map(|times| times[at]).collect();
        all.sort();
        all[all.len() / 2]
    };
    println!("cgroup without limits: make {:?}, enter {:?}, remove {:?}", median(0), median(1), median(2));
}
