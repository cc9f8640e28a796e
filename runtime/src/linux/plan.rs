//! The host's side of a Linux container's plan: the files it mounts, and what of this host its spec must know.

use std::fs;
use std::path::PathBuf;

use crate::config::{MountKind, NetworkMode};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Result;
use crate::linux::network;
use crate::linux::spec::{self, SpecContext};
use crate::linux::userns;
use crate::plan::{self, PlannedFile};
use crate::task::LinuxTask;

/// The plan of a Linux container. `files` gets those of `/etc` that it mounts.
///
/// # Errors
/// As [`spec::linux_task`].
pub(crate) fn linux_task(engine: &Engine, container: &Container, files: &mut Vec<PlannedFile>) -> Result<LinuxTask> {
    let config = &container.config;
    let host_network = config.network == NetworkMode::Host;
    let mut context = SpecContext { id: container.id.clone(), ..SpecContext::default() };
    if host_network {
        context.host_name = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    }
    (context.uid_mappings, context.gid_mappings) = userns::mappings();
    context.thermal_throttle = spec::security::thermal_throttle();
    context.devices = spec::devices::look_up(config)?;
    let dir = engine.paths().container(&container.id);
    let mut file = |name: &str, bytes: Vec<u8>| -> Option<PathBuf> {
        let path = dir.join(name);
        files.push(PlannedFile { path: path.clone(), bytes });
        Some(path)
    };
    let name = config.hostname.as_deref().or(context.host_name.as_deref()).unwrap_or(container.short_id());
    context.hostname = file("hostname", format!("{name}\n").into_bytes());
    if host_network {
        // A copy: the container may write to its own.
        context.hosts = file("hosts", fs::read("/etc/hosts").unwrap_or_default());
        context.resolv_conf = file("resolv.conf", fs::read("/etc/resolv.conf").unwrap_or_default());
    } else {
        context.hosts = file("hosts", LOCAL_HOSTS.as_bytes().to_vec());
    }
    context.connected = network::wanted(container).is_some();
    if context.connected {
        // It asks us, and so reaches its neighbours by name; what we do not know we ask those whom the host asks.
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let search = host.lines().filter(|line| line.starts_with("search ")).map(|line| format!("{line}\n"));
        let text = format!("nameserver {}\n{}options ndots:0\n", network::names::ADDRESS, search.collect::<String>());
        context.resolv_conf = file("resolv.conf", text.into_bytes());
    }
    for mount in &config.mounts {
        match &mount.kind {
            MountKind::Volume(volume) => {
                context.volumes.insert(volume.name.clone(), engine.volumes().open(&volume.name)?);
            }
            MountKind::Bind(bind) => plan::ensure_source(bind)?,
            MountKind::Tmpfs(_) => {}
        }
    }
    spec::linux_task(config, &container.image, &context)
}

/// What docker writes into a container without a network.
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                           ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
