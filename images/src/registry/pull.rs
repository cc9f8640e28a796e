//! Pulling: from a name to a recorded, unpacked image.
//!
//! Bytes first, then the record. Documents come first, then all blobs, some at a time; each tar layer is unpacked on
//! other threads while it still arrives ([`super::board`]); the name is set last. A [`Lease`] keeps the sweep away
//! meanwhile. Whatever ends it in between (also a signal) leaves verified blobs and resumable ingests, nothing else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::Notify;

use super::auth::Scope;
use super::board::Slot;
use super::client::Remote;
use super::config::Config;
use super::fetch::Wanted;
use super::manifest::{Fetched, Repository};
use super::transport::Transport;
use crate::content::{ContentStore, Ingest};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::image::document::{Descriptor, Document, MAX_DOCUMENT, Manifest};
use crate::image::{Blob, Image, Layer, Platform};
use crate::layer::Whiteouts;
use crate::lease::Lease;
use crate::reference::Reference;
use crate::reporter::{Progress, Reporter};
use crate::store::{Arrival, ImageStore};

/// Indexes within indexes end somewhere.
const MAX_DEPTH: usize = 4;

/// Pulls `name`.
pub(super) fn pull(
    config: &Config,
    store: &ImageStore,
    name: &Reference,
    platform: Option<&Platform>,
    reporter: &dyn Reporter,
) -> Result<Image> {
    let _lease = Lease::take(&store.root)?;
    let runtime = super::runtime()?;
    let transport = Transport::new(config);
    let endpoints = config.sources(name.domain())?;
    let remotes: Vec<Remote<'_>> = endpoints.into_iter().map(|e| Remote::new(&transport, e, None)).collect();
    let sources: Vec<Repository<'_>> = remotes.iter().map(|remote| repository(remote, name)).collect();

    let before = current(store, name)?;
    let (found, position) = runtime.block_on(first(&sources, reporter, async |source| {
        documents(source, &store.content, name, before.as_ref(), platform).await
    }))?;
    let which = name.digest().map_or_else(|| name.tag().unwrap_or("latest").to_owned(), |_| name.to_string());
    reporter.report(Progress::Line(&format!("{which}: Pulling from {}", name.path())));
    let sources = &sources[position..];
    runtime.block_on(config_blob(store, &found.manifest, sources))?;
    let image = Image::read(&store.content, &found.target, platform)?;

    let work = Work::plan(store, &image)?;
    let up_to_date = before.as_ref() == Some(&found.target) && work.is_done();
    if !up_to_date {
        work.run(&runtime, sources, config.concurrency, reporter)?;
        store.bring(Some(name), &found.target, Arrival::Pulled)?;
    }
    // Nothing of it may outlive this call: the caller may fork.
    drop(runtime);
    reporter.report(Progress::Line(&format!("Digest: {}", found.target)));
    let status = if up_to_date { "Image is up to date" } else { "Downloaded newer image" };
    reporter.report(Progress::Line(&format!("Status: {status} for {}", name.familiar())));
    store.resolve(&name.to_string(), platform)
}

/// The tags of the repository that `name` is in.
pub(super) fn tags(config: &Config, name: &Reference, reporter: &dyn Reporter) -> Result<Vec<String>> {
    let runtime = super::runtime()?;
    let transport = Transport::new(config);
    let endpoints = config.sources(name.domain())?;
    let remotes: Vec<Remote<'_>> = endpoints.into_iter().map(|e| Remote::new(&transport, e, None)).collect();
    let sources: Vec<Repository<'_>> = remotes.iter().map(|remote| repository(remote, name)).collect();
    runtime.block_on(first(&sources, reporter, async |source| source.tags().await)).map(|(tags, _)| tags)
}

/// A name's repository at an endpoint, for pulling.
pub(super) fn repository<'r>(remote: &'r Remote<'r>, name: &Reference) -> Repository<'r> {
    let path = remote.endpoint.repository(name.path());
    let scope = Scope::repository(&path, &["pull"]);
    Repository { remote, path, name: name.familiar_repository(), scope }
}

fn current(store: &ImageStore, name: &Reference) -> Result<Option<Digest>> {
    Ok(store.records()?.into_iter().find(|r| r.reference.as_ref() == Some(name)).map(|r| r.target))
}

