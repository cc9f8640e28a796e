//! The person's terminal: its size, and raw mode that is undone however we end.
//!
//! It stands with the backend because termios is a Unix matter; it knows nothing of containers
//! (<https://man7.org/linux/man-pages/man3/termios.3.html>).

#![allow(unsafe_code)]

use std::io::{stdin, stdout};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use rustix::termios;

use crate::error::{Error, Result};

/// Signals that end us, unless somebody takes them by a signalfd.
const DEADLY: [libc::c_int; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The terminal as it was, for the signal handler.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();

/// Rows and columns, when stdout is a terminal that knows its size.
pub fn stdout_size() -> Option<(u16, u16)> {
    let size = termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Raw mode of the terminal at stdin. Dropping it, a panic, and a signal that ends us put the terminal back.
#[derive(Debug)]
pub struct RawMode(());

impl RawMode {
    /// Enters raw mode: every byte typed comes through as it is.
    ///
    /// # Errors
    /// Fails when stdin is not a terminal.
    pub fn enter() -> Result<Self> {
        let mut attributes = MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the pointer is valid for a write of the whole struct.
        if unsafe { libc::tcgetattr(libc::STDIN_FILENO, attributes.as_mut_ptr()) } != 0 {
            return Err(Error::os("read the terminal's attributes", std::io::Error::last_os_error()));
        }
        // SAFETY: tcgetattr succeeded, so it has written the struct.
        BEFORE.get_or_init(|| unsafe { attributes.assume_init() });
        for signal in DEADLY {
            let handler = restore_and_die as extern "C" fn(libc::c_int);
            // SAFETY: the handler calls async-signal-safe functions only.
            unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        }
        let mut raw = termios::tcgetattr(stdin()).map_err(|e| Error::os("read the terminal's attributes", e))?;
        raw.make_raw();
        termios::tcsetattr(stdin(), termios::OptionalActions::Now, &raw)
            .map_err(|e| Error::os("put the terminal into raw mode", e))?;
        Ok(RawMode(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = BEFORE.get() {
        // SAFETY: tcsetattr is async-signal-safe (signal-safety(7)) and reads a struct that outlives the program.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, before) };
    }
}

extern "C" fn restore_and_die(signal: libc::c_int) {
    restore();
    // SAFETY: both are async-signal-safe. The default action ends us once the handler returns and the signal is unblocked.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IsTerminal as _;

    #[test]
    fn raw_mode_wants_a_terminal() {
        // The test harness may well have one: then there is nothing to see here.
        if !stdin().is_terminal() {
            assert!(RawMode::enter().is_err());
        }
    }
}
