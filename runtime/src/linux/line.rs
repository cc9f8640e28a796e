//! The line between a wasm task's process and its monitor: sequenced packets (unix(7)), so each message is whole, of
//! JSON, and with the descriptors that belong to it (`SCM_RIGHTS`).
//!
//! The task asks, the monitor answers; a question is answered before the next one is asked. Questions come from a
//! process that may be hostile, so the monitor takes no descriptors from it and cuts off who sends what is no question.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::process::after_reset;
use crate::error::{Class, Error, Result};
use crate::network::line::{Answer, Ask};

/// The longest message; an error's text is what makes one long.
const MAX: usize = 64 * 1024;
/// What long bytes are cut into.
const PIECE: usize = 32 * 1024;
/// The most descriptors in one (the kernel's `SCM_MAX_FD`).
pub(super) const MOST_DESCRIPTORS: usize = 253;

/// One end.
#[derive(Debug)]
pub(super) struct Line {
    socket: File,
    /// The task's side: the word has come, before the answer to something else.
    told: OnceLock<()>,
}

impl Line {
    /// Both ends, close-on-exec.
    pub fn pair() -> Result<(Line, Line)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|e| Error::os("make a socket pair", e))?;
        Ok((Line::of(ours), Line::of(theirs)))
    }

    /// The end that this descriptor is.
    pub fn of(fd: OwnedFd) -> Line {
        Line { socket: fd.into(), told: OnceLock::new() }
    }

    /// Its descriptor.
    pub fn into_fd(self) -> OwnedFd {
        self.socket.into()
    }

    /// For polling.
    pub fn file(&self) -> &File {
        &self.socket
    }

    /// The task's side: says what is not answered.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn tell(&self, ask: &Ask) -> Result<()> {
        send(&self.socket, &encode(ask)?, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|e| Error::os("speak to the monitor", e))
    }

    /// The task's side: asks, and waits for the answer.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn ask(&self, ask: &Ask) -> Result<(Answer, Vec<OwnedFd>)> {
        self.tell(ask)?;
        loop {
            match receive(&self.socket, RecvFlags::empty())? {
                Some((Answer::Go, _)) => drop(self.told.set(())),
                Some(answer) => return Ok(answer),
                None => return Err(Error::new(Class::Cancelled, "the monitor is gone")),
            }
        }
    }

    /// The task's side: waits for [`Answer::Go`], unless it has come already; false when the monitor is gone.
    pub fn may_run(&self) -> bool {
        self.told.get().is_some() || self.hears(&Answer::Go)
    }

    /// The task's side: waits for what the monitor says unasked; false when the monitor is gone.
    pub fn hears(&self, word: &Answer) -> bool {
        matches!(receive::<Answer>(&self.socket, RecvFlags::empty()), Ok(Some((heard, _))) if heard == *word)
    }

    /// The monitor's side: what the task says; `None` when it has ended. With `wait`, until it says something.
    ///
    /// # Errors
    /// `Unavailable` when there is nothing; `Corrupt` for what is no question.
    pub fn hear(&self, wait: bool) -> Result<Option<Ask>> {
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        Ok(receive(&self.socket, flags)?.map(|(ask, _)| ask))
    }

    /// The monitor's side: answers. A task that does not read its answers is no longer waited for.
    ///
    /// # Errors
    /// When the task is gone.
    pub fn answer(&self, answer: &Answer, descriptors: &[File]) -> Result<()> {
        let bytes = encode(answer)?;
        let fds: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, flags)
            .map(drop)
            .map_err(|e| Error::os("answer the guest's process", e))
    }
}

impl Line {
    /// The monitor's side: gives bytes of any length, in pieces, waiting for the task to take them.
    ///
    /// # Errors
    /// When the task is gone.
    pub fn give(&self, bytes: &[u8]) -> Result<()> {
        let say = |piece: &[u8]| {
            let sent = rustix::io::retry_on_intr(|| send(&self.socket, piece, SendFlags::NOSIGNAL));
            sent.map(drop).map_err(|e| Error::os("speak to the guest's process", e))
        };
        say(&(bytes.len() as u64).to_ne_bytes())?;
        bytes.chunks(PIECE).try_for_each(say)
    }

