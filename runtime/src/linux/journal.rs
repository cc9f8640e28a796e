//! `--log-driver journald`: lines as entries of systemd's journal, by its native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>), with the fields that docker's driver writes
//! (<https://docs.docker.com/engine/logging/drivers/journald/>).

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Class, Error, Result};

/// Where the journal listens.
pub(crate) const SOCKET: &str = "/run/systemd/journal/socket";
/// A journal that does not read keeps us no longer than this, and from then on not at all until it reads again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way into the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Not connected: the journal may begin anew, with another socket at this path.
    socket: UnixDatagram,
    path: PathBuf,
    /// What each entry has.
    fields: Vec<u8>,
    slow: bool,
}

/// Whether a journal listens at this path.
///
/// # Errors
/// `Unavailable` in docker's words if not.
pub(crate) fn check(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let error =
        Error::new(Class::Unavailable, "failed to initialize logging driver: journald is not enabled on this host");
    Err(error.with_hint(format!("there is no {}; use --log-driver json-file, local or none", path.display())))
}

impl Journal {
    /// The journal at this path; each entry has these fields.
    ///
    /// # Errors
    /// `Unavailable` when there is none.
    pub(crate) fn open(path: &Path, fields: &[(String, String)]) -> Result<Self> {
        check(path)?;
        let socket = UnixDatagram::unbound().map_err(|e| Error::os("make a socket", e))?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(|e| Error::os("prepare a socket", e))?;
        let mut written = Vec::new();
        for (name, value) in fields {
            field(&mut written, name, value.as_bytes());
        }
        Ok(Journal { socket, path: path.to_owned(), fields: written, slow: false })
    }

    /// Sends a line, without its end; `partial` if more of it follows. What the journal does not take is in the log's
    /// file all the same.
    pub(crate) fn send(&mut self, is_error: bool, text: &[u8], partial: bool) {
        let mut entry = self.fields.clone();
        // syslog(3)'s LOG_ERR and LOG_INFO.
        field(&mut entry, "PRIORITY", if is_error { b"3" } else { b"6" });
        if partial {
            field(&mut entry, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        field(&mut entry, "MESSAGE", text);
        let sent = self.socket.send_to(&entry, &self.path);
        let slow = sent.is_err_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        if slow != self.slow && self.socket.set_nonblocking(slow).is_ok() {
            self.slow = slow;
        }
    }
}

/// `NAME=value`, or with its length where it has line ends.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        // Writing to a Vec cannot fail.
        let _ = out.write_all(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::monitor::log::{LogOptions, LogPolicy, LogReader, LogWriter, Stream};

    /// A journal's socket, and the next entry that came.
    fn listening(dir: &Path) -> (PathBuf, UnixDatagram) {
        let path = dir.join("socket");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        (path, socket)
    }

    fn next(socket: &UnixDatagram) -> BTreeMap<String, String> {
        let mut bytes = vec![0; 1 << 17];
        let length = socket.recv(&mut bytes).expect("an entry");
        let mut rest = &bytes[..length];
        let mut fields = BTreeMap::new();
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n').expect("a line");
            let line = std::str::from_utf8(&rest[..end]).expect("text");
            rest = &rest[end + 1..];
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name, value.to_owned()),
                None => {
                    let (length, after) = rest.split_at(8);
                    let length = u64::from_le_bytes(length.try_into().expect("8 bytes")) as usize;
                    let value = String::from_utf8_lossy(&after[..length]).into_owned();
                    assert_eq!(after[length], b'\n');
                    rest = &after[length + 1..];
                    (line, value)
                }
            };
            assert!(fields.insert(name.to_owned(), value).is_none(), "{name} twice");
        }
        fields
    }

    fn policy(socket: PathBuf) -> LogPolicy {
        let fields =
            vec![("CONTAINER_NAME".to_owned(), "web".to_owned()), ("ODD".to_owned(), "two\nlines=".to_owned())];
        LogPolicy { journal: Some((socket, fields)), ..LogPolicy::default() }
    }

    #[test]
    fn lines_become_entries_and_stay_in_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, socket) = listening(dir.path());
        let file = dir.path().join("log");
        let mut log = LogWriter::open(&file, policy(path)).expect("a log");
        log.write(Stream::Stdout, b"one\ntw").expect("written");
        log.write(Stream::Stderr, b"oops\r\n").expect("written");
        log.write(Stream::Stdout, &[b'x'; 20_000]).expect("written");
        log.finish().expect("written");
        let entries: Vec<_> = (0..4).map(|_| next(&socket)).collect();
        let told: Vec<_> = entries
            .iter()
            .map(|e| (e["PRIORITY"].as_str(), e["MESSAGE"].len(), e.contains_key("CONTAINER_PARTIAL_MESSAGE")))
            .collect();
        assert_eq!(told, [("6", 3, false), ("3", 5, false), ("6", 16 * 1024, true), ("6", 20_002 - 16 * 1024, false)]);
        assert_eq!(entries[0]["MESSAGE"], "one");
        assert!(entries.iter().all(|e| e["CONTAINER_NAME"] == "web" && e["ODD"] == "two\nlines="));
        let mut reader = LogReader::open(&file, &LogOptions::default()).expect("a log");
        assert_eq!(reader.next().expect("readable").map(|line| line.text).as_deref(), Some("one\n"));
    }

    #[test]
    fn a_journal_may_begin_anew_or_be_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let absent = LogWriter::open(&dir.path().join("log"), policy(dir.path().join("none")));
        let told = absent.expect_err("there is none").to_string();
        assert!(told.contains("journald is not enabled on this host"), "{told}");

        let (path, first) = listening(dir.path());
        let mut log = LogWriter::open(&dir.path().join("log"), policy(path.clone())).expect("a log");
        log.write(Stream::Stdout, b"one\n").expect("written");
        assert_eq!(next(&first)["MESSAGE"], "one");
        drop(first);
        std::fs::remove_file(&path).expect("removed");
        log.write(Stream::Stdout, b"lost\n").expect("the journal's absence is no failure of the log");
        let (_, second) = listening(dir.path());
        log.write(Stream::Stdout, b"two\n").expect("written");
        assert_eq!(next(&second)["MESSAGE"], "two");
    }

    #[test]
    fn a_journal_that_does_not_read_does_not_hold_us() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, socket) = listening(dir.path());
        let mut log = LogWriter::open(&dir.path().join("log"), policy(path)).expect("a log");
        let begin = std::time::Instant::now();
        for _ in 0..5000 {
            log.write(Stream::Stdout, b"a line\n").expect("written");
        }
        assert!(begin.elapsed() < 10 * PATIENCE, "{:?}", begin.elapsed());
        while next(&socket)["MESSAGE"] != "a line" {}
    }
}
