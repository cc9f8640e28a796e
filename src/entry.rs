//! The program's first function, on Linux. Rust's own looks for the main thread's guard page in /proc/self/maps before it
//! calls `main`, for a kinder message when the stack overflows; that takes 65 µs of every command, and a container's start is
//! counted in hundreds. The rest of what it does is done here.

#![allow(unsafe_code, reason = "the C library's way to call a program, and the streams it begins with")]

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_getfd};

/// Called by the C library, which has kept the arguments for [`std::env::args`] by then.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    keep_streams();
    // Whoever writes to a pipe that nobody reads is told so (EPIPE), and can end in order.
    // SAFETY: there is one thread, and no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // Flushes what is still to be written.
    std::process::exit(super::run().into())
}

/// Without the standard streams, the next file to be opened would become one, and be written to.
fn keep_streams() {
    for number in 0..3 {
        // SAFETY: the number is only looked up; whether it is open is the question.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl_getfd(stream) == Err(Errno::BADF) {
            // The lowest free number: this one. It stays open for good.
            let _ = open("/dev/null", OFlags::RDWR, Mode::empty()).map(std::mem::forget);
        }
    }
}
