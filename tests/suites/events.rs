//! `events`: docker's names and order, history and live without a gap, many followers.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::terminal::Terminal;
use crate::support::{Wharf, eventually, wharf};

/// What each event says, without times: `create web`, `die web 3`.
fn history(wharf: &Wharf, filters: &[&str]) -> Vec<String> {
    let format = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}";
    let mut line = vec!["events", "--since", "1h", "--until", "0s", "--format", format];
    filters.iter().for_each(|filter| line.extend(["--filter", filter]));
    wharf.ok(&line).lines().map(str::to_owned).collect()
}

#[test]
fn a_life_is_told_in_dockers_words() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--network", "none", "--name", "one", "--label", "l=v", "busybox", "sleep", "1000"]);
    wharf.ok(&["pause", "one"]);
    wharf.ok(&["unpause", "one"]);
    wharf.ok(&["exec", "one", "true"]);
    wharf.ok(&["rename", "one", "two"]);
    wharf.ok(&["restart", "-t", "0", "two"]);
    wharf.ok(&["kill", "two"]);
    wharf.ok(&["rm", "two"]);
    wharf.exits(3, &["run", "--rm", "--network", "none", "--name", "job", "busybox", "sh", "-c", "exit 3"]);
    let expected = "create one|start one|pause one|unpause one|exec_create: true  one|exec_start: true  one|exec_die one|\
                    rename two|kill two|kill two|die two|stop two|start two|restart two|kill two|die two|destroy two|\
                    create job|attach job|start job|die job|destroy job";
    let told = history(&wharf, &["type=container"]);
    let told: Vec<_> = told.iter().map(|line| line.trim_start_matches("container ")).collect();
    assert_eq!(told, expected.split('|').map(str::trim).collect::<Vec<_>>());

    let died =
        wharf.ok(&["events", "--since", "1h", "--until", "0s", "--filter", "event=die", "--filter", "container=job"]);
    assert!(died.ends_with("(execDuration=0, exitCode=3, image=busybox, name=job)"), "{died}");
    assert_eq!(history(&wharf, &["label=l=v", "event=destroy"]), ["container destroy two"]);
    assert_eq!(history(&wharf, &["type=image", "event=tag"]), [] as [&str; 0]);
    wharf.ok(&["tag", "busybox", "other"]);
    wharf.ok(&["rmi", "other"]);
    let images = history(&wharf, &["type=image", "event=tag", "event=untag"]);
    assert_eq!(images[0], "image tag other:latest");
    assert!(images[1].starts_with("image untag sha256:"), "{images:?}");
    wharf.ok(&["run", "--rm", "--network", "none", "--name", "vol", "-v", "data:/data", "busybox", "true"]);
    wharf.ok(&["volume", "rm", "data"]);
    let line = ["events", "--since", "1h", "--until", "0s", "--filter", "volume=data", "--format"];
    let volumes =
        wharf.ok(&[&line[..], &["{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.driver}}"]].concat());
    let told = ["create", "mount", "unmount", "destroy"].map(|action| format!("volume {action} data local"));
    assert_eq!(volumes.lines().collect::<Vec<_>>(), told);
    assert_eq!(wharf.exits(1, &["events", "--filter", "nosuch=1"]).stderr, "Error: invalid filter 'nosuch'\n");
}

