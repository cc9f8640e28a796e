//! From typing `run` of a Linux image to having the shell back, against bare crun, docker and podman.

mod support;

use std::process::ExitCode;

use support::fixtures::{Wharf, images};
use support::peers::{self, Podman};
use support::{Report, Side, rounds};

fn main() -> ExitCode {
    peers::without_hybrid_cgroups();
    let n = rounds(100);
    let mut report = Report::default();
    let wharf = Wharf::installed();
    wharf.load(&images::busybox());
    let dir = wharf.dir();

    let ours = ["run", "--rm", "--network", "none", "busybox", "true"];
    report.race(
        "run --rm --network none busybox true / crun run of the same bundle",
        n,
        Side::program("wharf", || wharf.command(&ours)),
        Side::program("crun", peers::crun(dir, &images::busybox_layer())),
        1.0,
        0.65,
    );
    {
        let docker = peers::docker(dir, &[&images::busybox()]);
        report.race_run("docker", n.div_ceil(5), &wharf, &ours, || docker.command(&ours), 0.05);
    }
    let archive = dir.join("busybox.tar");
    std::fs::write(&archive, images::busybox()).expect("an archive");
    let podman = Podman::new(dir, &archive);
    let theirs = [&["run", "--rm", "--network", "none"], &peers::PODMAN_LIMITS[..], &["busybox", "true"]].concat();
    report.race_run("podman", n.div_ceil(5), &wharf, &ours, || podman.command(&theirs), 0.05);
    report.end()
}
