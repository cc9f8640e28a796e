use std::collections::BTreeMap;

use serde_json::{Value, json};
use wharf_images::image::{RunConfig, Style};
use wharf_images::{Digest, Platform};

use super::*;
use crate::config::{Mount, MountKind, Origin};
use crate::task::Limits;

fn image() -> Image {
    let digest: Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    Image {
        id: digest.clone(),
        target: digest.clone(),
        manifest: digest,
        platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None },
        style: Style::Linux,
        style_reason: String::new(),
        layers: Vec::new(),
        wasm: None,
        config: RunConfig {
            user: "daemon".into(),
            env: vec!["PATH=/bin".into(), "LANG=C".into()],
            entrypoint: vec!["/entry".into()],
            cmd: vec!["serve".into()],
            working_dir: "/srv".into(),
            ..RunConfig::default()
        },
        created: None,
        size: 0,
    }
}

fn context() -> SpecContext {
    SpecContext {
        id: "0123456789abcdef".repeat(4),
        hosts: Some("/run/c/hosts".into()),
        hostname: Some("/run/c/hostname".into()),
        resolv_conf: Some("/run/c/resolv.conf".into()),
        ..SpecContext::default()
    }
}

fn plan(config: &ContainerConfig) -> LinuxTask {
    linux_task(config, &image(), &context()).unwrap()
}

/// As JSON, with the sets (which have no order) sorted.
fn spec(config: &ContainerConfig) -> Value {
    as_json(&plan(config))
}

fn as_json(task: &LinuxTask) -> Value {
    let mut value = serde_json::to_value(&task.spec).unwrap();
    if let Some(sets) = value.pointer_mut("/process/capabilities").and_then(Value::as_object_mut) {
        for set in sets.values_mut().filter_map(Value::as_array_mut) {
            set.sort_by_key(Value::to_string);
        }
    }
    value
}

fn refused(config: &ContainerConfig) -> String {
    linux_task(config, &image(), &context()).unwrap_err().to_string()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&item| item.to_owned()).collect()
}

#[test]
fn dockers_defaults() {
    let expected: Value = serde_json::from_str(include_str!("default.json")).unwrap();
    let actual = spec(&ContainerConfig::default());
    assert_eq!(actual, expected, "now:\n{actual:#}");
    let task = plan(&ContainerConfig::default());
    assert_eq!((task.user.as_str(), task.init, task.host_network), ("daemon", false, false));
    assert!(seccomp::of_spec(&task.spec).unwrap().is_some());
}

#[test]
fn entrypoint_and_command() {
    let args = |entrypoint: Option<&[&str]>, cmd: &[&str]| {
        let config =
            ContainerConfig { entrypoint: entrypoint.map(strings), cmd: strings(cmd), ..ContainerConfig::default() };
        linux_task(&config, &image(), &context())
            .map(|task| task.spec.process().clone().unwrap().args().clone().unwrap())
    };
    assert_eq!(args(None, &[]).unwrap(), ["/entry", "serve"]);
    assert_eq!(args(None, &["x", "y"]).unwrap(), ["/entry", "x", "y"]);
    assert_eq!(args(Some(&["/mine"]), &[]).unwrap(), ["/mine"]);
    assert_eq!(args(Some(&["/mine"]), &["x"]).unwrap(), ["/mine", "x"]);
    assert_eq!(args(Some(&[]), &["x"]).unwrap(), ["x"]);
    assert_eq!(args(Some(&[""]), &["x"]).unwrap(), ["x"]);
    assert_eq!(args(Some(&[]), &[]).unwrap_err().to_string(), "no command specified");
}

#[test]
fn environment() {
    let config = ContainerConfig {
        env: strings(&["A=1", "LANG=de", "A=2", "HOSTNAME"]),
        tty: true,
        hostname: Some("box".into()),
        ..ContainerConfig::default()
    };
    assert_eq!(spec(&config)["process"]["env"], json!(["PATH=/bin", "TERM=xterm", "A=2", "LANG=de"]));
    assert_eq!(spec(&config)["hostname"], "box");
}

