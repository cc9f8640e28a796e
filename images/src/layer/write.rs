//! Writing tar archives: the same tree gives the same bytes. Names that do not fit a ustar header, and xattrs, go into
//! PAX records, which every reader of images knows.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use super::entry::{Mtime, Node, Stat, StatKind};

/// Most of a content that is in memory at a time. Each piece goes through several hands.
const PIECE: usize = 256 * 1024;

/// An archive being written to `W`.
pub(crate) struct TarWriter<W> {
    out: W,
    piece: Vec<u8>,
    /// Times are told to the nanosecond.
    exact: bool,
    /// It was `out` that failed.
    failed: bool,
}

impl<W: Write> TarWriter<W> {
    /// Begins an archive. Its times are told in seconds, as docker tells them in layers.
    pub(crate) fn new(out: W) -> Self {
        TarWriter { out, piece: Vec::new(), exact: false, failed: false }
    }

    /// The same, with times as they are.
    pub(crate) fn exact(out: W) -> Self {
        TarWriter { exact: true, ..TarWriter::new(out) }
    }

    /// True when an error came of writing, not of reading what was to be written.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).inspect_err(|_| self.failed = true)
    }

    /// Writes an entry. `link` is a symlink's target, or with `hard` the entry that this is another name of.
    pub(crate) fn entry(
        &mut self,
        path: &[u8],
        stat: &Stat,
        link: &[u8],
        hard: bool,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> io::Result<()> {
        let kind = match stat.kind {
            _ if hard => EntryType::Link,
            StatKind::File | StatKind::Whiteout | StatKind::Socket => EntryType::Regular,
            StatKind::Dir => EntryType::Directory,
            StatKind::Symlink => EntryType::Symlink,
            StatKind::Node(Node::Fifo) => EntryType::Fifo,
            StatKind::Node(Node::Char(..)) => EntryType::Char,
            StatKind::Node(Node::Block(..)) => EntryType::Block,
        };
        let mut records = Vec::new();
        let mut header = Header::new_ustar();
        let fields = header.as_ustar_mut().ok_or(io::ErrorKind::InvalidData)?;
        fit(&mut fields.name, path, b"path", &mut records);
        fit(&mut fields.linkname, link, b"linkpath", &mut records);
        for (name, value) in xattrs {
            pax_record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if stat.mtime.seconds < 0 || (self.exact && stat.mtime.nanoseconds > 0) {
            let nanoseconds = if self.exact { stat.mtime.nanoseconds } else { 0 };
            pax_record(&mut records, b"mtime", decimal(Mtime { nanoseconds, ..stat.mtime }).as_bytes());
        }
        if !records.is_empty() {
            let mut extension = Header::new_ustar();
            extension.as_ustar_mut().ok_or(io::ErrorKind::InvalidData)?.name[..3].copy_from_slice(b"pax");
            extension.set_entry_type(EntryType::XHeader);
            extension.set_size(records.len() as u64);
            self.header(&mut extension)?;
            self.content(&mut &records[..], records.len() as u64)?;
        }
        header.set_entry_type(kind);
        header.set_mode(stat.mode & 0o7777);
        header.set_uid(stat.uid.into());
        header.set_gid(stat.gid.into());
        header.set_mtime(u64::try_from(stat.mtime.seconds).unwrap_or(0));
        header.set_size(if kind == EntryType::Regular && stat.kind == StatKind::File { stat.size } else { 0 });
        if let StatKind::Node(Node::Char(major, minor) | Node::Block(major, minor)) = stat.kind {
            header.set_device_major(major)?;
            header.set_device_minor(minor)?;
        }
        self.header(&mut header)
    }

    fn header(&mut self, header: &mut Header) -> io::Result<()> {
        header.set_cksum();
        self.put(header.as_bytes())
    }

    /// Writes `size` bytes of content. A file that shrinks meanwhile is filled with zeros.
    pub(crate) fn content(&mut self, from: &mut dyn Read, size: u64) -> io::Result<()> {
        let most = usize::try_from(size).unwrap_or(PIECE).min(PIECE);
        if self.piece.len() < most {
            self.piece.resize(most, 0);
        }
        let (mut from, mut copied) = (from.take(size), 0);
        while copied < size {
            match from.read(&mut self.piece) {
                Ok(0) => break,
                Ok(length) => {
                    self.out.write_all(&self.piece[..length]).inspect_err(|_| self.failed = true)?;
                    copied += length as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let zeros = size.next_multiple_of(512) - copied;
        io::copy(&mut io::repeat(0).take(zeros), &mut self.out).inspect_err(|_| self.failed = true)?;
        Ok(())
    }

    /// Writes the end.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.put(&[0; 1024])?;
        self.out.flush().inspect_err(|_| self.failed = true)
    }
}

/// A time in seconds, as PAX records have it: a fraction counts away from 1970.
fn decimal(time: Mtime) -> String {
    let (sign, seconds, nanoseconds) = match (time.seconds, time.nanoseconds) {
        (seconds @ ..0, nanoseconds @ 1..) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        (seconds, nanoseconds) => (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs(), nanoseconds),
    };
    match nanoseconds {
        0 => format!("{sign}{seconds}"),
        _ => format!("{sign}{seconds}.{nanoseconds:09}"),
    }
}

/// Puts `value` into its field, or what fits of it, and the whole into a PAX record.
fn fit(field: &mut [u8], value: &[u8], key: &[u8], records: &mut Vec<u8>) {
    let fits = value.len().min(field.len());
    field[..fits].copy_from_slice(&value[..fits]);
    if fits < value.len() {
        pax_record(records, key, value);
    }
}

/// Appends `LENGTH KEY=VALUE\n`, where the length counts itself.
pub(crate) fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(&[key, b"=", value, b"\n"].concat());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_parts_of_seconds() {
        let text = |seconds, nanoseconds| decimal(Mtime { seconds, nanoseconds });
        assert_eq!(
            (text(7, 0), text(7, 500_000_000), text(0, 1)),
            ("7".into(), "7.500000000".into(), "0.000000001".into())
        );
        assert_eq!(
            (text(-7, 0), text(-7, 250_000_000), text(-1, 1)),
            ("-7".into(), "-6.750000000".into(), "-0.999999999".into())
        );
    }
}
