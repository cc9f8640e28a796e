//! The container's log in docker's `json-file` form, of which `local` here is another spelling with other limits: one JSON object a line, `{"log":"text\n","stream":"stdout","time":"..."}`
//! (<https://docs.docker.com/engine/logging/drivers/json-file/>), so that tools that read docker's logs read ours.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::linux::journal::Journal;

pub mod policy;
mod rotate;

pub use policy::LogPolicy;
use rotate::{Files, Source};

/// Docker splits lines longer than this into several entries.
const MAX_LINE: usize = 16 * 1024;

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output, or everything of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogLine {
    /// The text, with its newline if it had one.
    #[serde(rename = "log")]
    pub text: String,
    /// Where it came from.
    pub stream: Stream,
    /// When.
    pub time: Timestamp,
    /// Labels and variables of the container that its log options name.
    #[serde(default, rename = "attrs")]
    pub attributes: BTreeMap<String, String>,
}

/// Which part of the log a reader wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Only the last n entries.
    pub tail: Option<usize>,
    /// Only entries at or after this time.
    pub since: Option<Timestamp>,
    /// Only entries before this time.
    pub until: Option<Timestamp>,
}

impl LogOptions {
    fn wants(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|t| line.time >= t) && self.until.is_none_or(|t| line.time < t)
    }
}

/// Writes entries. Text is kept until its line is whole, too long, or over.
#[derive(Debug)]
pub struct LogWriter {
    file: Option<Files>,
    journal: Option<Journal>,
    /// `"attrs":{...},`, or nothing.
    attributes: Vec<u8>,
    pending: [Vec<u8>; 2],
    out: Vec<u8>,
}

impl LogWriter {
    /// Appends to the file at `path`, by the rules of `policy`; with the driver `none` it forgets everything.
    ///
    /// # Errors
    /// Fails when the file cannot be opened.
    pub fn open(path: &Path, policy: LogPolicy) -> Result<Self> {
        let mut attributes = Vec::new();
        if !policy.attributes.is_empty() {
            attributes.extend_from_slice(b"\"attrs\":");
            let written = serde_json::to_writer(&mut attributes, &policy.attributes);
            written.map_err(|e| wharf_images::Error::json("log attributes", e))?;
            attributes.push(b',');
        }
        let journal = match &policy.journal {
            Some((socket, fields)) => Some(Journal::open(socket, fields)?),
            None => None,
        };
        let file = if policy.keep { Some(Files::open(path, policy)?) } else { None };
        Ok(LogWriter { file, journal, attributes, pending: [Vec::new(), Vec::new()], out: Vec::new() })
    }

