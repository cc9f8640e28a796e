//! Reading a tar archive entry by entry: POSIX ustar, PAX records and GNU long names
//! (<https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>, <https://www.gnu.org/software/tar/manual/html_node/Standard.html>).
//!
//! The `tar` crate decodes the header block. The loop is ours because the archive is hostile: extension records are
//! bounded before they are read into memory, and content is handed out of the decompressor's buffer without a copy.

use std::io::BufRead;

use tar::{EntryType, Header};

use super::entry::{Entry, Kind, Mtime, Node};
use crate::error::{Class, Error, Result};

/// Most bytes of PAX records or of a long name: GNU tar and Go's reader stop at 1 MiB too.
const MAX_EXTENSION: u64 = 1 << 20;
const BLOCK: u64 = 512;

/// The entries of an archive.
pub(crate) struct Entries<R> {
    reader: R,
    /// Content of the current entry that nobody has read yet, and the zeros after it.
    content: u64,
    padding: u64,
    /// True when the archive's end has been seen; what follows is not ours.
    ended: bool,
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Mtime>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(super) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Class::Corrupt, message)
}

/// Says nothing of what is there instead: that may be anything, escape sequences for a terminal too.
fn not_tar() -> Error {
    corrupt("layer: not a tar archive, or damaged: a header is wrong")
}

fn read_error(e: std::io::Error) -> Error {
    if e.kind() == std::io::ErrorKind::UnexpectedEof {
        return corrupt("layer: the archive ends in the middle of an entry");
    }
    super::stream_error(e)
}

impl<R: BufRead> Entries<R> {
    /// Reads an archive from `reader`.
    pub(crate) fn new(reader: R) -> Self {
        Entries { reader, content: 0, padding: 0, ended: false }
    }

    /// The next entry, or `None` after the last. What was left of the former one's content is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extension = Extension::default();
        let mut extended = false;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                if extended {
                    return Err(corrupt("layer: the archive ends after an extension header"));
                }
                return Ok(None);
            };
            let size = header.entry_size().map_err(|_| not_tar())?;
            match header.entry_type() {
                EntryType::GNULongName => extension.path.get_or_insert(c_string(self.extension(size)?)),
                EntryType::GNULongLink => extension.link.get_or_insert(c_string(self.extension(size)?)),
                EntryType::XHeader => {
                    extension.pax(&self.extension(size)?)?;
                    extended = true;
                    continue;
                }
                EntryType::XGlobalHeader => {
                    self.extension(size)?;
                    continue;
                }
                kind => match self.entry(&header, kind, size, std::mem::take(&mut extension))? {
                    Some(entry) => return Ok(Some(entry)),
                    None => continue,
                },
            };
            extended = true;
        }
    }

    /// Hands out the current entry's content, piece by piece, to `sink`.
    pub(crate) fn content(&mut self, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        while self.content > 0 {
            let piece = self.reader.fill_buf().map_err(read_error)?;
            if piece.is_empty() {
                return Err(read_error(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let take = piece.len().min(usize::try_from(self.content).unwrap_or(usize::MAX));
            sink(&piece[..take])?;
            self.reader.consume(take);
            self.content -= take as u64;
        }
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<()> {
        self.content += self.padding;
        self.padding = 0;
        self.content(|_| Ok(()))
    }

    /// The next header block, or `None` at the archive's end: two blocks of zeros, or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>> {
        if self.ended || self.reader.fill_buf().map_err(read_error)?.is_empty() {
            return Ok(None);
        }
        let mut block = [0u8; BLOCK as usize];
        self.reader.read_exact(&mut block).map_err(read_error)?;
        if block.iter().all(|b| *b == 0) {
            self.ended = true;
            let mut rest = [0u8; 1];
            let more = self.reader.read(&mut rest).map_err(read_error)?;
            if more != 0 && rest[0] != 0 {
                return Err(corrupt("layer: entries follow the archive's end"));
            }
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let told = header.cksum().map_err(|_| not_tar())?;
        let sum = |range: &[u8]| range.iter().map(|b| u32::from(*b)).sum::<u32>();
        if told != sum(&block[..148]) + 8 * u32::from(b' ') + sum(&block[156..]) {
            return Err(not_tar());
        }
        Ok(Some(header))
    }

    /// Reads the whole content of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(Error::new(Class::LimitExceeded, format!("layer: an extension header of {size} bytes")));
        }
        let mut bytes = vec![0; size as usize];
        self.reader.read_exact(&mut bytes).map_err(read_error)?;
        self.padding = padding(size);
        Ok(bytes)
    }

    fn entry(&mut self, header: &Header, kind: EntryType, size: u64, told: Extension) -> Result<Option<Entry>> {
        let size = told.size.unwrap_or(size);
        let path = told.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let number = |what: &str, n: std::io::Result<u64>| {
            n.map_err(|_| corrupt(format!("layer: the {what} of {} is not a number", show(&path))))
        };
        let link =
            || told.link.clone().or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let device = || -> Result<(u32, u32)> {
            let part = |n: std::io::Result<Option<u32>>| number("device number", n.map(|n| u64::from(n.unwrap_or(0))));
            Ok((part(header.device_major())? as u32, part(header.device_minor())? as u32))
        };
        let kind = match kind {
            // Version 7 of Unix had no type for directories.
            EntryType::Regular if path.ends_with(b"/") => Kind::Dir,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink(link()),
            EntryType::Link => Kind::HardLink(link()),
            EntryType::Fifo => Kind::Node(Node::Fifo),
            EntryType::Char => device().map(|(major, minor)| Kind::Node(Node::Char(major, minor)))?,
            EntryType::Block => device().map(|(major, minor)| Kind::Node(Node::Block(major, minor)))?,
            EntryType::GNUSparse => return Err(sparse(&path)),
            // A volume's label carries nothing.
            other if other.as_byte() == b'V' => {
                self.content = size;
                self.padding = padding(size);
                return Ok(None);
            }
            other => {
                let shown = char::from(other.as_byte()).escape_default();
                return Err(corrupt(format!("layer: {} has the unknown type '{shown}'", show(&path))));
            }
        };
        let id = |what, told: Option<u64>, own: std::io::Result<u64>| {
            let id = told.map_or_else(|| number(what, own), Ok)?;
            u32::try_from(id).map_err(|_| corrupt(format!("layer: {what} {id} of {} is too large", show(&path))))
        };
        let entry = Entry {
            uid: id("owner", told.uid, header.uid())?,
            gid: id("group", told.gid, header.gid())?,
            mode: number("mode", header.mode().map(u64::from))? as u32 & 0o7777,
            // Times before 1970 or unreadable ones are no reason to refuse an image.
            mtime: told.mtime.unwrap_or_else(|| Mtime {
                seconds: header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0),
                nanoseconds: 0,
            }),
            xattrs: told.xattrs,
            // Links, directories and nodes may tell a size, but nothing of it follows in the stream: Go's reader, which
            // docker uses, takes it so.
            size: if kind == Kind::File { size } else { 0 },
            kind,
            path,
        };
        self.content = entry.size;
        self.padding = padding(entry.size);
        Ok(Some(entry))
    }
}

