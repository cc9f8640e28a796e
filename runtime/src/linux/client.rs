//! One connection to the monitor's socket, as the monitor sees it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::engine::Attach;
use crate::monitor::log::Stream;
use crate::monitor::protocol::Frame;

/// A client that does not read holds back the output it wants at this much.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// How long a client that has heard the end may keep us from tidying up.
const COURTESY: Timespec = Timespec { tv_sec: 0, tv_nsec: 3_000_000 };

/// What a client is here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Has not asked yet.
    New,
    /// The streams of a task (0: the container's first).
    Attached {
        /// Which task.
        task: u64,
        /// Which streams.
        attach: Attach,
    },
    /// Waits for the container's end, to be told "done".
    Stopping,
    /// Waits for the container's end, to be told the code.
    Waiting,
    /// The container is frozen as long as it is there.
    Holding,
    /// Has had its answer: is dropped when it is sent.
    Answered,
}

#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    pub role: Role,
    input: Vec<u8>,
    output: VecDeque<u8>,
    pub gone: bool,
}

impl Client {
    pub fn new(stream: UnixStream, role: Role) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Client { stream, role, input: Vec::new(), output: VecDeque::new(), gone: false })
    }

    pub fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// True when it wants this output and does not keep up.
    pub fn holds_back(&self, of: u64, stream: Stream) -> bool {
        self.wants(of, stream) && self.output.len() > OUTPUT_LIMIT
    }

    /// True when it is attached to this output.
    pub fn wants(&self, of: u64, stream: Stream) -> bool {
        match self.role {
            Role::Attached { task, attach } if task == of => match stream {
                Stream::Stdout => attach.stdout,
                Stream::Stderr => attach.stderr,
            },
            _ => false,
        }
    }

    /// Queues a frame and sends what can be sent.
    pub fn send(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.send_bytes(&bytes);
    }

    /// Queues bytes and sends what can be sent.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        // The usual case needs no queue.
        let sent = if self.output.is_empty() { self.stream.write(bytes).unwrap_or(0) } else { 0 };
        self.output.extend(&bytes[sent..]);
        if sent < bytes.len() {
            self.flush();
        }
    }

    /// Sends what is queued, as far as it goes.
    pub fn flush(&mut self) {
        while !self.output.is_empty() {
            let (part, _) = self.output.as_slices();
            match self.stream.write(part) {
                Ok(n) => drop(self.output.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.gone = true;
                    self.output.clear();
                }
            }
        }
        if self.role == Role::Answered {
            self.gone = true;
        }
    }

    /// Reads what has come into the input, to be taken by [`Client::take_frame`].
    pub fn fill(&mut self) {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(n) => self.input.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.gone = true,
        }
    }

    /// The whole frames that have come; a client that sends anything else is cut off.
    pub fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Puts back what was not whole.
    pub fn put_back(&mut self, rest: &[u8]) {
        self.input.extend_from_slice(rest);
    }

    /// Sends the rest, waiting for a slow reader, but not for one that never reads.
    pub fn finish(mut self, patience: std::time::Duration) {
        if self.stream.set_nonblocking(false).is_ok() && self.stream.set_write_timeout(Some(patience)).is_ok() {
            let (a, b) = self.output.as_slices();
            let _ = self.stream.write_all(a).and_then(|()| self.stream.write_all(b));
        }
        self.output.clear();
        // It ends now, and has been woken on our processor. What we still do can wait for it.
        let hangup = PollFd::new(&self.stream, PollFlags::RDHUP);
        let _ = poll(&mut [hangup], Some(&COURTESY));
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
