//! Monitors, clients and containers that are killed at bad moments: afterwards the state is true, restart policies
//! hold, and nothing is left over.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Wharf, eventually, leaks};

const PATIENCE: Duration = Duration::from_secs(60);

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, Signal::KILL).expect("a living process");
}

fn kill_monitor(wharf: &Wharf, id: &str) {
    let monitor = wharf.monitors().into_iter().find(|(_, of)| of == id).expect("a monitor").0;
    kill(monitor);
    // Killed is not yet gone.
    eventually("the end of a monitor", PATIENCE, || (!wharf.monitors().contains_key(&monitor)).then_some(()));
}

fn inspect(wharf: &Wharf, name: &str, template: &str) -> String {
    wharf.ok(&["inspect", "-f", template, name])
}

fn sleeper(wharf: &Wharf, policy: &str) -> String {
    let line = ["run", "-d", "--network", "none", "--restart", policy, "busybox", "sleep", "1000"];
    wharf.ok(&line)
}

fn is_clean(wharf: &Wharf) {
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn who_meets_a_dead_monitor_starts_what_must_run() {
    let wharf = Wharf::with_busybox();
    for (policy, ends) in
        [("always", "1 running"), ("unless-stopped", "1 running"), ("on-failure", "1 running"), ("no", "0 exited")]
    {
        let id = sleeper(&wharf, policy);
        let before = inspect(&wharf, &id, "{{.State.Pid}}");
        kill_monitor(&wharf, &id);
        assert_eq!(inspect(&wharf, &id, "{{.RestartCount}} {{.State.Status}}"), ends, "{policy}");
        assert_ne!(inspect(&wharf, &id, "{{.State.Pid}}"), before);
        // The task of the dead monitor is dead, too.
        assert!(!std::path::Path::new(&format!("/proc/{before}/root/bin/busybox")).exists(), "{policy}");
        wharf.ok(&["rm", "-f", &id]);
    }
    is_clean(&wharf);
}

#[test]
fn a_monitor_killed_between_two_runs_is_followed_by_another() {
    let wharf = Wharf::with_busybox();
    let id = wharf.ok(&["run", "-d", "--network", "none", "--restart", "always", "busybox", "sh", "-c", "exit 4"]);
    let restarting = || (inspect(&wharf, &id, "{{.State.Status}}") == "restarting").then_some(());
    // Late enough for pauses that are longer than a look takes.
    eventually("four restarts", PATIENCE, || {
        (inspect(&wharf, &id, "{{.RestartCount}}").parse::<u32>().ok()? >= 4).then_some(())
    });
    eventually("a pause", PATIENCE, restarting);
    let before: u32 = inspect(&wharf, &id, "{{.RestartCount}}").parse().expect("a number");
    kill_monitor(&wharf, &id);
    eventually("the next restart", PATIENCE, || {
        (inspect(&wharf, &id, "{{.RestartCount}}").parse::<u32>().ok()? > before).then_some(())
    });
    wharf.ok(&["stop", "-t", "0", &id]);
    assert_eq!(inspect(&wharf, &id, "{{.State.Status}}"), "exited");
    wharf.ok(&["rm", &id]);
    is_clean(&wharf);
}

#[test]
fn a_paused_container_survives_neither_its_monitor_nor_a_kill() {
    let wharf = Wharf::with_busybox();
    let id = sleeper(&wharf, "no");
    wharf.ok(&["pause", &id]);
    kill_monitor(&wharf, &id);
    assert_eq!(inspect(&wharf, &id, "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    wharf.ok(&["start", &id]);
    assert_eq!(inspect(&wharf, &id, "{{.State.Status}}"), "running");
    wharf.ok(&["pause", &id]);
    wharf.ok(&["kill", &id]);
    assert_eq!(inspect(&wharf, &id, "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    wharf.ok(&["rm", &id]);
    is_clean(&wharf);
}

#[test]
fn a_stop_whose_monitor_dies_is_still_a_stop() {
    let wharf = Wharf::with_busybox();
    let line = ["run", "-d", "--network", "none", "--restart", "always", "busybox"];
    let id = wharf.ok(&[&line[..], &["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]].concat());
    let mut stop = wharf.spawn(&["stop", "-t", "1000", &id]);
    eventually("the stop's signal", PATIENCE, || {
        let told = wharf.ok(&["events", "--since", "1h", "--until", "0s", "--filter", "event=kill"]);
        (!told.is_empty()).then_some(())
    });
    kill_monitor(&wharf, &id);
    crate::support::wharf::wait(&mut stop, "stop");
    assert_eq!(inspect(&wharf, &id, "{{.State.Status}} {{.State.ExitCode}}"), "exited 137", "nobody starts it again");
    wharf.ok(&["rm", &id]);
    is_clean(&wharf);
}

#[test]
fn a_killed_task_is_an_end_like_others() {
    let wharf = Wharf::with_busybox();
    let (once, always) = (sleeper(&wharf, "no"), sleeper(&wharf, "always"));
    for id in [&once, &always] {
        kill(inspect(&wharf, id, "{{.State.Pid}}").parse().expect("a pid"));
    }
    eventually("the end", PATIENCE, || (inspect(&wharf, &once, "{{.State.Status}}") == "exited").then_some(()));
    assert_eq!(inspect(&wharf, &once, "{{.State.ExitCode}}"), "137");
    eventually("the restart", PATIENCE, || {
        (inspect(&wharf, &always, "{{.RestartCount}} {{.State.Status}}") == "1 running").then_some(())
    });
    wharf.ok(&["rm", "-f", &once, &always]);
    is_clean(&wharf);
}

/// Clients are killed from the first moment of `start` on, a little later each time.
#[test]
fn a_killed_client_leaves_a_container_that_runs_or_does_not() {
    let wharf = Wharf::with_busybox();
    for n in 0..20 {
        let id = wharf.ok(&["create", "--network", "none", "--restart", "unless-stopped", "busybox", "sleep", "1000"]);
        let mut client = wharf.spawn(&["start", &id]);
        std::thread::sleep(Duration::from_millis(n));
        kill(client.id());
        client.wait().expect("its end");
        let state = eventually("a state that lasts", PATIENCE, || {
            let state = inspect(&wharf, &id, "{{.State.Status}}");
            (state == "running" || wharf.monitors().values().all(|of| *of != id)).then_some(state)
        });
        assert!(["running", "created"].contains(&state.as_str()), "{state}");
        wharf.ok(&["rm", "-f", &id]);
    }
    is_clean(&wharf);
}

/// What is killed while something is done.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Client,
    Monitor,
    Task,
    All,
}

/// The container `box`, whose policy is to run always: what is done to it, and whether it may rest afterwards.
const DEEDS: [(&str, &[&str], bool); 12] = [
    ("create", &["create", "--network", "none", "--name", "new", "busybox", "true"], false),
    ("run", &["run", "-d", "--network", "none", "--name", "new", "busybox", "sleep", "1000"], false),
    ("exec", &["exec", "box", "sleep", "1"], false),
    ("cp in", &["cp", "FILE", "box:/file"], false),
    ("cp out", &["cp", "box:/bin", "OUT"], false),
    ("commit", &["commit", "box", "made"], false),
    ("rename", &["rename", "box", "other"], false),
    ("prune", &["container", "prune", "-f"], false),
    ("pause", &["pause", "box"], false),
    ("restart", &["restart", "-t", "0", "box"], true),
    ("stop", &["stop", "-t", "0", "box"], true),
    ("rm", &["rm", "-f", "box"], true),
];

/// Somebody may have ended by himself in the same moment.
fn kill_if_there(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        kill_process(pid, Signal::KILL).ok();
    }
}

/// Does something, and kills somebody after so long.
fn interrupt(wharf: &Wharf, id: &str, deed: &[&str], victim: Victim, delay: Duration) {
    let (file, out) = (wharf.dir().join("file"), wharf.dir().join("out"));
    let word = |word: &&str| match *word {
        "FILE" => file.display().to_string(),
        "OUT" => out.display().to_string(),
        other => other.to_owned(),
    };
    std::fs::remove_dir_all(&out).ok();
    let task: u32 = inspect(wharf, id, "{{.State.Pid}}").parse().expect("a pid");
    let monitors: Vec<u32> = wharf.monitors().into_keys().collect();
    let mut client = wharf.spawn(&deed.iter().map(word).collect::<Vec<_>>());
    std::thread::sleep(delay);
    if matches!(victim, Victim::Client | Victim::All) {
        client.kill().ok();
    }
    if victim == Victim::All {
        // Also those that have come meanwhile.
        wharf.monitors().into_keys().for_each(kill_if_there);
    }
    if victim == Victim::Monitor {
        monitors.into_iter().for_each(kill_if_there);
    }
    if matches!(victim, Victim::Task | Victim::All) {
        kill_if_there(task);
    }
    crate::support::wharf::wait(&mut client, "the client");
}

/// Every container is in the state that it says; `None` while one is on its way to another.
fn states(wharf: &Wharf) -> Option<Vec<(String, String)>> {
    let mut all = Vec::new();
    for id in wharf.ids() {
        let ask = || wharf.run(&["inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.Name}}", &id]);
        let ran = ask();
        // It may have been about to be removed.
        if ran.code != 0 {
            return None;
        }
        let words: Vec<&str> = ran.stdout.split_whitespace().collect();
        let [status, pid, name] = words[..] else { panic!("{ran}") };
        let watched = wharf.monitors().values().any(|of| *of == id);
        let lives = std::path::Path::new(&format!("/proc/{pid}/root/bin/busybox")).exists();
        let is_true = match status {
            "running" | "paused" => watched && lives,
            "created" | "exited" => !watched && pid == "0",
            _ => false,
        };
        // Docker's word for one that is being started is "created", too; whoever was at it may have died meanwhile.
        if !is_true || ask().stdout != ran.stdout {
            return None;
        }
        all.push((name.trim_start_matches('/').to_owned(), status.to_owned()));
    }
    Some(all)
}

fn deed_by_deed(victim: Victim) {
    let wharf = Wharf::with_busybox();
    std::fs::write(wharf.dir().join("file"), vec![7; 4 << 20]).expect("a file");
    for (name, deed, may_rest) in DEEDS {
        for delay in [0, 6, 20].map(Duration::from_millis) {
            let what = format!("{victim:?} after {delay:?} of {name}");
            let line = ["run", "-d", "--network", "none", "--restart", "always", "--name", "box", "busybox"];
            let id = wharf.ok(&[&line[..], &["sleep", "1000"]].concat());
            interrupt(&wharf, &id, deed, victim, delay);
            let all = eventually(&what, PATIENCE, || states(&wharf));
            let own = all.iter().find(|(name, _)| name == "box" || name == "other").map(|(_, status)| status.as_str());
            let fits = match own {
                Some("running") => true,
                Some("paused") => name == "pause",
                // Removed, or stopped by somebody.
                Some("exited") | None => may_rest,
                _ => false,
            };
            assert!(fits, "{what}: {all:?}");
            let mut ids = wharf.ids();
            // Its record is gone, and what it had is the next sweep's.
            ids.push("box".to_owned());
            wharf.run(&[vec!["rm".to_owned(), "-f".to_owned()], ids].concat());
            assert_eq!(wharf.ids(), [] as [&str; 0], "{what}");
            let checked = wharf.run(&["system", "check", "--repair"]);
            assert_eq!(checked.code, 0, "{what}: {checked}");
            is_clean(&wharf);
            let left = || Some(()).filter(|()| leaks::traces(&wharf.root(), std::slice::from_ref(&id)).is_empty());
            eventually(&format!("nothing left: {what}"), PATIENCE, left);
        }
    }
    let images = wharf.ok(&["images", "--format", "{{.Repository}}"]);
    assert!(images.lines().all(|name| ["busybox", "made", "<none>"].contains(&name)), "{images}");
}

#[test]
fn clients_killed_at_work() {
    deed_by_deed(Victim::Client);
}

#[test]
fn monitors_killed_at_work() {
    deed_by_deed(Victim::Monitor);
}

#[test]
fn tasks_killed_at_work() {
    deed_by_deed(Victim::Task);
}

#[test]
fn everything_killed_at_work() {
    deed_by_deed(Victim::All);
}

/// What somebody has seen is in the log, whoever dies then.
#[test]
fn no_line_is_lost_that_was_shown() {
    use std::io::BufRead as _;
    let wharf = Wharf::with_busybox();
    let count = "n=0; while :; do n=$((n+1)); echo line $n; done";
    for victim in [Victim::Monitor, Victim::Task, Victim::Client, Victim::All] {
        let line = ["run", "--network", "none", "--name", "count", "busybox", "sh", "-c", count];
        let mut client = wharf.spawn(&line);
        let mut out = std::io::BufReader::new(client.stdout.take().expect("piped")).lines();
        let first: Vec<String> = out.by_ref().take(500).map(|line| line.expect("text")).collect();
        assert_eq!(first.len(), 500);
        let id = wharf.ok(&["inspect", "-f", "{{.Id}}", "count"]);
        let monitor = wharf.monitors().into_iter().find(|(_, of)| *of == id).expect("a monitor").0;
        let task = inspect(&wharf, &id, "{{.State.Pid}}").parse().expect("a pid");
        if matches!(victim, Victim::Monitor | Victim::All) {
            kill(monitor);
        }
        if matches!(victim, Victim::Task | Victim::All) {
            kill_if_there(task);
        }
        if matches!(victim, Victim::Client | Victim::All) {
            client.kill().expect("a living process");
        }
        // The last line may be half of one.
        let mut seen: Vec<String> = out.map_while(Result::ok).collect();
        seen.pop();
        crate::support::wharf::wait(&mut client, "the client");
        wharf.run(&["kill", "count"]);
        eventually("its end", PATIENCE, || (inspect(&wharf, &id, "{{.State.Status}}") == "exited").then_some(()));
        let log = wharf.ok(&["logs", "count"]);
        let logged: Vec<&str> = log.lines().collect();
        let shown = first.len() + seen.len();
        assert!(logged.len() >= shown, "{victim:?}: {} lines of {shown} are in the log", logged.len());
        for (n, line) in logged[..shown].iter().enumerate() {
            assert_eq!(*line, format!("line {}", n + 1), "{victim:?}");
        }
        wharf.ok(&["rm", "count"]);
        is_clean(&wharf);
    }
}
