//! The files of a log: the one that is written, and older ones put aside as `NAME.1`, `NAME.2.gz`, ... when it has grown
//! too large, as docker's json-file driver does it. The newest of those put aside is not yet compressed, so that who
//! follows the log can read it to its end.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::policy::LogPolicy;
use crate::error::{Error, Result};
use crate::linux::file_id;

/// How often a log may be rotated while somebody opens its files.
const TRIES: usize = 16;

/// The log as it is written.
#[derive(Debug)]
pub(super) struct Files {
    file: File,
    size: u64,
    path: PathBuf,
    policy: LogPolicy,
}

impl Files {
    /// Appends to the file at `path`.
    pub(super) fn open(path: &Path, policy: LogPolicy) -> Result<Self> {
        let failed = |e| Error::io("open", path, e);
        let file = append_to(path).map_err(failed)?;
        let size = if policy.max_size.is_some() { file.metadata().map_err(failed)?.len() } else { 0 };
        Ok(Files { file, size, path: path.to_owned(), policy })
    }

    /// Writes whole entries. Before one that would make the file too large, it is put aside.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let fits = self.fitting(bytes);
            if fits == 0 {
                self.rotate()?;
                continue;
            }
            self.file.write_all(&bytes[..fits])?;
            self.size += fits as u64;
            bytes = &bytes[fits..];
        }
        Ok(())
    }

    /// How many of these bytes, in whole entries, this file takes. An empty one takes any entry.
    fn fitting(&self, bytes: &[u8]) -> usize {
        let Some(most) = self.policy.max_size else { return bytes.len() };
        let room = usize::try_from(most.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if bytes.len() <= room {
            return bytes.len();
        }
        let end = |at: usize| at + 1;
        match bytes[..room].iter().rposition(|b| *b == b'\n') {
            Some(at) => end(at),
            None if self.size == 0 => bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), end),
            None => 0,
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let old = |n: u32| aside(&self.path, n);
        let last = self.policy.max_files.saturating_sub(1);
        if last > 0 {
            remove(&old(last))?;
            remove(&zipped(&old(last)))?;
        }
        for n in (1..last).rev() {
            rename(&zipped(&old(n)), &zipped(&old(n + 1)))?;
            if self.policy.compress {
                compress(&old(n), &zipped(&old(n + 1)))?;
            } else {
                rename(&old(n), &old(n + 1))?;
            }
        }
        if last > 0 {
            rename(&self.path, &old(1))?
        } else {
            remove(&self.path)?
        }
        self.file = append_to(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn aside(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn zipped(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    name.into()
}

fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn remove(path: &Path) -> io::Result<()> {
    missing_is_fine(fs::remove_file(path))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    missing_is_fine(fs::rename(from, to))
}

/// Whole under its name, or not there.
fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let mut plain = match File::open(from) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let temporary = to.with_extension("tmp");
    let mut encoder = GzEncoder::new(File::create(&temporary)?, Compression::fast());
    io::copy(&mut plain, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&temporary, to)?;
    remove(from)
}

/// One file of a log, as it is read.
#[derive(Debug)]
pub(super) enum Source {
    /// As it is.
    Plain(File),
    /// Decompressed. No larger than a log may grow.
    Unpacked(Cursor<Vec<u8>>),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Plain(file) => file.read(buffer),
            Source::Unpacked(bytes) => bytes.read(buffer),
        }
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Source::Plain(file) => file.seek(to),
            Source::Unpacked(bytes) => bytes.seek(to),
        }
    }
}

/// All files of the log at `path`, the oldest first.
pub(super) fn open_all(path: &Path) -> Result<VecDeque<Source>> {
    let failed = |e| Error::io("open", path, e);
    for _ in 0..TRIES {
        let current = File::open(path).map_err(failed)?;
        let id = file_id(&current);
        let mut files = VecDeque::from([Source::Plain(current)]);
        for n in 1.. {
            match open_old(path, n).map_err(failed)? {
                Some(file) => files.push_front(file),
                None => break,
            }
        }
        // Every rotation makes a new file: while it is the same, none has gone by.
        if File::open(path).is_ok_and(|now| file_id(&now) == id) {
            return Ok(files);
        }
    }
    Err(failed(io::Error::new(ErrorKind::WouldBlock, "the log is put aside again and again")))
}

fn open_old(path: &Path, n: u32) -> io::Result<Option<Source>> {
    let plain = aside(path, n);
    match File::open(&plain) {
        Ok(file) => return Ok(Some(Source::Plain(file))),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    match File::open(zipped(&plain)) {
        Ok(file) => {
            let mut bytes = Vec::new();
            GzDecoder::new(file).read_to_end(&mut bytes)?;
            Ok(Some(Source::Unpacked(Cursor::new(bytes))))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The files of the log that are newer than the one in `last`, the oldest first. None while it is still the one that is
/// written.
pub(super) fn newer_than(path: &Path, last: &Source) -> Result<VecDeque<Source>> {
    let Source::Plain(last) = last else { return Ok(VecDeque::new()) };
    let id = file_id(last);
    // The usual case, seen often by who follows: nothing was put aside.
    match File::open(path) {
        Ok(now) if file_id(&now) != id => {}
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("open", path, e)),
        _ => return Ok(VecDeque::new()),
    }
    let mut files = open_all(path)?;
    let same = |file: &Source| matches!(file, Source::Plain(file) if file_id(file) == id);
    match files.iter().position(same) {
        Some(at) => drop(files.drain(..=at)),
        // It has been compressed or removed since: go on with what is written now.
        None => drop(files.drain(..files.len().saturating_sub(1))),
    }
    Ok(files)
}
