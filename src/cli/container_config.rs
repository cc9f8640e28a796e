//! From the flags of `run` and `create` to the engine's request for a container.

use std::collections::HashSet;

use wharf_runtime::ContainerConfig;
use wharf_runtime::config::{
    EndpointConfig, IpcMode, LogConfig, Mount, MountKind, NetworkMode, PidMode, RequestLimits, Streams,
};
use wharf_runtime::engine::PullPolicy;
use wharf_runtime::health::{self, HealthConfig};
use wharf_runtime::network::BRIDGE;
use wharf_runtime::network::ports::{parse_expose, parse_publish};
use wharf_runtime::restart::{RestartPolicy, WrittenPolicy};
use wharf_runtime::task::Limits;

use super::failure::{Failure, Result};
use super::parse::Parsed;
use super::{mounts, units, values};

/// What `run` and `create` ask for.
///
/// # Errors
/// Docker's words for the flag that is wrong.
pub fn config(parsed: &Parsed) -> Result<ContainerConfig> {
    let text = |flag: &str| parsed.value(flag).map(str::to_owned);
    let texts = |flag: &str| parsed.values(flag).map(str::to_owned).collect::<Vec<_>>();
    let (image, cmd) = match parsed.operands() {
        [image, cmd @ ..] => (image.clone(), cmd.to_vec()),
        [] => return Err(Failure::new("no image was named")),
    };
    let network = networks(parsed)?;
    // What contradicts itself is found before what is unknown.
    let restart = restart(parsed)?;
    let (volume_flags, mounts) = mounts(parsed)?;
    Ok(ContainerConfig {
        image,
        platform: platform(parsed)?,
        name: text("name").filter(|name| !name.is_empty()),
        entrypoint: text("entrypoint").map(|program| if program.is_empty() { Vec::new() } else { vec![program] }),
        cmd,
        env: env(parsed)?,
        working_dir: text("workdir"),
        user: text("user"),
        group_add: texts("group-add"),
        hostname: text("hostname"),
        domainname: text("domainname"),
        labels: values::map(labels(parsed)?),
        interactive: parsed.switch("interactive"),
        attach: attach(parsed)?,
        tty: parsed.switch("tty"),
        auto_remove: parsed.switch("rm"),
        network: network.0,
        endpoints: network.1,
        extra_hosts: parsed.read_all("add-host", values::extra_host)?,
        ports: parsed.read_all_late("publish", parse_publish)?.concat(),
        publish_all: parsed.switch("publish-all"),
        expose: parsed.read_all_late("expose", parse_expose)?.concat(),
        dns: parsed.read_all("dns", values::ip)?,
        allow_net: parsed.read_all("allow-net", str::parse)?,
        deny_net: parsed.read_all("deny-net", str::parse)?,
        read_only: parsed.switch("read-only"),
        storage_size: storage(parsed)?,
        mounts,
        volume_flags,
        volumes_from: texts("volumes-from"),
        limits: Limits { oom_kill_disable: parsed.switch("oom-kill-disable"), ..limits(parsed)? },
        ulimits: parsed.read_all("ulimit", values::ulimit)?.into_iter().collect(),
        init: parsed.switch("init"),
        privileged: parsed.switch("privileged"),
        cap_add: parsed.values("cap-add").map(values::capability).collect(),
        cap_drop: parsed.values("cap-drop").map(values::capability).collect(),
        security_opt: values::security_opts(parsed.values("security-opt"))?,
        sysctls: values::map(parsed.read_all("sysctl", values::sysctl)?),
        annotations: values::map(parsed.read_all("annotation", values::option)?),
        shm_size: parsed.read("shm-size", values::bytes)?.flatten(),
        stop_signal: text("stop-signal"),
        stop_timeout: parsed.read("stop-timeout", values::integer)?,
        oom_score_adj: parsed.read("oom-score-adj", values::integer)?,
        requests: requests(parsed)?,
        log: log(parsed)?,
        devices: texts("device"),
        device_rules: texts("device-cgroup-rule"),
        pid: pid(parsed)?,
        ipc: ipc(parsed)?,
        host_uts: host(parsed, "uts", &[""], "UTS")?,
        host_cgroups: host(parsed, "cgroupns", &["", "private"], "CGROUP")?,
        host_users: host(parsed, "userns", &[""], "USER")?,
        cgroup_parent: text("cgroup-parent")
            .map(|parent| parent.trim_matches('/').to_owned())
            .filter(|it| !it.is_empty()),
        cidfile: text("cidfile").filter(|path| !path.is_empty()),
        runtime: text("runtime").filter(|name| !name.is_empty()),
        dns_options: texts("dns-option"),
        dns_search: parsed.read_all("dns-search", values::domain)?,
        health: health(parsed)?,
        restart,
        ..ContainerConfig::default()
    })
}

