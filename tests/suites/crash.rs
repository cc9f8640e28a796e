//! Monitors, clients and containers that are killed at bad moments: afterwards the state is true, restart policies
//! hold, and nothing is left over.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Wharf, eventually};

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
