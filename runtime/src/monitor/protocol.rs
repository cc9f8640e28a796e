//! What clients and a container's monitor say to each other over its socket.
//!
//! A client connects, sends one [`Request`] as a JSON frame, and gets one [`Reply`]. After `Attach` and an attached `Exec`
//! both sides go on with stream frames until [`Frame::Exit`] or until one side closes. A frame is a byte for its kind, its
//! length as a little-endian u32, and so many bytes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use wharf_images::Class;

use crate::engine::{Attach, Change, Reconnect};
use crate::error::Error;
use crate::task::{ExecSpec, Usage};

/// No frame is longer; who sends one is cut off.
pub const MAX_FRAME: usize = 1 << 20;

/// Length of a frame's header.
pub const HEADER: usize = 5;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// The container's streams.
    Attach(Attach),
    /// Another process in the container, and its streams if any are wanted.
    Exec {
        /// What to run.
        spec: ExecSpec,
        /// In a terminal.
        tty: bool,
        /// Its streams.
        attach: Option<Attach>,
    },
    /// A signal, by number.
    Signal(i32),
    /// Stop: this signal, and after so many seconds SIGKILL (`None`: never). Answered when the container has ended.
    Stop {
        /// The signal's number.
        signal: i32,
        /// Seconds.
        timeout: Option<u32>,
    },
    /// SIGKILL. Answered when the container has ended.
    Kill,
    /// Answered when the container has ended, with [`Reply::Exited`].
    Wait,
    /// Other limits, another restart policy.
    Update(Change),
    /// Other places on networks.
    Reconnect(Reconnect),
    /// Freeze or thaw.
    Pause(bool),
    /// Freeze, until this client is gone or somebody thaws: whoever dies at work leaves nothing frozen.
    Hold,
    /// What it uses.
    Usage,
    /// Its processes.
    Processes,
    /// Its execs.
    Execs,
    /// Its network has a bridge now: Linux containers have come.
    Bridged,
}

/// The monitor's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// The container (or exec) runs.
    Started {
        /// The container's id.
        id: String,
        /// The process id of its task.
        pid: u32,
        /// What the person should know.
        warnings: Vec<String>,
    },
    /// The container has ended.
    Exited(i32),
    /// What it uses.
    Usage(Usage),
    /// Its processes.
    Processes {
        /// Their ids, as the host sees them; the first is its task's.
        pids: Vec<u32>,
        /// The command lines of those that are execs.
        execs: BTreeMap<u32, String>,
    },
    /// Its execs: those that run, and some that have ended.
    Execs(Vec<ExecState>),
    /// It cannot be done.
    Error(Failure),
}

/// An exec, for whoever asks about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecState {
    /// 64 digits, as in its events.
    pub id: String,
    /// The container's id.
    pub container: String,
    /// Its process, as the host sees it.
    pub pid: u32,
    /// How it ended, if it has.
    pub exit_code: Option<i32>,
    /// What it runs.
    pub args: Vec<String>,
    /// As whom, if not as the container.
    pub user: Option<String>,
    /// With all capabilities.
    pub privileged: bool,
    /// In a terminal.
    pub tty: bool,
    /// Its stdin is open.
    pub stdin: bool,
    /// Somebody was to see its output.
    pub attached: bool,
}

/// An [`Error`] that crosses a process boundary: class, code, words and advice survive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    class: String,
    exec_code: Option<i32>,
    message: String,
    hint: Option<String>,
}

const CLASSES: [(Class, &str); 11] = [
    (Class::NotFound, "not-found"),
    (Class::Conflict, "conflict"),
    (Class::InvalidInput, "invalid-input"),
    (Class::Unauthorized, "unauthorized"),
    (Class::Forbidden, "forbidden"),
    (Class::Unavailable, "unavailable"),
    (Class::Unsupported, "unsupported"),
    (Class::Corrupt, "corrupt"),
    (Class::LimitExceeded, "limit-exceeded"),
    (Class::Cancelled, "cancelled"),
    (Class::Internal, "internal"),
];

impl From<&Error> for Failure {
    fn from(e: &Error) -> Self {
        let class = CLASSES.iter().find(|(c, _)| *c == e.class()).map_or("internal", |(_, n)| n);
        let exec_code = match e {
            Error::Exec { code, .. } => Some(*code),
            _ => None,
        };
        Failure { class: class.to_owned(), exec_code, message: e.to_string(), hint: e.hint().map(str::to_owned) }
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        if let Some(code) = f.exec_code {
            return Error::Exec { code, message: f.message };
        }
        let class = CLASSES.iter().find(|(_, n)| *n == f.class).map_or(Class::Internal, |(c, _)| *c);
        Error::Message { class, message: f.message, hint: f.hint }
    }
}