/// In the order of docker's daemon, also around what is not the container's own.
#[test]
fn what_is_around_a_life_is_told_in_its_place() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "own"]);
    let run = ["run", "--network", "own", "-v", "data:/data"];
    let told = |line: &[&str]| {
        let before = history(&wharf, &[]).len();
        // Some of these fail, which is told too.
        wharf.run(line);
        let line = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
        wharf.ok(&line).lines().skip(before).map(str::to_owned).collect::<Vec<_>>().join("|")
    };
    let begin = "network connect|volume mount|container start";
    let end = "network disconnect|volume unmount|container die";
    assert_eq!(
        told(&[&run[..], &["--rm", "busybox", "true"]].concat()),
        format!("volume create|container create|container attach|{begin}|{end}|container destroy")
    );
    assert_eq!(
        told(&[&run[..], &["-d", "--name", "web", "busybox", "sleep", "1000"]].concat()),
        format!("container create|{begin}")
    );
    assert_eq!(told(&["exec", "web", "nope"]), "container exec_create: nope |container exec_start: nope");
    assert_eq!(told(&["cp", "web:/etc", "-"]), "volume mount|container archive-path|volume unmount");
    assert_eq!(told(&["commit", "web", "copy"]), "container pause|image tag|container commit|container unpause");
    let killed = format!("container kill|container kill|{end}|container stop");
    assert_eq!(told(&["restart", "-t", "0", "web"]), format!("{killed}|{begin}|container restart"));
    assert_eq!(told(&["stop", "-t", "0", "web"]), killed);
    assert_eq!(told(&["start", "-a", "web", "--detach-keys", "bad"]), "");
    assert_eq!(told(&["start", "web"]), begin);
    assert_eq!(told(&["rm", "-f", "web"]), format!("container kill|{end}|container destroy"));
    assert_eq!(
        told(&[&run[..], &["--name", "bad", "busybox", "nope"]].concat()),
        "container create|container attach|network connect|network disconnect"
    );
    let again = ["-d", "--name", "again", "--restart", "on-failure:1", "busybox", "false"];
    wharf.ok(&[&run[..], &again].concat());
    wharf.ok(&["wait", "again"]);
    let line = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
    let all = wharf.ok(&line).replace('\n', "|");
    assert!(all.ends_with(&format!("container create|{begin}|{end}|{begin}|{end}")), "{all}");
}

#[test]
fn terminals_and_execs_are_told() {
    let wharf = Wharf::with_busybox();
    let run = ["run", "-it", "--network", "none", "--name", "box", "busybox", "sh"];
    let mut shell = Terminal::start(&wharf.command(&run));
    shell.expect("/ #");
    shell.resize(30, 100);
    shell.send("echo re''sized; stty size\n");
    shell.expect("30 100");
    shell.send("\x10\x11");
    assert_eq!(shell.wait(), 0);
    let mut shell = Terminal::start(&wharf.command(&["exec", "-it", "box", "sh"]));
    shell.expect("/ #");
    shell.send("\x10\x11");
    shell.expect("read escape sequence");
    assert_eq!(shell.wait(), 1);
    let mut shell = Terminal::start(&wharf.command(&["attach", "box"]));
    shell.send("exit 3\n");
    assert_eq!(shell.wait(), 3);
    let told = history(&wharf, &["container=box", "type=container"]).join("|").replace("container ", "");
    let expected = "create box|attach box|start box|resize box|resize box|detach box|exec_create: sh  box|\
                    exec_start: sh  box|exec_detach box|attach box|resize box|";
    assert!(told.starts_with(expected) && told.ends_with("|die box"), "{told}");
    let line = ["events", "--since", "1h", "--until", "0s", "--filter", "event=resize", "--format"];
    let sizes = wharf.ok(&[&line[..], &["{{.Actor.Attributes.height}} {{.Actor.Attributes.width}}"]].concat());
    assert!(sizes.starts_with("24 80\n30 100\n"), "{sizes}");
    let ids = ["exec_create", "exec_start", "exec_detach"].map(|action| {
        let line = ["events", "--since", "1h", "--until", "0s", "--filter", &format!("event={action}"), "--format"];
        wharf.ok(&[&line[..], &["{{.Actor.Attributes.execID}}"]].concat())
    });
    assert!(ids[0].len() == 64 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn networks_are_told() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "own"]);
    let id = wharf.ok(&["run", "-d", "--network", "own", "--name", "box", "busybox", "sleep", "1000"]);
    wharf.ok(&["rm", "-f", "box"]);
    wharf.ok(&["network", "rm", "own"]);
    let line = ["events", "--since", "1h", "--until", "0s", "--filter", "network=own", "--format"];
    let told = wharf.ok(&[&line[..], &["{{.Type}} {{.Action}} {{.Actor.Attributes.type}}"]].concat());
    let expected = ["create", "connect", "disconnect", "destroy"].map(|action| format!("network {action} bridge"));
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    let joined = [&line[..], &["{{.Actor.Attributes.container}}", "--filter", "event=connect"]].concat();
    assert_eq!(wharf.ok(&joined), id);
}

