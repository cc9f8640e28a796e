//! A question to the kernel about many sockets at once: poll(2).

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Which of some things can be read from now. Each may have several sockets.
pub struct Question {
    sockets: Vec<PollFd<'static>>,
    /// Whose they are.
    owners: Vec<u32>,
}

impl Question {
    /// About so many sockets, probably.
    pub fn with_capacity(count: usize) -> Self {
        Question { sockets: Vec::with_capacity(count), owners: Vec::with_capacity(count) }
    }

    /// Asks for a socket of a thing, after those of the things before.
    pub fn about(&mut self, owner: u32, socket: &impl AsRawFd) {
        // SAFETY: it is open, and if it were closed before the question is asked, the kernel would only say so.
        let socket = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        self.sockets.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
        self.owners.push(owner);
    }

    /// True when it is about no socket.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Those that can be read from, or have failed. Nobody waits.
    pub fn ask(&mut self) -> Vec<u32> {
        let mut ready = Vec::new();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut self.sockets, Some(&now)).unwrap_or(0) > 0 {
            let told = self.sockets.iter().zip(&self.owners).filter(|(socket, _)| !socket.revents().is_empty());
            ready.extend(told.map(|(_, owner)| *owner));
            ready.dedup();
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::linux::process::is_readable;

    #[test]
    fn each_owner_of_what_can_be_read_is_named_once() {
        let pairs: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
        let mut question = Question::with_capacity(1);
        for (owner, (ours, _)) in [0, 1, 1, 3].into_iter().zip(&pairs) {
            question.about(owner, ours);
        }
        assert!(question.ask().is_empty());
        for (_, theirs) in &pairs[1..3] {
            (&*theirs).write_all(b"x").unwrap();
        }
        assert_eq!(question.ask(), [1]);
        pairs[3].1.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(question.ask(), [1, 3], "the end is something to read");
        assert!(is_readable(&pairs[1].0) && is_readable(&pairs[3].0) && !is_readable(&pairs[0].0));
    }
}
