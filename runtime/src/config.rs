//! What a container was asked to be. Immutable after create: state lives elsewhere.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use wharf_images::Platform;

use crate::error::{Class, Error, Result};
use crate::health::HealthConfig;
use crate::network::ports::{ExposedPort, PortBinding};
use crate::network::{BRIDGE, Mac, Target};
use crate::restart::RestartPolicy;
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
    /// The streams that whoever made it is attached to; all that it has when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub attach: Option<Streams>,
    /// A pseudo-terminal.
    pub tty: bool,
    /// Remove after exit.
    pub auto_remove: bool,
    /// The network: `none`, `host`, or a name.
    pub network: NetworkMode,
    /// Its places on networks, in the order of its interfaces, unless it is one on the network that `network` says and
    /// nothing is said of it: see [`ContainerConfig::places`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<EndpointConfig>>,
    /// Whose processes it sees.
    #[serde(skip_serializing_if = "is_default")]
    pub pid: PidMode,
    /// Whose shared memory, semaphores and message queues it has.
    #[serde(skip_serializing_if = "is_default")]
    pub ipc: IpcMode,
    /// It has the host's own name.
    #[serde(skip_serializing_if = "is_default")]
    pub host_uts: bool,
    /// It sees the host's cgroups.
    #[serde(skip_serializing_if = "is_default")]
    pub host_cgroups: bool,
    /// It was asked to have the host's users, as it has unless root is not who runs it.
    #[serde(skip_serializing_if = "is_default")]
    pub host_users: bool,
    /// The file that was to get its id.
    #[serde(skip_serializing_if = "is_default")]
    pub cidfile: Option<String>,
    /// The cgroup that its own lies in.
    #[serde(skip_serializing_if = "is_default")]
    pub cgroup_parent: Option<String>,
    /// What runs it, if that was named: it must be the backend that its image needs.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime: Option<String>,
    /// Names for addresses in the container's `/etc/hosts`. [`HOST_GATEWAY`] is the host's address on the network.
    pub extra_hosts: Vec<(String, String)>,
    /// Ports that the host publishes.
    pub ports: Vec<PortBinding>,
    /// Publish every exposed port on a free port of the host.
    pub publish_all: bool,
    /// Ports exposed besides the image's.
    pub expose: Vec<ExposedPort>,
    /// Whom to ask about names; those the host asks when empty.
    pub dns: Vec<IpAddr>,
    /// Options for whoever looks up names, as in resolv.conf(5).
    #[serde(skip_serializing_if = "is_default")]
    pub dns_options: Vec<String>,
    /// Domains in which names are looked up; `.` alone is none.
    #[serde(skip_serializing_if = "is_default")]
    pub dns_search: Vec<String>,
    /// What alone a wasm guest may reach outside of its network; everything but the host when empty.
    pub allow_net: Vec<Target>,
    /// What a wasm guest may not reach.
    pub deny_net: Vec<Target>,
    /// The root filesystem is read-only.
    pub read_only: bool,
    /// The most bytes that the container's own layer may hold (docker's `--storage-opt size=`).
    pub storage_size: Option<u64>,
    /// Directories and volumes. In a container's record also those of its image and of `volumes_from`.
    pub mounts: Vec<Mount>,
    /// Docker's `-v`s as they were written, with absolute sources: what tools are told was asked for. What is mounted is in
    /// `mounts`.
    #[serde(skip_serializing_if = "is_default")]
    pub volume_flags: Vec<String>,
    /// The containers whose volumes it has too, as `NAME` or `NAME:ro`.
    pub volumes_from: Vec<String>,
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
    /// What tools are told of the container; Wharf itself reads none.
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
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
    /// Limits on each request, for a component that serves HTTP.
    pub requests: RequestLimits,
    /// How its health is checked, where it is not as the image says.
    pub health: Option<HealthConfig>,
    /// Whether it starts again when it has ended.
    pub restart: RestartPolicy,
    /// Where the log goes.
    pub log: LogConfig,
    /// The devices of the host that it sees, as docker spells them.
    pub devices: Vec<String>,
    /// Which other devices it may use once it has made their nodes, as docker spells it: `c 42:* rmw`.
    #[serde(skip_serializing_if = "is_default")]
    pub device_rules: Vec<String>,
}

/// Limits on each request that a component serves. `None` is what this Wharf finds fitting.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestLimits {
    /// Milliseconds without a sign of life (bytes of its body, bytes of its answer) after which it is ended; 0 is never.
    pub timeout_ms: Option<u64>,
    /// Bytes of memory of its guest.
    pub memory: Option<u64>,
    /// How many are with guests at one time; others wait.
    pub concurrency: Option<usize>,
}

