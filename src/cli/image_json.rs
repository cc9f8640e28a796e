//! An image as docker's API describes it (<https://docs.docker.com/reference/api/engine/>, "Inspect an image"), with
//! what Wharf found it to be.

use serde_json::{Map, Value, json};
use wharf_images::{Image, ImageStore};

use super::failure::Result;

/// Go's zero time: docker's word for an image that does not say when it was made.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The whole object.
///
/// # Errors
/// The database's.
pub fn image(store: &ImageStore, image: &Image) -> Result<Value> {
    let names = store.names_of(&image.id)?;
    let tags: Vec<_> = names.iter().filter(|name| name.tag().is_some()).map(|name| name.familiar()).collect();
    let mut digests: Vec<_> =
        names.iter().map(|name| format!("{}@{}", name.familiar_repository(), image.target)).collect();
    digests.dedup();
    let config = &image.config;
    let set = |keys: &[String]| keys.iter().map(|key| (key.clone(), json!({}))).collect::<Map<_, _>>();
    let layers: Vec<_> = image.diff_ids().iter().map(ToString::to_string).collect();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": image.created.as_deref().unwrap_or(NEVER),
        "Os": image.platform.os,
        "Architecture": image.platform.architecture,
        "Variant": image.platform.variant.as_deref().unwrap_or_default(),
        "Size": store.layer_sizes()?.image(image),
        "Config": {
            "User": config.user,
            "ExposedPorts": set(&config.exposed_ports),
            "Env": config.env,
            "Cmd": config.cmd,
            "Volumes": set(&config.volumes),
            "WorkingDir": config.working_dir,
            "Entrypoint": config.entrypoint,
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
            "Healthcheck": config.healthcheck,
            "Shell": config.shell,
            "OnBuild": null,
        },
        "RootFS": {"Type": "layers", "Layers": layers},
        "Descriptor": {"digest": image.target.to_string()},
        "Manifest": image.manifest.to_string(),
        "Style": image.style,
        "StyleReason": image.style_reason,
        "Wharf": {
            "Style": image.style.description(),
            "Reason": image.style_reason,
            "Backend": if image.is_wasm() { "wasm" } else { "linux" },
        },
    }))
}
