//! A container as docker's API describes it (<https://docs.docker.com/reference/api/engine/>, "Inspect a container").
//! Fields that say something Wharf does not have yet are there with docker's empty value, because clients read them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use wharf_images::snapshot::Rootfs;
use wharf_runtime::ContainerConfig;
use wharf_runtime::config::{IpcMode, NetworkMode, PidMode, Streams};
use wharf_runtime::container::{BackendKind, Container};
use wharf_runtime::engine::ExecState;
use wharf_runtime::network::BRIDGE;
use wharf_runtime::network::store::Attachment;
use wharf_runtime::paths::Paths;
use wharf_runtime::state::State;
use wharf_runtime::walls::Walls;

use super::{filter, mount_json, ports, ps};

/// Go's zero time: what docker says of what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Bytes of /dev/shm unless asked otherwise.
const SHM_SIZE: u64 = 64 << 20;
/// How the layers of an image become one tree.
const DRIVER: &str = "overlay";

/// What is to be said of a container that its record does not say.
pub struct Around<'a> {
    /// The instance's directories.
    pub paths: &'a Paths,
    /// Its places on networks, if it runs.
    pub attachments: &'a [Attachment],
    /// The ids of all networks, by their names.
    pub networks: &'a BTreeMap<String, String>,
    /// The bytes of its own layer and of its image, if they were asked for.
    pub sizes: Option<(u64, u64)>,
    /// Where its files are, if they are there.
    pub rootfs: Option<Rootfs>,
    /// Where a volume is.
    pub volume_dir: &'a dyn Fn(&str) -> String,
}

/// The whole object.
pub fn container(container: &Container, around: &Around<'_>) -> Value {
    let (program, args) = match container.args.split_first() {
        Some((program, args)) => (program.as_str(), args),
        None => ("", &[][..]),
    };
    let has_log = !matches!(container.config.log.driver.as_str(), "none" | "journald");
    let log = if has_log { around.paths.log(&container.id).display().to_string() } else { String::new() };
    // They are written when it starts.
    let file = |name: &str| {
        let path = around.paths.container(&container.id).join(name);
        if path.exists() { path.display().to_string() } else { String::new() }
    };
    let mut object = json!({
        "Id": container.id,
        "Created": time(Some(container.created)),
        "Path": program,
        "Args": args,
        "State": state(container),
        "Image": container.image.id.to_string(),
        "Name": format!("/{}", container.name),
        "RestartCount": container.state.restarts,
        "Driver": DRIVER,
        "Platform": container.image.platform.os,
        "Backend": container.backend().name(),
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": log,
        "HostConfig": host_config(container),
        "GraphDriver": graph(container, around.rootfs.as_ref()),
        "Mounts": mount_json::points(&container.config, around.volume_dir),
        "Config": config(container),
        "NetworkSettings": ports::network_settings(container, around.attachments, around.networks),
    });
    if container.backend() == BackendKind::Wasm {
        object["Walls"] = container.state.walls.as_ref().map(walls).into();
    }
    if let Some((own, image)) = around.sizes {
        object["SizeRw"] = own.into();
        object["SizeRootFs"] = (own + image).into();
    }
    object
}

/// Where its files are. The whole tree is mounted for its processes alone, and is found by one of them.
fn graph(container: &Container, rootfs: Option<&Rootfs>) -> Value {
    let mut data = json!({"ID": container.id});
    match rootfs {
        Some(Rootfs::Overlay { lower, upper, work }) => {
            let lower: Vec<String> = lower.iter().map(|dir| dir.display().to_string()).collect();
            data["LowerDir"] = lower.join(":").into();
            data["UpperDir"] = upper.display().to_string().into();
            data["WorkDir"] = work.display().to_string().into();
        }
        Some(Rootfs::Dir(dir)) => data["UpperDir"] = dir.display().to_string().into(),
        None => {}
    }
    if let (BackendKind::Linux, Some(pid)) = (container.backend(), container.state.pid) {
        data["MergedDir"] = format!("/proc/{pid}/root").into();
    }
    json!({"Name": DRIVER, "Data": data})
}

