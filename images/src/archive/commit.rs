//! `commit`: what a container changed becomes one more layer on top of its image's.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::change;
use crate::content::Writer;
use crate::digest::Digest;
use crate::error::{Class, Error, Result};
use crate::image::document::{MAX_DOCUMENT, media_type};
use crate::image::{Image, Layer};
use crate::lease::Lease;
use crate::reference::Reference;
use crate::reporter::NoReport;
use crate::store::{Arrival, ImageStore};

/// What the image is to be.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Its name, if it gets one.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// What its history says.
    pub message: String,
    /// The step, as a command.
    pub created_by: String,
    /// What replaces the image's own `config`, field by field, in docker's JSON.
    pub config: Map<String, Value>,
    /// Dockerfile instructions that change it further.
    pub changes: Vec<String>,
}

/// Says whether the image takes another layer, and whether the changes are instructions.
///
/// # Errors
/// `Unsupported` for an image without a root filesystem made of layers; `InvalidInput` for a change that is none;
/// `Forbidden` for a name that is built in.
pub fn check_commit(image: &Image, commit: &Commit) -> Result<()> {
    if commit.reference.as_ref().is_some_and(Reference::is_builtin) {
        return Err(Error::new(Class::Forbidden, "names under \"wharf/\" are built into wharf")
            .with_hint("choose another name"));
    }
    change::apply(&mut Map::new(), &commit.changes)?;
    if image.layers.iter().all(|layer| matches!(layer, Layer::Tar(_))) && !image.layers.is_empty() {
        return Ok(());
    }
    let style = image.style.description();
    Err(Error::new(
        Class::Unsupported,
        format!("cannot commit: an image of this kind ({style}) holds its module and nothing else, so there is no place for files"),
    )
    .with_hint("take the files out with `wharf cp` or `wharf export`"))
}

/// Makes the image of `parent` and of the layer that `layer` writes (a tar archive with whiteouts). Returns its id.
///
/// # Errors
/// As [`check_commit`]; what `layer` says; the disk's.
pub fn commit(
    store: &ImageStore,
    parent: &Image,
    commit: &Commit,
    layer: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
) -> Result<Digest> {
    check_commit(parent, commit)?;
    let _lease = Lease::take(&store.root)?;
    let read = |digest: &Digest| -> Result<Value> {
        let bytes = store.content.read(digest, MAX_DOCUMENT)?;
        serde_json::from_slice(&bytes).map_err(|e| Error::json("image document", e))
    };
    let old = read(&parent.manifest)?;
    let config_digest: Digest = text(&old["config"]["digest"]).parse()?;
    let mut config = read(&config_digest)?;

    let mut sink = Sink { writer: store.content.anonymous_writer()?, failure: None };
    let written = layer(&mut sink);
    if let Some(failure) = sink.failure.take() {
        return Err(failure);
    }
    written?;
    // Nothing is compressed, so the blob and what it unpacks to are the same bytes.
    let diff_id = sink.writer.commit()?;

    let created = jiff::Timestamp::now().to_string();
    let mut run = config["config"].as_object().cloned().unwrap_or_default();
    run.extend(commit.config.clone());
    change::apply(&mut run, &commit.changes)?;
    config["config"] = Value::Object(run);
    config["created"] = json!(created);
    let mut step = json!({"created": created, "created_by": commit.created_by});
    for (key, value) in [("author", &commit.author), ("comment", &commit.message)] {
        if !value.is_empty() {
            step[key] = json!(value);
        }
    }
    if commit.author.is_empty() {
        config.as_object_mut().and_then(|config| config.remove("author"));
    } else {
        config["author"] = json!(commit.author);
    }
    push(&mut config["history"], step);
    push(&mut config["rootfs"]["diff_ids"], json!(diff_id));
    let config = config.to_string();

    let mut layers = old["layers"].clone();
    for layer in layers.as_array_mut().into_iter().flatten() {
        layer["mediaType"] = json!(as_oci(text(&layer["mediaType"])));
    }
    push(
        &mut layers,
        json!({
            "mediaType": media_type::OCI_LAYER,
            "digest": diff_id,
            "size": store.content.size(&diff_id)?,
        }),
    );
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {
            "mediaType": media_type::OCI_CONFIG,
            "digest": store.content.put(config.as_bytes())?,
            "size": config.len(),
        },
        "layers": layers,
    });
    // Some of them say how the image is run.
    if let Some(annotations) = old.get("annotations") {
        manifest["annotations"] = annotations.clone();
    }
    let target = store.content.put(manifest.to_string().as_bytes())?;
    let image = Image::read(&store.content, &target, None)?;
    store.ensure_unpacked(&image, &NoReport)?;
    store.bring(commit.reference.as_ref(), &target, Arrival::Made)?;
    Ok(image.id)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

/// Docker's name of a layer's form in OCI's words: the two name the same bytes.
fn as_oci(media_type: &str) -> String {
    match media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar") {
        Some("") => media_type::OCI_LAYER.to_owned(),
        Some(compression) => format!("{}+{}", media_type::OCI_LAYER, compression.trim_start_matches('.')),
        None => media_type.to_owned(),
    }
}

/// Writes into the content store and keeps its error, which has more to say than an I/O error.
struct Sink {
    writer: Writer,
    failure: Option<Error>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.writer.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(io::Error::other("the layer cannot be stored"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_layers_are_ocis() {
        assert_eq!(
            as_oci("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            format!("{}+gzip", media_type::OCI_LAYER)
        );
        assert_eq!(as_oci("application/vnd.docker.image.rootfs.diff.tar"), media_type::OCI_LAYER);
        assert_eq!(
            as_oci("application/vnd.oci.image.layer.v1.tar+zstd"),
            "application/vnd.oci.image.layer.v1.tar+zstd"
        );
    }
}
