//! What docker shows of containers that it was asked to make in many ways, and what Wharf shows of the same: field by
//! field the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::docker::Docker;
use crate::support::wharf::run;
use crate::support::{Wharf, images, skip};

/// How one of both is called.
type Side<'a> = &'a (dyn Fn(&[String]) -> Command + Sync);

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
    "create -v @/../shared/:/b/ -v v1:/v/ -v v1:/v/ -v /anonymous/ -v /vol full",
    "create -v /t -v @:/t -v /u -v /u --mount dst=/u -v /w --mount type=tmpfs,dst=/w busybox",
    "create --tmpfs /t:size=1m --tmpfs /t:size=2m -v /t busybox",
    "create --volumes-from other -v /x -v /y busybox",
    "create --volumes-from other: busybox",
    "create --volumes-from other:ro,z,cached busybox",
    "create --mount type=bind,src=@,dst=/b,bind-recursive=disabled,consistency= busybox",
    "create --mount type=bind,src=@/../shared/,dst=/b/,consistency=Cached --mount src=v1,dst=/v/./w,consistency=foo busybox",
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
    "create --label-file @/labels --env-file @/labels busybox",
    "create --add-host a:1.2.3.4 --add-host b=::1 --cidfile @/cid busybox",
];

/// What newer daemons than the one beside us may be say otherwise, and what is of each side's own making.
const OTHER: &[&str] = &[
    "Id",
    "Name",
    "Backend",
    "Created",
    "Driver",
    // A health check may be at work.
    "ExecIDs",
    "GraphDriver",
    "HostConfig.CgroupnsMode",
    "HostConfig.ContainerIDFile",
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

/// Files of variables and labels.
const FILES: &[(&str, &[u8])] = &[
    ("labels", b"# of many kinds\nA=1\n  B=2\n\nWHARF_TEST_NOBODY\nC=a b # c\r\nD=\"d\"\nE=\n"),
    ("spaced", b"A=1\nB = 2\n"),
    ("nameless", b"=x\n"),
    ("binary", b"A=1\nB=\xff\xfe\n"),
];

/// What is wrong with a container that is to be run.
const WRONG: &[&str] = &[
    "-p abc busybox",
    "-p 0:80-81 busybox",
    "-p 99999:80 busybox",
    "-p 80:80/foo busybox",
    "--expose abc busybox",
    "-v :/x busybox",
    "-v a:b:c:d busybox",
    "-v /a:/b:bad busybox",
    "-v /a:b busybox",
    "-v /a:/ busybox",
    "-v rel/path:/b busybox",
    "-v /a:/b:shared,slave busybox",
    "-v v1:/b -v v2:/b busybox",
    "-v v1:/b:ro -v v1:/b busybox",
    "-v v1:/b --tmpfs /b busybox",
    "-v v1:/b --mount src=v1,dst=/b busybox",
    "--mount type=tmpfs,dst=/b --mount type=tmpfs,dst=/b busybox",
    "--volumes-from other:nocopy busybox",
    "--volumes-from other:ro,shared busybox",
    "--volumes-from other:ro, busybox",
    "--volumes-from other:rw,ro busybox",
    "--mount type=bind,src=/tmp,dst=/x,bind-recursive=readonly busybox",
    "--mount type=bind,src=/tmp,dst=/x,bind-recursive=readonly,readonly busybox",
    "--mount type=bind,src=/tmp,dst=/x,bind-recursive=writable busybox",
    "--mount type=bind,src=/tmp,dst=/x,bind-recursive=none busybox",
    "--mount type=bind,src=\"/tmp\",dst=/x busybox",
    "--mount type=bind,\"src=/tmp\"x,dst=/x busybox",
    "--mount type=bind,\"src=/tmp,dst=/x busybox",
    "--mount type=bind,src=/tmp,dst= busybox",
    "--mount type=,src=x,dst=/x busybox",
    "--mount type=volume,src=x,dst=/x, busybox",
    "--mount type=foo,dst=/x busybox",
    "--mount type=bind,dst=/x busybox",
    "--mount type=bind,src=/none/such,dst=/x busybox",
    "--mount src=x busybox",
    "--mount type=bind,src=/tmp,dst=/x,foo=bar busybox",
    "--mount type=tmpfs,src=x,dst=/x busybox",
    "--mount type=bind,src=/tmp,dst=rel busybox",
    "--mount type=bind,src=rel,dst=/x busybox",
    "--mount type=bind,src=/tmp,dst=/x,bind-propagation=foo busybox",
    "--tmpfs rel busybox",
    "--tmpfs /x:foo,size=1m,bar busybox",
    "--memory abc busybox",
    "--memory 1k busybox",
    "-m 64m --memory-swap 32m busybox",
    "--cpus abc busybox",
    "--cpus -1 busybox",
    "--cpu-period 10 busybox",
    "--cpus 1 --cpu-period 100000 busybox",
    "--ulimit nofile=2:1 busybox",
    "--restart always --rm busybox",
    "--network nope busybox",
    "--network host --network net busybox",
    "--network container: busybox",
    "--network none --ip 1.2.3.4 busybox",
    "--network none --network-alias x busybox",
    "--network net --ip abc busybox",
    "--link nope busybox",
    "--add-host abc busybox",
    "--dns abc busybox",
    "--dns-search .bad. busybox",
    "--name bad/name busybox",
    "--env = busybox",
    "--env-file /none/such busybox",
    "--cap-add FOO busybox",
    "--security-opt foo busybox",
    "--device /dev/null:rel busybox",
    "--device /dev/null:/x:q busybox",
    "--user nope busybox",
    "--health-interval 1us busybox",
    "--health-interval -1s busybox",
    "--health-retries -1 busybox",
    "--no-healthcheck --health-cmd x busybox",
    "--pid foo busybox",
    "--log-opt foo busybox",
    "--volumes-from nope busybox",
    "--volumes-from other:foo busybox",
    "-d -a stdout busybox",
    "--badflag busybox",
    "-v /a:/b:rw,ro busybox",
    "-v vol:/b:ro,nocopy,nocopy busybox",
    "--mount type=tmpfs,dst=/x,tmpfs-size=x busybox",
    "--device /dev/none busybox",
    "--tmpfs /t:foo busybox",
    "--tmpfs /t:size=1m,foo=bar busybox",
    "-w /bin/busybox busybox",
    "--cpus 1 --cpu-quota 1000 busybox",
    "--env-file @/spaced busybox",
    "--label-file @/nameless busybox",
    "--env-file @/binary busybox",
];

/// Other lines that cannot be done.
const REFUSED: &[&str] = &[
    "create -p abc busybox",
    "create --memory abc busybox",
    "create --restart always --rm busybox",
    "start nope",
    "stop -t abc",
    "run --memory abc",
    "run --cpus x",
    "run --ulimit x --cpus x",
    "run -e =x --badflag",
    "run --add-host x",
    "run -a x",
    "create --mount type=foo",
    "update --memory-swap x",
    "update --memory-swap -1",
    "exec -e =x",
    "ps -n x more",
    "volume ls --filter x more",
    "stop -t abc made",
    "kill -s FOO running",
    "pause made",
    "pause paused",
    "unpause running",
    "rename made running",
    "rename made bad/name",
    "update --memory 256m small",
    "exec",
    "exec made true",
    "exec paused true",
    "attach made",
    "attach paused",
    "logs --since abc running",
    "ps --filter foo",
    "ps --filter foo=bar",
    "ps --filter exited=abc",
    "ps --filter is-task=abc",
    "images --filter foo",
    "images --filter dangling=abc",
    "inspect nope",
    "port running abc",
    "port running 80/foo",
    "cp a",
    "cp a b",
    "cp nope:/x /tmp",
    "cp running:/none /tmp/none",
    "commit running Bad:Ref",
    "tag nope x",
    "tag busybox Bad",
    "tag busybox sha256:abc",
    "rmi nope",
    "rmi busybox",
    "save -o /none/x busybox",
    "export -o /none/x running",
    "update running",
    "update --cpus 100 running",
    "update --memory 1k running",
    "update --memory 32m --memory-reservation 64m small",
    "update --memory-reservation 70m small",
    "create --restart always --rm --platform a/b/c/d busybox",
    "create --restart foo --rm busybox",
    "create --restart on-failure:x --rm busybox",
    "create --restart no --rm --name bad/name busybox",
    "create --mount= busybox",
    "create --network= busybox",
    "create --network alias=zz busybox",
    "network",
    "network nope",
    "volume create bad/name",
    "volume create -o foo vv",
    "volume create -o =foo vv",
    "run --name made -v leftover:/x busybox",
    "inspect --type volume nope",
    "inspect --type network nope",
    "inspect --type container nope",
    "volume rm used",
    "volume rm nope",
    "volume ls --filter dangling=abc",
    "network create bridge",
    "network create -d nope n",
    "network create --gateway 1.2.3.4 n",
    "network create --subnet 10.77.0.0/24 --gateway 1.2.3.4 n",
    "network create --subnet 10.77.0.0/24 --ip-range 1.2.3.0/24 n",
    "network create --subnet 10.77.0.0/24 --gateway 10.77.0.255 n",
    "network create --subnet 10.77.0.0/24 --gateway 10.77.0.0 n",
    "network create --subnet 10.77.0.0/24 --aux-address a=1.2.3.4 n",
    "network create --subnet 10.77.0.0/24 --aux-address a=10.77.0.0 n",
    "network create --aux-address a n",
    "network create --ipam-driver nope n",
    "network inspect |",
    "network connect | running",
    "network disconnect net |",
    "network connect nope running",
    "network connect nope nope",
    "network disconnect nope nope",
    "network connect bridge running",
    "network connect host running",
    "network disconnect net running",
    "network disconnect nope running",
    "push nope",
    "pull Bad",
    "import - Bad",
    "image prune -f --filter until=abc",
    "ps --format {{.Nope}}",
    "ps --format {{.Names",
    "ps --filter name=nobody --format table|{{.Nope}}",
    "ps --format {{.Names.Nope}}",
    "images --format {{.Nope}}",
    "images --format {{nope}}",
    "volume ls --format {{.Nope}}",
    "network ls --format {{.Nope}}",
    "stats --no-stream --format {{.Nope}} running",
    "history --format {{.Nope}} busybox",
    "system df --format {{.Nope}}",
    "inspect -f {{.Name}|running",
    "inspect -f {{range|.Mounts}} running",
    "inspect -f {{if}}x{{end}} running",
    "inspect -f {{end}} running",
    "inspect -f {{\"x}} running",
    "inspect -f {{.Name|nope}} running",
    "image inspect -f {{ busybox",
    "network inspect -f {{ bridge",
    "info --format {{",
    "info --format {{.Nope}}",
    "version --format {{.Nope}}",
    "inspect -f {{.Name}} running nope",
    "inspect -f {{.State.Nope}} running made",
    "inspect -f {{.State.Health.Status}} running",
];

/// What lists what there is: the same to the letter, but for what [`plain`] leaves out.
const LISTED: &[&str] = &[
    "history -H=false --format table|{{.CreatedAt}}\\t{{.CreatedBy}}\\t{{.Comment}} full",
    "run --rm --tmpfs /t busybox grep -c ^none /proc/mounts",
    "run --rm --tmpfs /t:uid=3,mode=700,noatime,exec busybox grep |/t| /proc/mounts",
    "help nope",
    "volume ls --filter name=use --format table|{{.Name}}\\t{{.Driver}}\\t{{.Size}}",
    "volume ls --filter name=use --format {{.Name}}|{{.Driver}}|{{.Scope}}|{{.Labels}}|{{.Links}}|{{.Size}}|{{.Status}}",
    "network ls --format {{.Name}}|{{.Driver}}|{{.Scope}}|{{.IPv6}}|{{.Internal}}",
    "volume ls -q --filter name=^u[rs]e",
    "volume ls -q --filter name=sed$ --filter name=^nobody",
    "volume ls -q --filter name=[",
    "network ls --filter name=^n[eo][nt]e?$ --format {{.Name}}",
    "network ls --filter name=[ --format {{.Name}}",
    "ps -a --filter name=^/?sm[a-l]+$ --format {{.Names}}",
    "ps -a --filter name=^/s[^a]+ll$ --filter name=[ --format {{.Names}}",
    "volume inspect -f json nope",
    "volume ls -q --filter name=leftover",
    "inspect -f json nope",
    "version --format {{.Server.Os}}|{{.Server.Arch}}|{{.Server.KernelVersion}}",
    "info --format {{.OSType}}|{{.Architecture}}|{{.NCPU}}|{{.CgroupVersion}}|{{.CgroupDriver}}|{{.Swarm.LocalNodeState}}",
    "inspect -f {{.HostConfig.RestartPolicy}}|{{.HostConfig.LogConfig}}|{{.HostConfig.Devices}}|{{.State.Health}} small",
    "inspect -f {{.ID}}|{{.State.Pid}}|{{.Config.Healthcheck}}|{{.HostConfig.PidsLimit}}|{{.Config.StopTimeout}} made",
    "inspect -f {{.NetworkSettings.Ports}}|{{.HostConfig.PortBindings}}|{{.HostConfig.CapAdd}}|{{.HostConfig.Tmpfs}} made",
    "inspect -f {{if|.State.Health}}h{{else}}n{{end}}|{{json|.HostConfig.RestartPolicy}}|{{.HostConfig.Memory}} small",
    "inspect -f {{json|.HostConfig.LogConfig}}|{{json|.HostConfig.CapAdd}}|{{json|.Config.Volumes}}|{{json|.Config.Labels}} made",
    "inspect -f {{.Id}}|{{.HostConfig.RestartPolicy}}|{{len|.HostConfig.LogConfig}} made",
    "inspect -f {{range|$name,|$x|:=|.HostConfig.RestartPolicy}}{{$name}}={{$x}};{{end}} made",
    "inspect -f {{with|.Config.Healthcheck}}{{.}}{{.Interval}}{{.Retries}}{{json|.}}{{end}} made0",
    "inspect -f {{range|.Mounts}}{{.Type}}:{{.Driver}}:{{.RW}};{{end}}{{.ExecIDs}} made",
    "inspect -f {{$policy|:=|.HostConfig.RestartPolicy}}{{println|$policy|.State.Running}}{{printf|\"%v\"|$policy}}| made",
    "image inspect -f {{.RootFS.Type}}|{{len|.RootFS.Layers}}|{{.Config.Labels}}|{{.Config.Volumes}} full",
    "network inspect -f {{.Internal}}|{{.ConfigFrom}}|{{.Peers}}|{{.Labels}}|{{json|.ConfigFrom}} net",
    "network inspect -f {{index|.Options|\"com.docker.network.bridge.default_bridge\"}}|{{len|.Options}} bridge",
    "network inspect -f {{index|.Options|\"com.docker.network.driver.mtu\"}} bridge",
    "volume inspect -f {{.Labels}}|{{.Options}}|{{.UsageData}}|{{.Status}} used",
    "info --format {{.MemoryLimit}}|{{.SwapLimit}}|{{.CPUCfsQuota}}|{{.CPUSet}}|{{.PidsLimit}}|{{.OomKillDisable}}",
    "info --format {{.ExperimentalBuild}}|{{index|.DriverStatus|0}}|{{.RegistryConfig.Mirrors}}|{{.ClientInfo.Context}}",
    "info --format {{.OSVersion}}|{{.OperatingSystem}}|{{.Plugins.Volume}}|{{.LoggingDriver}}|{{.IndexServerAddress}}",
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
        // Docker's client looks for proxies among the variables, in a map.
        Value::Array(list) if matches!(path, "HostConfig.Binds" | "Config.Env") => {
            let mut list = list.clone();
            list.sort_by_key(Value::to_string);
            fields.insert(path.to_owned(), list.into());
        }
        value => drop(fields.insert(path.to_owned(), value.clone())),
    }
}

