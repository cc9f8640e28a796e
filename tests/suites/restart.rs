//! Restart policies and `update`.

use std::time::Duration;

use crate::support::{Wharf, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

fn inspect(wharf: &Wharf, name: &str, template: &str) -> String {
    wharf.ok(&["inspect", "-f", template, name])
}

fn status(wharf: &Wharf, name: &str) -> String {
    wharf.ok(&["ps", "-a", "--filter", &format!("name=^{name}$"), "--format", "{{.Status}}"])
}

fn becomes(wharf: &Wharf, name: &str, beginning: &str) {
    eventually(&format!("{name}: {beginning}"), PATIENCE, || status(wharf, name).starts_with(beginning).then_some(()));
}

#[test]
fn the_form_of_a_policy_is_looked_at_before_the_rest_and_its_meaning_after() {
    let wharf = Wharf::new();
    let conflict = "conflicting options: cannot specify both --restart and --rm";
    for (policy, with_rm, alone) in [
        (":3", "no policy provided before colon", "no policy provided before colon"),
        ("foo:x", "maximum retry count must be an integer", "maximum retry count must be an integer"),
        ("always:2", conflict, "maximum retry count can only be used with 'on-failure'"),
        ("foo", conflict, "unknown policy 'foo'"),
        ("on-failure:-1", conflict, "maximum retry count cannot be negative"),
    ] {
        let said = wharf.run(&["run", "--rm", "--restart", policy, "wharf/hello"]);
        assert!(said.code == 125 && said.stderr.contains(with_rm), "{policy}: {} {}", said.code, said.stderr);
        let said = wharf.run(&["create", "--restart", policy, "wharf/hello"]);
        assert!(said.code != 0 && said.stderr.contains(alone), "{policy}: {} {}", said.code, said.stderr);
    }
}

#[test]
fn a_failure_is_tried_again_so_many_times() {
    let wharf = Wharf::with_busybox();
    let line = ["run", "-d", "--network", "none", "--name", "job", "--restart", "on-failure:2"];
    wharf.ok(&[&line[..], &["busybox", "sh", "-c", "echo once; exit 3"]].concat());
    // The wait is for its last end, not for the first.
    assert_eq!(wharf.ok(&["wait", "job"]), "3");
    assert_eq!(wharf.ok(&["logs", "job"]), "once\nonce\nonce");
    assert_eq!(inspect(&wharf, "job", "{{.RestartCount}} {{.State.Status}}"), "2 exited");
    assert_eq!(
        inspect(&wharf, "job", "{{json .HostConfig.RestartPolicy}}"),
        r#"{"Name":"on-failure","MaximumRetryCount":2}"#
    );
    let events =
        wharf.ok(&["events", "--since", "1h", "--until", "0s", "--filter", "container=job", "--format", "{{.Action}}"]);
    assert_eq!(events.lines().collect::<Vec<_>>(), ["create", "start", "die", "start", "die", "start", "die"]);

    let line = ["run", "-d", "--network", "none", "--name", "good", "--restart", "on-failure"];
    wharf.ok(&[&line[..], &["busybox", "true"]].concat());
    assert_eq!(wharf.ok(&["wait", "good"]), "0");
    assert_eq!(inspect(&wharf, "good", "{{.RestartCount}}"), "0");
}

#[test]
fn a_stop_is_honoured_between_two_runs_and_in_one() {
    let wharf = Wharf::with_busybox();
    let line = ["run", "-d", "--network", "none", "--name", "loop", "--restart", "always"];
    wharf.ok(&[&line[..], &["busybox", "sh", "-c", "exit 4"]].concat());
    becomes(&wharf, "loop", "Restarting (4) ");
    let refused = wharf.exits(1, &["exec", "loop", "true"]);
    let words = "is restarting, wait until the container is running";
    assert!(refused.stderr.contains(words) || refused.stderr.contains("ended"), "{refused}");
    wharf.ok(&["stop", "loop"]);
    assert!(status(&wharf, "loop").starts_with("Exited (4) "));

    let line = ["run", "-d", "--network", "none", "--name", "long", "--restart", "always"];
    wharf.ok(&[&line[..], &["busybox", "sleep", "1000"]].concat());
    wharf.ok(&["stop", "-t", "0", "long"]);
    assert!(status(&wharf, "long").starts_with("Exited (137) "));
    assert_eq!(inspect(&wharf, "long", "{{.RestartCount}}"), "0");
    wharf.exits(125, &["run", "--rm", "--restart", "always", "busybox", "true"]);
}

#[test]
fn the_system_starts_what_is_to_run() {
    let wharf = Wharf::with_busybox();
    for (name, policy) in [("a", "always"), ("u", "unless-stopped"), ("v", "unless-stopped"), ("n", "no")] {
        let name = format!("{name}{name}");
        let line = ["run", "-d", "--network", "none", "--name", &name, "--restart", policy];
        wharf.ok(&[&line[..], &["busybox", "sleep", "1000"]].concat());
    }
    wharf.ok(&["create", "--network", "none", "--name", "new", "--restart", "always", "busybox", "sleep", "1000"]);
    for name in ["aa", "uu", "nn"] {
        wharf.ok(&["stop", "-t", "0", name]);
    }
    assert_eq!(wharf.ok(&["system", "boot"]), "aa");
    assert!(status(&wharf, "aa").starts_with("Up "));
    assert!(status(&wharf, "uu").starts_with("Exited "), "somebody has stopped it");
    assert!(status(&wharf, "vv").starts_with("Up "));
    assert!(status(&wharf, "nn").starts_with("Exited "));
    assert_eq!(status(&wharf, "new"), "Created");
    assert!(wharf.ok(&["system", "unit"]).contains(" system boot\n"));
}

#[test]
fn limits_and_policy_change_while_it_runs() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--network", "none", "--name", "one", "-m", "64m", "busybox", "sleep", "1000"]);
    assert_eq!(
        wharf.ok(&["update", "-m", "32m", "--memory-swap", "64m", "--pids-limit", "7", "--restart", "always", "one"]),
        "one"
    );
    let memory = wharf.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]);
    assert!(memory.ends_with("/ 32MiB"), "{memory}");
    let asked =
        inspect(&wharf, "one", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.RestartPolicy.Name}}");
    assert_eq!(asked, "33554432 7 always");
    // The kernel enforces it: seven is sleep, the shell and five more.
    let forks = "for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; wait";
    let refused = wharf.run(&["exec", "one", "sh", "-c", forks]);
    assert!(refused.stderr.contains("fork"), "{refused}");
    assert_eq!(wharf.exits(1, &["update", "-m", "1m", "one"]).stderr, "Error: Minimum memory limit allowed is 6MB\n");
    assert_eq!(inspect(&wharf, "one", "{{.HostConfig.Memory}}"), "33554432", "a refused change is no change");
    wharf.exits(1, &["update", "one"]);
    // What is not running is changed too, and starts so.
    wharf.ok(&["stop", "-t", "0", "one"]);
    wharf.ok(&["update", "--memory", "48m", "--memory-swap", "-1", "--restart", "no", "one"]);
    wharf.ok(&["start", "one"]);
    let memory = wharf.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]);
    assert!(memory.ends_with("/ 48MiB"), "{memory}");
}