/// An exec (<https://docs.docker.com/reference/api/engine/>, "Inspect an exec instance").
pub fn exec(exec: &ExecState) -> Value {
    let (program, args) = match exec.args.split_first() {
        Some((program, args)) => (program.as_str(), args),
        None => ("", &[][..]),
    };
    let mut process = json!({
        "tty": exec.tty, "entrypoint": program, "arguments": args, "privileged": exec.privileged,
    });
    if let Some(user) = &exec.user {
        process["user"] = user.as_str().into();
    }
    json!({
        "ID": exec.id,
        "Running": exec.exit_code.is_none(),
        "ExitCode": exec.exit_code,
        "ProcessConfig": process,
        "OpenStdin": exec.stdin,
        "OpenStderr": exec.attached && !exec.tty,
        "OpenStdout": exec.attached,
        "CanRemove": false,
        "ContainerID": exec.container,
        "DetachKeys": "",
        "Pid": exec.pid,
    })
}

fn state(container: &Container) -> Value {
    let state = &container.state;
    let now = state.state;
    let mut object = json!({
        "Status": filter::status(container),
        "Running": matches!(now, State::Running | State::Paused | State::Restarting),
        "Paused": now == State::Paused,
        "Restarting": now == State::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": now == State::Dead,
        "Pid": state.pid.unwrap_or(0),
        "ExitCode": state.exit_code,
        "Error": state.error.as_deref().unwrap_or_default(),
        "StartedAt": time(state.started),
        "FinishedAt": time(state.finished),
    });
    if let Some(health) = &state.health {
        object["Health"] = serde_json::to_value(health).unwrap_or_default();
        // Docker's verdict on what does not run any more.
        if !now.is_live() && state.started.is_some() {
            object["Health"]["Status"] = "unhealthy".into();
        }
    }
    object
}

