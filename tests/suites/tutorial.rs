//! The words of docker's tutorials, one after the other, said to docker itself and to both of Wharf's backends: what is
//! printed has the same shape everywhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::docker::Docker;
use crate::support::terminal::Terminal;
use crate::support::wharf::{Ran, run};
use crate::support::{Wharf, eventually, images, skip};

/// The guest `tools` as a script, as far as the walk needs it.
const TOOLS: &str = r#"#!/bin/sh
case "$1" in
    both) echo to stdout; echo to stderr >&2 ;;
    exit) exit "$2" ;;
    sleep) exec sleep $(($2 / 1000)) ;;
    write) printf %s "$3" >"$2" ;;
    cat) shift; exec cat "$@" ;;
esac
"#;

/// `app`, whose program is `/bin/tools`: for a Linux container,
fn linux() -> Vec<u8> {
    let mut own = images::Tar::default();
    own.file("bin/tools", 0o755, TOOLS.as_bytes());
    own.file("etc/motd", 0o644, b"ahoy\n");
    own.directory("data");
    images::linux("app:latest", &[images::busybox_layer(), own.end()], &config())
}

/// and for a WebAssembly one.
fn guest() -> Vec<u8> {
    let tools = images::read(&images::guest("tools-p1"));
    let mut own = images::Tar::default();
    own.file("bin/tools", 0o755, &tools);
    own.file("etc/motd", 0o644, b"ahoy\n");
    own.directory("data");
    images::wasm_layer("app:latest", own, &config())
}

fn config() -> Value {
    json!({"Entrypoint": ["/bin/tools"], "Env": ["PATH=/bin"], "Labels": {"of": "the walk"}})
}

/// How much of an answer is the same everywhere.
#[derive(Clone, Copy)]
enum Same {
    /// All of it, but for numbers, times and ids.
    All,
    /// The lines in any order.
    Lines,
    /// The header of a table, and how many rows there are.
    Table,
    /// The header of a table.
    Header,
    /// The fields of a JSON object.
    Fields,
    /// The exit code.
    Code,
}
use Same::{All, Code, Fields, Header, Lines, Table};