/// The streams that `--attach` names; none for who runs it in the background.
///
/// # Errors
/// Docker's words.
pub fn attach(parsed: &Parsed) -> Result<Option<Streams>> {
    let named = parsed.read_all("attach", values::stream)?;
    // `create` has no such flag.
    let detached = parsed.verb.flags().any(|flag| flag.long == "detach") && parsed.switch("detach");
    if detached && !named.is_empty() {
        let text = "conflicting options: cannot specify both --attach and --detach\n".to_owned();
        return Err(Failure::Usage { text, code: 1 });
    }
    let has = |stream: &str| named.iter().any(|name| name == stream);
    let streams = Streams { stdin: has("stdin"), stdout: has("stdout"), stderr: has("stderr") };
    Ok((detached || !named.is_empty()).then_some(streams))
}

fn health(parsed: &Parsed) -> Result<Option<HealthConfig>> {
    let duration = |flag: &str, what: &str| {
        let negative = |value: &str| value.strip_prefix('-').is_some_and(|rest| units::parse_duration(rest).is_ok());
        if parsed.value(flag).is_some_and(negative) {
            return Err(Failure::new(format!("--{flag} cannot be negative")));
        }
        let nanoseconds = parsed.read(flag, units::parse_duration)?.map_or(0, |duration| duration.as_nanos());
        match u64::try_from(nanoseconds) {
            Ok(1..1_000_000) => Err(Failure::new(format!("{what} in Healthcheck cannot be less than 1ms"))),
            Ok(nanoseconds) => Ok(nanoseconds),
            Err(_) => Err(Failure::new(format!("--{flag} is too long"))),
        }
    };
    parsed.read("health-http", health::parse_http)?;
    parsed.read("health-tcp", health::parse_tcp)?;
    let kinds = [("health-cmd", "CMD-SHELL"), ("health-http", "HTTP"), ("health-tcp", "TCP")];
    let asked = kinds.map(|(flag, kind)| (flag, kind, parsed.value(flag).filter(|value| !value.is_empty())));
    let mut asked = asked.into_iter().filter_map(|(flag, kind, value)| Some((flag, kind, value?)));
    let test = asked.next();
    if let (Some((first, ..)), Some((second, ..))) = (test, asked.next()) {
        return Err(Failure::new(format!("conflicting options: cannot specify both --{first} and --{second}")));
    }
    let health = HealthConfig {
        test: test.map(|(_, kind, value)| vec![kind.to_owned(), value.to_owned()]).unwrap_or_default(),
        interval: duration("health-interval", "Interval")?,
        timeout: duration("health-timeout", "Timeout")?,
        start_period: duration("health-start-period", "StartPeriod")?,
        start_interval: duration("health-start-interval", "StartInterval")?,
        retries: match parsed.read("health-retries", values::integer::<i64>)?.unwrap_or(0) {
            ..0 => return Err(Failure::new("--health-retries cannot be negative")),
            retries => retries.try_into().unwrap_or_default(),
        },
    };
    let asked = health != HealthConfig::default();
    match (parsed.switch("no-healthcheck"), asked) {
        (true, true) => Err(Failure::new("--no-healthcheck conflicts with --health-* options")),
        (true, false) => Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..health })),
        (false, asked) => Ok(asked.then_some(health)),
    }
}

fn pid(parsed: &Parsed) -> Result<PidMode> {
    match parsed.value("pid").unwrap_or_default() {
        "" => Ok(PidMode::Own),
        "host" => Ok(PidMode::Host),
        mode => match other_container(mode) {
            Some(other) => Ok(PidMode::Container(other)),
            None => Err(Failure::new("--pid: invalid PID mode")),
        },
    }
}

fn ipc(parsed: &Parsed) -> Result<IpcMode> {
    match parsed.value("ipc").unwrap_or_default() {
        "" | "private" => Ok(IpcMode::Private),
        "shareable" => Ok(IpcMode::Shareable),
        "none" => Ok(IpcMode::None),
        "host" => Ok(IpcMode::Host),
        mode => match other_container(mode) {
            Some(other) => Ok(IpcMode::Container(other)),
            None => Err(Failure::new(format!("invalid IPC mode: {mode}"))),
        },
    }
}

