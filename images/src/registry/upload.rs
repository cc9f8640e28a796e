//! One blob, from the content store to a registry
//! (<https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pushing-blobs>).
//!
//! It is not sent when it is there already, nor when the registry can take it from another repository. A small one
//! goes in one request; a large one in parts, and after a broken connection from where the registry says it is.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::client::{check_downgrade, location};
use super::fetch::off_loop;
use super::manifest::Repository;
use crate::content::ContentStore;
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::reporter::{Progress, Reporter};

/// Blobs up to this size go in one request; larger ones in parts of this size.
const PART: u64 = 8 * 1024 * 1024;
/// The largest part a registry may ask for (`OCI-Chunk-Min-Length`).
const MAX_PART: u64 = 128 * 1024 * 1024;

/// A blob to be sent.
pub(super) struct Upload<'u> {
    pub target: &'u Repository<'u>,
    pub content: &'u ContentStore,
    pub digest: &'u Digest,
    pub size: u64,
    /// Repositories at the same registry that have it, best first.
    pub elsewhere: &'u [String],
    pub reporter: &'u (dyn Reporter + 'u),
}

/// How the blob came to be there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was.
    Existed,
    /// The registry took it from this repository.
    Mounted(String),
    /// It was sent.
    Pushed,
}

/// An upload under way.
struct Session {
    url: Url,
    /// The least size of a part but the last.
    part: u64,
}

