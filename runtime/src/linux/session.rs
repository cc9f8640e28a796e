//! A client's connection to a monitor: relays streams, signals and terminal sizes until the container (or exec) ends.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use wharf_images::Class;

use crate::error::{Error, Result};
use crate::linux::signals::SignalFd;
use crate::monitor::log::Stream;
use crate::monitor::protocol::Frame;
use crate::monitor::relay::{self, DetachKeys};
pub use crate::monitor::relay::{Outcome, Relay};

/// A connection over which streams flow.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
}

/// The signals that docker's `--sig-proxy` passes on and that a signalfd can catch.
const FORWARDED: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGCONT,
    libc::SIGALRM,
    libc::SIGWINCH,
];

impl Session {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Session { stream }
    }

    /// Copies until the end. Call it in a single-threaded process: it takes signals by a signalfd.
    ///
    /// # Errors
    /// `Unavailable` when the monitor died; our own stdout's errors.
    pub fn relay(mut self, options: &Relay) -> Result<Outcome> {
        let lost = |source| Error::os("talk to the container's monitor", source);
        let mut signals = if options.signals || options.tty {
            let wanted: &[i32] = if options.signals { &FORWARDED } else { &[libc::SIGWINCH] };
            Some(SignalFd::new(wanted).map_err(|e| Error::os("take signals", e))?)
        } else {
            None
        };
        let mut keys = DetachKeys::new(&options.detach_keys);
        let mut stdin_open = options.stdin;
        let mut received = Vec::new();
        let mut buffer = vec![0u8; 64 * 1024];
        let stdin = io::stdin();
        loop {
            let mut fds = vec![PollFd::new(&self.stream, PollFlags::IN)];
            let signals_at = signals.as_ref().map(|s| {
                fds.push(PollFd::new(s, PollFlags::IN));
                fds.len() - 1
            });
            let stdin_at = stdin_open.then(|| {
                fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
                fds.len() - 1
            });
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Error::os("poll", e)),
            }
            let ready = |at: Option<usize>| at.is_some_and(|i| !fds[i].revents().is_empty());
            let (from_monitor, from_signals, from_stdin) = (ready(Some(0)), ready(signals_at), ready(stdin_at));
            drop(fds);
            if from_signals && let Some(signals) = &mut signals {
                while let Some(signal) = signals.next() {
                    self.signal(signal, options).map_err(lost)?;
                }
            }
            if from_stdin {
                let n = rustix::io::read(stdin.as_fd(), &mut buffer).unwrap_or(0);
                if n == 0 {
                    stdin_open = false;
                    self.send(&Frame::CloseStdin).map_err(lost)?;
                } else {
                    let (pass, detach) = keys.filter(&buffer[..n]);
                    if !pass.is_empty() {
                        self.send(&Frame::Stdin(&pass)).map_err(lost)?;
                    }
                    if detach {
                        self.send(&Frame::Detach).map_err(lost)?;
                        return Ok(Outcome::Detached);
                    }
                }
            }
            if from_monitor {
                let n = match self.stream.read(&mut buffer) {
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
                    Err(e) => return Err(lost(e)),
                };
                if n == 0 {
                    return Err(Error::new(Class::Unavailable, "the container's monitor ended unexpectedly")
                        .with_hint("`wharf ps -a` shows what became of the container"));
                }
                received.extend_from_slice(&buffer[..n]);
                let out = |stream, bytes: &[u8]| match stream {
                    Stream::Stdout => write_all(io::stdout(), bytes),
                    Stream::Stderr => write_all(io::stderr(), bytes),
                };
                if let Some(code) = relay::pass_on(&mut received, out)? {
                    return Ok(Outcome::Exited(code));
                }
            }
        }
    }

    /// Carries this session on to a client of our own, unread, until one of both ends.
    pub(crate) fn splice(self, client: UnixStream) -> i32 {
        let (Ok(mut from), Ok(mut to)) = (self.stream.try_clone(), client.try_clone()) else { return 125 };
        let upward = std::thread::spawn(move || {
            let _ = io::copy(&mut to, &mut from);
            let _ = from.shutdown(std::net::Shutdown::Write);
        });
        let _ = io::copy(&mut &self.stream, &mut &client);
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = upward.join();
        0
    }

    fn send(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        match self.stream.write_all(&bytes) {
            // The container is ending: what it still has to say comes before the end of the stream.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }

    fn signal(&mut self, signal: i32, options: &Relay) -> io::Result<()> {
        if signal != libc::SIGWINCH {
            return self.send(&Frame::Signal(signal));
        }
        match rustix::termios::tcgetwinsize(io::stdin()) {
            Ok(size) if options.tty => self.send(&Frame::Resize(size.ws_row, size.ws_col)),
            _ => Ok(()),
        }
    }
}

/// Writes past Rust's line buffer: what the container writes appears as it writes it.
fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                // Somebody made our terminal non-blocking: wait until it takes more.
                let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