/// `container:NAME`.
fn other_container(mode: &str) -> Option<String> {
    mode.strip_prefix("container:").filter(|name| !name.is_empty()).map(str::to_owned)
}

/// True for `host`; one of `own` is what the container has anyway.
fn host(parsed: &Parsed, flag: &str, own: &[&str], kind: &str) -> Result<bool> {
    match parsed.value(flag).unwrap_or_default() {
        "host" => Ok(true),
        mode if own.contains(&mode) => Ok(false),
        _ => Err(Failure::new(format!("--{flag}: invalid {kind} mode"))),
    }
}

fn restart(parsed: &Parsed) -> Result<RestartPolicy> {
    let written = WrittenPolicy::parse(parsed.value("restart").unwrap_or_default());
    let written = written.map_err(|e| Failure::new(e.to_string()))?;
    // Docker's client says so before its daemon looks whether there is such a policy.
    if !matches!(written.name, "" | "no") && parsed.switch("rm") {
        return Err(Failure::new("conflicting options: cannot specify both --restart and --rm"));
    }
    Ok(written.policy()?)
}

/// `--pull`.
///
/// # Errors
/// Docker's words.
pub fn pull_policy(parsed: &Parsed) -> Result<PullPolicy> {
    match parsed.value("pull").unwrap_or("missing") {
        "always" => Ok(PullPolicy::Always),
        "missing" | "" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        other => Err(Failure::new(format!(
            "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
        ))),
    }
}

/// `--env-file`s first, then `--env`s: a later one counts.
///
/// # Errors
/// Docker's words.
pub fn env(parsed: &Parsed) -> Result<Vec<String>> {
    let mut env = Vec::new();
    for path in parsed.values("env-file") {
        // A name alone takes our value, as with `-e`; without one it says nothing here.
        let lines = values::key_value_file(path)?;
        env.extend(lines.iter().filter_map(|line| values::env(line).ok()).filter(|line| line.contains('=')));
    }
    env.extend(parsed.read_all("env", values::env)?);
    Ok(env)
}

fn labels(parsed: &Parsed) -> Result<Vec<(String, String)>> {
    let mut labels = Vec::new();
    for path in parsed.values("label-file") {
        // A name alone says nothing here.
        let lines = values::key_value_file(path)?.into_iter().filter(|line| line.contains('='));
        labels.extend(lines.filter_map(|line| values::label(&line).ok()));
    }
    labels.extend(parsed.read_all("label", values::label)?);
    Ok(labels)
}

/// `--storage-opt`, of which there is `size`.
///
/// # Errors
/// Names the option.
pub fn storage(parsed: &Parsed) -> Result<Option<u64>> {
    let mut size = None;
    for option in parsed.values("storage-opt") {
        match option.split_once('=') {
            Some(("size", bytes)) => {
                let refused = |e| Failure::new(format!("invalid argument \"{option}\" for \"--storage-opt\": {e}"));
                size = values::bytes(bytes).map_err(refused)?;
            }
            _ => {
                let message = format!("invalid argument \"{option}\" for \"--storage-opt\": unknown option");
                return Err(Failure::new(message).hint("there is size=BYTES, as size=64m"));
            }
        }
    }
    Ok(size)
}

fn platform(parsed: &Parsed) -> Result<Option<wharf_images::Platform>> {
    let Some(text) = parsed.value("platform").filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.parse() {
        Ok(platform) => Ok(Some(platform)),
        Err(e) => Err(Failure::new(format!("error parsing specified platform: {e}"))),
    }
}

