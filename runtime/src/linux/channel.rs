//! The line between the monitor and a task's process until the program runs.
//!
//! A pair of sequenced-packet sockets, so that each message is whole, carries descriptors (unix(7), `SCM_RIGHTS`), and
//! the end of either side shows as an end of file: to the monitor, "the program was executed" (the socket is
//! close-on-exec); to the child, "the monitor died, stop".

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::process;
use crate::error::{Class, Error, Result};
use crate::network::networks::Wiring;

/// The largest message: a container may have three dozen places. A longer error text is cut.
const MAX: usize = 16 << 10;

/// The classes, for their numbers on the wire (both ends are the same program).
const CLASSES: [Class; 11] = [
    Class::NotFound,
    Class::Conflict,
    Class::InvalidInput,
    Class::Unauthorized,
    Class::Forbidden,
    Class::Unavailable,
    Class::Unsupported,
    Class::Corrupt,
    Class::LimitExceeded,
    Class::Cancelled,
    Class::Internal,
];

/// What is said.
#[derive(Debug)]
pub(super) enum Message {
    /// Monitor to child: your cgroup and your user namespace are in place.
    Placed,
    /// Monitor to child: your places on networks, as far as nobody else has settled them.
    Connect(Vec<Wiring>),
    /// Child to monitor: my network namespace is there, to be connected from outside.
    Apart,
    /// Child to monitor: a socket on which names are asked for in my network namespace; first that for datagrams.
    Names(OwnedFd),
    /// Child to monitor: what I have made in the namespaces that I have joined.
    Fetched(OwnedFd),
    /// Child to monitor: set up; only execve is left. With the master of its terminal, if it has one.
    Ready(Option<OwnedFd>),
    /// Child to monitor: I made another process, which is your child: its pid and its pidfd.
    Made(u32, OwnedFd),
    /// Monitor to child: execute.
    Go,
    /// Child to monitor: it failed, and has ended.
    Failed(Error),
}

/// One end.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Both ends; close-on-exec.
    pub fn pair() -> Result<(Channel, Channel)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|e| Error::os("make a socket pair", e))?;
        Ok((Channel(ours), Channel(theirs)))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The kernel's, `EPIPE` when the other side is gone.
    pub fn send(&self, message: &Message) -> Result<()> {
        let (bytes, fd) = encode(message);
        let fds = fd.map(|fd| [fd.as_fd()]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(fds) = &fds {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|e| Error::os("speak to a task's process", e))
    }

    /// Waits for a message; `None` when the other side has closed.
    ///
    /// # Errors
    /// The kernel's; `Corrupt` for what no [`Channel::send`] has sent.
    pub fn receive(&self) -> Result<Option<Message>> {
        let mut bytes = [0; MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = process::after_reset(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let got = got.map_err(|e| Error::os("hear a task's process", e))?;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if got.bytes == 0 {
            return Ok(None);
        }
        decode(&bytes[..got.bytes], fd)
            .map(Some)
            .ok_or_else(|| Error::new(Class::Corrupt, "a task's process sent an unknown message"))
    }

    /// True when [`Channel::receive`] would not wait.
    pub fn has_message(&self) -> bool {
        process::is_readable(&self.0)
    }

    /// The child's side: waits until the monitor has put it where it belongs.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn wait_until_placed(&self) -> Result<()> {
        match self.receive()? {
            Some(Message::Placed) => Ok(()),
            _ => Err(Error::new(Class::Cancelled, "the monitor is gone")),
        }
    }

    /// The child's side: waits for its places on networks.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn wait_until_connected(&self) -> Result<Vec<Wiring>> {
        match self.receive()? {
            Some(Message::Connect(places)) => Ok(places),
            _ => Err(Error::new(Class::Cancelled, "the monitor is gone")),
        }
    }

    /// The child's side: a result as the code to exit with; an error is told to the monitor first.
    pub fn tell(&self, result: Result<i32>) -> i32 {
        result.unwrap_or_else(|error| {
            // A monitor that is gone needs no telling.
            let _ = self.send(&Message::Failed(error));
            1
        })
    }
}