impl Upload<'_> {
    /// Sees to it that the blob is there.
    pub async fn send(&self) -> Result<Sent> {
        if self.exists().await? {
            return Ok(Sent::Existed);
        }
        for from in self.elsewhere {
            let query = [("mount", self.digest.as_str()), ("from", from.as_str())];
            let response = self.begin(&query).await?;
            if response.status() == StatusCode::CREATED {
                return Ok(Sent::Mounted(from.clone()));
            }
            // The registry has begun an upload instead; it is used, unless another repository may do.
            if response.status() == StatusCode::ACCEPTED && Some(from) == self.elsewhere.last() {
                let session = self.session(&response)?;
                return self.transfer(Some(session)).await;
            }
        }
        self.transfer(None).await
    }

    async fn exists(&self) -> Result<bool> {
        let url = self.target.remote.url(&self.target.path, &format!("blobs/{}", self.digest)).await?;
        let response = self.target.remote.send(Method::HEAD, &url, &self.target.scope, &|r| r).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refusal(response).await),
        }
    }

    async fn refusal(&self, response: Response) -> Error {
        self.target.remote.refusal(response, "push", &self.target.name).await
    }

    async fn begin(&self, query: &[(&str, &str)]) -> Result<Response> {
        let mut url = self.target.remote.url(&self.target.path, "blobs/uploads/").await?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.target.remote.send(Method::POST, &url, &self.target.scope, &|r| r.header(CONTENT_LENGTH, 0)).await
    }

    async fn new_session(&self) -> Result<Session> {
        let response = self.begin(&[]).await?;
        match response.status() {
            StatusCode::ACCEPTED => self.session(&response),
            _ => Err(self.refusal(response).await),
        }
    }

    fn session(&self, response: &Response) -> Result<Session> {
        let least = response.headers().get("oci-chunk-min-length").and_then(|v| v.to_str().ok()?.parse().ok());
        let part = least.unwrap_or(0).clamp(PART, MAX_PART);
        Ok(Session { url: self.next(response)?, part })
    }

    /// Where the upload goes on: relative or absolute, with whatever query the registry has put there.
    fn next(&self, response: &Response) -> Result<Url> {
        let host = &self.target.remote.endpoint.host;
        let from = response.url();
        let next = location(from, response).ok_or_else(|| {
            Error::new(Class::Corrupt, format!("{host} does not say where the upload of {} goes on", self.digest))
        })?;
        check_downgrade(host, from, &next)?;
        Ok(next)
    }

    /// Sends the bytes, again and again while the connection breaks.
    async fn transfer(&self, mut session: Option<Session>) -> Result<Sent> {
        let backoff = self.target.remote.transport.config.backoff;
        let mut failures = 0;
        let mut offset = 0;
        loop {
            let mut current = match session.take() {
                Some(session) => session,
                None => {
                    offset = 0;
                    self.new_session().await?
                }
            };
            let before = offset;
            let error = match self.parts(&mut current, &mut offset).await {
                Ok(()) => return Ok(Sent::Pushed),
                Err(error) if matches!(error.class(), Class::Unavailable) => error,
                Err(error) => return Err(error),
            };
            failures = if offset > before { 1 } else { failures + 1 };
            if failures >= backoff.attempts {
                return Err(error);
            }
            tokio::time::sleep(backoff.pause(failures, None)).await;
            // Where it stopped, if the registry still knows of it; else from the beginning.
            if let Some(at) = self.progress(&mut current).await {
                offset = at.min(self.size);
                session = Some(current);
            }
        }
    }

    /// Asks how far the upload is.
    async fn progress(&self, session: &mut Session) -> Option<u64> {
        let response = self.target.remote.send(Method::GET, &session.url, &self.target.scope, &|r| r).await.ok()?;
        if !matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::ACCEPTED) {
            return None;
        }
        if let Ok(next) = self.next(&response) {
            session.url = next;
        }
        received(response.headers())
    }

    async fn parts(&self, session: &mut Session, offset: &mut u64) -> Result<()> {
        if self.size > session.part {
            while *offset < self.size {
                let length = (self.size - *offset).min(session.part);
                let response = self.part(Method::PATCH, &session.url, *offset, length).await?;
                if !matches!(response.status(), StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED) {
                    return Err(self.interrupted(response).await);
                }
                session.url = self.next(&response)?;
                let sent = *offset + length;
                *offset = received(response.headers()).filter(|at| *at <= sent && *at > *offset).unwrap_or(sent);
            }
        }
        let mut url = session.url.clone();
        url.query_pairs_mut().append_pair("digest", self.digest.as_str());
        let response = self.part(Method::PUT, &url, *offset, self.size - *offset).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(self.interrupted(response).await),
        }
    }

    /// A refusal in mid-upload: one that asking again may better is told from one that it may not.
    async fn interrupted(&self, response: Response) -> Error {
        let status = response.status();
        let error = self.refusal(response).await;
        // The registry has lost the upload, or counts other bytes than we do: a matter of resuming.
        if matches!(status.as_u16(), 404 | 416) {
            return Error::new(Class::Unavailable, format!("upload of {}: {error}", self.digest));
        }
        error
    }

    /// Sends `length` bytes from `offset` on.
    async fn part(&self, method: Method, url: &Url, offset: u64, length: u64) -> Result<Response> {
        let (content, digest) = (self.content.clone(), self.digest.clone());
        let bytes = off_loop(move || read_at(content.open_blob(&digest)?, offset, length)).await?;
        let range = format!("{offset}-{}", offset + length.max(1) - 1);
        let patch = method == Method::PATCH;
        let response = self
            .target
            .remote
            .send_once(method, url, &self.target.scope, &|request| {
                let request = request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, length);
                let request = if patch { request.header(CONTENT_RANGE, &range) } else { request };
                request.body(bytes.clone())
            })
            .await?;
        if length > 0 {
            let (id, current, total) = (self.digest.short(), offset + length, Some(self.size));
            self.reporter.report(Progress::Bytes { id, phase: "Pushing", current, total });
        }
        Ok(response)
    }
}

fn read_at(mut file: File, offset: u64, length: u64) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.take(length).read_to_end(&mut bytes))
        .map_err(|e| Error::io("read", "blob", e))?;
    if bytes.len() as u64 != length {
        return Err(Error::new(Class::Corrupt, "a blob in the store is shorter than its manifest says")
            .with_hint("run `wharf system check`"));
    }
    Ok(Bytes::from(bytes))
}

/// How many bytes the registry has, from `Range: 0-LAST` (some write `bytes=0-LAST`; nothing yet is `0-0`).
fn received(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = text.strip_prefix("bytes=").unwrap_or(text).strip_prefix("0-")?.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_registry_has() {
        let headers = |text: &str| HeaderMap::from_iter([(RANGE, text.parse().unwrap())]);
        assert_eq!(received(&headers("0-99")), Some(100));
        assert_eq!(received(&headers("bytes=0-99")), Some(100));
        assert_eq!(received(&headers("0-0")), Some(0));
        assert_eq!(received(&headers("5-9")), None);
        assert_eq!(received(&headers("0-18446744073709551616")), None);
        assert_eq!(received(&HeaderMap::new()), None);
    }
}
