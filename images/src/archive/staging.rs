//! From the archive's entries to content: each regular file is ingested while it streams by, and only its digest is
//! kept under the archive's name for it. Small documents are kept in memory instead.
//!
//! Docker and skopeo write a symlink where two names mean one layer. Such a link is another name for an entry of the
//! same archive, resolved on paper; one that points anywhere else is refused. No link is ever made or followed on disk.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use crate::content::{ContentStore, Ingest};
use crate::digest::{Algorithm, Digest};
use crate::error::{Class, Error, Result};
use crate::image::document::MAX_DOCUMENT;
use crate::layer::decode::Decoder;
use crate::layer::entries::Entries;
use crate::layer::entry::Kind;
use crate::reporter::{Progress, Reporter};

/// Most entries of an archive.
const MAX_ENTRIES: usize = 100_000;
/// Most bytes of an archive, uncompressed.
const MAX_BYTES: u64 = 256 << 30;
/// Documents that are read by name.
const DOCUMENTS: [&str; 4] = ["index.json", "manifest.json", "oci-layout", "repositories"];

/// One file of the archive.
#[derive(Debug, Clone)]
pub(super) struct Staged {
    pub(super) digest: Digest,
    pub(super) size: u64,
    /// How it begins, to tell compressions apart.
    pub(super) start: Vec<u8>,
}

/// What an archive held.
#[derive(Debug, Default)]
pub(super) struct Staging {
    pub(super) files: BTreeMap<String, Staged>,
    pub(super) documents: BTreeMap<String, Vec<u8>>,
    /// Other names of files.
    links: BTreeMap<String, String>,
}

impl Staging {
    pub(super) fn read(content: &ContentStore, reader: &mut dyn Read, reporter: &dyn Reporter) -> Result<Self> {
        let decoder = Decoder::open(reader, "archive")?;
        let mut entries = Entries::new(BufReader::with_capacity(256 * 1024, decoder));
        let mut staging = Staging::default();
        let mut total = 0u64;
        while let Some(entry) = entries.next().map_err(in_archive)? {
            let name = name(&entry.path)?;
            if entry.kind == Kind::Dir {
                continue;
            }
            total = total.saturating_add(entry.size);
            if staging.files.len() + staging.links.len() >= MAX_ENTRIES || total > MAX_BYTES {
                return Err(Error::new(Class::LimitExceeded, "the archive is too large"));
            }
            if staging.has(&name) {
                return Err(hostile(&name, "is there twice"));
            }
            let link = match &entry.kind {
                Kind::Symlink(target) => Some(beside(&name, target)),
                Kind::HardLink(target) => Some(self::name(target).ok()),
                Kind::Node(_) => return Err(hostile(&name, "is a device or a pipe")),
                Kind::File | Kind::Dir => None,
            };
            if let Some(target) = link {
                let target = target.ok_or_else(|| hostile(&name, "is a link that leads out of the archive"))?;
                staging.links.insert(name, target);
                continue;
            }
            if DOCUMENTS.contains(&name.as_str()) {
                if entry.size > MAX_DOCUMENT {
                    return Err(Error::new(
                        Class::LimitExceeded,
                        format!("{name} is larger than {MAX_DOCUMENT} bytes"),
                    ));
                }
                let mut bytes = Vec::new();
                entries
                    .content(|piece| {
                        bytes.extend_from_slice(piece);
                        Ok(())
                    })
                    .map_err(in_archive)?;
                staging.documents.insert(name, bytes);
            } else {
                let staged = ingest(content, &mut entries, &name, entry.size, reporter)?;
                staging.files.insert(name, staged);
            }
        }
        Ok(staging)
    }

    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.documents.contains_key(name) || self.links.contains_key(name)
    }

    /// The file of this name, or of the one that it is a link to. One link, not a chain of them.
    pub(super) fn file(&self, name: &str) -> Result<&Staged> {
        let real = self.links.get(name).map_or(name, String::as_str);
        self.files.get(real).ok_or_else(|| {
            Error::new(Class::Corrupt, format!("the archive's manifest names {name:?}, which is not in the archive"))
        })
    }
}

fn ingest<R: std::io::BufRead>(
    content: &ContentStore,
    entries: &mut Entries<R>,
    name: &str,
    size: u64,
    reporter: &dyn Reporter,
) -> Result<Staged> {
    // A file that is named by its digest need not be written again, and must be what its name says.
    let claimed = claimed_digest(name);
    let mut writer = match &claimed {
        Some(digest) => match content.writer(digest, Some(size))? {
            Ingest::Write(mut writer) => {
                writer.restart()?;
                Some(writer)
            }
            Ingest::Present => None,
        },
        None => Some(content.anonymous_writer()?),
    };
    let id: String = name.trim_start_matches("blobs/sha256/").chars().take(12).collect();
    let mut start = Vec::with_capacity(8);
    let mut current = 0u64;
    entries
        .content(|piece| {
            let missing = 8usize.saturating_sub(start.len()).min(piece.len());
            start.extend_from_slice(&piece[..missing]);
            current += piece.len() as u64;
            reporter.report(Progress::Bytes { id: &id, phase: "Loading layer", current, total: Some(size) });
            writer.as_mut().map_or(Ok(()), |writer| writer.write(piece))
        })
        .map_err(in_archive)?;
    let digest = match (writer, claimed) {
        (Some(writer), _) => writer.commit()?,
        (None, Some(digest)) => digest,
        (None, None) => return Err(Error::new(Class::Internal, format!("{name}: nothing was read"))),
    };
    Ok(Staged { digest, size, start })
}

/// The digest that a layout's `blobs/ALGORITHM/HEX` promises.
fn claimed_digest(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    let known = [Algorithm::Sha256, Algorithm::Sha512].iter().any(|a| a.name() == algorithm);
    known.then(|| format!("{algorithm}:{hex}").parse().ok())?
}

/// An entry's name, if it is an ordinary relative path. It is only compared, never opened; still, an archive that
/// tries something else is not one to trust.
fn name(path: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(path).map_err(|_| hostile(&String::from_utf8_lossy(path), "is not UTF-8"))?;
    if text.len() > 1024 || text.starts_with('/') || text.contains(['\0', '\\']) {
        return Err(hostile(text, "is not a plain relative path"));
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(hostile(text, "leads out of the archive"));
    }
    Ok(parts.join("/"))
}

/// What a symlink's target means, seen from the link's own place; `None` when that is not in the archive.
fn beside(link: &str, target: &[u8]) -> Option<String> {
    let target = std::str::from_utf8(target).ok().filter(|t| !t.starts_with('/') && !t.contains(['\0', '\\']))?;
    let mut parts: Vec<&str> = link.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = parts.pop()?,
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn hostile(name: &str, why: &str) -> Error {
    Error::new(Class::Corrupt, format!("refusing the archive: its entry {name:?} {why}"))
}

/// The tar reader speaks of layers.
fn in_archive(error: Error) -> Error {
    match error {
        Error::Message { class, message, hint } => {
            let message = message.strip_prefix("layer: ").map_or(message.clone(), |m| format!("archive: {m}"));
            Error::Message { class, message, hint }
        }
        other => other,
    }
}