    /// The task's side: takes what was given; `None` when the monitor is gone.
    ///
    /// # Errors
    /// The kernel's; `Corrupt` for what no [`Line::give`] has sent.
    pub fn take(&self) -> Result<Option<Vec<u8>>> {
        let hear = |piece: &mut [u8]| {
            let got = rustix::io::retry_on_intr(|| recv(&self.socket, &mut *piece, RecvFlags::empty()));
            got.map(|(length, _)| length).map_err(|e| Error::os("hear the monitor", e))
        };
        let mut length = [0; 8];
        match hear(&mut length)? {
            0 => return Ok(None),
            8 => {}
            _ => return Err(Error::new(Class::Corrupt, "a message on the line that was not expected")),
        }
        let mut bytes = vec![0; u64::from_ne_bytes(length) as usize];
        for piece in bytes.chunks_mut(PIECE) {
            if hear(piece)? != piece.len() {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(message).map_err(|e| wharf_images::Error::json("a message", e).into())
}

fn receive<T: DeserializeOwned>(line: &File, flags: RecvFlags) -> Result<Option<(T, Vec<OwnedFd>)>> {
    // How long the message is; it stays.
    let length = after_reset(|| recv(line, &mut [0; 0][..], flags | RecvFlags::PEEK | RecvFlags::TRUNC));
    let length = match length {
        Ok((_, length)) if length <= MAX => length,
        Ok(_) => return Err(Error::new(Class::Corrupt, "a message on the line that is too long")),
        Err(Errno::CONNRESET) => return Ok(None),
        Err(Errno::AGAIN) => return Err(Error::new(Class::Unavailable, "nothing was said")),
        Err(e) => return Err(Error::os("hear the other side", e)),
    };
    let mut bytes = vec![0; length];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = after_reset(|| recvmsg(line, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags))
        .map_err(|e| Error::os("hear the other side", e))?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    match serde_json::from_slice(&bytes[..got.bytes]) {
        Ok(message) => Ok(Some((message, descriptors))),
        Err(e) => Err(Error::new(Class::Corrupt, format!("a message on the line: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::network::Fault;

    #[test]
    fn questions_and_answers_with_descriptors() {
        let (monitor, task) = Line::pair().unwrap();
        assert_eq!(monitor.hear(false).unwrap_err().class(), Class::Unavailable);
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| task.ask(&Ask::Lookup("web".to_owned())).unwrap());
            assert_eq!(monitor.hear(true).unwrap(), Some(Ask::Lookup("web".to_owned())));
            monitor.answer(&Answer::Later, &[File::from(reader)]).unwrap();
            let (answer, mut fds) = asked.join().unwrap();
            assert_eq!((answer, fds.len()), (Answer::Later, 1));
            File::from(writer).write_all(b"x").unwrap();
            let mut byte = [0];
            File::from(fds.remove(0)).read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x");
        });
        // The word comes when it comes: here before an answer.
        monitor.answer(&Answer::Go, &[]).unwrap();
        monitor.answer(&Answer::Placed, &[]).unwrap();
        assert_eq!(task.ask(&Ask::Join).unwrap().0, Answer::Placed);
        assert!(task.may_run());
        assert_eq!(monitor.hear(true).unwrap(), Some(Ask::Join));
        drop(task);
        assert_eq!(monitor.hear(true).unwrap(), None);
        assert!(monitor.answer(&Answer::Fault(Fault::Unknown), &[]).is_err());
    }

    #[test]
    fn what_is_no_question_is_an_error() {
        let (monitor, task) = Line::pair().unwrap();
        send(task.file(), b"{\"nonsense\":1}", SendFlags::NOSIGNAL).unwrap();
        assert_eq!(monitor.hear(false).unwrap_err().class(), Class::Corrupt);
    }
}
