//! What an image is: manifest and config read, its kind recognised.
//!
//! [`Image::read`] stands on the way of `run`, so it reads two small documents and nothing else.

pub mod document;
mod platform;
mod read;
mod style;

use serde::{Deserialize, Serialize};

pub use platform::Platform;
pub use style::{WASM_CONFIG, WASM_LAYER};

use crate::digest::Digest;
use crate::error::{Class, Error, Result};

/// The image styles Wharf recognises: A to G for WebAssembly, and plain Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// A: CNCF wasm artifact; Wharf writes this one.
    WasmArtifact,
    /// B: runwasi's wasm layers under an OCI config.
    Runwasi,
    /// C: docker's `FROM scratch` with a wasm file in a tar root filesystem.
    DockerScratch,
    /// D: crun's and youki's annotation or magic bytes in a Linux-looking image.
    Compat,
    /// E: a Spin application.
    Spin,
    /// F: wasmCloud's and Istio's module layers.
    ModuleLayer,
    /// G: wasm-to-oci.
    WasmToOci,
    /// An image for the namespace backend.
    Linux,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// A part of the root filesystem.
    Tar(Blob),
    /// A WebAssembly module or component.
    Wasm(Blob),
    /// Something that Wharf keeps and does not interpret.
    Other(Blob),
}

/// A blob as a manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// For tar layers: the digest of the uncompressed tar, from the config.
    pub diff_id: Option<Digest>,
}

/// Which wasm file is the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WasmEntry {
    /// The bytes of this blob.
    Blob(Digest),
    /// This file of the root filesystem (made of the tar layers), with an optional exported function.
    File {
        /// The path as the image's entrypoint spells it.
        path: String,
        /// `#func`, if the entrypoint names one.
        function: Option<String>,
    },
}

/// The part of an image's config that running needs, whatever its style.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunConfig {
    /// `User`.
    pub user: String,
    /// `Env`, as `NAME=value`.
    pub env: Vec<String>,
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
    /// `WorkingDir`.
    pub working_dir: String,
    /// `ExposedPorts`, as `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// `Volumes`: paths.
    pub volumes: Vec<String>,
    /// `Labels`, sorted.
    pub labels: std::collections::BTreeMap<String, String>,
    /// `StopSignal`.
    pub stop_signal: Option<String>,
    /// `Healthcheck`, as docker's JSON.
    pub healthcheck: Option<serde_json::Value>,
    /// `Shell`.
    pub shell: Option<Vec<String>>,
}

/// An image for one platform, read and understood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Docker's image id: the digest of the config.
    pub id: Digest,
    /// What the name points to: the digest of the manifest, or of the index it was chosen from.
    pub target: Digest,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// Its platform.
    pub platform: Platform,
    /// Its style.
    pub style: Style,
    /// What gave the style away, for people ("layer media type application/wasm").
    pub style_reason: String,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// For wasm images: the program.
    pub wasm: Option<WasmEntry>,
    /// What running needs.
    pub config: RunConfig,
    /// When it was created, RFC 3339, if the config says.
    pub created: Option<String>,
    /// The sum of the layers' sizes as stored, in bytes.
    pub size: u64,
}

impl Style {
    /// What it is called, for people.
    pub fn description(self) -> &'static str {
        match self {
            Style::WasmArtifact => "CNCF wasm artifact",
            Style::Runwasi => "runwasi wasm image",
            Style::DockerScratch => "wasm file in a scratch image",
            Style::Compat => "wasm file in a compat image",
            Style::Spin => "Spin application",
            Style::ModuleLayer => "wasm module layer (wasmCloud, Istio)",
            Style::WasmToOci => "wasm-to-oci module",
            Style::Linux => "Linux image",
        }
    }
}

impl Layer {
    /// The blob, whatever it is.
    pub fn blob(&self) -> &Blob {
        match self {
            Layer::Tar(blob) | Layer::Wasm(blob) | Layer::Other(blob) => blob,
        }
    }
}

impl Image {
    /// True when it runs in the wasm backend.
    pub fn is_wasm(&self) -> bool {
        self.style != Style::Linux
    }

    /// The tar layers' diff_ids, lowest first; the key of the image's root filesystem in [`crate::snapshot`].
    pub fn diff_ids(&self) -> Vec<Digest> {
        self.layers
            .iter()
            .filter_map(|layer| match layer {
                Layer::Tar(blob) => blob.diff_id.clone(),
                Layer::Wasm(_) | Layer::Other(_) => None,
            })
            .collect()
    }

    /// The program of a wasm image.
    ///
    /// # Errors
    /// `Unsupported` when the image does not say which it is, or has several.
    pub fn wasm_entry(&self) -> Result<&WasmEntry> {
        self.wasm.as_ref().ok_or_else(|| {
            let why = match self.style {
                Style::Spin => "wharf runs Spin applications of exactly one component",
                Style::Linux => "it is a Linux image",
                _ => "it names no program; give one with --entrypoint",
            };
            Error::new(Class::Unsupported, format!("this image has no wasm program ({}): {why}", self.style_reason))
        })
    }

    /// The exported function to call instead of the command's entry, which runwasi images write as `path#func`.
    pub fn wasm_function(&self) -> Option<&str> {
        match self.wasm.as_ref()? {
            WasmEntry::File { function, .. } => function.as_deref(),
            WasmEntry::Blob(_) => {
                style::program(&self.config)?.split_once('#').map(|(_, f)| f).filter(|f| !f.is_empty())
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
