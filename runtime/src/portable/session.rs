//! A client's connection to a monitor: relays streams until the container ends.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wharf_images::Class;

use crate::error::{Error, Result};
use crate::monitor::log::Stream;
use crate::monitor::protocol::Frame;
use crate::monitor::relay::{self, DetachKeys};
pub use crate::monitor::relay::{Outcome, Relay};

/// A connection over which streams flow.
#[derive(Debug)]
pub struct Session {
    stream: TcpStream,
}

impl Session {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Session { stream }
    }

    /// Copies until the end. Our own stdin is read by a thread, which may outlive this. Signals are not passed on.
    ///
    /// # Errors
    /// `Unavailable` when the monitor died; our own stdout's errors.
    pub fn relay(mut self, options: &Relay) -> Result<Outcome> {
        let lost = |source| Error::os("talk to the container's monitor", source);
        let detached = Arc::new(AtomicBool::new(false));
        if options.stdin {
            let stream = self.stream.try_clone().map_err(lost)?;
            let (keys, detached) = (options.detach_keys.clone(), Arc::clone(&detached));
            std::thread::spawn(move || {
                if send_stdin(&stream, &keys).is_ok_and(|typed| typed) {
                    detached.store(true, Ordering::Relaxed);
                    // Wakes whoever reads from it; the monitor takes it for our end.
                    let _ = stream.shutdown(Shutdown::Both);
                }
            });
        }
        let mut received = Vec::new();
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let n = match self.stream.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(_) if detached.load(Ordering::Relaxed) => 0,
                Err(e) => return Err(lost(e)),
            };
            if n == 0 && detached.load(Ordering::Relaxed) {
                return Ok(Outcome::Detached);
            }
            if n == 0 {
                return Err(Error::new(Class::Unavailable, "the container's monitor ended unexpectedly")
                    .with_hint("`wharf ps -a` shows what became of the container"));
            }
            received.extend_from_slice(&buffer[..n]);
            if let Some(code) = relay::pass_on(&mut received, print)? {
                return Ok(Outcome::Exited(code));
            }
        }
    }

    /// Carries this session on to a client of our own, unread, until one of both ends.
    pub(super) fn splice(self, client: TcpStream) -> i32 {
        let (Ok(mut from), Ok(mut to)) = (self.stream.try_clone(), client.try_clone()) else { return 125 };
        let upward = std::thread::spawn(move || {
            let _ = io::copy(&mut to, &mut from);
            let _ = from.shutdown(Shutdown::Write);
        });
        let _ = io::copy(&mut &self.stream, &mut &client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = upward.join();
        0
    }
}

/// Sends our stdin until its end. True when the detach keys were typed.
fn send_stdin(stream: &TcpStream, keys: &[u8]) -> io::Result<bool> {
    let mut keys = DetachKeys::new(keys);
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let n = io::stdin().read(&mut buffer).unwrap_or(0);
        let (pass, typed) = keys.filter(&buffer[..n]);
        if n == 0 {
            send(stream, &Frame::CloseStdin)?;
            return Ok(false);
        }
        if !pass.is_empty() {
            send(stream, &Frame::Stdin(&pass))?;
        }
        if typed {
            send(stream, &Frame::Detach)?;
            return Ok(true);
        }
    }
}

fn send(mut stream: &TcpStream, frame: &Frame<'_>) -> io::Result<()> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    stream.write_all(&bytes)
}

/// What the container writes appears as it writes it.
fn print(stream: Stream, bytes: &[u8]) -> io::Result<()> {
    match stream {
        Stream::Stdout => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => io::stderr().lock().write_all(bytes),
    }
}
