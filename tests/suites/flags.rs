//! README's table of the flags of `run` and `create`, tried: what is said to work does, without a warning; what is said to
//! be refused is, by name; what is said to have no effect is warned about, by name.

use crate::support::{Wharf, images};

/// Each flag as somebody would give it, with others that it needs, after what it wants to be there. FILE is a file of
/// variables, NEW one that does not exist.
const SAMPLES: &[(&str, &[&str])] = &[
    ("add-host", &["--add-host=db:10.0.0.5"]),
    ("allow-net", &["--allow-net=example.com:443"]),
    ("annotation", &["--annotation=a=b"]),
    ("attach", &["--attach=stdout"]),
    ("blkio-weight", &["--blkio-weight=500"]),
    ("blkio-weight-device", &["--blkio-weight-device=/dev/null:100"]),
    ("cap-add", &["--cap-add=NET_ADMIN"]),
    ("cap-drop", &["--cap-drop=ALL"]),
    ("cgroup-parent", &["--cgroup-parent=/machines"]),
    ("cgroupns", &["--cgroupns=host"]),
    ("cidfile", &["--cidfile=NEW"]),
    ("cpu-count", &["--cpu-count=1"]),
    ("cpu-percent", &["--cpu-percent=50"]),
    ("cpu-period", &["--cpu-period=50000"]),
    ("cpu-quota", &["--cpu-quota=25000"]),
    ("cpu-rt-period", &["--cpu-rt-period=1000"]),
    ("cpu-rt-runtime", &["--cpu-rt-runtime=1000"]),
    ("cpu-shares", &["--cpu-shares=512"]),
    ("cpus", &["--cpus=0.5"]),
    ("cpuset-cpus", &["--cpuset-cpus=0"]),
    ("cpuset-mems", &["--cpuset-mems=0"]),
    ("deny-net", &["--deny-net=example.com"]),
    ("detach", &["--detach"]),
    ("detach-keys", &["--detach-keys=ctrl-x"]),
    ("device", &["--device=/dev/null:/dev/x"]),
    ("device-cgroup-rule", &["--device-cgroup-rule=c 1:3 r"]),
    ("device-read-bps", &["--device-read-bps=/dev/null:1mb"]),
    ("device-read-iops", &["--device-read-iops=/dev/null:10"]),
    ("device-write-bps", &["--device-write-bps=/dev/null:1mb"]),
    ("device-write-iops", &["--device-write-iops=/dev/null:10"]),
    ("disable-content-trust", &["--disable-content-trust=1"]),
    ("dns", &["--dns=192.0.2.1"]),
    ("dns-option", &["--dns-option=rotate"]),
    ("dns-search", &["--dns-search=a.example"]),
    ("domainname", &["--domainname=example"]),
    ("entrypoint", &["--entrypoint=/bin/true"]),
    ("env", &["--env=A=1"]),
    ("env-file", &["--env-file=FILE"]),
    ("expose", &["--expose=80"]),
    ("gpus", &["--gpus=all"]),
    ("group-add", &["--group-add=1000"]),
    ("health-cmd", &["--health-cmd=true"]),
    ("health-http", &["--health-http=/up"]),
    ("health-interval", &["--health-interval=5s"]),
    ("health-retries", &["--health-retries=2"]),
    ("health-start-interval", &["--health-start-interval=1s"]),
    ("health-start-period", &["--health-start-period=1s"]),
    ("health-tcp", &["--health-tcp=80"]),
    ("health-timeout", &["--health-timeout=1s"]),
    ("hostname", &["--hostname=box"]),
    ("init", &["--init"]),
    ("interactive", &["--interactive"]),
    ("io-maxbandwidth", &["--io-maxbandwidth=1m"]),
    ("io-maxiops", &["--io-maxiops=10"]),
    ("ip", &["--network=shown", "--ip=10.201.7.9"]),
    ("ip6", &["--network=shown", "--ip6=fd00::9"]),
    ("ipc", &["--ipc=none"]),
    ("isolation", &["--isolation=process"]),
    ("kernel-memory", &["--kernel-memory=64m"]),
    ("label", &["--label=a=b"]),
    ("label-file", &["--label-file=FILE"]),
    ("link", &["--network=shown", "--link=donor:d"]),
    ("link-local-ip", &["--link-local-ip=169.254.1.1"]),
    ("log-driver", &["--log-driver=local"]),
    ("log-opt", &["--log-opt=max-size=1m"]),
    ("mac-address", &["--mac-address=02:42:ac:11:00:09"]),
    ("max-requests", &["--max-requests=5"]),
    ("memory", &["--memory=64m"]),
    ("memory-reservation", &["--memory-reservation=32m"]),
    ("memory-swap", &["--memory=64m", "--memory-swap=-1"]),
    ("memory-swappiness", &["--memory-swappiness=10"]),
    ("mount", &["--mount=type=tmpfs,target=/t"]),
    ("name", &["--name=named"]),
    ("network", &["--network=none"]),
    ("network-alias", &["--network=shown", "--network-alias=other"]),
    ("no-healthcheck", &["--no-healthcheck"]),
    ("oom-kill-disable", &["--memory=64m", "--oom-kill-disable"]),
    ("oom-score-adj", &["--oom-score-adj=100"]),
    ("pid", &["--pid=host"]),
    ("pids-limit", &["--pids-limit=50"]),
    ("platform", &["--platform=PLATFORM"]),
    ("privileged", &["--privileged"]),
    ("publish", &["--publish=127.0.0.1::80"]),
    ("publish-all", &["--publish-all"]),
    ("pull", &["--pull=never"]),
    ("quiet", &["--quiet"]),
    ("read-only", &["--read-only"]),
    ("request-memory", &["--request-memory=16m"]),
    ("request-timeout", &["--request-timeout=5s"]),
    ("restart", &["--restart=on-failure:2"]),
    ("rm", &["--rm"]),
    ("runtime", &["--runtime=RUNTIME"]),
    ("security-opt", &["--security-opt=no-new-privileges"]),
    ("shm-size", &["--shm-size=1m"]),
    ("sig-proxy", &["--sig-proxy=false"]),
    ("stop-signal", &["--stop-signal=INT"]),
    ("stop-timeout", &["--stop-timeout=1"]),
    ("storage-opt", &["--storage-opt=size=64m"]),
    ("sysctl", &["--sysctl=net.core.somaxconn=100"]),
    ("tmpfs", &["--tmpfs=/t"]),
    ("tty", &["--tty"]),
    ("ulimit", &["--ulimit=nofile=64"]),
    ("use-api-socket", &["--use-api-socket"]),
    ("user", &["--user=1000"]),
    ("userns", &["--userns=host"]),
    ("uts", &["--uts=host"]),
    ("volume", &["--volume=data:/data"]),
    ("volume-driver", &["--volume-driver=local", "--volume=data:/data"]),
    ("volumes-from", &["--volumes-from=donor"]),
    ("workdir", &["--workdir=/"]),
];