/// A long life, and all that can be asked and wished meanwhile. `@` is a directory on the host.
const WALK: &[(Same, &str)] = &[
    (All, "run -d --name web -p 127.0.0.1::80 -v data:/data -e A=1 -l x=y app sleep 1000000"),
    (All, "ps"),
    (All, "ps -a"),
    (All, "ps -aq"),
    (All, "ps -q --no-trunc"),
    (All, "ps --no-trunc"),
    (Table, "ps -as"),
    (Fields, "ps --format {{json|.}}"),
    (All, "ps --format table|{{.Names}}\\t{{.Status}}\\t{{.Image}}"),
    (All, "ps --format {{.ID}}|{{.Command}}|{{.Names}}|{{.State}}|{{.Label|\"x\"}}|{{.LocalVolumes}}|{{.Mounts}}"),
    (All, "run -d --name web app both"),
    (All, "run --name once app both"),
    (All, "run -d --name later app both"),
    (All, "wait later"),
    (All, "logs later"),
    (All, "logs -f later"),
    (All, "logs -t later"),
    (Code, "logs --tail 1 later"),
    (All, "logs --since 1h once"),
    (All, "logs nope"),
    (All, "run --rm app exit 42"),
    (All, "ps -a --filter status=exited --format {{.Names}}|{{.Status}}"),
    (All, "ps -a --filter exited=0 --format {{.Names}}"),
    (All, "ps -l --format {{.Names}}"),
    (All, "exec web tools both"),
    (All, "exec -d web tools write /made here"),
    (All, "exec web tools exit 7"),
    (All, "exec nope tools both"),
    (All, "port web"),
    (All, "port web 80"),
    (All, "port web 80/tcp"),
    (All, "port web 81"),
    (All, "port nope"),
    (Code, "top web"),
    (All, "top nope"),
    (Table, "stats --no-stream web"),
    (Fields, "stats --no-stream --format {{json|.}} web"),
    (All, "stats --no-stream --format {{.Name}}|{{.PIDs}} web"),
    (All, "stats --no-stream nope"),
    (Lines, "diff web"),
    (All, "diff nope"),
    (All, "cp web:/etc/motd @/motd"),
    (All, "cp @/motd web:/copied"),
    (All, "exec web tools cat /copied"),
    (All, "cp web:/nope @/nope"),
    (All, "cp nope:/x @/nope"),
    (All, "cp @/nowhere web:/x"),
    (All, "commit -m noted -c ENV|X=1 web mine:1"),
    (All, "commit nope"),
    (All, "inspect -f {{json|.Config.Env}} mine:1"),
    (All, "image inspect -f {{.Comment}} mine:1"),
    (Table, "images"),
    (Header, "history mine:1"),
    (All, "pause web"),
    (All, "pause web"),
    (All, "ps"),
    (All, "exec web tools both"),
    (All, "unpause web"),
    (All, "unpause web"),
    (All, "rename web www"),
    (All, "rename www www"),
    (All, "rename nope x"),
    (All, "update --cpus 1 www"),
    (All, "update --restart on-failure:3 www"),
    (All, "update nope --cpus 1"),
    (All, "inspect -f {{.HostConfig.NanoCpus}}|{{.HostConfig.RestartPolicy.Name}} www"),
    (All, "update --restart no www"),
    (All, "kill -s NOPE www"),
    (All, "restart -t 0 www"),
    (All, "stop -t 0 www"),
    (All, "stop www"),
    (All, "ps"),
    (All, "ps -a --filter name=www"),
    (All, "kill www"),
    (All, "pause www"),
    (All, "exec www tools both"),
    (Code, "attach www"),
    (All, "top www"),
    (All, "port www"),
    (All, "wait www"),
    (All, "inspect -f {{.State.Status}}|{{.State.ExitCode}}|{{.State.Running}}|{{.Name}}|{{.RestartCount}} www"),
    (Fields, "inspect -f {{json|.State}} www"),
    (All, "inspect -f {{range|.Mounts}}{{.Type}},{{.Name}},{{.Destination}},{{.Mode}},{{.RW}}{{end}} www"),
    (All, "inspect -f {{json|.HostConfig.Binds}} www"),
    (All, "inspect -f {{.Config.Env}}|{{.Config.Entrypoint}}|{{.Config.Cmd}}|{{.Config.Image}} www"),
    (All, "inspect -f {{.Config.Labels.x}}|{{.Config.Labels.nope}}|{{index|.Config.Labels|\"nope\"}} www"),
    (All, "inspect -f {{range|$k,$v:=.Config.Labels}}{{$k}}={{$v}};{{end}} www"),
    (All, "inspect -f {{.NetworkSettings.Networks.nope}} www"),
    (All, "inspect nope"),
    (All, "container inspect nope"),
    (Code, "inspect -f {{.Nope}} www"),
    (All, "start www"),
    (All, "start www"),
    (All, "start nope"),
    (All, "stop nope"),
    (All, "restart nope"),
    (All, "kill nope"),
    (All, "wait nope"),
    (All, "attach nope"),
    (All, "rm nope"),
    (All, "rm -f nope"),
    (Code, "rm www"),
    (Code, "rmi app"),
    (Code, "rmi nope"),
    (All, "run -d --name x --network nope app both"),
    (All, "run -d --name bad|name app both"),
    (All, "run --pull never nope"),
    (All, "kill www"),
    (All, "wait www"),
    // Docker's `0s` is the second that has begun.
    (All, "run --rm app sleep 2000"),
    (
        All,
        "events --since 1h --until 0s --filter container=www --filter event=create --filter event=start --filter \
           event=die --filter event=stop --filter event=pause --filter event=unpause --filter event=kill --filter \
           event=rename --filter event=restart --filter event=update --format {{.Type}}|{{.Action}}|{{.Actor.ID}}",
    ),
    (All, "events --since 1h --until 0s --filter container=www --filter event=rename"),
    (All, "events --since 1h --until 0s --filter type=volume --filter volume=data --filter event=create"),
    (All, "events --since 1h --until 0s --filter container=nope"),
    (All, "rm www once"),
    (All, "container prune -f"),
    (All, "container prune -f"),
    (All, "ps -aq"),
    (All, "volume ls"),
    (All, "volume rm nope"),
    (All, "volume rm data"),
    (Code, "rmi mine:1"),
];

