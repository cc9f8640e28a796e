//! A further program in a running Linux container, against docker.

mod support;

use std::process::ExitCode;

use support::fixtures::{Wharf, images};
use support::peers;
use support::{Report, Side, rounds};

fn main() -> ExitCode {
    let n = rounds(50);
    let mut report = Report::default();
    let wharf = Wharf::with_busybox();
    let docker = peers::docker(wharf.dir(), &[&images::busybox()]);
    let idle = ["run", "-d", "--name", "idle", "--network", "none", "busybox", "sleep", "100000"];
    wharf.ok(&idle);
    docker.ok(&idle);
    let exec = ["exec", "idle", "true"];
    report.race(
        "exec / docker exec",
        n,
        Side::program("wharf", || wharf.command(&exec)),
        Side::program("docker", || docker.command(&exec)),
        0.1,
        0.1,
    );
    report.end()
}
