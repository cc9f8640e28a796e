//! A health check that connects to a port of the container, and perhaps asks it for a path (RFC 9112). It never blocks: the
//! monitor's loop says when it can go on, and gives up when it takes too long.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::health::MAX_OUTPUT;
use crate::linux::sockets;
use crate::network::Fault;

/// What a probe comes to: docker's exit code of a check, 0 or 1, and why.
pub(super) type Outcome = (i32, String);

/// A call under way.
pub(super) struct Call {
    socket: OwnedFd,
    port: u16,
    connected: bool,
    /// What is still to be sent; nothing when a connection is all that is wanted.
    request: Vec<u8>,
    asks: bool,
    answer: Vec<u8>,
}

impl Call {
    /// A call on a socket that has begun to connect to this port.
    pub fn new(socket: OwnedFd, port: u16, path: Option<&str>) -> Call {
        let request = path.map(|path| {
            format!(
                "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: wharf\r\nAccept: */*\r\nConnection: close\r\n\r\n"
            )
        });
        let asks = request.is_some();
        Call { socket, port, connected: false, request: request.unwrap_or_default().into(), asks, answer: Vec::new() }
    }

    /// What to wait for.
    pub fn poll(&self) -> PollFd<'_> {
        let sends = !self.connected || !self.request.is_empty();
        PollFd::new(&self.socket, if sends { PollFlags::OUT } else { PollFlags::IN })
    }

    /// Does what can be done now. Something when it is over.
    pub fn go_on(&mut self) -> Option<Outcome> {
        match self.step() {
            Ok(outcome) => outcome,
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(e) => Some((1, failure(self.port, sockets::fault(e)))),
        }
    }

    fn step(&mut self) -> Result<Option<Outcome>, Errno> {
        if !self.connected {
            socket_error(&self.socket)??;
            self.connected = true;
            if !self.asks {
                return Ok(Some((0, format!("port {}: connected", self.port))));
            }
        }
        if !self.request.is_empty() {
            let sent = send(&self.socket, &self.request, SendFlags::NOSIGNAL)?;
            self.request.drain(..sent);
            return Ok(None);
        }
        let mut buffer = [0; 1024];
        let (got, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
        self.answer.extend_from_slice(&buffer[..got]);
        // The whole head, so that a server is not cut off in the middle of it.
        let whole = self.answer.windows(4).any(|end| end == b"\r\n\r\n");
        let over = whole || got == 0 || self.answer.len() > MAX_OUTPUT;
        Ok(over.then(|| {
            judge(&self.answer).unwrap_or_else(|| (1, format!("port {}: what answers does not speak HTTP", self.port)))
        }))
    }
}

/// Why a port cannot be called.
pub(super) fn failure(port: u16, fault: Fault) -> String {
    match fault {
        Fault::ConnectionRefused => format!("port {port}: nothing listens"),
        fault => format!("port {port}: {fault}"),
    }
}

/// What an answer's first line says: from 200 to 399 is well.
fn judge(answer: &[u8]) -> Option<Outcome> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let status: u16 = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((i32::from(!(200..400).contains(&status)), line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_decides() {
        let code = |answer: &str| judge(answer.as_bytes()).map(|(code, _)| code);
        for well in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 204\r\n\r\n", "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"] {
            assert_eq!(code(well), Some(0), "{well:?}");
        }
        for ill in ["HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 500 \r\n\r\n", "HTTP/1.1 101 Switch\r\n\r\n"] {
            assert_eq!(code(ill), Some(1), "{ill:?}");
        }
        for none in ["", "220 smtp ready\r\n", "HTTP/1.1\r\n", "HTTP/2 200\r\n", "\u{0}\u{1}"] {
            assert_eq!(code(none), None, "{none:?}");
        }
        assert_eq!(judge(b"HTTP/1.1 200 OK\r\n").map(|(_, text)| text).as_deref(), Some("HTTP/1.1 200 OK"));
    }
}