/// The first source that can, and which it was. Mirrors may fail; the origin's error counts.
async fn first<T>(
    sources: &[Repository<'_>],
    reporter: &dyn Reporter,
    ask: impl AsyncFn(&Repository<'_>) -> Result<T>,
) -> Result<(T, usize)> {
    let mut failure = Error::new(Class::Internal, "no source");
    for (position, source) in sources.iter().enumerate() {
        match ask(source).await {
            Ok(found) => return Ok((found, position)),
            Err(error) => {
                if let Some(next) = sources.get(position + 1) {
                    let (this, next) = (&source.remote.endpoint.host, &next.remote.endpoint.host);
                    reporter.report(Progress::Line(&format!("mirror {this} cannot help ({error}), asking {next}")));
                }
                failure = error;
            }
        }
    }
    Err(failure)
}

struct Found {
    target: Digest,
    manifest: Manifest,
}

/// Fetches index and manifest, so far as they are not here, and keeps them.
async fn documents(
    source: &Repository<'_>,
    content: &ContentStore,
    name: &Reference,
    before: Option<&Digest>,
    platform: Option<&Platform>,
) -> Result<Found> {
    let tag = name.tag().unwrap_or("latest");
    let known = match (name.digest(), before) {
        (Some(digest), _) => Some(digest.clone()),
        // Asking for the digest alone is cheap, and registries do not count it.
        (None, Some(before)) => source.resolve(tag).await?.filter(|digest| digest == before),
        (None, None) => None,
    };
    let mut document = match known.filter(|digest| content.contains(digest)) {
        Some(digest) => stored(content, &digest)?,
        None => source.manifest(tag, name.digest()).await?,
    };
    let target = document.digest.clone();
    for _ in 0..MAX_DEPTH {
        let parsed = Document::parse(&document.bytes, document.media_type.as_deref())?;
        keep(content, &document)?;
        let entry = match parsed {
            Document::Manifest(manifest) => return Ok(Found { target, manifest }),
            Document::Index(index) => index.choose(platform, &|_| false)?.clone(),
        };
        document = if content.contains(&entry.digest) {
            stored(content, &entry.digest)?
        } else {
            source.manifest("", Some(&entry.digest)).await?
        };
        check_size(&entry, document.bytes.len() as u64)?;
        // The index says what it is, whatever the server calls it.
        document.media_type = Some(entry.media_type).filter(|t| !t.is_empty()).or(document.media_type);
    }
    Err(Error::new(Class::Corrupt, format!("{target} holds indexes within indexes, deeper than {MAX_DEPTH}")))
}

fn stored(content: &ContentStore, digest: &Digest) -> Result<Fetched> {
    let bytes = content.read(digest, MAX_DOCUMENT)?;
    Ok(Fetched { bytes, media_type: None, digest: digest.clone() })
}

fn keep(content: &ContentStore, document: &Fetched) -> Result<()> {
    if let Ingest::Write(mut writer) = content.writer(&document.digest, Some(document.bytes.len() as u64))? {
        writer.restart()?;
        writer.write(&document.bytes)?;
        writer.commit()?;
    }
    Ok(())
}

fn check_size(entry: &Descriptor, found: u64) -> Result<()> {
    if entry.size == found {
        return Ok(());
    }
    Err(Error::new(Class::Corrupt, format!("manifest {} has {found} bytes instead of {}", entry.digest, entry.size)))
}

async fn config_blob(store: &ImageStore, manifest: &Manifest, sources: &[Repository<'_>]) -> Result<()> {
    let config = &manifest.config;
    if config.size > MAX_DOCUMENT {
        let size = config.size;
        return Err(Error::new(
            Class::LimitExceeded,
            format!("an image config of {size} bytes is larger than {MAX_DOCUMENT}"),
        ));
    }
    // Docker says nothing of it.
    let reporter = &crate::NoReport;
    let wanted = Wanted { digest: &config.digest, size: config.size, content: &store.content, reporter };
    wanted.fetch(sources, &Slot::default()).await
}

/// A blob to be brought, and who waits for it.
struct Job {
    blob: Blob,
    slot: Slot,
    /// Nobody unpacks it.
    plain: bool,
    /// It is here, and so is what is made of it.
    done: bool,
}

/// A layer to be unpacked.
struct Step {
    job: usize,
    chain: Vec<Digest>,
}

struct Work<'w> {
    store: &'w ImageStore,
    jobs: Vec<Job>,
    steps: Vec<Step>,
    failure: Mutex<Option<Error>>,
    failed: Notify,
}

impl<'w> Work<'w> {
    fn plan(store: &'w ImageStore, image: &Image) -> Result<Self> {
        let mut work =
            Work { store, jobs: Vec::new(), steps: Vec::new(), failure: Mutex::new(None), failed: Notify::new() };
        let mut known: HashMap<Digest, usize> = HashMap::new();
        let mut chain = Vec::new();
        for layer in &image.layers {
            let blob = layer.blob();
            let here = store.content.contains(&blob.digest);
            // Two equal layers are one download.
            let job = *known.entry(blob.digest.clone()).or_insert_with(|| {
                work.jobs.push(Job { blob: blob.clone(), slot: Slot::default(), plain: true, done: here });
                work.jobs.len() - 1
            });
            if let Layer::Tar(_) = layer {
                let diff_id = blob.diff_id.clone().ok_or_else(|| {
                    Error::new(Class::Corrupt, format!("the image's config does not list its layer {}", blob.digest))
                })?;
                chain.push(diff_id);
                if !store.snapshots.has_layer(&chain) {
                    work.jobs[job].plain = false;
                    work.jobs[job].done = false;
                    work.steps.push(Step { job, chain: chain.clone() });
                }
            }
        }
        Ok(work)
    }

    fn is_done(&self) -> bool {
        self.jobs.iter().all(|job| job.done)
    }

    fn run(
        &self,
        runtime: &tokio::runtime::Runtime,
        sources: &[Repository<'_>],
        concurrency: usize,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        let report = |job: &Job, phase| reporter.report(Progress::Phase { id: job.blob.digest.short(), phase });
        for job in &self.jobs {
            report(job, if job.done { "Already exists" } else { "Pulling fs layer" });
        }
        for job in self.jobs.iter().filter(|job| !job.done).skip(concurrency) {
            report(job, "Waiting");
        }
        let next = AtomicUsize::new(0);
        let outcome = std::thread::scope(|scope| {
            for _ in 0..self.unpackers() {
                scope.spawn(|| self.unpack_all(&next, reporter));
            }
            let outcome = runtime.block_on(async {
                tokio::select! {
                    outcome = self.fetch_all(sources, concurrency, reporter) => outcome,
                    () = self.failed.notified() => Ok(()),
                }
            });
            if outcome.is_err() {
                self.give_up();
            }
            outcome
        });
        // Where the download failed, the unpackers only say that it did.
        outcome?;
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// A driver that applies whiteouts needs the parent first; the others take layers in any order.
    fn unpackers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        match self.store.snapshots.whiteouts() {
            Whiteouts::Apply => self.steps.len().min(1),
            Whiteouts::Overlay => self.steps.len().min(cores),
        }
    }

    fn give_up(&self) {
        for job in &self.jobs {
            job.slot.fail();
        }
    }

    async fn fetch_all(&self, sources: &[Repository<'_>], concurrency: usize, reporter: &dyn Reporter) -> Result<()> {
        let fetch = async |job: &Job| -> Result<()> {
            let blob = &job.blob;
            let id = blob.digest.short();
            let wanted = Wanted { digest: &blob.digest, size: blob.size, content: &self.store.content, reporter };
            wanted.fetch(sources, &job.slot).await?;
            if !job.done {
                reporter.report(Progress::Phase { id, phase: "Download complete" });
            }
            job.slot.whole();
            if job.plain && !job.done {
                reporter.report(Progress::Phase { id, phase: "Pull complete" });
            }
            Ok(())
        };
        stream::iter(&self.jobs).map(|job| Ok(fetch(job))).try_buffer_unordered(concurrency.max(1)).try_collect().await
    }

    fn unpack_all(&self, next: &AtomicUsize, reporter: &dyn Reporter) {
        while let Some(step) = self.steps.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = self.unpack(step, reporter) {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.failed.notify_one();
                self.give_up();
                return;
            }
        }
    }

    fn unpack(&self, step: &Step, reporter: &dyn Reporter) -> Result<()> {
        let Job { blob, slot, .. } = &self.jobs[step.job];
        let mut follow = slot.follow(&self.store.content, &blob.digest, blob.size, reporter)?;
        // Another process may have unpacked it while we waited for its download.
        if !self.store.snapshots.has_layer(&step.chain)
            && let Err(error) = self.store.unpack_layer(&step.chain, blob, &mut follow)
        {
            // What was read along was not verified yet, and may have been an old ingest's bad bytes. The download
            // finds that out and begins anew; what it ends with is judged once more.
            if error.class() != Class::Corrupt || slot.wait_whole().is_err() {
                return Err(error);
            }
            self.store.unpack_layer(&step.chain, blob, &mut self.store.content.open_blob(&blob.digest)?)?;
        }
        slot.wait_whole()?;
        reporter.report(Progress::Phase { id: blob.digest.short(), phase: "Pull complete" });
        Ok(())
    }
}