#[test]
fn working_directory_user_and_groups() {
    let config = ContainerConfig {
        working_dir: Some("/work".into()),
        user: Some("1:2".into()),
        group_add: strings(&["27", "audio", "video"]),
        ..ContainerConfig::default()
    };
    let task = plan(&config);
    assert_eq!(task.user, "1:2");
    let value = as_json(&task);
    assert_eq!(value["process"]["cwd"], "/work");
    assert_eq!(value["process"]["user"]["additionalGids"], json!([27]));
    assert_eq!(value["annotations"][GROUPS], "audio,video");
    let relative = ContainerConfig { working_dir: Some("work".into()), ..ContainerConfig::default() };
    assert_eq!(refused(&relative), "the working directory 'work' is invalid, it needs to be an absolute path");
}

#[test]
fn privileged_hides_and_forbids_nothing() {
    let config = ContainerConfig { privileged: true, cap_drop: strings(&["ALL"]), ..ContainerConfig::default() };
    let host = HostDevice { path: "/dev/vda".into(), block: true, major: 254, minor: 0, mode: 0o660, uid: 0, gid: 6 };
    let context = SpecContext { devices: vec![host], ..context() };
    let task = linux_task(&config, &image(), &context).unwrap();
    let value = as_json(&task);
    assert_eq!(value["process"]["capabilities"]["effective"].as_array().unwrap().len(), 41);
    assert_eq!(value["linux"]["maskedPaths"], Value::Null);
    assert_eq!(value["linux"]["readonlyPaths"], Value::Null);
    assert_eq!(value["linux"]["devices"][0]["path"], "/dev/vda");
    assert!(!value.to_string().contains("\"ro\""));
    assert_eq!(seccomp::of_spec(&task.spec).unwrap(), None);
    assert_eq!(crate::linux::cgroup::DeviceRule::of_spec(&task.spec), None);
}

#[test]
fn security_options() {
    let config = |options: &[&str]| ContainerConfig { security_opt: strings(options), ..ContainerConfig::default() };
    assert_eq!(spec(&config(&["no-new-privileges"]))["process"]["noNewPrivileges"], true);
    let unconfined = plan(&config(&["seccomp=unconfined", "systempaths=unconfined"]));
    assert_eq!(seccomp::of_spec(&unconfined.spec).unwrap(), None);
    assert_eq!(as_json(&unconfined)["linux"]["maskedPaths"], Value::Null);
    let own =
        r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
    assert_eq!(spec(&config(&[own]))["linux"]["seccomp"]["syscalls"][0]["names"], json!(["mkdir"]));
    assert!(refused(&config(&["apparmor=mine"])).contains("AppArmor is not supported"));
}