/// Some of a process's three streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// In the place of an address: the host's, as the container sees it.
pub const HOST_GATEWAY: &str = "host-gateway";

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
    /// A network by name. In the record of a container that was taken from `none` it is that, and its places say where it is.
    Named(String),
    /// Another container's: its name in a request, its id in a record.
    Container(String),
}

/// What is asked of a container's place on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConfig {
    /// The network's name.
    pub network: String,
    /// Other names under which containers on the network find it.
    #[serde(skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// Its address; chosen when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address; chosen when `None`, if the network has such addresses.
    #[serde(skip_serializing_if = "is_default")]
    pub address6: Option<Ipv6Addr>,
    /// Its hardware address; made of the other one when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub mac: Option<Mac>,
    /// Other names that this container alone has for neighbours: the neighbour's name or id, and the other name.
    #[serde(skip_serializing_if = "is_default")]
    pub links: Vec<(String, String)>,
    /// Of the networks with a way out, the one with the greatest number is the container's; else the first by name.
    #[serde(skip_serializing_if = "is_default")]
    pub gateway_priority: i64,
}

impl EndpointConfig {
    /// A place on this network of which nothing is said.
    pub fn on(network: impl Into<String>) -> Self {
        EndpointConfig { network: network.into(), ..EndpointConfig::default() }
    }
}

impl ContainerConfig {
    /// The places that it is to have on networks, in the order of its interfaces.
    pub fn places(&self) -> Cow<'_, [EndpointConfig]> {
        match (&self.endpoints, &self.network) {
            (_, NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_)) => Cow::Borrowed(&[]),
            (Some(endpoints), NetworkMode::Default | NetworkMode::Named(_)) => Cow::Borrowed(endpoints),
            (None, NetworkMode::Default) => Cow::Owned(vec![EndpointConfig::on(BRIDGE)]),
            (None, NetworkMode::Named(name)) => Cow::Owned(vec![EndpointConfig::on(name)]),
        }
    }

    /// True for one that is to be on the default network and no other.
    pub fn is_on_default_alone(&self) -> bool {
        matches!(&*self.places(), [place] if place.network == BRIDGE)
    }
}

/// Whose processes a container sees: docker's `--pid`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Its own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// Another container's: its name in a request, its id in a record.
    Container(String),
}

impl PidMode {
    /// Docker's word.
    pub fn name(&self) -> String {
        match self {
            PidMode::Own => String::new(),
            PidMode::Host => "host".to_owned(),
            PidMode::Container(other) => format!("container:{other}"),
        }
    }
}

/// Whose shared memory, semaphores and message queues a container has: docker's `--ipc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpcMode {
    /// Its own.
    #[default]
    Private,
    /// Its own, which other containers may join.
    Shareable,
    /// Its own, without `/dev/shm`.
    None,
    /// The host's.
    Host,
    /// Another container's: its name in a request, its id in a record.
    Container(String),
}

impl IpcMode {
    /// Docker's word.
    pub fn name(&self) -> String {
        match self {
            IpcMode::Private => "private".to_owned(),
            IpcMode::Shareable => "shareable".to_owned(),
            IpcMode::None => "none".to_owned(),
            IpcMode::Host => "host".to_owned(),
            IpcMode::Container(other) => format!("container:{other}"),
        }
    }
}

impl ContainerConfig {
    /// The names of the containers whose namespaces it joins, to be made ids.
    pub(crate) fn joined(&mut self) -> impl Iterator<Item = &mut String> {
        let pid = match &mut self.pid {
            PidMode::Container(other) => Some(other),
            PidMode::Own | PidMode::Host => None,
        };
        let ipc = match &mut self.ipc {
            IpcMode::Container(other) => Some(other),
            IpcMode::Private | IpcMode::Shareable | IpcMode::None | IpcMode::Host => None,
        };
        let network = match &mut self.network {
            NetworkMode::Container(other) => Some(other),
            NetworkMode::Default | NetworkMode::None | NetworkMode::Host | NetworkMode::Named(_) => None,
        };
        pid.into_iter().chain(ipc).chain(network)
    }
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
    /// How it was asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub origin: Origin,
}

/// How a mount was asked for: docker's `inspect` tells these apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// By `--mount`, with these words.
    Mount(Written),
    /// By `-v`, with this mode.
    Volume(String),
    /// By `--tmpfs`.
    Tmpfs,
    /// By the image's `VOLUME`.
    Image,
    /// By `--volumes-from`.
    Container,
}

impl Default for Origin {
    fn default() -> Self {
        Origin::Mount(Written::default())
    }
}

/// What `--mount` said and tools are told, beside what came of it. Empty where nothing was said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Written {
    /// The source, an absolute path or a name.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// The target.
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    /// How fresh what is read must be: of use where docker's host is a virtual machine.
    #[serde(skip_serializing_if = "is_default")]
    pub consistency: String,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    /// A directory or file of the host.
    Bind(BindMount),
    /// A volume.
    Volume(VolumeMount),
    /// Memory, with mount options (`size=64m`, `mode=1777`).
    Tmpfs(String),
}