/// What flows in both directions.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame<'a> {
    /// The client's request.
    Request(&'a [u8]),
    /// The monitor's answer.
    Reply(&'a [u8]),
    /// To the container's stdin.
    Stdin(&'a [u8]),
    /// The client's stdin has ended.
    CloseStdin,
    /// The client's terminal has this many rows and columns.
    Resize(u16, u16),
    /// A signal typed at the client.
    Signal(i32),
    /// The person has typed the detach keys. The client's last frame.
    Detach,
    /// From the container's stdout.
    Stdout(&'a [u8]),
    /// From the container's stderr.
    Stderr(&'a [u8]),
    /// It has ended with this code. The last frame.
    Exit(i32),
}

impl Frame<'_> {
    fn kind(&self) -> u8 {
        match self {
            Frame::Request(_) => b'q',
            Frame::Reply(_) => b'r',
            Frame::Stdin(_) => b'0',
            Frame::CloseStdin => b'c',
            Frame::Resize(..) => b'w',
            Frame::Signal(_) => b's',
            Frame::Detach => b'd',
            Frame::Stdout(_) => b'1',
            Frame::Stderr(_) => b'2',
            Frame::Exit(_) => b'x',
        }
    }

    /// Appends the frame's bytes. A payload longer than [`MAX_FRAME`] is the caller's mistake.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let small;
        let payload: &[u8] = match self {
            Frame::Request(p) | Frame::Reply(p) | Frame::Stdin(p) | Frame::Stdout(p) | Frame::Stderr(p) => p,
            Frame::CloseStdin | Frame::Detach => &[],
            Frame::Resize(rows, cols) => {
                small = (u32::from(*rows) << 16 | u32::from(*cols)).to_le_bytes();
                &small
            }
            Frame::Signal(n) | Frame::Exit(n) => {
                small = n.to_le_bytes();
                &small
            }
        };
        out.extend_from_slice(&self.header(payload.len()));
        out.extend_from_slice(payload);
    }

    /// What stands before a payload of so many bytes in a frame of this kind.
    pub fn header(&self, length: usize) -> [u8; HEADER] {
        debug_assert!(length <= MAX_FRAME);
        let [a, b, c, d] = (length as u32).to_le_bytes();
        [self.kind(), a, b, c, d]
    }

    /// The first frame in `bytes` and its length, or `None` while it is not whole.
    ///
    /// # Errors
    /// `InvalidData` for what is no frame.
    pub fn decode(bytes: &[u8]) -> io::Result<Option<(Frame<'_>, usize)>> {
        let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let number = || -> io::Result<u32> {
            let bytes = payload.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "bad frame"))?;
            Ok(u32::from_le_bytes(bytes))
        };
        let frame = match kind {
            b'q' => Frame::Request(payload),
            b'r' => Frame::Reply(payload),
            b'0' => Frame::Stdin(payload),
            b'c' => Frame::CloseStdin,
            b'w' => {
                let n = number()?;
                Frame::Resize((n >> 16) as u16, n as u16)
            }
            b's' => Frame::Signal(number()? as i32),
            b'd' => Frame::Detach,
            b'1' => Frame::Stdout(payload),
            b'2' => Frame::Stderr(payload),
            b'x' => Frame::Exit(number()? as i32),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown frame")),
        };
        Ok(Some((frame, HEADER + length)))
    }
}

/// Encodes a request as its frame.
pub fn request_bytes(request: &Request) -> Vec<u8> {
    json_frame(request, |p| Frame::Request(p))
}

/// Encodes a reply as its frame.
pub fn reply_bytes(reply: &Reply) -> Vec<u8> {
    json_frame(reply, |p| Frame::Reply(p))
}

fn json_frame<T: Serialize>(value: &T, frame: impl FnOnce(&[u8]) -> Frame<'_>) -> Vec<u8> {
    // These types hold nothing that JSON cannot say.
    let json = serde_json::to_vec(value).unwrap_or_default();
    let mut out = Vec::with_capacity(json.len() + HEADER);
    frame(&json).encode(&mut out);
    out
}

/// Sends a request and reads the reply. Blocks.
///
/// # Errors
/// The connection's, or `InvalidData`.
pub fn ask(mut stream: impl Read + Write, request: &Request) -> io::Result<Reply> {
    stream.write_all(&request_bytes(request))?;
    read_reply(stream)
}

/// Reads the bytes of one frame into `bytes`, and not one more. What is in it before is forgotten.
///
/// # Errors
/// `UnexpectedEof` when the other side has gone; `InvalidData` for a frame that is too long.
pub fn read_frame(mut stream: impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "frame too long"));
    }
    // What is there already need not be cleared.
    bytes.resize(HEADER + length, 0);
    bytes[..HEADER].copy_from_slice(&header);
    stream.read_exact(&mut bytes[HEADER..])
}

/// Reads one reply, byte-exactly, so that what follows stays in the stream.
///
/// # Errors
/// `UnexpectedEof` when the monitor has gone; `InvalidData`.
pub fn read_reply(stream: impl Read) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    read_frame(stream, &mut bytes)?;
    match Frame::decode(&bytes)? {
        Some((Frame::Reply(json), _)) => Ok(serde_json::from_slice(json)?),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "expected a reply")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back() {
        let frames = [
            Frame::Request(b"{}"),
            Frame::Stdin(b"abc"),
            Frame::CloseStdin,
            Frame::Resize(24, 80),
            Frame::Signal(15),
            Frame::Stdout(b""),
            Frame::Stderr(b"e"),
            Frame::Exit(-1),
        ];
        let mut bytes = Vec::new();
        for frame in &frames {
            frame.encode(&mut bytes);
        }
        let mut rest = &bytes[..];
        for frame in &frames {
            assert_eq!(Frame::decode(&rest[..HEADER - 1]).unwrap(), None);
            let (read, length) = Frame::decode(rest).unwrap().unwrap();
            assert_eq!(read, *frame);
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn hostile_frames_are_refused() {
        assert!(Frame::decode(&[b'0', 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Frame::decode(&[b'?', 0, 0, 0, 0]).is_err());
        assert!(Frame::decode(&[b'w', 1, 0, 0, 0, 9]).is_err());
    }

    #[test]
    fn errors_keep_class_code_and_advice() {
        let e = Error::new(Class::Conflict, "name in use").with_hint("choose another");
        let back: Error =
            serde_json::from_str::<Failure>(&serde_json::to_string(&Failure::from(&e)).unwrap()).unwrap().into();
        assert_eq!((back.class(), back.hint()), (Class::Conflict, Some("choose another")));
        let exec = Error::Exec { code: 127, message: "no such file".into() };
        assert_eq!(Error::from(Failure::from(&exec)).exit_code(), 127);
    }
}
