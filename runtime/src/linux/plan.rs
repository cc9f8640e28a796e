//! The host's side of a Linux container's plan: the files it mounts, and what of this host its spec must know.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use wharf_images::snapshot::Rootfs;

use crate::config::{ContainerConfig, HOST_GATEWAY, IpcMode, MountKind, NetworkMode, PidMode};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::linux::neighbour;
use crate::linux::network;
use crate::linux::spec::{self, SpecContext};
use crate::linux::{create_open_dir, propagation, usernet, userns};
use crate::network::{BRIDGE, networks};
use crate::plan::{self, PlannedFile};
use crate::task::{LinuxTask, Neighbour};

/// The plan of a Linux container. `files` gets those of `/etc` that it mounts, `rootfs` what they are mounted on.
///
/// # Errors
/// As [`spec::linux_task`].
pub(crate) fn linux_task(
    engine: &Engine,
    container: &Container,
    files: &mut Vec<PlannedFile>,
    rootfs: &mut Rootfs,
) -> Result<LinuxTask> {
    if let Rootfs::Overlay { lower, .. } = rootfs
        && !lower.is_empty()
    {
        lower.push(mount_points(engine)?);
    }
    let config = &container.config;
    let host_network = config.network == NetworkMode::Host;
    let mut context = SpecContext { id: container.id.clone(), ..SpecContext::default() };
    if host_network || config.host_uts {
        context.host_name = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    }
    if let PidMode::Container(other) = &config.pid {
        context.pid = Some(joins(neighbour::find(engine, other).map(|(_, process)| process), "PID")?);
    }
    if let IpcMode::Container(other) = &config.ipc {
        context.ipc = Some(joins(neighbour::find_shareable(engine, other), "IPC")?);
    }
    let mut shared = None;
    if let NetworkMode::Container(other) = &config.network {
        let (other, process) = neighbour::find(engine, other).map_err(|e| match e.class() {
            Class::Conflict => Error::new(Class::Conflict, format!("cannot join network namespace: {e}")),
            _ => e,
        })?;
        context.network = Some(process);
        context.host_name = Some(plan::hostname(&other).to_owned());
        shared = Some(engine.paths().container(&other.id));
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
    if let Some(other) = &shared {
        // The same files, so that both see what changes in them.
        let there = |name: &str| Some(other.join(name)).filter(|path| path.exists());
        (context.hosts, context.resolv_conf) = (there("hosts"), there("resolv.conf"));
        context.hostname = there("hostname").or(context.hostname);
    }
    context.connected = network::wanted(container).is_some();
    context.relayed = usernet::is_wanted(container);
    if shared.is_none() {
        context.hosts = file("hosts", hosts(engine, config, context.connected || context.relayed)?);
        let answerer = match (context.connected, context.relayed && config.dns.is_empty()) {
            // It asks us, and so reaches its neighbours by name; what we do not know we ask those whom the host asks.
            (true, _) => Some(network::names::ADDRESS),
            (false, true) => usernet::name_server(engine)?,
            // Without a network too: as docker has it, and one may yet be given to it.
            (false, false) => None,
        };
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        context.resolv_conf = file("resolv.conf", resolv_conf(config, &host, answerer).into_bytes());
    }
    for mount in &config.mounts {
        match &mount.kind {
            MountKind::Volume(volume) => {
                context.volumes.insert(volume.name.clone(), engine.volumes().open(&volume.name)?);
            }
            MountKind::Bind(bind) => {
                plan::ensure_source(bind)?;
                propagation::check(bind)?;
            }
            MountKind::Tmpfs(_) => {}
        }
    }
    spec::linux_task(config, &container.image, &context)
}

/// The `/etc/hosts` of a container. What is to have places on networks gets the lines that were asked for with them.
fn hosts(engine: &Engine, config: &ContainerConfig, connected: bool) -> Result<Vec<u8>> {
    // A copy of the host's: the container may write to its own.
    let mut lines = match config.network {
        NetworkMode::Host => fs::read("/etc/hosts").unwrap_or_default(),
        _ => LOCAL_HOSTS.as_bytes().to_vec(),
    };
    if !connected && !config.extra_hosts.is_empty() {
        if lines.last().is_some_and(|byte| *byte != b'\n') {
            lines.push(b'\n');
        }
        lines.extend(network::extra_hosts(config, host_gateway(engine, config)?).into_bytes());
    }
    Ok(lines)
}

/// What `--add-host NAME:host-gateway` means to a container that has no places on networks: on the host's network the host
/// itself, and without one, as in docker, the default network's.
fn host_gateway(engine: &Engine, config: &ContainerConfig) -> Result<Option<Ipv4Addr>> {
    match config.extra_hosts.iter().any(|(_, address)| address == HOST_GATEWAY) {
        true if config.network == NetworkMode::Host => Ok(Some(Ipv4Addr::LOCALHOST)),
        true => Ok(networks::by_name(engine.containers()?.db(), BRIDGE)?.map(|network| network.gateway)),
        false => Ok(None),
    }
}

/// A layer for below all others, with what every container mounts something on: where an image has none of that, it need
/// not be made in the container's own layer at each start, nor removed from there.
fn mount_points(engine: &Engine) -> Result<PathBuf> {
    let dir = engine.paths().root.join("mountpoints");
    let file = |name| dir.join("etc").join(name);
    let last = file("resolv.conf");
    if fs::symlink_metadata(&last).is_ok() {
        return Ok(dir);
    }
    // Others may do the same: nobody uses it before all is there, and nothing is made anew.
    let unless_there = |made: io::Result<()>, path: &Path| match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("create", path, e)),
        _ => Ok(()),
    };
    for path in [dir.clone(), dir.join("dev"), dir.join("etc"), dir.join("proc"), dir.join("sys")] {
        unless_there(create_open_dir(&path), &path)?;
    }
    for path in [file("hostname"), file("hosts"), last] {
        let readable = |file: fs::File| file.set_permissions(fs::Permissions::from_mode(0o644));
        unless_there(fs::File::create_new(&path).and_then(readable), &path)?;
    }
    Ok(dir)
}