/// `--network`s, and what other flags say of the first of them. The places are given where they say more than the mode.
fn networks(parsed: &Parsed) -> Result<(NetworkMode, Option<Vec<EndpointConfig>>)> {
    let given = parsed.read_all("network", values::network)?;
    let modes: Vec<&NetworkMode> = given.iter().map(|(mode, _)| mode).collect();
    let mode = modes.first().map_or(NetworkMode::Default, |mode| (*mode).clone());
    if modes.len() > 1 && modes.iter().any(|mode| !matches!(mode, NetworkMode::Default | NetworkMode::Named(_))) {
        let message = "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
        return Err(Failure::new(message));
    }
    let mut places: Vec<EndpointConfig> = given.into_iter().map(|(_, place)| place).collect();
    if places.iter().any(|place| place.network.is_empty()) {
        return Err(Failure::new("no name set for network"));
    }
    if places.is_empty() {
        places.push(EndpointConfig::on(BRIDGE));
    }
    for (at, place) in places.iter().enumerate() {
        if places[..at].iter().any(|before| before.network == place.network) {
            return Err(Failure::new(format!("network {:?} is specified multiple times", place.network)));
        }
    }
    let first = &mut places[0];
    // Docker's words for what is said twice.
    let twice = |flag: &str, per_network: &str| {
        Failure::new(format!("conflicting options: cannot specify both --{flag} and per-network {per_network}"))
    };
    let aliases: Vec<String> = parsed.values("network-alias").map(str::to_owned).collect();
    if !aliases.is_empty() && !first.aliases.is_empty() {
        return Err(twice("network-alias", "alias"));
    }
    first.aliases.extend(aliases);
    if let Some(address) = parsed.read_late("ip", values::ipv4)?
        && first.address.replace(address).is_some()
    {
        return Err(twice("ip", "IPv4 address"));
    }
    if let Some(address) = parsed.read_late("ip6", values::ipv6)?
        && first.address6.replace(address).is_some()
    {
        return Err(twice("ip6", "IPv6 address"));
    }
    if let Some(mac) = parsed.read_late("mac-address", str::parse)?
        && first.mac.replace(mac).is_some()
    {
        return Err(twice("mac-address", "MAC address"));
    }
    first.links = parsed.read_all("link", values::link)?;
    let said = EndpointConfig { network: String::new(), ..first.clone() };
    match mode {
        NetworkMode::Default | NetworkMode::Named(_) => {}
        NetworkMode::Container(_) if !said.links.is_empty() => {
            let message = "container type network can't be used with links. This would result in undefined behavior";
            return Err(Failure::new(format!("conflicting options: {message}")));
        }
        NetworkMode::Container(_) if said.mac.is_some() => {
            return Err(Failure::new("conflicting options: mac-address and the network mode"));
        }
        NetworkMode::Container(name) if name.is_empty() => {
            return Err(Failure::new("invalid network mode: invalid container format container:<name|id>"));
        }
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) if !said.aliases.is_empty() => {
            return Err(Failure::new("network-scoped aliases are only supported for user-defined networks"));
        }
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_)
            if said.address.is_some() || said.address6.is_some() =>
        {
            return Err(Failure::new("user specified IP address is supported on user defined networks only"));
        }
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) if said != EndpointConfig::default() => {
            return Err(Failure::new("hardware addresses and links are supported on user defined networks only"));
        }
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => {}
    }
    let plain = places.len() == 1 && places[0] == EndpointConfig::on(&places[0].network);
    let endpoints = (!plain && matches!(mode, NetworkMode::Default | NetworkMode::Named(_))).then_some(places);
    Ok((mode, endpoints))
}

/// `-v`s as they were written, and all mounts that are asked for.
fn mounts(parsed: &Parsed) -> Result<(Vec<String>, Vec<Mount>)> {
    let (flags, mut volumes) = volumes(parsed, mounts::volume)?;
    for mount in &mut volumes {
        if let (MountKind::Volume(volume), Some(driver)) = (&mut mount.kind, parsed.value("volume-driver")) {
            volume.driver = driver.to_owned();
        }
    }
    let mounts = parsed.read_all("mount", mounts::mount)?;
    let mounts = mounts.into_iter().collect::<std::result::Result<Vec<_>, _>>().map_err(Failure::new)?;
    Ok((flags, [volumes, mounts, parsed.read_all_late("tmpfs", mounts::tmpfs)?].concat()))
}

/// `-v`s: as they were written, and what they mean.
///
/// # Errors
/// What `read` says.
pub fn volumes(parsed: &Parsed, read: fn(&str) -> Result<Mount, String>) -> Result<(Vec<String>, Vec<Mount>)> {
    let (mut flags, mut volumes) = (Vec::new(), Vec::new());
    let mut said = HashSet::new();
    // Docker's client keeps them in a set.
    for text in parsed.values("volume").filter(|text| said.insert(*text)) {
        let volume = read(text).map_err(Failure::new)?;
        flags.push(mounts::written(text, &volume));
        volumes.push(volume);
    }
    Ok((flags, volumes))
}