/// Zeros that fill the last block of `size` bytes.
fn padding(size: u64) -> u64 {
    (BLOCK - size % BLOCK) % BLOCK
}

/// A name of a hostile archive, fit for a terminal.
pub(super) fn show(path: &[u8]) -> String {
    format!("\"{}\"", path.escape_ascii())
}

fn sparse(path: &[u8]) -> Error {
    Error::new(Class::Unsupported, format!("layer: {} is stored as a sparse file", show(path)))
        .with_hint("pack the archive again without tar's --sparse")
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

impl Extension {
    /// Takes PAX records: `LENGTH KEY=VALUE\n`, where a value may hold any byte.
    fn pax(&mut self, mut records: &[u8]) -> Result<()> {
        let bad = || corrupt("layer: malformed PAX records");
        while !records.is_empty() {
            let space = records.iter().take(20).position(|b| *b == b' ').ok_or_else(bad)?;
            let length: usize = text(&records[..space]).and_then(|t| t.parse().ok()).ok_or_else(bad)?;
            if length <= space + 1 || length > records.len() || records[length - 1] != b'\n' {
                return Err(bad());
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let bad = || corrupt(format!("layer: malformed PAX record {}", show(key)));
        let number = || text(value).and_then(|t| t.parse::<u64>().ok()).ok_or_else(bad);
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        match key {
            // An empty value takes a record of the global header back, which we do not heed.
            _ if value.is_empty() => {}
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(bad)?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(sparse(self.path.as_deref().unwrap_or(b"an entry")));
            }
            _ => {}
        }
        Ok(())
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Seconds with a fraction, perhaps before 1970.
fn time(value: &[u8]) -> Option<Mtime> {
    let (whole, fraction) = text(value)?.split_once('.').unwrap_or((text(value)?, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits = fraction
        .bytes()
        .take(9)
        .filter(u8::is_ascii_digit)
        .fold((0u32, 0), |(n, count), digit| (n * 10 + u32::from(digit - b'0'), count + 1));
    let nanoseconds = digits.0 * 10u32.pow(9 - digits.1);
    Some(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Mtime { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds },
        _ => Mtime { seconds, nanoseconds },
    })
}
