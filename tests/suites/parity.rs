//! What docker shows of containers that it was asked to make in many ways, and what Wharf shows of the same: field by
//! field the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::docker::Docker;
use crate::support::wharf::run;
use crate::support::{Wharf, images, skip};

/// Lines that make a container. `|` is a space, `@` a directory on the host.
const MADE: &[&str] = &[
    "create full",
    "run -d full",
    "run -di full",
    "run -dt full",
    "run full true",
    "run -a stdout full true",
    "create -i full",
    "create -a stdin -a stdout full",
    "create --domainname dom --dns 1.1.1.1 --dns-option ndots:2 --dns-search ex.org full",
    "create --cpu-period 100000 --cpu-quota 50000 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 50 busybox",
    "create -m 64m --memory-reservation 32m --cpus 1.5 busybox",
    "create -m 64m --memory-swap -1 --pids-limit -1 busybox",
    "create --device /dev/null:/dev/nul:r --device /dev/zero --device-cgroup-rule c|42:*|rmw full",
    "create --group-add 1 --group-add sailors --user anna --workdir /data --hostname box full",
    "create --health-cmd true --health-interval 5s --health-timeout 2s --health-retries 4 busybox",
    "create --no-healthcheck full",
    "create --init --ipc host --pid host --uts host --userns host --cgroupns host busybox",
    "create --log-driver local --log-opt max-size=1m busybox",
    "create --network net --network-alias one --ip 10.99.0.7 full",
    "run -d --network none full",
    "run -d --network host full",
    "create --mount type=bind,src=@,dst=/b,readonly --mount src=v1,dst=/v --mount dst=/anonymous \
     --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770 full",
    "create --mount type=bind,src=@,dst=/b,bind-propagation=rslave \
     --mount src=v2,dst=/v,ro,volume-nocopy,volume-label=a=b,volume-driver=local busybox",
    "create -v @:/b:ro -v v1:/v -v v3:/w:ro,nocopy -v /anonymous -v @:/c:rshared full",
    "create --volume-driver local -v v4:/v:z busybox",
    "create --tmpfs /t --tmpfs /u:size=1m,mode=1777 --read-only busybox",
    "create --volumes-from other:ro full",
    "create --restart on-failure:3 --oom-score-adj 100 --shm-size 32m --stop-signal SIGINT --stop-timeout 5 busybox",
    "create --rm --privileged busybox",
    "create --cap-add NET_ADMIN --cap-add cap_sys_time --cap-drop ALL --security-opt no-new-privileges busybox",
    "create --security-opt systempaths=unconfined busybox",
    "create --sysctl net.core.somaxconn=100 --ulimit nofile=100:200 --ulimit core=-1 busybox",
    "create -p 127.0.0.1:9000:90/udp -p 127.0.0.1:7000-7001:7000-7001 -p 127.0.0.1::53 --expose 99 -P full",
    "run -d -p 127.0.0.1:19000:90/udp -p 127.0.0.1:18080:80 full",
    "create --entrypoint echo -e B=2 -e A=3 full hi",
    "create --add-host a:1.2.3.4 --add-host b=::1 --cidfile @/cid busybox",
];

/// What newer daemons than the one beside us may be say otherwise, and what is of each side's own making.
const OTHER: &[&str] = &[
    "Id",
    "Name",
    "Backend",
    "Created",
    "Driver",
    "GraphDriver",
    "HostConfig.CgroupnsMode",
    "HostConfig.KernelMemory",
    "HostConfig.KernelMemoryTCP",
    "HostConfig.MaskedPaths",
    "HostConfig.NetworkMode",
    "HostConfig.Runtime",
    "HostnamePath",
    "HostsPath",
    "Image",
    "LogPath",
    "ResolvConfPath",
    "NetworkSettings.SandboxID",
    "NetworkSettings.SandboxKey",
    "State.FinishedAt",
    "State.Health",
    "State.Pid",
    "State.StartedAt",
    ".DNSNames",
    ".GwPriority",
    ".NetworkID",
    ".EndpointID",
    ".Gateway",
    ".IPAddress",
    ".MacAddress",
];

/// Docker's program as a test calls it.
fn command(docker: &Docker, home: &str, words: &[String]) -> Command {
    let mut command = docker.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("HOME", home).env("DOCKER_CLI_HINTS", "false");
    command
}

fn full() -> Vec<u8> {
    let config = json!({
        "Cmd": ["sleep", "1000"], "Env": ["PATH=/bin", "A=1"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Volumes": {"/vol": {}}, "Labels": {"of": "the image"}, "WorkingDir": "/tmp", "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1_000_000_000},
    });
    images::linux("full:latest", &[images::busybox_layer()], &config)
}