    /// Takes output as it comes, and writes the lines that are whole.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let now = Timestamp::now();
        let mut pending = std::mem::take(&mut self.pending[stream as usize]);
        while !bytes.is_empty() {
            let room = MAX_LINE - pending.len();
            let chunk = &bytes[..bytes.len().min(room)];
            let (part, whole) = match chunk.iter().position(|b| *b == b'\n') {
                Some(at) => (&chunk[..=at], true),
                None => (chunk, chunk.len() == room),
            };
            pending.extend_from_slice(part);
            bytes = &bytes[part.len()..];
            if whole {
                let partial = pending.last() != Some(&b'\n');
                self.entry(stream, &pending, now, partial);
                pending.clear();
            }
        }
        self.pending[stream as usize] = pending;
        self.flush_out()
    }

    /// Writes what is pending: the output is over.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(&mut self) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(&mut self.pending[stream as usize]);
            if !pending.is_empty() && self.file.is_some() {
                self.entry(stream, &pending, Timestamp::now(), false);
            }
        }
        self.flush_out()
    }

    fn entry(&mut self, stream: Stream, text: &[u8], now: Timestamp, partial: bool) {
        if let Some(journal) = &mut self.journal {
            journal.send(stream == Stream::Stderr, text.strip_suffix(b"\n").unwrap_or(text), partial);
        }
        self.out.extend_from_slice(b"{\"log\":\"");
        escape(&mut self.out, text);
        self.out.extend_from_slice(b"\",\"stream\":\"");
        self.out.extend_from_slice(stream.name().as_bytes());
        self.out.extend_from_slice(b"\",");
        self.out.extend_from_slice(&self.attributes);
        // Writing to a Vec cannot fail.
        let _ = writeln!(self.out, "\"time\":\"{now:.9}\"}}");
    }

    fn flush_out(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file
            && !self.out.is_empty()
        {
            file.write(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }
}

/// Writes `text` as the inside of a JSON string; what is not UTF-8 becomes U+FFFD, as docker has it.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        let valid = chunk.valid().as_bytes();
        let mut start = 0;
        for (i, &b) in valid.iter().enumerate() {
            let short: &[u8] = match b {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'\n' => b"\\n",
                b'\r' => b"\\r",
                b'\t' => b"\\t",
                0..0x20 => b"",
                _ => continue,
            };
            out.extend_from_slice(&valid[start..i]);
            if short.is_empty() {
                let _ = write!(out, "\\u{b:04x}");
            } else {
                out.extend_from_slice(short);
            }
            start = i + 1;
        }
        out.extend_from_slice(&valid[start..]);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// Reads a log, its older files first, and what is appended to it later.
#[derive(Debug)]
pub struct LogReader {
    /// The one that is being read, then the newer ones; the last is the one that is written.
    files: VecDeque<BufReader<Source>>,
    path: PathBuf,
    partial: Vec<u8>,
    options: LogOptions,
}

impl LogReader {
    /// Opens the log at `path`, placed where `options.tail` wants it.
    ///
    /// # Errors
    /// Fails when the file cannot be read.
    pub fn open(path: &Path, options: &LogOptions) -> Result<Self> {
        let io = |op| move |e| Error::io(op, path, e);
        let mut files = rotate::open_all(path)?;
        if let Some(tail) = options.tail {
            // From the newest back, as far as lines are wanted.
            let mut wanted = tail;
            let mut kept = VecDeque::new();
            while let Some(mut file) = files.pop_back() {
                let (at, missing) = tail_offset(&mut file, wanted).map_err(io("read"))?;
                file.seek(SeekFrom::Start(at)).map_err(io("seek in"))?;
                kept.push_front(file);
                wanted = missing;
                if missing == 0 {
                    break;
                }
            }
            files = kept;
        }
        let files = files.into_iter().map(reader).collect();
        Ok(LogReader { files, path: path.to_owned(), partial: Vec::new(), options: options.clone() })
    }

    /// The next entry that the options want, or `None` at the end of what is written so far.
    ///
    /// # Errors
    /// `Corrupt` for a line that is no entry; the disk's.
    #[allow(clippy::should_implement_trait, reason = "the end is not final: more may be appended")]
    pub fn next(&mut self) -> Result<Option<LogLine>> {
        loop {
            let io = |e| Error::io("read", &self.path, e);
            let several = self.files.len() > 1;
            let Some(file) = self.files.front_mut() else { return Ok(None) };
            file.read_until(b'\n', &mut self.partial).map_err(io)?;
            if self.partial.last() != Some(&b'\n') {
                if several {
                    // Put aside, and at its end. What a full disk left unfinished there is no entry.
                    self.partial.clear();
                    self.files.pop_front();
                    continue;
                }
                let newer = rotate::newer_than(&self.path, file.get_ref())?;
                if newer.is_empty() {
                    return Ok(None);
                }
                // Something may have been written between our reading its end and its being put aside: once more.
                self.files.extend(newer.into_iter().map(reader));
                continue;
            }
            let line = serde_json::from_slice(&self.partial);
            self.partial.clear();
            let line: LogLine = line.map_err(|e| wharf_images::Error::json(self.path.display().to_string(), e))?;
            if self.options.wants(&line) {
                return Ok(Some(line));
            }
        }
    }
}

fn reader(file: Source) -> BufReader<Source> {
    BufReader::with_capacity(256 * 1024, file)
}

/// Where the last `lines` lines begin, and how many lines more there should be than the file has.
fn tail_offset(file: &mut Source, lines: usize) -> io::Result<(u64, usize)> {
    let mut end = file.seek(SeekFrom::End(0))?;
    // The newline that ends the last line does not begin another.
    let mut wanted = lines + 1;
    let mut buffer = vec![0; 64 * 1024];
    while end > 0 {
        let start = end.saturating_sub(buffer.len() as u64);
        let chunk = &mut buffer[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(chunk)?;
        for (i, b) in chunk.iter().enumerate().rev() {
            if *b == b'\n' {
                wanted -= 1;
                if wanted == 0 {
                    return Ok((start + i as u64 + 1, 0));
                }
            }
        }
        end = start;
    }
    // The first line has no newline before it.
    Ok((0, wanted - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(parts: &[(Stream, &[u8])]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path, LogPolicy::default()).unwrap();
        for (stream, bytes) in parts {
            log.write(*stream, bytes).unwrap();
        }
        log.finish().unwrap();
        (dir, path)
    }

    fn read(path: &Path, options: &LogOptions) -> Vec<(Stream, String)> {
        let mut reader = LogReader::open(path, options).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).map(|l| (l.stream, l.text)).collect()
    }

    #[test]
    fn lines_are_joined_and_streams_kept_apart() {
        let (_dir, path) =
            written(&[(Stream::Stdout, b"a"), (Stream::Stderr, b"e\"\\\t\x01\n"), (Stream::Stdout, b"b\nrest")]);
        assert_eq!(
            read(&path, &LogOptions::default()),
            [
                (Stream::Stderr, "e\"\\\t\x01\n".to_owned()),
                (Stream::Stdout, "ab\n".to_owned()),
                (Stream::Stdout, "rest".to_owned()),
            ]
        );
    }

    #[test]
    fn long_lines_are_split_and_bytes_that_are_no_text_replaced() {
        let long = vec![b'x'; MAX_LINE + 3];
        let (_dir, path) = written(&[(Stream::Stdout, &long), (Stream::Stderr, b"\xff\xfe ok\n")]);
        let lines = read(&path, &LogOptions::default());
        assert_eq!(lines[0].1.len(), MAX_LINE);
        assert_eq!(lines[1].1, "\u{fffd}\u{fffd} ok\n");
        assert_eq!(lines[2].1, "xxx");
    }

    #[test]
    fn tail_counts_entries_from_the_end() {
        let text: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        let (_dir, path) = written(&[(Stream::Stdout, text.as_bytes())]);
        for tail in [0, 1, 3, 9_999, 10_000, 20_000] {
            let lines = read(&path, &LogOptions { tail: Some(tail), ..Default::default() });
            assert_eq!(lines.len(), tail.min(10_000));
            if tail > 0 {
                assert_eq!(lines.last().unwrap().1, "line 9999\n");
            }
        }
    }

    fn policy(max_size: u64, max_files: u32, compress: bool) -> LogPolicy {
        LogPolicy { max_size: Some(max_size), max_files, compress, ..LogPolicy::default() }
    }

    #[test]
    fn rotated_logs_read_as_one() {
        for compress in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut log = LogWriter::open(&path, policy(700, 4, compress)).unwrap();
            for i in 0..40 {
                log.write(Stream::Stdout, format!("line {i}\n").as_bytes()).unwrap();
            }
            let mut names: Vec<_> =
                std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            let gz = if compress { ".gz" } else { "" };
            assert_eq!(names, ["log", "log.1", &format!("log.2{gz}"), &format!("log.3{gz}")]);
            let all = read(&path, &LogOptions::default());
            assert_eq!(all.last().unwrap().1, "line 39\n");
            let first: usize = all[0].1.trim_end().trim_start_matches("line ").parse().unwrap();
            assert!(first > 0, "the oldest are gone");
            let numbers: Vec<_> = (first..40).map(|i| format!("line {i}\n")).collect();
            assert_eq!(all.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>(), numbers, "none is missing");
            for tail in [1, 5, 12, 20] {
                let some = read(&path, &LogOptions { tail: Some(tail), ..Default::default() });
                assert_eq!(some.len(), tail.min(all.len()), "--tail {tail}");
            }
        }
    }

    #[test]
    fn who_follows_goes_on_in_the_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path, policy(300, 3, false)).unwrap();
        log.write(Stream::Stdout, b"line 0\n").unwrap();
        let mut reader = LogReader::open(&path, &LogOptions::default()).unwrap();
        let mut seen = 0;
        for i in 1..50 {
            while let Some(line) = reader.next().unwrap() {
                assert_eq!(line.text, format!("line {seen}\n"));
                seen += 1;
            }
            assert_eq!(seen, i);
            log.write(Stream::Stdout, format!("line {i}\n").as_bytes()).unwrap();
        }
    }

    #[test]
    fn one_file_alone_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogWriter::open(&path, policy(300, 1, false)).unwrap();
        for i in 0..20 {
            log.write(Stream::Stdout, format!("line {i}\n").as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(read(&path, &LogOptions::default()).last().unwrap().1, "line 19\n");
    }

    #[test]
    fn attributes_stand_in_each_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let attributes = BTreeMap::from([("a\"b".to_owned(), "1".to_owned())]);
        let mut log =
            LogWriter::open(&path, LogPolicy { attributes: attributes.clone(), ..LogPolicy::default() }).unwrap();
        log.write(Stream::Stdout, b"x\n").unwrap();
        let mut reader = LogReader::open(&path, &LogOptions::default()).unwrap();
        assert_eq!(reader.next().unwrap().unwrap().attributes, attributes);
    }
}
