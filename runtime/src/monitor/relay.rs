//! What a client's relay of streams is wherever it runs: its options, its end, the keys that end it.

use std::io;

use crate::error::{Error, Result};
use crate::monitor::log::Stream;
use crate::monitor::protocol::Frame;

/// What the relay does besides copying.
#[derive(Debug, Clone, Default)]
pub struct Relay {
    /// Our stdin is copied to the container's.
    pub stdin: bool,
    /// The container has a terminal (and ours is in raw mode): sizes are followed, signals are typed bytes.
    pub tty: bool,
    /// Signals sent to us go to the container.
    pub signals: bool,
    /// The bytes that detach, typed one after the other: Ctrl-P Ctrl-Q is `[16, 17]`. Empty: none.
    pub detach_keys: Vec<u8>,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It ended with this exit code.
    Exited(i32),
    /// The person typed the detach keys; the container goes on.
    Detached,
}

/// Gives the output in the whole frames in `received` to `out`, and keeps the rest. The exit code ends it.
///
/// # Errors
/// `out`'s; the frames'.
pub(crate) fn pass_on(
    received: &mut Vec<u8>,
    mut out: impl FnMut(Stream, &[u8]) -> io::Result<()>,
) -> Result<Option<i32>> {
    let mut used = 0;
    let mut exit = None;
    while let Some((frame, length)) =
        Frame::decode(&received[used..]).map_err(|e| Error::os("understand the container's monitor", e))?
    {
        match frame {
            Frame::Stdout(bytes) => out(Stream::Stdout, bytes).map_err(Error::Output)?,
            Frame::Stderr(bytes) => out(Stream::Stderr, bytes).map_err(Error::Output)?,
            Frame::Exit(code) => exit = Some(code),
            _ => {}
        }
        used += length;
    }
    received.drain(..used);
    Ok(exit)
}

/// Finds the detach keys in what is typed. What may become the sequence is held back until it does or does not.
pub(crate) struct DetachKeys<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl<'a> DetachKeys<'a> {
    /// Looks for these; for none, when there are none.
    pub(crate) fn new(keys: &'a [u8]) -> Self {
        DetachKeys { keys, matched: 0 }
    }

    /// What of the typed bytes goes on to the container, and whether they complete the keys.
    pub(crate) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut pass = Vec::with_capacity(typed.len());
        for &byte in typed {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(byte == self.keys[0]);
            if self.matched == 0 {
                pass.push(byte);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads_and_else_pass() {
        let mut keys = DetachKeys::new(&[16, 17]);
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11rest"), (b"".to_vec(), true));
        let mut none = DetachKeys::new(&[]);
        assert_eq!(none.filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn frames_are_passed_on_whole_and_the_exit_code_found() {
        let mut bytes = Vec::new();
        let mut heard = Vec::new();
        let mut out = |stream, bytes: &[u8]| {
            heard.push((stream, bytes.to_vec()));
            Ok(())
        };
        Frame::Stderr(b"e").encode(&mut bytes);
        Frame::Exit(42).encode(&mut bytes);
        let tail = bytes.split_off(8);
        assert_eq!(pass_on(&mut bytes, &mut out).unwrap(), None);
        bytes.extend(tail);
        assert_eq!(pass_on(&mut bytes, &mut out).unwrap(), Some(42));
        assert!(bytes.is_empty());
        assert_eq!(heard, [(Stream::Stderr, b"e".to_vec())]);
    }
}