const CONTAINERS: usize = 500;
const CLIENTS: usize = 8;
const FOLLOWERS: usize = 4;

/// 500 containers run to completion by 8 clients, with 4 listening: each hears each event once, in each life's order,
/// and what they heard is what history says.
#[test]
fn four_followers_hear_everything() {
    let wharf = Wharf::with_busybox();
    let mut followers: Vec<(Child, Heard)> = (0..FOLLOWERS)
        .map(|_| {
            let mut command = wharf.command(&["events", "--filter", "type=container", "--format", "json"]);
            let mut child = command.stdout(Stdio::piped()).spawn().expect("a follower");
            let heard = Heard::of(child.stdout.take().expect("its output"));
            (child, heard)
        })
        .collect();
    // They listen from their first look on.
    eventually("all of them listen", Duration::from_secs(60), || {
        wharf.ok(&["run", "--rm", "--network", "none", "--name", PROBE, "busybox", "true"]);
        std::thread::sleep(Duration::from_millis(500));
        followers.iter().all(|(_, heard)| heard.text().contains(PROBE)).then_some(())
    });
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let wharf = &wharf;
            scope.spawn(move || {
                for n in (client..CONTAINERS).step_by(CLIENTS) {
                    let name = format!("c{n:03}");
                    wharf.ok(&["run", "--rm", "--network", "none", "--name", &name, "busybox", "true"]);
                }
            });
        }
    });
    let history =
        wharf.ok(&["events", "--since", "1h", "--until", "0s", "--filter", "type=container", "--format", "json"]);
    let history = lives(&history);
    assert_eq!(history.len(), CONTAINERS);
    for (name, life) in &history {
        assert_eq!(life, &["create", "attach", "start", "die", "destroy"], "{name}");
    }
    for (mut child, heard) in followers.drain(..) {
        eventually("a follower has heard of every end", Duration::from_secs(60), || {
            (lives(&heard.text()).values().filter(|life| life.iter().any(|a| a == "destroy")).count() == CONTAINERS)
                .then_some(())
        });
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, Signal::TERM).expect("a living follower");
        wharf::wait(&mut child, "events");
        assert_eq!(lives(&heard.text()), history);
    }
}

/// The container by which it is known whether a follower listens.
const PROBE: &str = "probe";

/// What a process writes, as far as it has come.
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn of(mut stream: impl Read + Send + 'static) -> Self {
        let heard = Heard(Arc::default());
        let bytes = Arc::clone(&heard.0);
        std::thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                bytes.lock().expect("a living reader").extend_from_slice(&buffer[..n]);
            }
        });
        heard
    }

    /// Whole lines.
    fn text(&self) -> String {
        let bytes = self.0.lock().expect("a living reader");
        let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

/// The actions of each container, in the order told.
fn lives(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut lives: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let name = event["Actor"]["Attributes"]["name"].as_str().expect("a name").to_owned();
        if name == PROBE {
            continue;
        }
        lives.entry(name).or_default().push(event["Action"].as_str().expect("an action").to_owned());
    }
    lives
}

/// What happens while somebody listens is heard at once, and `--until` ends it.
#[test]
fn a_follower_hears_at_once() {
    let wharf = Wharf::with_busybox();
    let mut follower = wharf.spawn(&["events", "--since", "1h", "--until", "2100-01-01", "--filter", "event=destroy"]);
    let created = wharf.ok(&["create", "--network", "none", "busybox", "true"]);
    wharf.ok(&["rm", &created]);
    let mut heard = [0u8; 1];
    follower.stdout.take().expect("its output").read_exact(&mut heard).expect("an event");
    follower.kill().expect("end it");
    follower.wait().expect("its end");
    assert_eq!(wharf.ok(&["events", "--until", "1s", "--filter", "event=nothing"]), "");
}
