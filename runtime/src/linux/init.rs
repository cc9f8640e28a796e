//! The init of `--init`: process 1 of a container, which hands signals to the program, reaps what is orphaned, and ends
//! with the program's code. It is our own process that goes on without an execve, with the container's rights and
//! nothing open, so no file of it need be in the image. pid_namespaces(7): when it ends, everything in the container does.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use rustix::process::{Pid, WaitOptions};

use super::channel::{Channel, Message};
use super::process::{self, Ended};
use crate::error::{Error, Result};

/// Starts the program by `execute` in a child, looks after it, and ends with its code.
///
/// # Errors
/// When no child can be made.
pub(super) fn run(channel: &Channel, execute: impl FnOnce() -> Error) -> Result<i32> {
    let all = block_all();
    // Not by clone3, which docker's seccomp profile does not know.
    // SAFETY: this process has one thread.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(Error::os("make the container's program", std::io::Error::last_os_error())),
        0 => {
            // Its own process group, in front of the terminal if there is one, so that typed signals reach it once.
            let _ = rustix::process::setpgid(None, None);
            // Blocked SIGTTOU lets a process in the background do this: tcsetpgrp(3).
            let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), rustix::process::getpid());
            process::default_signals();
            let _ = channel.send(&Message::Failed(execute()));
            process::exit_now(127)
        }
        child => child,
    };
    // The program has all it needs; the channel's end here would hide that it was executed.
    let _ = process::close_from(0);
    loop {
        let signal = next(&all);
        if signal != libc::SIGCHLD {
            // SAFETY: kill(2) takes plain numbers. Our child is not reaped before this loop ends: the pid is its own.
            unsafe { libc::kill(child, signal) };
            continue;
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if Some(pid) == Pid::from_raw(child) {
                let signalled = status.terminating_signal().map(Ended::Signalled);
                let ended = status.exit_status().map(Ended::Exited).or(signalled);
                // Not by returning: what would be dropped on the way is closed already.
                process::exit_now(ended.map_or(1, Ended::code));
            }
        }
    }
}

/// Blocks every signal, so that each is taken by [`next`].
fn block_all() -> libc::sigset_t {
    let mut all = MaybeUninit::uninit();
    // SAFETY: sigfillset writes the whole set before it is used.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        let all = all.assume_init();
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
        all
    }
}

/// Waits for a signal.
fn next(all: &libc::sigset_t) -> i32 {
    // SAFETY: the set is whole, and no more is asked than the number.
    unsafe { libc::sigwaitinfo(all, std::ptr::null_mut()) }
}
