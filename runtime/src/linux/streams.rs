//! The standard streams of one task, as its monitor holds them: the container's first process or one of its execs.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::{Error, Result};
use crate::monitor::log::Stream;
use crate::task::{Exit, Stdio, Task};

/// A client whose input the task does not take is not read any further.
const STDIN_LIMIT: usize = 256 * 1024;

/// A task and our ends of its streams.
pub(crate) struct Streams {
    pub task: Box<dyn Task>,
    /// Of an exec: its command line.
    pub command: Option<String>,
    pub exit: Option<Exit>,
    stdin: Option<File>,
    stdin_pending: VecDeque<u8>,
    stdin_closing: bool,
    stdout: Option<File>,
    stderr: Option<File>,
    terminal: bool,
}

/// Our ends, made before the task is.
pub(crate) struct Ends {
    stdin: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
}

/// Makes the streams of a task to be: what the backend gets, and what we keep.
pub(crate) fn make(tty: bool, stdin: bool, size: Option<(u16, u16)>) -> Result<(Stdio, Ends)> {
    if tty {
        return Ok((Stdio::Terminal { size }, Ends { stdin: None, stdout: None, stderr: None }));
    }
    let pipe =
        || -> Result<(OwnedFd, OwnedFd)> { pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::os("make a pipe", e)) };
    let (out_read, out_write) = pipe()?;
    let (err_read, err_write) = pipe()?;
    let (stdin, our_stdin) = match stdin.then(pipe).transpose()? {
        Some((read, write)) => (Some(File::from(read)), Some(ours(write)?)),
        None => (None, None),
    };
    let stdio = Stdio::Pipes { stdin, stdout: out_write.into(), stderr: err_write.into() };
    Ok((stdio, Ends { stdin: our_stdin, stdout: Some(ours(out_read)?), stderr: Some(ours(err_read)?) }))
}

fn ours(fd: OwnedFd) -> Result<File> {
    let nonblocking = |fd: &OwnedFd| fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK);
    nonblocking(&fd).map_err(|e| Error::os("prepare a pipe", e))?;
    Ok(File::from(fd))
}

impl Streams {
    /// Joins a task and our ends.
    pub fn new(task: Box<dyn Task>, ends: Ends) -> Self {
        Streams {
            task,
            command: None,
            exit: None,
            stdin: ends.stdin,
            stdin_pending: VecDeque::new(),
            stdin_closing: false,
            stdout: ends.stdout,
            stderr: ends.stderr,
            terminal: false,
        }
    }

    /// Takes the task's terminal, if it has one. It may have to be waited for.
    pub fn take_console(&mut self) -> Result<()> {
        let Some(console) = self.task.console() else { return Ok(()) };
        let copy = console.try_clone().map_err(|e| Error::os("duplicate the console", e))?;
        self.stdin = Some(ours(copy.into())?);
        self.stdout = Some(ours(console.into())?);
        self.terminal = true;
        Ok(())
    }

    /// What to poll: stdout and stderr for reading, stdin for writing when something waits.
    pub fn output(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        match stream {
            Stream::Stdout => self.stdout.as_ref().map(AsFd::as_fd),
            Stream::Stderr => self.stderr.as_ref().map(AsFd::as_fd),
        }
    }

    /// Stdin, when something waits to be written.
    pub fn wants_write(&self) -> Option<BorrowedFd<'_>> {
        let stdin = self.stdin.as_ref()?;
        (!self.stdin_pending.is_empty()).then(|| stdin.as_fd())
    }

    /// True while a client may send more.
    pub fn takes_stdin(&self) -> bool {
        self.stdin_pending.len() < STDIN_LIMIT
    }

    /// Takes input for the task.
    pub fn write_stdin(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() && !self.stdin_closing {
            self.stdin_pending.extend(bytes);
            self.flush_stdin();
        }
    }

    /// No more input will come: stdin is closed when what waits is written. A terminal has no end of file but a key.
    pub fn close_stdin(&mut self) {
        if !self.terminal {
            self.stdin_closing = true;
            self.flush_stdin();
        }
    }

    /// Writes what waits, as far as it goes.
    pub fn flush_stdin(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.stdin_pending.is_empty() {
            let (part, _) = self.stdin_pending.as_slices();
            match stdin.write(part) {
                Ok(n) => drop(self.stdin_pending.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // It reads no more.
                Err(_) => {
                    self.stdin_pending.clear();
                    self.stdin_closing = true;
                }
            }
        }
        if self.stdin_closing {
            self.stdin = None;
        }
    }

    /// Reads what there is; `None` when there is nothing now, or never again.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Option<usize> {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        loop {
            match slot.as_mut()?.read(buffer) {
                Ok(n) if n > 0 => return Some(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // The end; of a terminal EIO, when its last user has closed it.
                _ => {
                    *slot = None;
                    return None;
                }
            }
        }
    }

    /// Sets the terminal's size. Without a terminal nothing happens.
    pub fn resize(&self, rows: u16, cols: u16) {
        if self.terminal
            && let Some(console) = &self.stdout
        {
            let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = tcsetwinsize(console, size);
        }
    }
}