fn words(line: &str, dir: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.replace('|', " ").replace('@', dir)).collect()
}

/// Every field with its path. What docker keeps in no order is in one.
fn flat(value: &Value, path: &str, fields: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (name, value) in object {
                flat(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, fields);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_object) => {
            let mut list: Vec<&Value> = list.iter().collect();
            list.sort_by_key(|item| item["Destination"].as_str().unwrap_or_default().to_owned());
            for (at, value) in list.into_iter().enumerate() {
                flat(value, &format!("{path}[{at}]"), fields);
            }
        }
        Value::Array(list) if path == "HostConfig.Binds" => {
            let mut list = list.clone();
            list.sort_by_key(Value::to_string);
            fields.insert(path.to_owned(), list.into());
        }
        value => drop(fields.insert(path.to_owned(), value.clone())),
    }
}

/// What is shown of what the lines make, in their order.
fn made(command: &dyn Fn(&[String]) -> Command, dir: &str) -> Vec<BTreeMap<String, String>> {
    let ok = |words: &[String]| {
        let ran = run(command(words), &[]);
        assert_eq!(ran.code, 0, "{ran}");
        ran.stdout
    };
    let names: Vec<String> = (0..MADE.len()).map(|n| format!("made{n}")).collect();
    for (line, name) in MADE.iter().zip(&names) {
        let mut words = words(line, dir);
        words.splice(1..1, ["--name".to_owned(), name.clone()]);
        ok(&words);
    }
    std::fs::remove_file(format!("{dir}/cid")).expect("the id's file");
    let shown: Vec<Value> = serde_json::from_str(&ok(&[&["inspect".to_owned()][..], &names].concat())).expect("JSON");
    let own = |path: &str| {
        OTHER.iter().any(|other| path.starts_with(other) || other.starts_with('.') && path.ends_with(other))
    };
    shown
        .iter()
        .map(|shown| {
            let mut fields = BTreeMap::new();
            flat(shown, "", &mut fields);
            fields.retain(|path, _| !own(path));
            fields.into_iter().map(|(path, value)| (path, plain(&value.to_string()))).collect()
        })
        .collect()
}

/// Without ids, and without the places where each side keeps volumes.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let hex = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        match hex.len() {
            12 | 64 => drop(write!(out, "ID{}{}", hex.len(), &word[hex.len()..])),
            _ => out.push_str(word),
        }
    }
    match (out.rfind("/volumes/"), out.find('/')) {
        (Some(volumes), Some(first)) => format!("{}@{}", &out[..first], &out[volumes..]),
        _ => out,
    }
}

/// Both sides beside one another, with the images and one container that others refer to.
fn beside(name: &str, look: impl Fn(&dyn Fn(&[String]) -> Command, &Wharf, &str)) {
    let home = tempfile::Builder::new().prefix("wharf-").tempdir().expect("a directory");
    // With networks, and so in a network of its own.
    let alone = "ip link set lo up && exec dockerd \"$@\"";
    let docker = Docker::start_by(home.path(), Command::new("unshare").args(["--net", "sh", "-c", alone, "dockerd"]));
    let docker = match docker {
        Ok(docker) => docker,
        Err(why) => return skip(name, &why),
    };
    let dir = home.path().join("shared");
    std::fs::create_dir(&dir).expect("a directory");
    let dir = dir.to_str().expect("plain");
    let wharf = Wharf::with_busybox();
    wharf.load(&full());
    docker.load(&images::busybox());
    docker.load(&full());
    let theirs = |words: &[String]| command(&docker, dir, words);
    for line in ["network create --subnet 10.99.0.0/24 net", "create --name other -v vx:/x -v @:/y busybox"] {
        let ran = run(theirs(&words(line, dir)), &[]);
        assert_eq!(ran.code, 0, "{ran}");
        wharf.ok(&words(line, dir));
    }
    look(&theirs, &wharf, dir);
}

#[test]
fn inspect_shows_what_docker_shows() {
    beside("parity::inspect_shows_what_docker_shows", |docker, wharf, dir| {
        let (theirs, ours) = (made(docker, dir), made(&|words| wharf.command(words), dir));
        let mut differences = String::new();
        for (line, (theirs, ours)) in MADE.iter().zip(theirs.iter().zip(&ours)) {
            let all: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
            for path in all.into_iter().filter(|path| theirs.get(*path) != ours.get(*path)) {
                let _ = writeln!(differences, "{line}\n  {path}: {:?}, not {:?}", ours.get(path), theirs.get(path));
            }
        }
        assert!(differences.is_empty(), "{differences}");
    });
}
