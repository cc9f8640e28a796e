//! One blob, from a registry into the content store: resumed where an earlier attempt, in this process or one that
//! died, left off (<https://www.rfc-editor.org/rfc/rfc9110#section-14.2>), and moved on to the next source when one
//! cannot give it.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::board::Slot;
use super::failure::unreachable;
use super::manifest::Repository;
use crate::content::{ContentStore, Ingest, Writer};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::reporter::{Progress, Reporter};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_millis(80);

/// A blob to be fetched.
pub(super) struct Wanted<'w> {
    pub digest: &'w Digest,
    pub size: u64,
    pub content: &'w ContentStore,
    pub reporter: &'w dyn Reporter,
}

enum Attempt {
    /// All bytes are here.
    Whole,
    /// The connection broke; what came is kept.
    Broken(Error),
}

impl Wanted<'_> {
    /// Fetches the blob from the first of `sources` that can give it, unless it is here already. `slot` tells whoever
    /// unpacks it meanwhile.
    ///
    /// # Errors
    /// The last source's.
    pub async fn fetch(&self, sources: &[Repository<'_>], slot: &Slot) -> Result<()> {
        let mut failure = Error::new(Class::Internal, "no source");
        for source in sources {
            // A new writer for each: what one source sent wrongly is thrown away.
            let mut writer = match self.writer().await? {
                Ingest::Present => return Ok(()),
                Ingest::Write(writer) => writer,
            };
            slot.arriving(writer.reader()?, writer.offset());
            let resumed = writer.offset() > 0;
            match self.from(source, &mut writer, slot).await {
                Ok(()) => match self.commit(writer).await {
                    Ok(()) => return Ok(()),
                    // Old bytes may have been bad: once more, all from this source.
                    Err(error) if resumed && error.class() == Class::Corrupt => {
                        let Ingest::Write(mut writer) = self.writer().await? else { return Ok(()) };
                        slot.arriving(writer.reader()?, 0);
                        match self.from(source, &mut writer, slot).await {
                            Ok(()) => match self.commit(writer).await {
                                Ok(()) => return Ok(()),
                                Err(error) => failure = error,
                            },
                            Err(error) => failure = error,
                        }
                    }
                    Err(error) => failure = error,
                },
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Waits, off the event loop, for whoever else is bringing the same blob.
    async fn writer(&self) -> Result<Ingest> {
        let (content, digest, size) = (self.content.clone(), self.digest.clone(), self.size);
        off_loop(move || content.writer(&digest, Some(size))).await
    }

    async fn commit(&self, writer: Writer) -> Result<()> {
        self.reporter.report(Progress::Phase { id: self.digest.short(), phase: "Verifying Checksum" });
        off_loop(move || writer.commit()).await.map(drop)
    }

    /// Brings all the bytes from one source, however often the connection breaks.
    async fn from(&self, source: &Repository<'_>, writer: &mut Writer, slot: &Slot) -> Result<()> {
        let backoff = source.remote.transport.config.backoff;
        let mut failures = 0;
        loop {
            let before = writer.offset();
            if before == self.size {
                return Ok(());
            }
            match self.attempt(source, writer, slot).await? {
                Attempt::Whole => return Ok(()),
                Attempt::Broken(error) => {
                    // Progress gives new patience.
                    failures = if writer.offset() > before { 1 } else { failures + 1 };
                    if failures >= backoff.attempts {
                        return Err(error);
                    }
                    tokio::time::sleep(backoff.pause(failures, None)).await;
                }
            }
        }
    }

    async fn attempt(&self, source: &Repository<'_>, writer: &mut Writer, slot: &Slot) -> Result<Attempt> {
        let url = source.remote.url(&source.path, &format!("blobs/{}", self.digest)).await?;
        let offset = writer.offset();
        let response = source
            .remote
            .send(Method::GET, &url, &source.scope, &|request| match offset {
                0 => request,
                _ => request.header(RANGE, format!("bytes={offset}-")),
            })
            .await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response) == Some(offset) => {}
            StatusCode::OK if offset == 0 => {}
            // No Range there, or not the one we asked for: all of it again.
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if offset > 0 => {
                let whole = response.status() == StatusCode::OK;
                writer.restart()?;
                slot.written(0);
                if !whole {
                    return Ok(Attempt::Broken(self.unwilling(source)));
                }
            }
            StatusCode::NOT_FOUND => {
                let text = super::failure::Refusal::read(response).await.text();
                return Err(Error::new(Class::NotFound, format!("blob {} of {}: {text}", self.digest, source.name)));
            }
            _ => return Err(source.remote.refusal(response, "pull", &source.name).await),
        }
        self.receive(response, writer, slot).await
    }

    fn unwilling(&self, source: &Repository<'_>) -> Error {
        let host = &source.remote.endpoint.host;
        Error::new(Class::Unavailable, format!("{host} sends other parts of {} than asked for", self.digest))
    }

    async fn receive(&self, mut response: Response, writer: &mut Writer, slot: &Slot) -> Result<Attempt> {
        let left = self.size - writer.offset();
        if let Some(length) = response.content_length().filter(|length| *length != left) {
            let whole = writer.offset() + length;
            writer.restart()?;
            return Err(Error::new(
                Class::Corrupt,
                format!("{} has {whole} bytes there and should have {}", self.digest, self.size),
            )
            .with_hint("the registry's manifest and its content disagree; tell whoever runs it"));
        }
        let mut told = Instant::now();
        self.tell(writer.offset());
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    writer.write(&chunk)?;
                    slot.written(writer.offset());
                    if told.elapsed() >= PROGRESS {
                        told = Instant::now();
                        self.tell(writer.offset());
                    }
                }
                Ok(None) if writer.offset() == self.size => return Ok(Attempt::Whole),
                Ok(None) => {
                    let (have, size) = (writer.offset(), self.size);
                    let why = format!("{} ended after {have} of {size} bytes", self.digest);
                    return Ok(Attempt::Broken(Error::new(Class::Unavailable, why)));
                }
                Err(error) => return Ok(Attempt::Broken(unreachable("Get", response.url(), &error))),
            }
        }
    }

    fn tell(&self, current: u64) {
        let (id, total) = (self.digest.short(), Some(self.size));
        self.reporter.report(Progress::Bytes { id, phase: "Downloading", current, total });
    }
}

/// Runs what blocks on a thread where it may.
pub(super) async fn off_loop<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::new(Class::Internal, format!("a worker ended early: {e}"))))
}

/// Where a part begins: `Content-Range: bytes FIRST-LAST/SIZE`.
fn starts_at(response: &Response) -> Option<u64> {
    let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