/// In docker's words, whose namespace could not be joined.
fn joins(found: Result<Neighbour>, kind: &str) -> Result<Neighbour> {
    found.map_err(|e| Error::new(e.class(), format!("failed to join {kind} namespace: {e}")))
}

/// resolv.conf(5) for a container: the host's own, but for what was asked for. Whom to ask is `answerer`, on a network of
/// ours; it answers names without a dot itself, so the C library need not try domains first (`ndots:0`).
fn resolv_conf(config: &ContainerConfig, host: &str, answerer: Option<Ipv4Addr>) -> String {
    let of_host = |key: &str| {
        let is = |line: &&str| line.split_whitespace().next() == Some(key);
        host.lines().filter(is).map(|line| format!("{line}\n")).collect::<String>()
    };
    let servers = match answerer {
        Some(address) => format!("nameserver {address}\n"),
        None if config.dns.is_empty() => of_host("nameserver"),
        None => config.dns.iter().map(|address| format!("nameserver {address}\n")).collect(),
    };
    let search = match &config.dns_search[..] {
        [] => of_host("search"),
        [dot] if dot == "." => String::new(),
        domains => format!("search {}\n", domains.join(" ")),
    };
    let mut options = config.dns_options.clone();
    if answerer.is_some() && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.insert(0, "ndots:0".to_owned());
    }
    let options = match &options[..] {
        [] => of_host("options"),
        options => format!("options {}\n", options.join(" ")),
    };
    servers + &search + &options
}

/// What docker writes into a container without a network.
const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                           ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_as_asked() {
        let host = "# by hand\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch lan\noptions edns0\n";
        let words = |list: &[&str]| list.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let own = Some(Ipv4Addr::new(127, 0, 0, 11));
        let plain = ContainerConfig::default();
        let servers = "nameserver 192.0.2.1\nnameserver 192.0.2.2\n";
        assert_eq!(resolv_conf(&plain, host, own), "nameserver 127.0.0.11\nsearch lan\noptions ndots:0\n");
        assert_eq!(resolv_conf(&plain, host, None), format!("{servers}search lan\noptions edns0\n"));
        let asked = ContainerConfig {
            dns: vec![Ipv4Addr::new(192, 0, 2, 9).into()],
            dns_search: words(&["a.example", "b.example"]),
            dns_options: words(&["rotate"]),
            ..ContainerConfig::default()
        };
        let rest = "search a.example b.example\noptions";
        assert_eq!(resolv_conf(&asked, host, own), format!("nameserver 127.0.0.11\n{rest} ndots:0 rotate\n"));
        assert_eq!(resolv_conf(&asked, host, None), format!("nameserver 192.0.2.9\n{rest} rotate\n"));
        let none = ContainerConfig {
            dns_search: words(&["."]),
            dns_options: words(&["ndots:2"]),
            ..ContainerConfig::default()
        };
        assert_eq!(resolv_conf(&none, host, own), "nameserver 127.0.0.11\noptions ndots:2\n");
    }
}