/// Words of newer daemons than the one beside us may be: Wharf's alone.
const NEWER: &[(&str, &str)] = &[
    (
        "rm run",
        "cannot remove container \"/run\": container is running: stop the container before removing or force remove",
    ),
    ("kill none", "cannot kill container: none: No such container: none"),
    ("attach made", "You cannot attach to a stopped container, start it first"),
    ("rmi app", "conflict: unable to remove repository reference \"app\" (must force) - container "),
];

/// The arguments of a line; `|` is a space in one of them.
fn words(line: &str, dir: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.replace('|', " ").replace('@', dir)).collect()
}

/// Walks, and tells what came of each step.
fn walk(dir: &str, command: &dyn Fn(&[String]) -> Command) -> Vec<(String, String)> {
    let mut told: Vec<_> = WALK
        .iter()
        .map(|(same, line)| ((*line).to_owned(), shape(*same, &run(command(&words(line, dir)), &[]), dir)))
        .collect();
    told.extend(talk(command));
    told
}

/// The screen, where a line may stand once more: what is typed before the terminal is handed over is echoed there, too.
fn shown(terminal: &Terminal) -> String {
    let screen = plain(&terminal.screen());
    let mut lines: Vec<_> = screen.lines().collect();
    lines.dedup();
    lines.join("\n")
}

/// What needs somebody at a terminal.
fn talk(command: &dyn Fn(&[String]) -> Command) -> Vec<(String, String)> {
    let ok = |line: &str| {
        let ran = run(command(&words(line, "")), &[]);
        assert_eq!(ran.code, 0, "{ran}");
    };
    let mut told = Vec::new();
    ok("run -dit --name echo app cat");
    let mut attached = Terminal::start(&command(&words("attach echo", "")));
    attached.send("hello\r");
    attached.expect("hello\r\nhello\r\n");
    attached.send("\u{10}\u{11}");
    attached.expect("read escape sequence");
    told.push(("attach, detached".to_owned(), format!("{} {}", attached.wait(), shown(&attached))));
    let mut exec = Terminal::start(&command(&words("exec -it echo tools cat", "")));
    exec.send("there\r");
    exec.expect("there\r\nthere\r\n");
    exec.send("\u{4}");
    told.push(("exec -it, ended".to_owned(), format!("{} {}", exec.wait(), shown(&exec))));
    let mut exec = Terminal::start(&command(&words("exec -it echo tools cat", "")));
    exec.send("here\r");
    exec.expect("here\r\nhere\r\n");
    exec.send("\u{10}\u{11}");
    exec.expect("read escape sequence");
    told.push(("exec -it, detached".to_owned(), format!("{} {}", exec.wait(), shown(&exec))));
    // Attached to the end, which the log and those who follow it see too.
    let follower =
        command(&words("logs -f echo", "")).stdout(std::process::Stdio::piped()).spawn().expect("a follower");
    let mut attached = Terminal::start(&command(&words("attach echo", "")));
    attached.send("bye\r");
    attached.expect("bye\r\nbye\r\n");
    attached.send("\u{4}");
    told.push(("attach, ended".to_owned(), format!("{} {}", attached.wait(), shown(&attached))));
    let followed = follower.wait_with_output().expect("a follower");
    let log = String::from_utf8_lossy(&followed.stdout).into_owned();
    told.push(("logs -f".to_owned(), format!("{:?} {}", followed.status.code(), plain(&log))));
    ok("start echo");
    ok("rm -f echo");
    told
}

fn shape(same: Same, ran: &Ran, dir: &str) -> String {
    let stdout = ran.stdout.replace(dir, "@");
    let stderr = ran.stderr.replace(dir, "@");
    let shown = match same {
        All => plain(&stdout),
        Lines => plain(&stdout)
            .lines()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .fold(String::new(), |all, line| all + line + "\n"),
        Table => {
            format!("{} and {} rows\n", plain(stdout.lines().next().unwrap_or_default()), stdout.lines().count() - 1)
        }
        Header => plain(stdout.lines().next().unwrap_or_default()),
        Fields => match serde_json::from_str::<Value>(&stdout) {
            Ok(Value::Object(object)) => format!("{:?}\n", object.keys().collect::<BTreeSet<_>>()),
            _ => panic!("no object: {ran}"),
        },
        Code => return format!("= {}", ran.code),
    };
    format!("{shown}{}= {}", lead(&plain(&stderr)), ran.code)
}

