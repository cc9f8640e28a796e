//! The plan of a Linux container as data: docker's defaults and the person's flags as an OCI runtime spec.
//!
//! [`linux_task`] is a pure function: what it must know of the host comes in by [`SpecContext`], so every answer is
//! tested without privileges. Follows docker 28's `oci/defaults` and `daemon/oci_linux`, and the OCI runtime spec.
//!
//! Two things docker's spec would spell out at length travel as annotations: the default seccomp profile
//! ([`crate::linux::seccomp::ANNOTATION`]; its program is made from a table, not from four hundred strings), and
//! group names ([`GROUPS`]), which only the container's own `/etc/group` can tell.

pub mod devices;
pub mod mounts;
mod process;
pub mod security;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxCapabilities, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Root, Spec};
use wharf_images::Image;

use self::devices::HostDevice;
use self::security::{Seccomp, SecurityOptions};
use crate::config::{ContainerConfig, IpcMode, NetworkMode, PidMode};
use crate::error::{Class, Error, Result};
use crate::linux::capabilities::{self, CapSet};
use crate::linux::seccomp;
use crate::task::{LinuxTask, Neighbour};
use crate::volume::VolumeSource;

/// Annotation: the names in `--group-add`, separated by commas, to be looked up in the container's `/etc/group`.
/// Numbers are in the process's `additionalGids` already.
pub const GROUPS: &str = "wharf.group-add";

/// What the plan must know of the host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpecContext {
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// The host's file that becomes `/etc/hosts`.
    pub hosts: Option<PathBuf>,
    /// The host's file that becomes `/etc/hostname`.
    pub hostname: Option<PathBuf>,
    /// The host's file that becomes `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
    /// The host's own name, which containers on the host's network carry.
    pub host_name: Option<String>,
    /// When not root: how user ids map, for a new user namespace.
    pub uid_mappings: Vec<LinuxIdMapping>,
    /// When not root: how group ids map.
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// It is to be connected to a network.
    pub connected: bool,
    /// A program of the user's is to do that.
    pub relayed: bool,
    /// Whose processes it sees, if they are another container's.
    pub pid: Option<Neighbour>,
    /// Whose shared memory it has, if it is another container's.
    pub ipc: Option<Neighbour>,
    /// Whose network it has, if it is another container's.
    pub network: Option<Neighbour>,
    /// Where the volumes are that it mounts, by name.
    pub volumes: BTreeMap<String, VolumeSource>,
    /// The devices that `--device` names, or all for `--privileged`: [`devices::look_up`].
    pub devices: Vec<HostDevice>,
    /// Directories under `/sys/devices/system/cpu` that tell a processor's temperature history
    /// ([`security::thermal_throttle`]); masked as docker does.
    pub thermal_throttle: Vec<String>,
}

impl SpecContext {
    fn rootless(&self) -> bool {
        !self.uid_mappings.is_empty()
    }

    /// The last group that the container's user namespace knows.
    fn last_group(&self) -> u32 {
        let last = |m: &LinuxIdMapping| m.container_id().saturating_add(m.size()).saturating_sub(1);
        self.gid_mappings.iter().map(last).max().unwrap_or(i32::MAX as u32)
    }

    /// True when the group is one that the container's user namespace knows.
    fn maps_group(&self, gid: u32) -> bool {
        let maps = |m: &LinuxIdMapping| (m.container_id()..m.container_id().saturating_add(m.size())).contains(&gid);
        !self.rootless() || self.gid_mappings.iter().any(maps)
    }
}