/// What a guest stands behind, besides wasmtime's sandbox.
pub fn walls(walls: &Walls) -> Value {
    json!({
        "Landlock": walls.landlock.unwrap_or(0),
        "LandlockPorts": walls.tcp,
        "LandlockScopes": walls.scoped,
        "Seccomp": walls.seccomp,
        "NoNewPrivileges": walls.no_new_privileges,
        "Capabilities": walls.capabilities,
        "Cgroup": walls.cgroup,
        "User": walls.user,
        "Missing": walls.missing,
    })
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

fn host_config(container: &Container) -> Value {
    let config = &container.config;
    let limits = &config.limits;
    let limit = |limit: u64| i64::try_from(limit).unwrap_or(-1);
    let ulimits = config.ulimits.iter();
    let ulimits = ulimits.map(|(name, (soft, hard))| json!({"Name": name, "Soft": limit(*soft), "Hard": limit(*hard)}));
    let mut object = json!({
        "ContainerIDFile": config.cidfile.as_deref().unwrap_or_default(),
        "LogConfig": {"Type": config.log.driver, "Config": config.log.options},
        "NetworkMode": ps::network(container),
        "PortBindings": ports::asked(container),
        "RestartPolicy": {"Name": config.restart.name(), "MaximumRetryCount": config.restart.most()},
        "AutoRemove": config.auto_remove,
        "CapAdd": some(&config.cap_add),
        "CapDrop": some(&config.cap_drop),
        "CgroupnsMode": if config.host_cgroups { "host" } else { "private" },
        "GroupAdd": some(&config.group_add),
        "IpcMode": config.ipc.name(),
        "OomScoreAdj": config.oom_score_adj.unwrap_or(0),
        "PidMode": config.pid.name(),
        "Privileged": config.privileged,
        "PublishAllPorts": config.publish_all,
        "Dns": config.dns,
        "ReadonlyRootfs": config.read_only,
        "SecurityOpt": security_options(config),
        "VolumesFrom": some(&config.volumes_from),
        "UTSMode": if config.host_uts { "host" } else { "" },
        "UsernsMode": if config.host_users { "host" } else { "" },
        "ShmSize": config.shm_size.unwrap_or(SHM_SIZE),
        "Runtime": container.backend().name(),
        "Memory": limits.memory.unwrap_or(0),
        "MemorySwap": limits.memory_and_swap().unwrap_or(0),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or_default(),
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "PidsLimit": limits.pids,
        "Devices": config.devices.iter().map(|device| self::device(device)).collect::<Vec<_>>(),
        "Ulimits": ulimits.collect::<Vec<_>>(),
    });
    // Beside the others: the macro that makes them takes only so many.
    object["CgroupParent"] =
        config.cgroup_parent.as_ref().map_or_else(String::new, |parent| format!("/{parent}")).into();
    object["DeviceCgroupRules"] = some(&config.device_rules);
    object["DnsOptions"] = json!(config.dns_options);
    object["DnsSearch"] = json!(config.dns_search);
    object["OomKillDisable"] = limits.oom_kill_disable.into();
    let hosts: Vec<String> = config.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect();
    (object["ExtraHosts"], object["Links"]) = (some(&hosts), links(container));
    let hidden = match (container.backend(), config.privileged) {
        (BackendKind::Linux, false) => Some(wharf_runtime::linux::hidden_paths(config)),
        _ => None,
    };
    let (masked, read_only) = hidden.unzip();
    (object["MaskedPaths"], object["ReadonlyPaths"]) = (json!(masked), json!(read_only));
    // Docker leaves these out when they are empty.
    for (field, map) in [("Annotations", &config.annotations), ("Sysctls", &config.sysctls)] {
        if !map.is_empty() {
            object[field] = json!(map);
        }
    }
    if config.init {
        object["Init"] = true.into();
    }
    if let Some(size) = config.storage_size {
        object["StorageOpt"] = json!({"size": size.to_string()});
    }
    // What Wharf has no other value of: clients read these fields all the same.
    let nothing = json!({
        "BlkioDeviceReadBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceWriteIOps": [],
        "BlkioWeightDevice": [], "Cgroup": "", "ConsoleSize": [0, 0], "CpuCount": 0,
        "CpuPercent": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
        "DeviceRequests": null, "Dns": [],
        "IOMaximumBandwidth": 0, "IOMaximumIOps": 0, "Isolation": "", "MemorySwappiness": null,
    });
    if let (Value::Object(object), Value::Object(nothing)) = (&mut object, nothing) {
        object.extend(mount_json::asked(config));
        for (field, value) in nothing {
            object.entry(field).or_insert(value);
        }
    }
    object
}

/// A list, or docker's `null` for an empty one.
fn some(list: &[String]) -> Value {
    json!(Some(list).filter(|list| !list.is_empty()))
}

/// `--device HOST[:CONTAINER[:PERMISSIONS]]`, where the one part after the host's may be either.
fn device(text: &str) -> Value {
    let is_path = |part: &str| part.starts_with('/');
    let (host, inside, permissions) = match text.split(':').collect::<Vec<_>>()[..] {
        [host, inside, permissions] => (host, inside, permissions),
        [host, inside] if is_path(inside) => (host, inside, "rwm"),
        [host, permissions] => (host, host, permissions),
        _ => (text, text, "rwm"),
    };
    json!({"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": permissions})
}

/// What is asked of security modules; who sees the host's processes or shared memory has no label there.
fn security_options(config: &ContainerConfig) -> Value {
    // That one is `MaskedPaths`.
    let options = config.security_opt.iter().filter(|option| *option != "systempaths=unconfined");
    let mut options: Vec<&str> = options.map(String::as_str).collect();
    let host = config.privileged || config.pid == PidMode::Host || config.ipc == IpcMode::Host;
    if host && !options.iter().any(|option| option.starts_with("label")) {
        options.push("label=disable");
    }
    json!(Some(options).filter(|options| !options.is_empty() || !config.security_opt.is_empty()))
}

/// `--link`s on the default network; on others they belong to the container's place there.
fn links(container: &Container) -> Value {
    let places = container.config.places();
    let links = places.iter().filter(|place| place.network == BRIDGE).flat_map(|place| &place.links);
    let links: Vec<String> = links.map(|(other, alias)| format!("/{other}:/{}/{alias}", container.name)).collect();
    some(&links)
}

/// Its own name, or with the host's network the host's.
fn hostname(container: &Container) -> String {
    let config = &container.config;
    let of_host = || match &config.network {
        NetworkMode::Host if container.backend() == BackendKind::Linux => {
            Some(std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim_end().to_owned())
        }
        _ => None,
    };
    config.hostname.clone().or_else(of_host).unwrap_or_else(|| container.short_id().to_owned())
}

fn config(container: &Container) -> Value {
    let config = &container.config;
    let image = &container.image.config;
    let or_image = |own: &Option<String>, image: &str| own.clone().unwrap_or_else(|| image.to_owned());
    let volumes = image.volumes.iter().chain(mount_json::anonymous(config));
    let volumes: serde_json::Map<_, _> = volumes.map(|target| (target.clone(), json!({}))).collect();
    let all = Streams { stdin: config.interactive, stdout: true, stderr: true };
    let attached = config.attach.unwrap_or(all);
    let mut object = json!({
        "Hostname": hostname(container),
        "Domainname": config.domainname.as_deref().unwrap_or_default(),
        "User": or_image(&config.user, &image.user),
        "AttachStdin": attached.stdin,
        "AttachStdout": attached.stdout,
        "AttachStderr": attached.stderr,
        "Tty": config.tty,
        "OpenStdin": config.interactive,
        "StdinOnce": config.interactive && attached.stdin,
        "Env": env(&image.env, &config.env),
        "Cmd": some(if config.cmd.is_empty() && config.entrypoint.is_none() { &image.cmd } else { &config.cmd }),
        "Image": config.image,
        "Volumes": Some(volumes).filter(|volumes| !volumes.is_empty()),
        "WorkingDir": or_image(&config.working_dir, &image.working_dir),
        "Entrypoint": some(config.entrypoint.as_ref().unwrap_or(&image.entrypoint)),
        "Labels": ps::labels(container),
        "OnBuild": null,
    });
    // Docker leaves these out when there are none.
    let exposed = ports::all_exposed(container);
    let stop_signal = config.stop_signal.as_ref().or(image.stop_signal.as_ref());
    let optional = [
        ("ExposedPorts", Some(exposed).filter(|ports| !ports.is_empty()).map(Value::from)),
        ("StopSignal", stop_signal.map(|signal| signal.as_str().into())),
        ("StopTimeout", config.stop_timeout.map(Value::from)),
    ];
    for (field, value) in optional {
        if let Some(value) = value {
            object[field] = value;
        }
    }
    if let Some(health) = container.health_config() {
        object["Healthcheck"] = serde_json::to_value(health).unwrap_or_default();
    }
    object
}

/// The container's variables, and those of the image's that they do not replace: docker's order.
fn env(image: &[String], own: &[String]) -> Vec<String> {
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let replaced: Vec<_> = own.iter().map(name).collect();
    own.iter().chain(image.iter().filter(|variable| !replaced.contains(&name(variable)))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_variables_replace_the_images() {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let merged = env(&texts(&["PATH=/bin", "A=1"]), &texts(&["A=2", "B=3"]));
        assert_eq!(merged, texts(&["A=2", "B=3", "PATH=/bin"]));
    }

    #[test]
    fn what_has_not_happened_is_gos_zero_time() {
        assert_eq!(time(None), NEVER);
        assert_eq!(time(Some(Timestamp::UNIX_EPOCH)), "1970-01-01T00:00:00Z");
    }
}
