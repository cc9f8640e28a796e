//! What a container was asked to be. Immutable after create: state lives elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wharf_images::Platform;

use crate::network::Target;
use crate::network::ports::{ExposedPort, PortBinding};
use crate::task::Limits;

/// A request for a container, as `create` and `run` (or the API) make it. Fields left at their default take the image's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerConfig {
    /// The image, as the person named it.
    pub image: String,
    /// The platform, if asked for.
    pub platform: Option<Platform>,
    /// The name; generated when `None`.
    pub name: Option<String>,
    /// Replaces the image's entrypoint. `Some(vec![])` clears it.
    pub entrypoint: Option<Vec<String>>,
    /// The command, replacing the image's when not empty.
    pub cmd: Vec<String>,
    /// Variables added to the image's, as `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// User, as docker spells it.
    pub user: Option<String>,
    /// Additional groups.
    pub group_add: Vec<String>,
    /// Host name; the short id when `None`.
    pub hostname: Option<String>,
    /// Domain name.
    pub domainname: Option<String>,
    /// Labels added to the image's.
    pub labels: BTreeMap<String, String>,
    /// Keep stdin open.
    pub interactive: bool,
    /// A pseudo-terminal.
    pub tty: bool,
    /// Remove after exit.
    pub auto_remove: bool,
    /// The network: `none`, `host`, or a name.
    pub network: NetworkMode,
    /// Other names under which containers on its network find it.
    pub network_aliases: Vec<String>,
    /// Ports that the host publishes.
    pub ports: Vec<PortBinding>,
    /// Publish every exposed port on a free port of the host.
    pub publish_all: bool,
    /// Ports exposed besides the image's.
    pub expose: Vec<ExposedPort>,
    /// What alone a wasm guest may reach outside of its network; everything but the host when empty.
    pub allow_net: Vec<Target>,
    /// What a wasm guest may not reach.
    pub deny_net: Vec<Target>,
    /// The root filesystem is read-only.
    pub read_only: bool,
    /// Directories and volumes.
    pub mounts: Vec<Mount>,
    /// Limits.
    pub limits: Limits,
    /// `ulimit`s, by name: soft and hard.
    pub ulimits: BTreeMap<String, (u64, u64)>,
    /// Run an init as pid 1.
    pub init: bool,
    /// All capabilities, all devices, no masks.
    pub privileged: bool,
    /// Capabilities added, without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    pub cap_drop: Vec<String>,
    /// Docker's `--security-opt`s: `seccomp=unconfined`, `no-new-privileges`, ...
    pub security_opt: Vec<String>,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Bytes of /dev/shm.
    pub shm_size: Option<u64>,
    /// The signal that `stop` sends, by name or number.
    pub stop_signal: Option<String>,
    /// Seconds `stop` waits before it kills.
    pub stop_timeout: Option<u32>,
    /// Adjusts the kernel's choice when memory runs out.
    pub oom_score_adj: Option<i32>,
    /// Milliseconds after which a wasm guest is ended.
    pub timeout_ms: Option<u64>,
    /// Where the log goes.
    pub log: LogConfig,
    /// The devices of the host that it sees, as docker spells them.
    pub devices: Vec<String>,
}

/// How a container is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// What this Wharf gives a container that asks for nothing.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's own network.
    Host,
    /// A network by name.
    Named(String),
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where in the container: an absolute path.
    pub target: String,
    /// No writing.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    /// A directory or file of the host.
    Bind(String),
    /// Memory, with mount options (`size=64m`, `mode=1777`).
    Tmpfs(String),
}

/// Docker's `--log-driver` and `--log-opt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// `json-file` or `none`.
    pub driver: String,
    /// Options by name.
    pub options: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { driver: "json-file".to_owned(), options: BTreeMap::new() }
    }
}
