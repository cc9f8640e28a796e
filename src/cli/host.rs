//! What `info` says of this machine, and of the registries as they are configured.

use std::path::Path;

use serde_json::{Map, Value, json};
use wharf_images::registry::Config;

use super::failure::Result;

/// The registries of this machine itself need no TLS.
const INSECURE: [&str; 2] = ["::1/128", "127.0.0.0/8"];
/// The registry of names that name none.
const OFFICIAL: &str = "docker.io";

/// What the filesystem is called on which this directory is, in docker's words; `None` where the system does not say.
pub fn filesystem(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    // The last one is on top of the others (proc_pid_mountinfo(5)).
    let mounts = mounts.lines().filter_map(|line| {
        let (place, of) = line.split_once(" - ")?;
        let place = Path::new(place.split(' ').nth(4)?);
        dir.starts_with(place).then(|| (place.as_os_str().len(), of.split(' ').next().unwrap_or_default()))
    });
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, kind)| match kind {
        "ext2" | "ext3" | "ext4" => "extfs".to_owned(),
        "overlay" => "overlayfs".to_owned(),
        kind => kind.to_owned(),
    })
}

/// What containers can be limited in here, under docker's names.
pub fn limits() -> Map<String, Value> {
    let root = Path::new("/sys/fs/cgroup");
    let unified = std::fs::read_to_string(root.join("cgroup.controllers")).ok();
    let has = |controller: &str, file: &str| match &unified {
        Some(controllers) => controllers.split_whitespace().any(|name| name == controller),
        None => root.join(controller).join(file).exists(),
    };
    let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1");
    let fields = [
        ("MemoryLimit", has("memory", "memory.limit_in_bytes")),
        ("SwapLimit", has("memory", "memory.memsw.limit_in_bytes")),
        ("CpuCfsPeriod", has("cpu", "cpu.cfs_period_us")),
        ("CpuCfsQuota", has("cpu", "cpu.cfs_quota_us")),
        ("CPUShares", has("cpu", "cpu.shares")),
        ("CPUSet", has("cpuset", "cpuset.cpus")),
        ("PidsLimit", has("pids", "cgroup.procs")),
        // The second version has no such thing.
        ("OomKillDisable", unified.is_none() && has("memory", "memory.oom_control")),
        ("IPv4Forwarding", forwards),
    ];
    fields.into_iter().map(|(name, is)| (name.to_owned(), is.into())).collect()
}

/// How registries are reached.
///
/// # Errors
/// What is wrong with the configuration.
pub fn registries() -> Result<Value> {
    let config = Config::from_environment()?;
    let mut indexes: Map<_, _> = config
        .registries
        .iter()
        .map(|(name, registry)| {
            let official = name == OFFICIAL;
            let index = json!({
                "Name": name, "Mirrors": registry.mirrors, "Secure": !registry.insecure, "Official": official,
            });
            (name.clone(), index)
        })
        .collect();
    let official = || json!({"Name": OFFICIAL, "Mirrors": [], "Secure": true, "Official": true});
    let mirrors = indexes.entry(OFFICIAL).or_insert_with(official)["Mirrors"].clone();
    Ok(json!({"IndexConfigs": indexes, "InsecureRegistryCIDRs": INSECURE, "Mirrors": mirrors}))
}

/// The lines of `info` about registries.
pub fn registry_lines(registries: &Value) -> String {
    let list = |title: &str, items: Vec<&str>| match items.is_empty() {
        true => String::new(),
        false => format!(" {title}:\n{}", items.iter().map(|item| format!("  {item}\n")).collect::<String>()),
    };
    let insecure = registries["IndexConfigs"].as_object().into_iter().flatten();
    let insecure = insecure.filter(|(_, index)| index["Secure"] == false).map(|(name, _)| name.as_str());
    let mirrors = registries["Mirrors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    list("Insecure Registries", insecure.chain(INSECURE).collect()) + &list("Registry Mirrors", mirrors.collect())
}
