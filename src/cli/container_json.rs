//! A container as docker's API describes it (<https://docs.docker.com/reference/api/engine/>, "Inspect a container").
//! Fields that say something Wharf does not have yet are there with docker's empty value, because clients read them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use wharf_runtime::config::{Mount, MountKind};
use wharf_runtime::container::{BackendKind, Container};
use wharf_runtime::engine::ExecState;
use wharf_runtime::network::store::Attachment;
use wharf_runtime::state::State;
use wharf_runtime::volume::DRIVER;
use wharf_runtime::walls::Walls;

use super::{filter, ports, ps};

/// Go's zero time: what docker says of what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// Bytes of /dev/shm unless asked otherwise.
const SHM_SIZE: u64 = 64 << 20;

/// The whole object. With the container's places come the ids of all networks, by their names; `sizes` are those of the
/// writable layer and of the image, if they were asked for, and `volume_dir` says where a volume is.
pub fn container(
    container: &Container,
    connected: (&[Attachment], &BTreeMap<String, String>),
    sizes: Option<(u64, u64)>,
    log_path: &str,
    volume_dir: &dyn Fn(&str) -> String,
) -> Value {
    let (program, args) = match container.args.split_first() {
        Some((program, args)) => (program.as_str(), args),
        None => ("", &[][..]),
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
        "Driver": "overlay",
        "Platform": container.image.platform.os,
        "Backend": container.backend().name(),
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "LogPath": if matches!(container.config.log.driver.as_str(), "none" | "journald") { "" } else { log_path },
        "HostConfig": host_config(container),
        "Mounts": container.config.mounts.iter().map(|mount| mount_point(mount, volume_dir)).collect::<Vec<_>>(),
        "Config": config(container),
        "NetworkSettings": network(container, connected),
    });
    if container.backend() == BackendKind::Wasm {
        object["Walls"] = container.state.walls.as_ref().map(walls).into();
    }
    if let Some((own, image)) = sizes {
        object["SizeRw"] = own.into();
        object["SizeRootFs"] = (own + image).into();
    }
    object
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
    let binds = config.mounts.iter().filter_map(|mount| {
        let source = match &mount.kind {
            MountKind::Bind(bind) => &bind.source,
            MountKind::Volume(volume) if !volume.anonymous => &volume.name,
            MountKind::Volume(_) | MountKind::Tmpfs(_) => return None,
        };
        Some(format!("{source}:{}{}", mount.target, if mount.read_only { ":ro" } else { "" }))
    });
    let tmpfs = config.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Tmpfs(options) => Some((mount.target.clone(), Value::from(options.as_str()))),
        MountKind::Bind(_) | MountKind::Volume(_) => None,
    });
    let ulimits = config.ulimits.iter().map(|(name, (soft, hard))| json!({"Name": name, "Soft": soft, "Hard": hard}));
    let mut object = json!({
        "Binds": binds.collect::<Vec<_>>(),
        "ContainerIDFile": "",
        "LogConfig": {"Type": config.log.driver, "Config": config.log.options},
        "NetworkMode": ps::network(container),
        "PortBindings": ports::asked(container),
        "RestartPolicy": {"Name": config.restart.name(), "MaximumRetryCount": config.restart.most()},
        "AutoRemove": config.auto_remove,
        "CapAdd": config.cap_add,
        "CapDrop": config.cap_drop,
        "CgroupnsMode": if config.host_cgroups { "host" } else { "private" },
        "GroupAdd": config.group_add,
        "IpcMode": config.ipc.name(),
        "OomScoreAdj": config.oom_score_adj.unwrap_or(0),
        "PidMode": config.pid.name(),
        "Privileged": config.privileged,
        "PublishAllPorts": config.publish_all,
        "Dns": config.dns,
        "ReadonlyRootfs": config.read_only,
        "SecurityOpt": config.security_opt,
        "Sysctls": config.sysctls,
        "Tmpfs": tmpfs.collect::<serde_json::Map<_, _>>(),
        "VolumeDriver": "",
        "VolumesFrom": Some(&config.volumes_from).filter(|list| !list.is_empty()),
        "UTSMode": if config.host_uts { "host" } else { "" },
        "UsernsMode": if config.host_users { "host" } else { "" },
        "ShmSize": config.shm_size.unwrap_or(SHM_SIZE),
        "Runtime": container.backend().name(),
        "Init": config.init,
        "Memory": limits.memory.unwrap_or(0),
        "MemorySwap": limits.memory_swap.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": limits.cpu_period.unwrap_or(0),
        "CpuQuota": limits.cpu_quota.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or_default(),
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "PidsLimit": limits.pids,
        "Devices": config.devices,
        "Ulimits": ulimits.collect::<Vec<_>>(),
    });
    // Beside the others: the macro that makes them takes only so many.
    object["CgroupParent"] =
        config.cgroup_parent.as_ref().map_or_else(String::new, |parent| format!("/{parent}")).into();
    object["DeviceCgroupRules"] = json!(Some(&config.device_rules).filter(|rules| !rules.is_empty()));
    object["DnsOptions"] = json!(config.dns_options);
    object["DnsSearch"] = json!(config.dns_search);
    object["OomKillDisable"] = limits.oom_kill_disable.into();
    if !config.annotations.is_empty() {
        object["Annotations"] = json!(config.annotations);
    }
    // What Wharf has no other value of: clients read these fields all the same.
    let nothing = json!({
        "BlkioDeviceReadBps": [], "BlkioDeviceReadIOps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceWriteIOps": [],
        "BlkioWeightDevice": [], "Cgroup": "", "ConsoleSize": [0, 0], "CpuCount": 0,
        "CpuPercent": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
        "DeviceRequests": null, "Dns": [], "ExtraHosts": null,
        "IOMaximumBandwidth": 0, "IOMaximumIOps": 0, "Isolation": "", "Links": null, "MemorySwappiness": null,
    });
    if let (Value::Object(object), Value::Object(nothing)) = (&mut object, nothing) {
        for (field, value) in nothing {
            object.entry(field).or_insert(value);
        }
    }
    object
}

