//! What is mounted where: docker's defaults, the files of the host that the container shares, the person's mounts.

use std::path::Path;

use oci_spec::runtime::Mount;
use rustix::fs::{PROC_SUPER_MAGIC, statfs};

use super::{SpecContext, invalid};
use crate::config::{ContainerConfig, IpcMode, MountKind, NetworkMode, Recursion, clean_path};
use crate::error::Result;

/// Docker's size of `/dev/shm`, in bytes.
const SHM: u64 = 64 << 20;
/// Where shared memory is: shm_overview(7).
pub const SHARED: &str = "/dev/shm";
/// The option that names the directory of a bind's source that is mounted in its place, found beneath the source only.
pub const SUBPATH: &str = "wharf.subpath=";
/// The group that owns terminals on every distribution.
const TTY: u32 = 5;

/// All mounts, in the order in which they are to be made: what lies above comes first.
pub fn mounts(config: &ContainerConfig, context: &SpecContext) -> Result<Vec<Mount>> {
    let mut mounts = defaults(config, context);
    let files = [
        ("/etc/resolv.conf", &context.resolv_conf),
        ("/etc/hostname", &context.hostname),
        ("/etc/hosts", &context.hosts),
    ];
    for (target, source) in files {
        if let Some(source) = source {
            let options: &[&str] = if config.read_only { &["rbind", "rprivate", "ro"] } else { &["rbind", "rprivate"] };
            mounts.push(mount(target, "bind", &source.to_string_lossy(), options));
        }
    }
    let first_own = mounts.len();
    for own in &config.mounts {
        let target = clean_path(&own.target)
            .ok_or_else(|| invalid(format!("invalid mount path: '{}' mount path must be absolute", own.target)))?;
        if target == "/" {
            return Err(invalid("invalid specification: destination can't be '/'"));
        }
        let taken = mounts[first_own..].iter().any(|known| known.destination() == Path::new(&target));
        if taken {
            return Err(invalid(format!("Duplicate mount point: {target}")));
        }
        if target == "/proc" && !is_proc(&own.kind) {
            return Err(invalid("error mounting at \"/proc\": what is mounted there must be of type proc")
                .with_hint("mount it elsewhere: the container's processes are there"));
        }
        mounts.push(match &own.kind {
            MountKind::Bind(bind) => {
                let tree = if bind.recursion == Recursion::Disabled { "bind" } else { "rbind" };
                let mode = match (own.read_only, bind.recursion) {
                    (false, _) => "rw",
                    (true, Recursion::Enabled | Recursion::ReadOnly) => "rro",
                    (true, Recursion::Disabled | Recursion::Writable) => "ro",
                };
                mount(&target, "bind", &bind.source, &[tree, mode, bind.propagation.name()])
            }
            MountKind::Volume(volume) => {
                let source = context.volumes.get(&volume.name);
                let source = source.ok_or_else(|| invalid(format!("volume {} was not prepared", volume.name)))?;
                let mode = if own.read_only || source.read_only { "rro" } else { "rw" };
                let subpath = volume.subpath.as_ref().map(|path| format!("{SUBPATH}{path}"));
                let options = ["rbind", mode, "rprivate"].into_iter().chain(subpath.as_deref());
                mount(&target, "bind", &source.path.to_string_lossy(), &options.collect::<Vec<_>>())
            }
            MountKind::Tmpfs(options) => tmpfs(&target, options, own.read_only),
        });
    }
    // The person's mount takes the place of a default one.
    let own: Vec<_> = mounts[first_own..].iter().map(|mount| mount.destination().clone()).collect();
    let mut at = 0;
    mounts.retain(|mount| {
        at += 1;
        at > first_own || !own.contains(mount.destination())
    });
    // A stable sort: what is not above or below one another stays in docker's order.
    mounts.sort_by_key(|mount| mount.destination().components().count());
    Ok(mounts)
}

/// Whether a mount has processes: without them in `/proc` nothing can be started.
fn is_proc(kind: &MountKind) -> bool {
    match kind {
        MountKind::Bind(bind) => statfs(&bind.source).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC),
        MountKind::Volume(_) | MountKind::Tmpfs(_) => false,
    }
}

fn defaults(config: &ContainerConfig, context: &SpecContext) -> Vec<Mount> {
    let mode = if config.privileged { "rw" } else { "ro" };
    let shm = format!("size={}", config.shm_size.filter(|&size| size > 0).unwrap_or(SHM));
    let group = format!("gid={TTY}");
    let mut devpts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if context.maps_group(TTY) {
        devpts.push(&group);
    }
    let sys = if context.rootless() && config.network == NetworkMode::Host {
        // sysfs can be mounted only by who owns the network namespace.
        let mode = if mode == "ro" { "rro" } else { mode };
        mount("/sys", "bind", "/sys", &["rbind", "rslave", "nosuid", "noexec", "nodev", mode])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", mode])
    };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &devpts),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[mode, "nosuid", "noexec", "nodev"]),
    ];
    // Only who owns the host's may mount its message queues.
    if !(context.rootless() && config.ipc == IpcMode::Host) {
        mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    }
    match &config.ipc {
        IpcMode::Private | IpcMode::Shareable => {
            mounts.push(mount(SHARED, "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]));
        }
        IpcMode::Host => {
            mounts.push(mount(SHARED, "bind", SHARED, &["rbind", "nosuid", "noexec", "nodev", "rprivate"]));
        }
        // The other container's is found when it is joined.
        IpcMode::Container(_) | IpcMode::None => {}
    }
    mounts
}

/// Docker's flags of a tmpfs, each unless its opposite was asked for.
fn tmpfs(target: &str, options: &str, read_only: bool) -> Mount {
    let asked: Vec<&str> = options.split(',').map(str::trim).filter(|option| !option.is_empty()).collect();
    let mut all: Vec<&str> = [("noexec", "exec"), ("nosuid", "suid"), ("nodev", "dev")]
        .into_iter()
        .filter(|(flag, opposite)| !asked.contains(flag) && !asked.contains(opposite))
        .map(|(flag, _)| flag)
        .collect();
    all.extend(asked);
    if read_only && !all.contains(&"ro") {
        all.push("ro");
    }
    all.push("rprivate");
    mount(target, "tmpfs", "tmpfs", &all)
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(target.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|&option| option.to_owned()).collect()));
    mount
}
