//! Which kind of image it is. WebAssembly has come to registries in seven styles; we write one (A) and run all.
//!
//! Signs are looked for in this order: layer media type, config media type, architecture, annotations, and, once the
//! layers are unpacked, the first bytes of the program.
//!
//! - A: <https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>
//! - B: <https://github.com/containerd/runwasi/blob/main/docs/src/oci-decision-record.md>
//! - C: <https://docs.docker.com/desktop/features/wasm/>
//! - D: <https://github.com/containers/crun/blob/main/docs/wasm-wasi-example.md>
//! - E: <https://spinframework.dev/v3/distributing-apps>
//! - F: <https://github.com/istio/istio>, `pkg/wasm/imagefetcher.go`; G: <https://github.com/engineerd/wasm-to-oci>

use std::collections::BTreeMap;

use super::document::{ConfigFile, Descriptor, Manifest, media_type};
use super::{Image, RunConfig, Style, WasmEntry};
use crate::error::{Class, Error, Result};
use crate::wasm::Magic;

/// Style A's layer, and one of style B's.
pub const WASM_LAYER: &str = "application/wasm";
/// Style A's config.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const RUNWASI_LAYER: &str = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
const SPIN_APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";
const MODULE_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
const CONTENT_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
const WASM_TO_OCI_CONFIG: &str = "application/vnd.wasm.config.v1+json";

/// What was found out.
pub(super) struct Found {
    pub(super) style: Style,
    pub(super) reason: String,
    pub(super) wasm: Option<WasmEntry>,
}

/// True when a layer of this media type is a module or component.
pub(super) fn is_wasm_layer(media_type: &str) -> bool {
    matches!(media_type, WASM_LAYER | RUNWASI_LAYER | MODULE_LAYER | CONTENT_LAYER)
}

/// True when a layer of this media type is a part of a root filesystem.
pub(super) fn is_tar_layer(media_type: &str) -> bool {
    const PREFIXES: [&str; 4] = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ];
    PREFIXES.iter().any(|p| {
        media_type.strip_prefix(p).is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd" | ".gzip" | ".zstd"))
    })
}

/// Finds the style. `annotations` are the index entry's, for a manifest that was chosen from an index.
pub(super) fn detect(
    manifest: &Manifest,
    config: &ConfigFile,
    run: &RunConfig,
    annotations: &BTreeMap<String, String>,
) -> Result<Found> {
    let config_type = manifest.config.media_type.as_str();
    let of_type = |wanted: &str| manifest.layers.iter().find(|l| l.media_type == wanted);
    let by_layer = |style, layer: &Descriptor| {
        Ok(Found {
            style,
            reason: format!("layer media type {}", layer.media_type),
            wasm: Some(WasmEntry::Blob(layer.digest.clone())),
        })
    };
    if let Some(layer) = of_type(SPIN_APPLICATION) {
        return Ok(spin(manifest, &format!("layer media type {}", layer.media_type)));
    }
    if let Some(layer) = of_type(RUNWASI_LAYER) {
        only_wasm_layer(manifest)?;
        return by_layer(Style::Runwasi, layer);
    }
    if let Some(layer) = of_type(WASM_LAYER) {
        only_wasm_layer(manifest)?;
        if media_type::is_image_config(config_type) {
            return Ok(Found {
                style: Style::Runwasi,
                reason: format!("layer media type {WASM_LAYER} with an image config"),
                wasm: Some(WasmEntry::Blob(layer.digest.clone())),
            });
        }
        return by_layer(Style::WasmArtifact, layer);
    }
    if let Some(layer) = of_type(MODULE_LAYER) {
        return by_layer(Style::ModuleLayer, layer);
    }
    if let Some(layer) = of_type(CONTENT_LAYER) {
        if config_type == SPIN_APPLICATION {
            return Ok(spin(manifest, &format!("config media type {config_type}")));
        }
        return by_layer(Style::WasmToOci, layer);
    }
    if matches!(config_type, WASM_CONFIG | WASM_TO_OCI_CONFIG | SPIN_APPLICATION) {
        return Err(Error::new(
            Class::Unsupported,
            format!("the image says it is WebAssembly (config media type {config_type}) but has no wasm layer"),
        ));
    }
    if !media_type::is_image_config(config_type) {
        return Err(Error::new(
            Class::Unsupported,
            format!("this is not a container image: its config is {config_type:?}"),
        )
        .with_hint("registries hold other artifacts too (charts, signatures, policies); wharf runs images"));
    }
    let file = || program(run).map(|path| WasmEntry::File { path: path.to_owned(), function: None });
    if config.platform().is_wasm() {
        let reason = format!("architecture {}", config.architecture.as_deref().unwrap_or_default());
        return Ok(Found { style: Style::DockerScratch, reason, wasm: file() });
    }
    if let Some(reason) = compat_annotation(&manifest.annotations, run).or_else(|| compat_annotation(annotations, run))
    {
        return Ok(Found { style: Style::Compat, reason, wasm: file() });
    }
    let reason = format!("no sign of WebAssembly; platform {}", config.platform());
    Ok(Found { style: Style::Linux, reason, wasm: None })
}