#[test]
fn rootless() {
    let mapping = |container: u32, host: u32, size: u32| {
        let mapping = oci_spec::runtime::LinuxIdMappingBuilder::default();
        mapping.container_id(container).host_id(host).size(size).build().unwrap()
    };
    let context = SpecContext {
        uid_mappings: vec![mapping(0, 1000, 1)],
        gid_mappings: vec![mapping(0, 1000, 1)],
        host_name: Some("host.example".into()),
        ..context()
    };
    let config = ContainerConfig { network: NetworkMode::Host, ..ContainerConfig::default() };
    let value = as_json(&linux_task(&config, &image(), &context).unwrap());
    assert_eq!(value["linux"]["uidMappings"], json!([{"hostID": 1000, "containerID": 0, "size": 1}]));
    assert!(value["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "user"})));
    assert!(!value["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "network"})));
    assert_eq!(value["linux"]["resources"], Value::Null);
    let text = value["mounts"].to_string();
    assert!(!text.contains("gid=5"), "a group that is not mapped");
    assert!(text.contains(r#""destination":"/sys","options":["rbind""#), "{text}");
    assert_eq!(value["hostname"], "host.example");
}

#[test]
fn mounts_of_the_person() {
    let own =
        |target: &str, kind, read_only| Mount { kind, target: target.into(), read_only, origin: Origin::default() };
    let bind = |source: &str| MountKind::bind(source);
    let config = ContainerConfig {
        mounts: vec![
            own("/a/b/c", bind("/h1"), true),
            own("/a", bind("/h2"), false),
            own("/dev/shm", MountKind::Tmpfs("size=1m,exec".into()), false),
            own("/etc/hosts/", bind("/h3"), true),
        ],
        shm_size: Some(1),
        ..ContainerConfig::default()
    };
    let mounts = spec(&config)["mounts"].clone();
    let found = |target: &str| {
        let all = mounts.as_array().unwrap();
        let mut at = all.iter().enumerate().filter(|(_, mount)| mount["destination"] == target);
        let (place, mount) = at.next().unwrap_or_else(|| panic!("no {target}"));
        assert!(at.next().is_none(), "{target} twice");
        (place, mount.clone())
    };
    let (above, a) = found("/a");
    let (below, c) = found("/a/b/c");
    assert!(above < below);
    assert_eq!(a["options"], json!(["rbind", "rw", "rprivate"]));
    assert_eq!(c["options"], json!(["rbind", "rro", "rprivate"]));
    assert_eq!(found("/dev/shm").1["options"], json!(["nosuid", "nodev", "size=1m", "exec", "rprivate"]));
    assert_eq!(found("/etc/hosts").1["source"], "/h3");
    assert!(found("/dev").0 < found("/dev/shm").0);

    let bad = |target: &str| {
        refused(&ContainerConfig { mounts: vec![own(target, bind("/h"), false)], ..ContainerConfig::default() })
    };
    assert_eq!(bad("a"), "invalid mount path: 'a' mount path must be absolute");
    assert_eq!(bad("/x/.."), "invalid specification: destination can't be '/'");
    assert_eq!(bad("/proc/."), "error mounting at \"/proc\": what is mounted there must be of type proc");
    let twice = vec![own("/x", bind("/h"), false), own("/y/../x", bind("/i"), false)];
    assert_eq!(refused(&ContainerConfig { mounts: twice, ..ContainerConfig::default() }), "Duplicate mount point: /x");
}

#[test]
fn limits_of_the_process_and_of_the_kernel() {
    let config = ContainerConfig {
        ulimits: BTreeMap::from([("nofile".to_owned(), (10, 20)), ("core".to_owned(), (0, u64::MAX))]),
        sysctls: BTreeMap::from([("net.core.somaxconn".to_owned(), "7".to_owned())]),
        oom_score_adj: Some(500),
        limits: Limits { pids: Some(3), ..Limits::default() },
        ..ContainerConfig::default()
    };
    let value = spec(&config);
    assert_eq!(value["process"]["rlimits"][1], json!({"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10}));
    assert_eq!(value["process"]["oomScoreAdj"], 500);
    assert_eq!(value["linux"]["sysctl"]["net.core.somaxconn"], "7");

    let sysctl = |name: &str, network| {
        let sysctls = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        refused(&ContainerConfig { sysctls, network, ..ContainerConfig::default() })
    };
    assert_eq!(sysctl("kernel.panic", NetworkMode::None), "sysctl 'kernel.panic=1' is not allowed");
    assert_eq!(sysctl("net.../../kernel/panic", NetworkMode::None), "sysctl 'net.../../kernel/panic=1' is not allowed");
    assert_eq!(sysctl("net.x", NetworkMode::Host), "sysctl \"net.x\" not allowed in host network namespace");
    let ulimit = |name: &str, pair| {
        refused(&ContainerConfig { ulimits: BTreeMap::from([(name.to_owned(), pair)]), ..ContainerConfig::default() })
    };
    assert_eq!(ulimit("files", (1, 1)), "invalid ulimit type: files");
    assert_eq!(ulimit("nofile", (2, 1)), "ulimit soft limit must be less than or equal to hard limit: 2 > 1");
}

#[test]
fn devices_and_their_rules() {
    let config = ContainerConfig { devices: strings(&["/dev/fuse:/dev/f:rw"]), ..ContainerConfig::default() };
    let fuse =
        HostDevice { path: "/dev/fuse".into(), block: false, major: 10, minor: 229, mode: 0o666, uid: 0, gid: 0 };
    let context = SpecContext { devices: vec![fuse], ..context() };
    let task = linux_task(&config, &image(), &context).unwrap();
    let value = as_json(&task);
    assert_eq!(
        value["linux"]["devices"],
        json!([{"path": "/dev/f", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666, "uid": 0, "gid": 0}])
    );
    let rules = crate::linux::cgroup::DeviceRule::of_spec(&task.spec).unwrap();
    assert_eq!(rules[..11], crate::linux::cgroup::docker_devices());
    assert_eq!(
        (rules[11].kind, rules[11].major, rules[11].minor, rules[11].access.as_str()),
        ('c', Some(10), Some(229), "rw")
    );
}