/// The daemon's lead is docker's alone, and so is its name; a newer one begins with a small letter.
fn lead(stderr: &str) -> String {
    let text = stderr.replace("Error response from daemon: ", "Error: ").replace("docker: Error: ", "wharf: ");
    text.replace("docker", "wharf").to_lowercase()
}

/// Without ids, times, ages, sizes and ports, and with single spaces.
fn plain(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words = line.split(' ').filter(|word| !word.is_empty()).map(word).collect::<Vec<_>>().join(" ");
        // `About a minute ago` as much as `3 seconds ago`.
        // A guest ends at once when it is asked to, a process 1 without a handler when it is killed.
        let mut words = words
            .replace("Exited (143)", "Exited (137)")
            .replace("Less than a second", "N seconds")
            .replace("About a minute", "N seconds");
        for unit in ["N second ", "N minutes ", "N minute "] {
            words = words.replace(unit, "N seconds ");
        }
        let _ = writeln!(out, "{}", words.trim_end());
    }
    out
}

fn word(word: &str) -> String {
    let mut out = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let hex = rest.find(|c: char| !matches!(c, '0'..='9' | 'a'..='f')).unwrap_or(rest.len());
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let taken = match (hex, digits) {
            (12 | 64, _) => {
                let _ = write!(out, "ID{hex}");
                hex
            }
            (_, 1..) if moment(rest) => {
                out.push_str("TIME");
                rest.find(['Z', ' ']).map_or(rest.len(), |at| at + 1)
            }
            // A number of its own, or a port.
            (_, 1..) if digits == word.len() || out.ends_with("127.0.0.1:") => {
                out.push('N');
                digits
            }
            _ => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                let end = end + rest[end..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..end]);
                end
            }
        };
        rest = &rest[taken..];
    }
    out
}

fn moment(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() > 19 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[13] == b':'
}

/// One after the other, so that the first difference is told with its command.
fn compare(one: &[(String, String)], other: &[(String, String)]) {
    assert_eq!(one.len(), other.len());
    let mut differences = String::new();
    for ((line, left), (_, right)) in one.iter().zip(other) {
        if left != right {
            let _ = writeln!(differences, "$ {line}\n--- left\n{left}\n--- right\n{right}\n");
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

fn wharf_walks(archive: &[u8], name: &str) -> Vec<(String, String)> {
    let wharf = Wharf::new();
    wharf.load(archive);
    let dir = wharf.dir().join(name);
    std::fs::create_dir(&dir).expect("a directory");
    walk(dir.to_str().expect("plain"), &|words| wharf.command(words))
}

#[test]
fn docker_and_wharf_walk_alike() {
    let name = "tutorial::docker_and_wharf_walk_alike";
    let home = tempfile::Builder::new().prefix("wharf-").tempdir().expect("a directory");
    let docker = match Docker::start_with_networks(home.path()) {
        Ok(docker) => docker,
        Err(why) => return skip(name, &why),
    };
    docker.load(&linux());
    let dir = home.path().join("walk");
    std::fs::create_dir(&dir).expect("a directory");
    let theirs = walk(dir.to_str().expect("plain"), &|words| {
        let mut command = docker.command(&words.iter().map(String::as_str).collect::<Vec<_>>());
        command.env("HOME", home.path()).env("DOCKER_CLI_HINTS", "false");
        command
    });
    compare(&theirs, &wharf_walks(&linux(), "walk"));
}

#[test]
fn both_backends_walk_alike() {
    compare(&wharf_walks(&linux(), "walk"), &wharf_walks(&guest(), "walk"));
}

#[test]
fn newer_words_are_those_of_newer_daemons() {
    let wharf = Wharf::new();
    wharf.load(&linux());
    wharf.ok(&["run", "-d", "--name", "run", "app", "sleep", "1000000"]);
    wharf.ok(&["create", "--name", "made", "app", "both"]);
    eventually("it runs", Duration::from_secs(30), || (!wharf.ok(&["ps", "-q"]).is_empty()).then_some(()));
    for (line, text) in NEWER {
        let ran = wharf.exits(1, &words(line, ""));
        assert!(ran.stderr.contains(text), "{ran}");
    }
}
