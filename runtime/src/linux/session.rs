//! A client's connection to a monitor: relays streams, signals and terminal sizes until the container (or exec) ends.

use std::os::unix::net::UnixStream;

use crate::error::Result;

/// A connection over which streams flow.
#[derive(Debug)]
pub struct Session {
    #[allow(dead_code)]
    stream: UnixStream,
}

/// What the relay does besides copying.
#[derive(Debug, Clone, Default)]
pub struct Relay {
    /// Our stdin is copied to the container's.
    pub stdin: bool,
    /// The container has a terminal (and ours is in raw mode): sizes are followed, signals are typed bytes.
    pub tty: bool,
    /// Signals sent to us go to the container. Meant for `tty: false`.
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

impl Session {
    /// Copies until the end. Call it in a single-threaded process: it takes signals by a signalfd.
    ///
    /// # Errors
    /// The connection's: the monitor died.
    pub fn relay(self, _options: &Relay) -> Result<Outcome> {
        todo!()
    }
}
