//! Small things the portable code asks of the system.
#![allow(unsafe_code, reason = "some calls have no safe wrappers")]

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::fs::inotify;
use rustix::mm::{Advice, madvise};

/// Only native debuggers and profilers read how compiled guests are unwound, and registering it costs start-up time.
pub const NATIVE_UNWIND_INFO: bool = false;

/// True when we are root, or what passes for it in a user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// True when this process has one thread. (Each directory in /proc/self/task is a thread, and a link: proc(5).)
pub(crate) fn is_single_threaded() -> bool {
    rustix::fs::stat("/proc/self/task").is_ok_and(|stat| stat.st_nlink == 3)
}

/// The CPU time of all threads that a process has or had, in nanoseconds: `CPUCLOCK_SCHED` of
/// `include/linux/posix-timers_types.h`. `None` if there is no such process.
pub(crate) fn process_cpu_ns(pid: i32) -> Option<u64> {
    const SCHED: libc::clockid_t = 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for what the kernel answers (clock_gettime(2)).
    let read = unsafe { libc::clock_gettime((!pid << 3) | SCHED, &raw mut time) };
    (read == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Makes a directory that nobody else may enter.
///
/// # Errors
/// The disk's.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mkdir(path, Mode::RWXU)?)
}

/// Opens what the lock of a directory is taken on: the directory itself (flock(2)).
///
/// # Errors
/// `NotFound`; the disk's.
pub fn open_lock(dir: &Path, _make: bool) -> io::Result<File> {
    File::open(dir)
}

/// Makes a directory that everybody may enter and we may write to, whatever our umask says.
///
/// # Errors
/// The disk's.
pub fn create_open_dir(path: &Path) -> io::Result<()> {
    rustix::fs::mkdir(path, Mode::RWXU)?;
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(0o755))?)
}

/// Returns once the file has changed, or after so long at the latest.
pub fn wait_for_change(path: &Path, longest: Duration) {
    let watch = || -> rustix::io::Result<()> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&fd, path, inotify::WatchFlags::MODIFY)?;
        let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).map(drop)
    };
    if watch().is_err() {
        std::thread::sleep(longest.min(Duration::from_millis(50)));
    }
}

/// Watches a file for changes, from the moment it is made.
#[derive(Debug)]
pub struct Watch(Option<OwnedFd>);

impl Watch {
    /// Begins to watch. Of a file that cannot be watched nothing is heard.
    pub fn new(path: &Path) -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).ok();
        Watch(fd.filter(|fd| inotify::add_watch(fd, path, inotify::WatchFlags::MODIFY).is_ok()))
    }

    /// Returns once the file has changed since the last call, or after so long at the latest.
    pub fn wait(&self, longest: Duration) {
        let Some(fd) = &self.0 else { return std::thread::sleep(longest.min(Duration::from_millis(50))) };
        let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        // What goes wrong here only wakes us early.
        let _ = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout));
        let mut changes = [0u8; 4096];
        while rustix::io::read(fd, &mut changes).is_ok_and(|n| n > 0) {}
    }
}

/// Fills `bytes` from the kernel. Not by the getrandom crate: in a static program it keeps /dev/urandom open, and a forked
/// child that closes what it inherits would be left with a number that means nothing.
///
/// # Errors
/// The kernel's.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    // Up to 256 bytes come whole: getrandom(2).
    rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(())
}

/// What tells an open file from all others (device and inode).
pub(crate) fn file_id(file: &std::fs::File) -> Option<(u64, u64)> {
    rustix::fs::fstat(file).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

unsafe extern "C" {
    // The linker's names for the program's first byte and for the end of its instructions (end(3)).
    static __executable_start: u8;
    static etext: u8;
}

/// Gives unused heap back to the system, and lets go of the program's pages that start-up went through: they stay in the
/// page cache, and those that are needed again are mapped again.
pub fn give_back_memory() {
    // Whole pages, of the largest size that Linux has: a process behind the second wall cannot ask for the size.
    const PAGE: usize = 64 << 10;
    let start = (&raw const __executable_start).addr().next_multiple_of(PAGE);
    let length = ((&raw const etext).addr() & !(PAGE - 1)).saturating_sub(start);
    // SAFETY: malloc_trim(3) may be called at any time. What lies between the two addresses (headers, constants and
    // instructions) is mapped from the file and never written, so the kernel brings back the same bytes
    // (MADV_DONTNEED of madvise(2)). Should it refuse, nothing is lost.
    unsafe {
        libc::malloc_trim(0);
        // Small pages from now on: where the page cache has a large one, the first touch would map all of its two megabytes.
        for advice in [Advice::LinuxNoHugepage, Advice::LinuxDontNeed] {
            let _ = madvise(std::ptr::with_exposed_provenance_mut(start), length, advice);
        }
    }
}