/// The limits that flags ask for.
///
/// # Errors
/// Docker's words.
pub fn limits(parsed: &Parsed) -> Result<Limits> {
    let positive = |n: i64| (n > 0).then_some(n);
    Ok(Limits {
        memory: parsed.read("memory", values::bytes)?.flatten(),
        memory_swap: parsed.read("memory-swap", values::swap)?.filter(|swap| *swap != 0),
        memory_reservation: parsed.read("memory-reservation", values::bytes)?.flatten(),
        nano_cpus: parsed.read("cpus", values::cpus)?.filter(|n| *n > 0),
        cpu_period: parsed.read("cpu-period", values::integer)?.filter(|n| *n > 0),
        cpu_quota: parsed.read("cpu-quota", values::integer)?.filter(|n| *n != 0),
        cpu_shares: parsed.read("cpu-shares", values::integer)?.filter(|n| *n > 0),
        cpuset_cpus: parsed.value("cpuset-cpus").map(str::to_owned),
        cpuset_mems: parsed.value("cpuset-mems").map(str::to_owned),
        pids: parsed.read("pids-limit", values::integer)?.and_then(positive),
        blkio_weight: parsed.read("blkio-weight", values::unsigned)?.filter(|n| *n > 0),
        // Not among those of `update`.
        oom_kill_disable: false,
    })
}

fn requests(parsed: &Parsed) -> Result<RequestLimits> {
    let timeout = parsed.read("request-timeout", units::parse_duration)?;
    let concurrency: Option<usize> = parsed.read("max-requests", values::integer)?;
    if concurrency == Some(0) {
        return Err(Failure::new("--max-requests: a component that answers no request cannot serve"));
    }
    Ok(RequestLimits {
        timeout_ms: timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        memory: parsed.read("request-memory", values::bytes)?.flatten(),
        concurrency,
    })
}

fn log(parsed: &Parsed) -> Result<LogConfig> {
    let default = LogConfig::default();
    let driver = match parsed.value("log-driver") {
        None | Some("") => default.driver,
        Some(driver) => driver.to_owned(),
    };
    Ok(LogConfig { driver, options: values::map(parsed.read_all("log-opt", values::driver_option)?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::Request;
    use crate::cli::run;

    fn read(line: &[&str]) -> Result<ContainerConfig> {
        let verb = run::VERBS.iter().find(|verb| verb.names[0] == "run").expect("run is listed");
        match Parsed::parse(verb, "run", line.iter().map(|&word| word.to_owned()))? {
            Request::Run(parsed) => config(&parsed),
            Request::Help => panic!("help"),
        }
    }

    #[test]
    fn a_long_command_line_becomes_a_config() {
        let line = "-it --rm --name n -e A=1 -w /w -u 1:2 --entrypoint sh --network none --read-only --tmpfs /t -m 64m \
                    --memory-swap -1 --cpus 1.5 --cpuset-cpus 0-1 --pids-limit 20 --ulimit nofile=5 -h box -l a=b --init \
                    --cap-add NET_ADMIN --cap-drop ALL --stop-signal INT --stop-timeout 3 --platform wasip1/wasm img -c x";
        let config = read(&line.split_whitespace().collect::<Vec<_>>()).expect("config");
        assert_eq!((config.image.as_str(), config.cmd), ("img", vec!["-c".to_owned(), "x".to_owned()]));
        assert_eq!(config.entrypoint, Some(vec!["sh".to_owned()]));
        assert_eq!(config.limits.memory, Some(64 << 20));
        assert_eq!(config.limits.memory_swap, Some(-1));
        assert_eq!(config.limits.nano_cpus, Some(1_500_000_000));
        assert_eq!(config.limits.pids, Some(20));
        assert_eq!(config.ulimits["nofile"], (5, 5));
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.env, ["A=1"]);
        assert!(config.interactive && config.tty && config.auto_remove && config.read_only && config.init);
        assert_eq!(config.stop_timeout, Some(3));
        assert_eq!(config.platform.map(|p| p.os), Some("wasip1".to_owned()));
    }

    #[test]
    fn what_is_not_given_is_left_to_the_engine() {
        let config = read(&["img"]).expect("config");
        assert_eq!(config, ContainerConfig { image: "img".to_owned(), ..ContainerConfig::default() });
    }

    #[test]
    fn an_empty_entrypoint_clears_the_images() {
        assert_eq!(read(&["--entrypoint", "", "img"]).expect("config").entrypoint, Some(Vec::new()));
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let refused = ["--link-local-ip=a", "--gpus=all"];
        for flag in refused {
            let text = read(&[flag, "img"]).map_or_else(|e| e.text("wharf run", true), |_| String::new());
            assert!(text.contains("not supported yet"), "{flag}: {text}");
        }
    }
}
