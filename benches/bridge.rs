//! From typing `run` of a Linux image on the default network to having the shell back, against docker and podman: a bridge,
//! a pair of interfaces, an address and a name each time.

mod support;

use std::process::ExitCode;

use support::fixtures::{Wharf, images};
use support::peers::{self, Namespace, Podman};
use support::{Report, rounds};

fn main() -> ExitCode {
    peers::without_hybrid_cgroups();
    let n = rounds(20);
    let mut report = Report::default();
    let wharf = Wharf::installed();
    wharf.load(&images::busybox());
    let dir = wharf.dir();

    let ours = ["run", "--rm", "busybox", "true"];
    {
        let apart = Namespace::new("docker");
        let docker = peers::docker_apart(dir, &apart, &[&images::busybox()]);
        report.race_run("docker", n, &wharf, &ours, || docker.command(&ours), 0.1);
    }
    let apart = Namespace::new("podman");
    let archive = dir.join("busybox.tar");
    std::fs::write(&archive, images::busybox()).expect("an archive");
    let podman = Podman::apart(dir, &archive, &apart);
    let theirs = [&["run", "--rm"], &peers::PODMAN_LIMITS[..], &["busybox", "true"]].concat();
    report.race_run("podman", n, &wharf, &ours, || podman.command(&theirs), 0.1);
    report.end()
}