fn encode(message: &Message) -> (Vec<u8>, Option<&OwnedFd>) {
    match message {
        Message::Placed => (vec![b'P'], None),
        // Names and numbers always become JSON.
        Message::Connect(places) => ([&b"C"[..], &serde_json::to_vec(places).unwrap_or_default()].concat(), None),
        Message::Names(fd) => (vec![b'N'], Some(fd)),
        Message::Apart => (vec![b'A'], None),
        Message::Fetched(fd) => (vec![b'X'], Some(fd)),
        Message::Ready(fd) => (vec![b'R'], fd.as_ref()),
        Message::Go => (vec![b'G'], None),
        Message::Made(pid, fd) => ([&b"M"[..], &pid.to_ne_bytes()].concat(), Some(fd)),
        Message::Failed(Error::Exec { code, message }) => (text(b'E', *code as u8, message, ""), None),
        Message::Failed(error) => {
            let class = CLASSES.iter().position(|class| *class == error.class()).unwrap_or(CLASSES.len() - 1);
            (text(b'F', class as u8, &error.to_string(), error.hint().unwrap_or_default()), None)
        }
    }
}

/// An error: its kind, its number, what it says and, after a zero byte, its hint.
fn text(kind: u8, number: u8, message: &str, hint: &str) -> Vec<u8> {
    let mut bytes = vec![kind, number];
    bytes.extend_from_slice(&message.as_bytes()[..message.len().min(MAX / 2)]);
    bytes.push(0);
    bytes.extend_from_slice(&hint.as_bytes()[..hint.len().min(MAX / 4)]);
    bytes
}

fn decode(bytes: &[u8], fd: Option<OwnedFd>) -> Option<Message> {
    let (kind, rest) = bytes.split_first()?;
    Some(match kind {
        b'P' => Message::Placed,
        b'C' => Message::Connect(serde_json::from_slice(rest).ok()?),
        b'N' => Message::Names(fd?),
        b'A' => Message::Apart,
        b'X' => Message::Fetched(fd?),
        b'R' => Message::Ready(fd),
        b'G' => Message::Go,
        b'M' => Message::Made(u32::from_ne_bytes(rest.try_into().ok()?), fd?),
        b'E' | b'F' => {
            let (number, rest) = rest.split_first()?;
            let mut parts = rest.splitn(2, |byte| *byte == 0).map(String::from_utf8_lossy);
            let message = parts.next()?.into_owned();
            Message::Failed(if *kind == b'E' {
                Error::Exec { code: i32::from(*number), message }
            } else {
                let error = Error::new(*CLASSES.get(usize::from(*number))?, message);
                match parts.next() {
                    Some(hint) if !hint.is_empty() => error.with_hint(hint),
                    _ => error,
                }
            })
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(message: Message) -> Message {
        let (a, b) = Channel::pair().unwrap();
        a.send(&message).unwrap();
        b.receive().unwrap().unwrap()
    }

    #[test]
    fn errors_keep_class_code_and_hint() {
        let error = Error::new(Class::Forbidden, "no").with_hint("ask root");
        let Message::Failed(back) = through(Message::Failed(error)) else { panic!() };
        assert_eq!((back.class(), back.to_string().as_str(), back.hint()), (Class::Forbidden, "no", Some("ask root")));
        let error = Error::Exec { code: 127, message: "m".into() };
        let Message::Failed(back) = through(Message::Failed(error)) else { panic!() };
        assert_eq!((back.exit_code(), back.to_string().as_str()), (127, "m"));
        let long = "x".repeat(3 * MAX);
        let Message::Failed(back) = through(Message::Failed(Error::new(Class::Internal, long))) else { panic!() };
        assert_eq!(back.to_string().len(), MAX / 2);
    }

    #[test]
    fn descriptors_travel() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let Message::Made(7, fd) = through(Message::Made(7, write)) else { panic!() };
        rustix::io::write(&fd, b"x").unwrap();
        assert_eq!(rustix::io::read(&read, &mut [0; 4]).unwrap(), 1);
        assert!(matches!(through(Message::Ready(None)), Message::Ready(None)));
    }

    #[test]
    fn the_end_of_the_other_side_shows() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert!(b.receive().unwrap().is_none());
        assert!(b.send(&Message::Go).is_err());
    }
}