/// What is shown of what the lines make, in their order.
fn made(command: Side<'_>, dir: &str, side: &str) -> Vec<BTreeMap<String, String>> {
    let ok = |words: &[String]| {
        let ran = run(command(words), &[]);
        assert_eq!(ran.code, 0, "{ran}");
        ran.stdout
    };
    let names: Vec<String> = (0..MADE.len()).map(|n| format!("made{n}")).collect();
    for (line, name) in MADE.iter().zip(&names) {
        let mut words = words(&line.replace("@/cid", &format!("@/{side}-cid")), dir);
        words.splice(1..1, ["--name".to_owned(), name.clone()]);
        ok(&words);
    }
    std::fs::remove_file(format!("{dir}/{side}-cid")).expect("the id's file");
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
fn beside(name: &str, look: impl Fn(Side<'_>, &Wharf, &str)) {
    let home = tempfile::Builder::new().prefix("wharf-").tempdir().expect("a directory");
    let docker = match Docker::start_with_networks(home.path()) {
        Ok(docker) => docker,
        Err(why) => return skip(name, &why),
    };
    let dir = home.path().join("shared");
    std::fs::create_dir(&dir).expect("a directory");
    for (file, text) in FILES {
        std::fs::write(dir.join(file), text).expect("a file");
    }
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

/// What the lines answer: the exit code, standard output, and standard error in small letters.
fn said(command: Side<'_>, dir: &str) -> Vec<(String, i32, String, String)> {
    let setup = [
        "run -d --name running busybox sleep 1000000",
        "run -d --name paused busybox sleep 1000000",
        "pause paused",
        "create --name made -v used:/u busybox",
        "create --name small -m 64m --memory-swap 128m busybox",
    ];
    for line in setup {
        let ran = run(command(&words(line, dir)), &[]);
        assert_eq!(ran.code, 0, "{ran}");
    }
    let answer = |line: String| {
        let ran = run(command(&words(&line, dir)), &[]);
        // The daemon's lead is docker's alone.
        let stderr =
            ran.stderr.replace("Error response from daemon: ", "Error: ").replace("docker: Error: ", "wharf: ");
        let (stdout, stderr) = (plain(&ran.stdout), plain(&stderr.replace("docker", "wharf").to_lowercase()));
        (line, ran.code, stdout.replace("wharf.io", "docker.io"), stderr)
    };
    // None of these changes anything, so nothing is in a row.
    let wrong: Vec<String> = WRONG.iter().map(|line| format!("run {line}")).collect();
    let mut said: Vec<_> = std::thread::scope(|scope| {
        let askers: Vec<_> = wrong
            .chunks(wrong.len().div_ceil(4))
            .map(|lines| scope.spawn(|| lines.iter().cloned().map(answer).collect::<Vec<_>>()))
            .collect();
        askers.into_iter().flat_map(|asker| asker.join().expect("an asker")).collect()
    });
    said.extend(REFUSED.iter().chain(LISTED).map(|line| answer((*line).to_owned())));
    said
}

#[test]
fn wharf_shows_and_says_what_docker_does() {
    beside("parity::wharf_shows_and_says_what_docker_does", |docker, wharf, dir| {
        let ours = |words: &[String]| wharf.command(words);
        let (theirs, ours) = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| (made(docker, dir, "docker"), said(docker, dir)));
            let ours = (made(&ours, dir, "wharf"), said(&ours, dir));
            (theirs.join().expect("docker's side"), ours)
        });
        let differences = shown_otherwise(&theirs.0, &ours.0) + &said_otherwise(&theirs.1, &ours.1);
        assert!(differences.is_empty(), "{differences}");
    });
}

fn shown_otherwise(theirs: &[BTreeMap<String, String>], ours: &[BTreeMap<String, String>]) -> String {
    let mut differences = String::new();
    for (line, (theirs, ours)) in MADE.iter().zip(theirs.iter().zip(ours)) {
        let all: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
        for path in all.into_iter().filter(|path| theirs.get(*path) != ours.get(*path)) {
            let _ = writeln!(differences, "{line}\n  {path}: {:?}, not {:?}", ours.get(path), theirs.get(path));
        }
    }
    differences
}

/// Wharf may say more: what can be done about it.
fn said_otherwise(theirs: &[(String, i32, String, String)], ours: &[(String, i32, String, String)]) -> String {
    let mut differences = String::new();
    for (theirs, ours) in theirs.iter().zip(ours) {
        let all_said = theirs.3.lines().all(|line| ours.3.lines().any(|own| own == line));
        if (theirs.1, &theirs.2) != (ours.1, &ours.2) || !all_said {
            let _ = writeln!(differences, "$ {}\n--- docker\n{theirs:?}\n--- wharf\n{ours:?}", theirs.0);
        }
    }
    differences
}