impl MountKind {
    /// A directory or file of the host, which must be there, with docker's defaults.
    pub fn bind(source: impl Into<String>) -> Self {
        MountKind::Bind(BindMount { source: source.into(), ..BindMount::default() })
    }

    /// A volume by name, with docker's defaults.
    pub fn volume(name: impl Into<String>) -> Self {
        MountKind::Volume(VolumeMount { name: name.into(), ..VolumeMount::default() })
    }
}

impl Mount {
    /// The volume, if it is one.
    pub fn volume(&self) -> Option<&VolumeMount> {
        match &self.kind {
            MountKind::Volume(volume) => Some(volume),
            MountKind::Bind(_) | MountKind::Tmpfs(_) => None,
        }
    }
}

/// A directory or file of the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindMount {
    /// On the host: an absolute path.
    pub source: String,
    /// Make a directory where nothing is, as docker's `-v` does.
    #[serde(skip_serializing_if = "is_default")]
    pub create_source: bool,
    /// Where mounts made later on one side show.
    #[serde(skip_serializing_if = "is_default")]
    pub propagation: Propagation,
    /// What becomes of what is mounted below it.
    #[serde(skip_serializing_if = "is_default")]
    pub recursion: Recursion,
}

/// What becomes of what is mounted below a bind mount: docker's `bind-recursive`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recursion {
    /// It comes along, and is read-only too if the mount is.
    #[default]
    Enabled,
    /// It does not come along.
    Disabled,
    /// It comes along, and stays writable.
    Writable,
    /// As [`Recursion::Enabled`]; said of a mount that is read-only.
    ReadOnly,
}

/// Where mounts made later on one side show (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Nowhere else.
    #[default]
    Rprivate,
    /// Nowhere else; said of this mount alone.
    Private,
    /// On both sides.
    Rshared,
    /// On both sides; said of this mount alone.
    Shared,
    /// In the container, if made on the host.
    Rslave,
    /// In the container, if made on the host; said of this mount alone.
    Slave,
}

impl Propagation {
    /// Docker's (and mount(8)'s) word.
    pub fn name(self) -> &'static str {
        match self {
            Propagation::Rprivate => "rprivate",
            Propagation::Private => "private",
            Propagation::Rshared => "rshared",
            Propagation::Shared => "shared",
            Propagation::Rslave => "rslave",
            Propagation::Slave => "slave",
        }
    }
}

impl std::str::FromStr for Propagation {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        use Propagation::{Private, Rprivate, Rshared, Rslave, Shared, Slave};
        [Rprivate, Private, Rshared, Shared, Rslave, Slave].into_iter().find(|p| p.name() == word).ok_or(())
    }
}

/// A volume in a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeMount {
    /// Its name. Empty in a request: a new one, made for this container. Never empty in a container's record.
    pub name: String,
    /// The name was made up for this container, which takes the volume with it when it is removed with its volumes.
    #[serde(skip_serializing_if = "is_default")]
    pub anonymous: bool,
    /// Does not fill an empty volume with what the image has at the target.
    #[serde(skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// A directory in the volume, to be mounted in the place of the whole.
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: Option<String>,
    /// The driver, if the volume is to be made. Empty: `local`.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    /// The driver's options, if the volume is to be made.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
    /// Labels, if the volume is to be made.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What tmpfs(5) and mount(8) know that a tmpfs may be given.
const TMPFS_FLAGS: &[&str] = &[
    "async",
    "atime",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "private",
    "relatime",
    "ro",
    "rprivate",
    "rshared",
    "rslave",
    "rw",
    "shared",
    "slave",
    "strictatime",
    "suid",
    "sync",
];

/// Checks the options of a tmpfs.
///
/// # Errors
/// `InvalidInput` names the last that it cannot have, as docker does.
pub fn check_tmpfs(options: &str) -> Result<()> {
    let known = |option: &str| match option.split_once('=') {
        Some(("mpol" | "nr_blocks" | "nr_inodes" | "size", value)) => !value.is_empty(),
        Some(("mode", value)) => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
        Some(("gid" | "uid", value)) => value.parse::<u32>().is_ok(),
        Some(_) => false,
        None => TMPFS_FLAGS.contains(&option),
    };
    match options.split(',').map(str::trim).rfind(|option| !option.is_empty() && !known(option)) {
        None => Ok(()),
        Some(option) => {
            let parts: Vec<_> = option.splitn(2, '=').map(|part| format!("{part:?}")).collect();
            Err(Error::new(Class::InvalidInput, format!("invalid tmpfs option [{}]", parts.join(" "))))
        }
    }
}

/// An absolute path without `.`, `..` and repeated slashes; `None` for a relative one.
pub fn clean_path(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.strip_prefix('/')?.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
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
