//! Being attached: the person's terminal and signals on one side, the engine's session on the other.

use std::io::{IsTerminal as _, stdin};

use wharf_runtime::config::Streams;
use wharf_runtime::engine::{Attach, Session};
use wharf_runtime::linux::session::{Outcome, Relay};
use wharf_runtime::linux::terminal::{RawMode, stdout_size};

use super::failure::{Failure, Result};
use super::parse::Parsed;
use super::values;

/// How to be attached.
#[derive(Debug, Clone)]
pub struct Attachment {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
    signals: bool,
    detach_keys: Vec<u8>,
    told: bool,
}

impl Attachment {
    /// All output, and stdin if asked for. The flag `--detach-keys` is read here.
    ///
    /// # Errors
    /// Docker's words: for unknown keys, and for a terminal asked for where stdin is none.
    pub fn new(parsed: &Parsed, stdin: bool, tty: bool) -> Result<Self> {
        if stdin && tty {
            need_terminal()?;
        }
        let detach_keys = parsed.value("detach-keys").unwrap_or_default();
        let detach_keys = values::detach_keys(detach_keys).map_err(Failure::new)?;
        Ok(Attachment { stdin, stdout: true, stderr: true, tty, signals: false, detach_keys, told: false })
    }

    /// The same with only these streams, if any are named.
    #[must_use]
    pub fn streams(mut self, named: Option<Streams>) -> Self {
        if let Some(named) = named {
            (self.stdin, self.stdout, self.stderr) = (named.stdin, named.stdout, named.stderr);
        }
        self
    }

    /// The same, with the signals sent to us going on to the container. A terminal sends its own as bytes.
    #[must_use]
    pub fn signals(mut self, signals: bool) -> Self {
        self.signals = signals && !self.tty;
        self
    }

    /// The same of something that was there before: docker tells who leaves it by keys that it is still there, and ends
    /// with 1.
    #[must_use]
    pub fn told(mut self) -> Self {
        self.told = true;
        self
    }

    /// What the engine is asked for.
    pub fn request(&self) -> Attach {
        let size = if self.tty { stdout_size() } else { None };
        Attach { stdin: self.stdin, stdout: self.stdout, stderr: self.stderr, size }
    }

    /// Relays until the end, and ends with the other side's exit code.
    ///
    /// # Errors
    /// [`Failure::Exit`] with a code that is not 0; the session's own failure.
    pub fn relay(self, session: Session) -> Result<()> {
        let raw = if self.tty && self.stdin && stdin().is_terminal() { Some(RawMode::enter()?) } else { None };
        // Only a person types keys: what comes from a file or a pipe may have any bytes.
        let detach_keys = if self.tty { self.detach_keys } else { Vec::new() };
        let relay = Relay { stdin: self.stdin, tty: self.tty, signals: self.signals, detach_keys };
        let outcome = session.relay(&relay);
        // The terminal is itself again before anything is printed on it.
        drop(raw);
        match outcome? {
            Outcome::Exited(code) => exit(code),
            Outcome::Detached if self.told => Err(Failure::new("read escape sequence")),
            Outcome::Detached => Ok(()),
        }
    }
}

/// Ends with a container's exit code.
///
/// # Errors
/// [`Failure::Exit`] unless the code is 0.
pub fn exit(code: i32) -> Result<()> {
    match code {
        0 => Ok(()),
        // The kernel keeps eight bits of it too.
        code => Err(Failure::Exit(u8::try_from(code & 0xff).unwrap_or(1))),
    }
}

/// Docker refuses `-it` when stdin is no terminal: the program would wait for keys that nobody can type.
fn need_terminal() -> Result<()> {
    if stdin().is_terminal() {
        return Ok(());
    }
    Err(Failure::Usage { text: "the input device is not a TTY\n".to_owned(), code: 1 })
}