/// The plan of a Linux container.
///
/// # Errors
/// `InvalidInput` in docker's words for a request that cannot be met: no command, a relative working directory, an
/// unknown capability, limit, kernel parameter or security option; `Unsupported` for a security module that Wharf
/// does not drive.
pub fn linux_task(config: &ContainerConfig, image: &Image, context: &SpecContext) -> Result<LinuxTask> {
    let security = SecurityOptions::parse(&config.security_opt)?;
    let default = match context.relayed {
        // The program at the other end sends on for it what it sends, to wherever that says. The packet filter keeps what is
        // for 127.0.0.1, but does not see packets of one's own making: by these one would reach the host's loopback.
        true => CapSet::DOCKER.without(CapSet::NET_RAW),
        false => CapSet::DOCKER,
    };
    let granted = capabilities::wanted(default, &config.cap_add, &config.cap_drop, config.privileged)?;
    let host_network = config.network == NetworkMode::Host;
    let hostname = config.hostname.clone().or(context.host_name.clone());
    let hostname = hostname.unwrap_or_else(|| context.id.chars().take(12).collect());

    let mut annotations = HashMap::new();
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces(config, context)))
        .set_sysctl(process::sysctls(config, context.last_group())?)
        .set_uid_mappings(non_empty(context.uid_mappings.clone()))
        .set_gid_mappings(non_empty(context.gid_mappings.clone()))
        .set_rootfs_propagation(Some("private".to_owned()));
    devices::put(&mut linux, config, context)?;
    if !config.privileged && !security.unmasked {
        let (masked, read_only) = security::hidden(&security, &context.thermal_throttle);
        linux.set_masked_paths(Some(masked)).set_readonly_paths(Some(read_only));
    } else {
        // The library's defaults are youki's; none means none.
        linux.set_masked_paths(None).set_readonly_paths(None);
    }
    match &security.seccomp {
        Seccomp::Unconfined => {}
        _ if config.privileged => {}
        Seccomp::Default => {
            annotations.insert(seccomp::ANNOTATION.to_owned(), seccomp::DEFAULT.to_owned());
        }
        Seccomp::Profile(json) => {
            linux.set_seccomp(Some(seccomp::profile::resolve(json, granted)?));
        }
    }

    let mut process = process::process(config, image, &hostname, &security)?;
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(granted.to_oci()))
        .set_effective(Some(granted.to_oci()))
        .set_permitted(Some(granted.to_oci()))
        .set_inheritable(None)
        .set_ambient(None);
    process.set_capabilities(Some(capabilities));
    let names = process::put_groups(&mut process, &config.group_add);
    if !names.is_empty() {
        annotations.insert(GROUPS.to_owned(), names.join(","));
    }

    let mut root = Root::default();
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(config.read_only));
    let mut spec = Spec::default();
    spec.set_version("1.2.0".to_owned())
        .set_root(Some(root))
        .set_process(Some(process))
        .set_hostname(Some(hostname))
        .set_domainname(config.domainname.clone())
        .set_mounts(Some(mounts::mounts(config, context)?))
        .set_annotations(Some(annotations).filter(|map| !map.is_empty()))
        .set_linux(Some(linux));
    let user = config.user.clone().filter(|user| !user.is_empty()).unwrap_or_else(|| image.config.user.clone());
    let (connected, pid, ipc, network) = (context.connected, context.pid, context.ipc, context.network);
    let relayed = context.relayed;
    Ok(LinuxTask { spec, init: config.init, connected, relayed, host_network, pid, ipc, network, user })
}

fn namespaces(config: &ContainerConfig, context: &SpecContext) -> Vec<LinuxNamespace> {
    let mut kinds = vec![LinuxNamespaceType::Mount];
    if config.pid != PidMode::Host {
        kinds.push(LinuxNamespaceType::Pid);
    }
    if config.ipc != IpcMode::Host {
        kinds.push(LinuxNamespaceType::Ipc);
    }
    if !config.host_uts {
        kinds.push(LinuxNamespaceType::Uts);
    }
    if config.network != NetworkMode::Host {
        kinds.push(LinuxNamespaceType::Network);
    }
    // Docker shows a privileged container the host's cgroups.
    if !config.privileged && !config.host_cgroups {
        kinds.push(LinuxNamespaceType::Cgroup);
    }
    if context.rootless() {
        kinds.push(LinuxNamespaceType::User);
    }
    let namespace = |kind| {
        let mut namespace = LinuxNamespace::default();
        let joined = match kind {
            LinuxNamespaceType::Pid => context.pid.map(|other| (other, "pid")),
            LinuxNamespaceType::Ipc => context.ipc.map(|other| (other, "ipc")),
            LinuxNamespaceType::Network => context.network.map(|other| (other, "net")),
            _ => None,
        };
        let path = joined.map(|(other, file)| PathBuf::from(format!("/proc/{}/ns/{file}", other.pid)));
        namespace.set_typ(kind).set_path(path);
        namespace
    };
    kinds.into_iter().map(namespace).collect()
}

fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Class::InvalidInput, message)
}

#[cfg(test)]
mod tests;
