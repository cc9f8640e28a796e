//! Children made by fork, which is safe here because this program has one thread.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Exit(i32),
    Signal(i32),
}

/// A child that waits for [`Child::go`] before it does anything. Killed when dropped.
pub struct Child {
    pub pid: i32,
    go: Option<std::fs::File>,
}

impl Child {
    /// Forks. `work` runs in the child; a panic in it is exit code 101.
    pub fn new(work: impl FnOnce() -> i32) -> Child {
        let (read, write) = rustix::pipe::pipe().expect("pipe");
        // SAFETY: this program has one thread, so the child's copy of memory and locks is whole.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
        if pid == 0 {
            drop::<OwnedFd>(write);
            let code = catch_unwind(AssertUnwindSafe(|| {
                let told = std::fs::File::from(read).read(&mut [0]).expect("read");
                if told == 0 { 102 } else { work() }
            }))
            .unwrap_or(101);
            // SAFETY: ends the child without running the parent's exit handlers a second time.
            unsafe { libc::_exit(code) }
        }
        Child { pid, go: Some(write.into()) }
    }

    /// Lets it run.
    pub fn go(&mut self) {
        self.go.take().expect("told once").write_all(b"x").expect("tell the child");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer.
        let waited = unsafe { libc::waitpid(self.pid, &mut status, 0) };
        assert_eq!(waited, self.pid);
        self.pid = 0;
        if libc::WIFEXITED(status) {
            Ended::Exit(libc::WEXITSTATUS(status))
        } else {
            Ended::Signal(libc::WTERMSIG(status))
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.pid > 0 {
            // SAFETY: both calls take numbers; the child was not waited for, so its number is still its own.
            unsafe {
                libc::kill(self.pid, libc::SIGKILL);
                libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// Runs `work` in a child; what it asserts must hold.
pub fn in_child(work: impl FnOnce()) {
    let mut child = Child::new(|| {
        work();
        0
    });
    child.go();
    assert_eq!(child.wait(), Ended::Exit(0));
}

/// A raw system call's error, 0 for none.
pub fn errno(number: libc::c_long, args: [u64; 4]) -> i32 {
    // SAFETY: callers pass numbers and null pointers only, or pointers to what outlives the call.
    let result = unsafe { libc::syscall(number, args[0], args[1], args[2], args[3]) };
    if result < 0 { std::io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 }
}
