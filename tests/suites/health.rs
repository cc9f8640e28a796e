//! Health checks as a docker user sees them.

use std::time::Duration;

use crate::support::{Wharf, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

fn inspect(wharf: &Wharf, name: &str, template: &str) -> String {
    wharf.ok(&["inspect", "-f", template, name])
}

fn status(wharf: &Wharf, name: &str) -> String {
    wharf.ok(&["ps", "-a", "--filter", &format!("name=^{name}$"), "--format", "{{.Status}}"])
}

fn becomes(wharf: &Wharf, name: &str, health: &str) {
    eventually(health, PATIENCE, || status(wharf, name).ends_with(&format!(" ({health})")).then_some(()));
}

#[test]
fn health_follows_the_probes() {
    let wharf = Wharf::with_busybox();
    let line = ["run", "-d", "--network", "none", "--name", "web", "--health-cmd", "echo seen; test -e /ok"];
    let often = ["--health-interval", "100ms", "--health-retries", "2", "busybox", "sleep", "1000"];
    wharf.ok(&[&line[..], &often].concat());
    becomes(&wharf, "web", "unhealthy");
    wharf.ok(&["exec", "web", "touch", "/ok"]);
    becomes(&wharf, "web", "healthy");
    assert_eq!(wharf.ok(&["ps", "--filter", "health=healthy", "--format", "{{.Names}}"]), "web");
    assert_eq!(wharf.ok(&["ps", "--filter", "health=none", "--format", "{{.Names}}"]), "");
    eventually("five results", PATIENCE, || (inspect(&wharf, "web", "{{len .State.Health.Log}}") == "5").then_some(()));
    let last = inspect(&wharf, "web", "{{with index .State.Health.Log 4}}{{.ExitCode}} {{.Output}}{{end}}");
    assert_eq!(last.trim_end(), "0 seen");
    assert_eq!(inspect(&wharf, "web", "{{.State.Health.FailingStreak}}"), "0");

    let events =
        ["events", "--since", "1h", "--until", "0s", "--filter", "event=health_status", "--format", "{{.Action}}"];
    assert_eq!(wharf.ok(&events), "health_status: unhealthy\nhealth_status: healthy");

    // Frozen it is not asked; a new start begins anew.
    wharf.ok(&["pause", "web"]);
    let before = inspect(&wharf, "web", "{{json .State.Health}}");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(inspect(&wharf, "web", "{{json .State.Health}}"), before);
    wharf.ok(&["unpause", "web"]);
    wharf.ok(&["exec", "web", "rm", "/ok"]);
    wharf.ok(&["restart", "-t", "0", "web"]);
    becomes(&wharf, "web", "unhealthy");
}

#[test]
fn a_probe_that_takes_too_long_has_failed() {
    let wharf = Wharf::with_busybox();
    let line = ["run", "-d", "--network", "none", "--name", "slow", "--health-cmd", "sleep 1000"];
    let soon = ["--health-interval", "100ms", "--health-timeout", "200ms", "--health-retries", "1"];
    wharf.ok(&[&line[..], &soon, &["busybox", "sleep", "1000"]].concat());
    assert!(status(&wharf, "slow").starts_with("Up "));
    becomes(&wharf, "slow", "unhealthy");
    let first = inspect(&wharf, "slow", "{{with index .State.Health.Log 0}}{{.ExitCode}} {{.Output}}{{end}}");
    assert_eq!(first, "-1 Health check exceeded timeout (200ms)");
    // Probes that were given up do not pile up.
    let processes = wharf.ok(&["top", "slow"]);
    assert!(processes.lines().count() <= 4, "{processes}");
}

#[test]
fn the_images_check_counts_unless_refused() {
    let wharf = Wharf::with_busybox();
    let root = wharf.ok(&["create", "--network", "none", "busybox", "true"]);
    let tar = wharf.dir().join("root.tar");
    wharf.ok(&["export", "-o", tar.to_str().expect("a path"), &root]);
    let change = "HEALTHCHECK --interval=100ms CMD true";
    wharf.ok(&["import", "--change", change, tar.to_str().expect("a path"), "checked"]);
    let line = ["run", "-d", "--network", "none", "--name"];
    wharf.ok(&[&line[..], &["one", "checked", "sleep", "1000"]].concat());
    wharf.ok(&[&line[..], &["two", "--no-healthcheck", "checked", "sleep", "1000"]].concat());
    becomes(&wharf, "one", "healthy");
    assert!(!status(&wharf, "two").contains('('));
    let refused = wharf.exits(125, &["run", "--no-healthcheck", "--health-cmd", "true", "checked", "true"]);
    assert!(refused.stderr.contains("--no-healthcheck conflicts with --health-* options"), "{refused}");
    let refused = wharf.exits(125, &["run", "--health-cmd", "true", "wharf/hello"]);
    assert!(refused.stderr.contains("--health-cmd cannot be used with a WebAssembly image"), "{refused}");
}
