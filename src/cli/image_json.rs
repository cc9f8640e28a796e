//! An image as docker's API describes it (<https://docs.docker.com/reference/api/engine/>, "Inspect an image"), with
//! what Wharf found it to be.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use wharf_images::image::RunConfig;
use wharf_images::{Image, ImageStore};

use super::failure::Result;
use super::go::Object;
use super::go_types;

/// Go's zero time: docker's word for an image that does not say when it was made.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The whole object.
///
/// # Errors
/// The database's.
pub fn image(store: &ImageStore, image: &Image) -> Result<Object> {
    let names = store.names_of(&image.id)?;
    let tags: Vec<_> = names.iter().filter(|name| name.tag().is_some()).map(|name| name.familiar()).collect();
    let mut digests: Vec<_> =
        names.iter().map(|name| format!("{}@{}", name.familiar_repository(), image.target)).collect();
    digests.dedup();
    let layers: Vec<_> = image.diff_ids().iter().map(ToString::to_string).collect();
    // A wasm artifact of some styles has no config that says these.
    let file = store.config_file(image)?;
    // Docker's comment of an image is that of its last step.
    let comment = file.comment.or_else(|| file.history.into_iter().next_back()?.comment);
    let named = store.last_named(&image.id)?.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let (media_type, size) = store.document(&image.target)?.unwrap_or_default();
    let mut object = json!({
        "Id": image.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment.unwrap_or_default(),
        "Created": image.created.as_deref().unwrap_or(NEVER),
        "DockerVersion": "",
        "Author": file.author.unwrap_or_default(),
        "Os": image.platform.os,
        "Architecture": image.platform.architecture,
        "Size": store.layer_sizes()?.image(image),
        "Config": config(&image.config),
        "GraphDriver": {"Name": "overlay", "Data": null},
        "Metadata": {"LastTagTime": named.map_or_else(|| NEVER.to_owned(), |time| time.to_string())},
        "RootFS": {"Type": "layers", "Layers": layers},
        "Descriptor": {"mediaType": media_type, "digest": image.target.to_string(), "size": size},
        "Manifest": image.manifest.to_string(),
        "Style": image.style,
        "StyleReason": image.style_reason,
        "Wharf": {
            "Style": image.style.description(),
            "Reason": image.style_reason,
            "Backend": if image.is_wasm() { "wasm" } else { "linux" },
        },
    });
    if let Some(variant) = &image.platform.variant {
        object["Variant"] = variant.as_str().into();
    }
    Ok(Object { json: object, fields: go_types::IMAGE })
}

/// What running needs. What is not set is null for docker, or not there at all.
fn config(config: &RunConfig) -> Value {
    let set = |keys: &[String]| keys.iter().map(|key| (key.clone(), json!({}))).collect::<Map<_, _>>();
    let list = |list: &[String]| json!(Some(list).filter(|list| !list.is_empty()));
    let mut object = json!({
        "User": config.user,
        "Env": list(&config.env),
        "Cmd": list(&config.cmd),
        "Volumes": Some(set(&config.volumes)).filter(|volumes| !volumes.is_empty()),
        "WorkingDir": config.working_dir,
        "Entrypoint": list(&config.entrypoint),
        "Labels": Some(&config.labels).filter(|labels| !labels.is_empty()),
        "OnBuild": null,
    });
    let exposed = Some(set(&config.exposed_ports)).filter(|ports| !ports.is_empty());
    let optional = [
        ("ExposedPorts", json!(exposed)),
        ("Healthcheck", json!(config.healthcheck)),
        ("Shell", json!(config.shell)),
        ("StopSignal", json!(config.stop_signal)),
    ];
    for (field, value) in optional.into_iter().filter(|(_, value)| !value.is_null()) {
        object[field] = value;
    }
    object
}