fn spin(manifest: &Manifest, reason: &str) -> Found {
    let mut modules = manifest.layers.iter().filter(|l| l.media_type == CONTENT_LAYER);
    match (modules.next(), modules.next()) {
        (Some(module), None) => {
            Found { style: Style::Spin, reason: reason.to_owned(), wasm: Some(WasmEntry::Blob(module.digest.clone())) }
        }
        (first, _) => Found {
            style: Style::Spin,
            reason: format!("{reason}; it has {} components", if first.is_none() { "no" } else { "several" }),
            wasm: None,
        },
    }
}

fn only_wasm_layer(manifest: &Manifest) -> Result<()> {
    match manifest.layers.iter().filter(|l| is_wasm_layer(&l.media_type)).count() {
        1 => Ok(()),
        n => Err(Error::new(Class::Unsupported, format!("the image has {n} wasm layers; wharf runs images of one"))),
    }
}

/// The first argument of what the image runs.
pub(super) fn program(run: &RunConfig) -> Option<&str> {
    run.entrypoint.iter().chain(&run.cmd).next().map(String::as_str).filter(|p| !p.is_empty())
}

/// crun's and youki's annotations. The `smart` ones mean: only if the program looks like wasm.
fn compat_annotation(annotations: &BTreeMap<String, String>, run: &RunConfig) -> Option<String> {
    let looks_like_wasm = || program(run).is_some_and(|p| p.ends_with(".wasm") || p.ends_with(".wat"));
    [("module.wasm.image/variant", "compat", "compat-smart"), ("run.oci.handler", "wasm", "wasm-smart")]
        .iter()
        .find_map(|(name, always, smart)| {
            let value = annotations.get(*name)?;
            (value == always || (value == smart && looks_like_wasm())).then(|| format!("annotation {name}={value}"))
        })
}

impl Image {
    /// The program whose first bytes could still show that this image is WebAssembly after all.
    pub(crate) fn undecided_program(&self) -> Option<&str> {
        if self.style == Style::Linux { program(&self.config) } else { None }
    }

    /// Takes note of the first bytes of [`Image::undecided_program`]. True when that changed the style.
    pub(crate) fn decide_by_magic(&mut self, bytes: &[u8]) -> bool {
        let Some(path) = self.undecided_program().map(str::to_owned) else { return false };
        if !matches!(Magic::of(bytes), Magic::Module | Magic::Component) {
            return false;
        }
        self.style = Style::Compat;
        self.style_reason = format!("magic bytes of {path}");
        self.wasm = Some(WasmEntry::File { path, function: None });
        true
    }
}
