//! Signals as a descriptor (signalfd(2)), so that one poll loop sees everything that happens.
#![allow(unsafe_code, reason = "sigprocmask and signalfd have no safe wrapper in rustix")]

use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Blocks signals and reads them instead. Dropping it restores the mask.
#[derive(Debug)]
pub struct SignalFd {
    file: File,
    before: libc::sigset_t,
}

impl SignalFd {
    /// Blocks `signals` in this thread, which should be the only one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: both sets are plain data that sigemptyset and sigprocmask fill in before anything reads them; the
        // descriptor that signalfd returns is new and ours alone.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            let mut before: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in signals {
                libc::sigaddset(&mut set, *signal);
            }
            if libc::sigprocmask(libc::SIG_BLOCK, &set, &mut before) != 0 {
                return Err(io::Error::last_os_error());
            }
            let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                let error = io::Error::last_os_error();
                libc::sigprocmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
                return Err(error);
            }
            Ok(SignalFd { file: File::from(OwnedFd::from_raw_fd(fd)), before })
        }
    }

    /// The next pending signal, if there is one.
    pub fn next(&mut self) -> Option<i32> {
        let mut info = [0u8; mem::size_of::<libc::signalfd_siginfo>()];
        match self.file.read(&mut info) {
            // ssi_signo is the first field, a u32.
            Ok(n) if n == info.len() => Some(u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as i32),
            _ => None,
        }
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SignalFd {
    fn drop(&mut self) {
        // SAFETY: `before` was filled in by sigprocmask.
        unsafe {
            libc::sigprocmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut());
        }
    }
}