/// README's rows, flag by flag: what is said for Linux, and for WebAssembly.
fn table() -> Vec<(String, [String; 2])> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("README.md");
    let (_, rest) = readme.split_once("| flags | Linux | WebAssembly |").expect("the table");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let read = |row: &str| {
        let cells: Vec<String> = row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let [flags, linux, wasm] = &cells[..] else { panic!("{row}") };
        let flags: Vec<String> =
            flags.split('`').filter_map(|word| word.strip_prefix("--")).map(str::to_owned).collect();
        let said = [linux.clone(), wasm.clone()];
        flags.into_iter().map(move |flag| (flag, said.clone())).collect::<Vec<_>>()
    };
    rows.flat_map(read).collect()
}

fn check(wharf: &Wharf, image: &[&str], backend: usize, flag: &str, said: &str) {
    let sample = SAMPLES.iter().find(|(name, _)| *name == flag);
    let sample = sample.unwrap_or_else(|| panic!("--{flag} has no sample")).1;
    let (file, new) = (wharf.dir().join("variables"), wharf.dir().join("cid"));
    std::fs::remove_file(&new).ok();
    let word = |word: &&str| {
        let platform = ["linux/amd64", "wasip1/wasm"][backend];
        let word = word.replace("FILE", &file.display().to_string()).replace("NEW", &new.display().to_string());
        word.replace("PLATFORM", platform).replace("RUNTIME", ["linux", "wasm"][backend])
    };
    let verb = if ["detach", "detach-keys", "sig-proxy"].contains(&flag) { "run" } else { "create" };
    let mut line = vec![verb.to_owned()];
    line.extend(sample.iter().map(word));
    line.extend(image.iter().map(|&word| word.to_owned()));
    let ran = wharf.run(&line);
    let named = ran.stderr.contains(&format!("--{flag}"));
    match said.split([' ', ':', ',']).next() {
        Some("works") => assert!(ran.code == 0 && !named, "{said:?}: {ran}"),
        Some("refused") => assert!(ran.code != 0 && named, "{said:?}: {ran}"),
        Some("without") => {
            let warned = ran.stderr.contains(&format!("WARNING: --{flag} has no effect"));
            assert!(ran.code == 0 && warned, "{said:?}: {ran}");
        }
        _ => panic!("--{flag}: what is {said:?}?"),
    }
    if let Some(id) = ran.stdout.lines().next().filter(|id| id.len() == 64) {
        wharf.ok(&["rm", "-f", id]);
    }
}

#[test]
fn every_flag_does_what_readme_says_of_it() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    std::fs::write(wharf.dir().join("variables"), "B=2\n").expect("a file");
    wharf.ok(&["network", "create", "--subnet", "10.201.7.0/24", "shown"]);
    wharf.ok(&["create", "--name", "donor", "--network", "shown", "-v", "/donated", "busybox", "true"]);
    let table = table();
    assert!(table.len() > 100);
    for (flag, said) in &table {
        check(&wharf, &["busybox", "true"], 0, flag, &said[0]);
        check(&wharf, &["tools", "args"], 1, flag, &said[1]);
    }
}
