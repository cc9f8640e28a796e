//! Pushing: blobs first, then manifests, then the index, then the tag: what the registry names is whole.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};

use super::auth::Scope;
use super::client::Remote;
use super::config::Config;
use super::manifest::Repository;
use super::transport::Transport;
use super::upload::{Sent, Upload};
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::image::Image;
use crate::image::document::{Descriptor, Document, MAX_DOCUMENT, Manifest, media_type};
use crate::lease::Lease;
use crate::reference::Reference;
use crate::reporter::{Progress, Reporter};
use crate::store::{self, ImageStore};

/// How many repositories are offered to the registry as the source of a blob.
const MAX_MOUNTS: usize = 3;

/// Pushes what `name` points to; returns the digest and size of what the tag now names.
pub(super) fn push(
    config: &Config,
    store: &ImageStore,
    name: &Reference,
    reporter: &dyn Reporter,
) -> Result<(Digest, u64)> {
    let _lease = Lease::take(&store.root)?;
    reporter.report(Progress::Line(&format!("The push refers to repository [{}]", name.repository())));
    let record = store.records()?.into_iter().find(|r| r.reference.as_ref() == Some(name)).ok_or_else(|| {
        let tag = name.tag().unwrap_or_default();
        let repository = name.familiar_repository();
        Error::new(Class::NotFound, format!("An image does not exist locally with the tag: {repository}"))
            .with_hint(format!("give it the name first: `wharf tag IMAGE {repository}:{tag}`"))
    })?;
    let plan = Plan::read(store, &record.target)?;
    let runtime = super::runtime()?;
    let transport = Transport::new(config);
    let remote = Remote::new(&transport, config.origin(name.domain())?, None);
    let path = remote.endpoint.repository(name.path());
    let elsewhere = holders(store, name)?;
    let others: BTreeSet<&String> = plan.blobs.keys().flat_map(|d| elsewhere.get(d)).flatten().collect();
    let scope = others
        .into_iter()
        .take(MAX_MOUNTS)
        .fold(Scope::repository(&path, &["pull", "push"]), |scope, other| scope.and(other, &["pull"]));
    let target = Repository { remote: &remote, path, name: name.familiar_repository(), scope };
    let done = runtime.block_on(async {
        plan.send_blobs(store, &target, &elsewhere, config.concurrency, reporter).await?;
        plan.send_documents(&target, name).await
    })?;
    drop(runtime);
    store.tell(&store::by_name(&store.resolve(&name.to_string(), None)?, "push", name))?;
    if let Some(whole) = &plan.reduced {
        let part = &done.0;
        reporter.report(Progress::Line(&format!(
            "Note: not all platforms of the image are here; the one that is was pushed: {whole} -> {part}"
        )));
    }
    let tag = name.tag().map_or_else(|| name.to_string(), str::to_owned);
    reporter.report(Progress::Line(&format!("{tag}: digest: {} size: {}", done.0, done.1)));
    Ok(done)
}

/// A document to be put, with its media type.
struct Paper {
    digest: Digest,
    bytes: Vec<u8>,
    media_type: String,
}

/// What is to be sent.
struct Plan {
    blobs: BTreeMap<Digest, Descriptor>,
    /// In the order of the image.
    order: Vec<Digest>,
    /// Children first; the last one gets the tag.
    papers: Vec<Paper>,
    /// The index that could not be pushed, because not all of it is here.
    reduced: Option<Digest>,
}

impl Plan {
    fn read(store: &ImageStore, target: &Digest) -> Result<Self> {
        let mut plan = Plan { blobs: BTreeMap::new(), order: Vec::new(), papers: Vec::new(), reduced: None };
        if plan.take(store, target, None, 0)? {
            return Ok(plan);
        }
        // An index of which one platform was pulled: that one is an image in its own right.
        let image = Image::read(&store.content, target, None)?;
        let mut plan =
            Plan { blobs: BTreeMap::new(), order: Vec::new(), papers: Vec::new(), reduced: Some(target.clone()) };
        if plan.take(store, &image.manifest, None, 0)? {
            return Ok(plan);
        }
        Err(Error::new(Class::NotFound, format!("not all content of {target} is here"))
            .with_hint("pull the image again"))
    }