fn mount_point(mount: &Mount, volume_dir: &dyn Fn(&str) -> String) -> Value {
    let mode = match &mount.kind {
        _ if mount.read_only => "ro",
        // Docker's word for every volume that has a name.
        MountKind::Volume(volume) if !volume.anonymous => "z",
        MountKind::Volume(_) | MountKind::Bind(_) | MountKind::Tmpfs(_) => "",
    };
    let (kind, source, propagation) = match &mount.kind {
        MountKind::Bind(bind) => ("bind", bind.source.clone(), bind.propagation.name()),
        MountKind::Volume(volume) => ("volume", volume_dir(&volume.name), ""),
        MountKind::Tmpfs(_) => ("tmpfs", String::new(), ""),
    };
    let mut point = json!({
        "Type": kind,
        "Source": source,
        "Destination": mount.target,
        "Mode": mode,
        "RW": !mount.read_only,
        "Propagation": propagation,
    });
    if let MountKind::Volume(volume) = &mount.kind {
        point["Name"] = volume.name.as_str().into();
        point["Driver"] = DRIVER.into();
    }
    point
}

fn config(container: &Container) -> Value {
    let config = &container.config;
    let image = &container.image.config;
    let or_image = |own: &Option<String>, image: &str| own.clone().unwrap_or_else(|| image.to_owned());
    let set = |keys: &[String]| keys.iter().map(|key| (key.clone(), json!({}))).collect::<serde_json::Map<_, _>>();
    let mut object = json!({
        "Hostname": config.hostname.as_deref().unwrap_or(container.short_id()),
        "Domainname": config.domainname.as_deref().unwrap_or_default(),
        "User": or_image(&config.user, &image.user),
        "AttachStdin": config.interactive,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": ports::all_exposed(container),
        "Tty": config.tty,
        "OpenStdin": config.interactive,
        "StdinOnce": config.interactive,
        "Env": env(&image.env, &config.env),
        "Cmd": if config.cmd.is_empty() && config.entrypoint.is_none() { &image.cmd } else { &config.cmd },
        "Image": config.image,
        "Volumes": set(&image.volumes),
        "WorkingDir": or_image(&config.working_dir, &image.working_dir),
        "Entrypoint": config.entrypoint.as_ref().unwrap_or(&image.entrypoint),
        "Labels": ps::labels(container),
        "StopSignal": config.stop_signal.as_ref().or(image.stop_signal.as_ref()),
        "StopTimeout": config.stop_timeout,
        "OnBuild": null,
    });
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

fn network(container: &Container, (attachments, ids): (&[Attachment], &BTreeMap<String, String>)) -> Value {
    let mut settings = ports::network_settings(container, attachments, ids);
    settings["SandboxID"] = if container.backend() == BackendKind::Wasm { "" } else { container.id.as_str() }.into();
    settings
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
