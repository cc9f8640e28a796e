//! The access log: a line for each request on the container's standard output, as `METHOD PATH STATUS BYTES DURATION`.
//!
//! Lines are gathered and written some milliseconds later, many at a time: a write for each would cost as much as the
//! rest of a small request. What stands behind `?` in a path is left out: people put secrets there.

use std::fmt::Write as _;
use std::io::Write as _;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};

/// Bytes that are not kept waiting.
const ENOUGH: usize = 16 * 1024;

/// The log of one server.
pub struct AccessLog {
    lines: Option<Mutex<String>>,
}

impl AccessLog {
    /// One that keeps lines, or throws them away.
    pub fn new(on: bool) -> Self {
        AccessLog { lines: on.then(Mutex::default) }
    }

    /// Adds a line.
    pub fn add(&self, method: &Method, path: &str, status: StatusCode, bytes: u64, took: Duration) {
        let Some(lines) = &self.lines else { return };
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = took.as_micros();
        let (ms, rest) = (micros / 1000, micros % 1000);
        // A `String` takes all that is written.
        let _ = writeln!(lines, "{method} {path} {} {bytes} {ms}.{rest:03}ms", status.as_u16());
        if lines.len() >= ENOUGH {
            let full = mem::take(&mut *lines);
            drop(lines);
            write(&full);
        }
    }

    /// Writes what has gathered.
    pub fn flush(&self) {
        let Some(lines) = &self.lines else { return };
        let gathered = mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
        if !gathered.is_empty() {
            write(&gathered);
        }
    }
}

fn write(lines: &str) {
    let mut out = std::io::stdout().lock();
    // When nobody reads the container's output there is nobody to tell.
    let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
}