    /// Adds a document and all that it names. False: something is missing.
    fn take(&mut self, store: &ImageStore, digest: &Digest, announced: Option<&str>, depth: usize) -> Result<bool> {
        if !store.content.contains(digest) {
            return Ok(false);
        }
        let bytes = store.content.read(digest, MAX_DOCUMENT)?;
        let (children, media_type) = match Document::parse(&bytes, announced)? {
            Document::Index(index) if depth < 4 => (index.manifests, media_type::OCI_INDEX),
            Document::Index(_) => return Err(Error::new(Class::Corrupt, format!("{digest}: indexes within indexes"))),
            Document::Manifest(manifest) => {
                if !self.take_blobs(store, manifest) {
                    return Ok(false);
                }
                (Vec::new(), media_type::OCI_MANIFEST)
            }
        };
        for child in children {
            if !self.take(
                store,
                &child.digest,
                Some(&child.media_type).filter(|t| !t.is_empty()).map(String::as_str),
                depth + 1,
            )? {
                return Ok(false);
            }
        }
        // The document's own word counts first: a registry compares it with the header.
        let own = own_media_type(&bytes).or_else(|| announced.map(str::to_owned));
        let media_type = own.unwrap_or_else(|| media_type.to_owned());
        self.papers.push(Paper { digest: digest.clone(), bytes, media_type });
        Ok(true)
    }

    fn take_blobs(&mut self, store: &ImageStore, manifest: Manifest) -> bool {
        for blob in manifest.layers.into_iter().chain([manifest.config]) {
            if !store.content.contains(&blob.digest) {
                return false;
            }
            if !self.blobs.contains_key(&blob.digest) {
                self.order.push(blob.digest.clone());
                self.blobs.insert(blob.digest.clone(), blob);
            }
        }
        true
    }

    async fn send_blobs(
        &self,
        store: &ImageStore,
        target: &Repository<'_>,
        elsewhere: &BTreeMap<Digest, Vec<String>>,
        concurrency: usize,
        reporter: &dyn Reporter,
    ) -> Result<()> {
        for digest in &self.order {
            reporter.report(Progress::Phase { id: digest.short(), phase: "Preparing" });
        }
        for digest in self.order.iter().skip(concurrency) {
            reporter.report(Progress::Phase { id: digest.short(), phase: "Waiting" });
        }
        let send = async |blob: &Descriptor| -> Result<()> {
            let elsewhere = elsewhere.get(&blob.digest).map(Vec::as_slice).unwrap_or_default();
            let upload =
                Upload { target, content: &store.content, digest: &blob.digest, size: blob.size, elsewhere, reporter };
            let mounted;
            let phase = match upload.send().await? {
                Sent::Existed => "Layer already exists",
                Sent::Pushed => "Pushed",
                Sent::Mounted(from) => {
                    mounted = format!("Mounted from {from}");
                    &mounted
                }
            };
            reporter.report(Progress::Phase { id: blob.digest.short(), phase });
            Ok(())
        };
        let blobs = self.order.iter().filter_map(|digest| self.blobs.get(digest));
        stream::iter(blobs).map(|blob| Ok(send(blob))).try_buffer_unordered(concurrency.max(1)).try_collect().await
    }

    async fn send_documents(&self, target: &Repository<'_>, name: &Reference) -> Result<(Digest, u64)> {
        let mut done = Err(Error::new(Class::Internal, "nothing to push"));
        for (position, paper) in self.papers.iter().enumerate() {
            let last = position + 1 == self.papers.len();
            let reference = name.tag().filter(|_| last).unwrap_or(paper.digest.as_str());
            let url = target.remote.url(&target.path, &format!("manifests/{reference}")).await?;
            let response = target
                .remote
                .send(Method::PUT, &url, &target.scope, &|request| {
                    request.header(CONTENT_TYPE, &paper.media_type).body(paper.bytes.clone())
                })
                .await?;
            if !matches!(response.status(), StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED) {
                return Err(target.remote.refusal(response, "push", &target.name).await);
            }
            done = Ok((paper.digest.clone(), paper.bytes.len() as u64));
        }
        done
    }
}

fn own_media_type(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    serde_json::from_slice::<Typed>(bytes).ok()?.media_type.filter(|t| !t.is_empty())
}

/// Which other repositories of the same registry hold which blobs, as far as the names in the store tell.
fn holders(store: &ImageStore, name: &Reference) -> Result<BTreeMap<Digest, Vec<String>>> {
    let mut holders: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for record in store.records()? {
        let Some(other) = record.reference else { continue };
        if other.domain() != name.domain() || other.path() == name.path() {
            continue;
        }
        // A record that cannot be read helps nobody, and harms nobody here.
        let Ok(image) = Image::read(&store.content, &record.target, None) else { continue };
        for layer in &image.layers {
            let paths = holders.entry(layer.blob().digest.clone()).or_default();
            if paths.len() < MAX_MOUNTS && !paths.iter().any(|p| p == other.path()) {
                paths.push(other.path().to_owned());
            }
        }
    }
    Ok(holders)
}
