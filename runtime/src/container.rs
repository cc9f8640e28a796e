//! A container as the store knows it: what was asked ([`ContainerConfig`]), what was made of it (immutable too), and
//! its state (which changes).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use wharf_images::events::{Kind, NewEvent};
use wharf_images::{Digest, Image};

use crate::config::{ContainerConfig, Mount, VolumeMount};
use crate::error::Result;
use crate::health::{Health, HealthConfig};
use crate::signal;
use crate::state::State;
use crate::volume::DRIVER;
use crate::walls::Walls;

/// Which backend runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// Namespaces.
    Linux,
    /// wasmtime.
    Wasm,
}

impl BackendKind {
    /// `linux` or `wasm`.
    pub fn name(self) -> &'static str {
        match self {
            BackendKind::Linux => "linux",
            BackendKind::Wasm => "wasm",
        }
    }
}

/// One container's record.
#[derive(Debug, Clone)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// What was asked. Never changes.
    pub config: ContainerConfig,
    /// What the image gave. Never changes, even when the image's name moves on.
    pub image: Image,
    /// What runs: entrypoint and command joined. Never changes.
    pub args: Vec<String>,
    /// When it was created.
    pub created: Timestamp,
    /// How it is.
    pub state: Status,
}

/// A container's changing part.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// Where it is in its life.
    pub state: State,
    /// The process id of its task while it runs.
    pub pid: Option<u32>,
    /// The last exit code; 0 before the first, and while it runs.
    pub exit_code: i32,
    /// When it last started.
    pub started: Option<Timestamp>,
    /// When it last ended.
    pub finished: Option<Timestamp>,
    /// Why it could not start, if it could not.
    pub error: Option<String>,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
    /// How often its restart policy has started it again since somebody started it.
    pub restarts: u32,
    /// Somebody has asked for its end: restart policies leave it alone.
    pub stopped: bool,
    /// What its health checks say, if there are any.
    pub health: Option<Health>,
    /// Of a WebAssembly guest that runs: what it stands behind.
    pub walls: Option<Walls>,
}

impl Default for Status {
    /// Created, and never started.
    fn default() -> Self {
        Status {
            state: State::Created,
            pid: None,
            exit_code: 0,
            started: None,
            finished: None,
            error: None,
            oom_killed: false,
            restarts: 0,
            stopped: false,
            health: None,
            walls: None,
        }
    }
}

impl Status {
    /// Its task runs from now on.
    pub(crate) fn begin(&mut self, pid: u32, walls: Option<Walls>) {
        (self.pid, self.walls) = (Some(pid), walls);
        self.started = Some(Timestamp::now());
        (self.exit_code, self.oom_killed) = (0, false);
    }
}

impl Container {
    /// The backend.
    pub fn backend(&self) -> BackendKind {
        if self.image.is_wasm() { BackendKind::Wasm } else { BackendKind::Linux }
    }

    /// Twelve digits of the id.
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// How its health is checked: as it says, else as the image says.
    pub fn health_config(&self) -> Option<HealthConfig> {
        let image = self.image.config.healthcheck.as_ref();
        if image.is_none() && self.config.health.is_none() {
            return None;
        }
        // What is no health check in an image's config is none.
        let image = image.and_then(|json| serde_json::from_value(json.clone()).ok()).unwrap_or_default();
        Some(self.config.health.clone().unwrap_or_default().or(image))
    }

    /// The signal that `stop` sends it.
    ///
    /// # Errors
    /// `InvalidInput` for a signal that does not exist.
    pub fn stop_signal(&self) -> Result<i32> {
        let signal = self.config.stop_signal.as_deref().or(self.image.config.stop_signal.as_deref());
        signal.map_or(Ok(signal::TERM), signal::parse)
    }

    /// Its labels: the image's and its own.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.image.config.labels.clone();
        labels.extend(self.config.labels.clone());
        labels
    }

    /// An event of this container, with docker's attributes.
    pub fn event(&self, action: impl Into<String>) -> NewEvent {
        NewEvent::new(Kind::Container, action, &self.id)
            .and(self.labels())
            .with("image", &self.config.image)
            .with("name", &self.name)
    }

    /// The names of its volumes.
    pub(crate) fn volume_names(&self) -> impl Iterator<Item = &str> {
        self.config.mounts.iter().filter_map(|mount| Some(mount.volume()?.name.as_str()))
    }

    /// The events of its volumes when it starts: they are mounted.
    pub fn mount_events(&self) -> Vec<NewEvent> {
        let mounts = self.config.mounts.iter().filter_map(|mount| Some((mount, mount.volume()?)));
        let event = |(mount, volume): (&Mount, &VolumeMount)| {
            self.volume_event("mount", volume)
                .with("destination", &mount.target)
                .with("propagation", "")
                .with("read/write", (!mount.read_only).to_string())
        };
        mounts.map(event).collect()
    }

    /// The events of its volumes when it has ended: they are unmounted.
    pub fn unmount_events(&self) -> Vec<NewEvent> {
        let volumes = self.config.mounts.iter().filter_map(|mount| mount.volume());
        volumes.map(|volume| self.volume_event("unmount", volume)).collect()
    }

    fn volume_event(&self, action: &str, volume: &VolumeMount) -> NewEvent {
        let driver = if volume.driver.is_empty() { DRIVER } else { &volume.driver };
        NewEvent::new(Kind::Volume, action, &volume.name).with("container", &self.id).with("driver", driver)
    }

    /// The image's id.
    pub fn image_id(&self) -> &Digest {
        &self.image.id
    }
}
