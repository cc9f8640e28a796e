//! The list of 200 running containers, against docker.

mod support;

use std::process::ExitCode;

use support::fixtures::{Wharf, images};
use support::peers;
use support::{Report, Side, rounds};

const CONTAINERS: usize = 200;

fn main() -> ExitCode {
    let n = rounds(100);
    let mut report = Report::default();
    let wharf = Wharf::with_busybox();
    let docker = peers::docker(wharf.dir(), &[&images::busybox()]);
    let idle = ["run", "-d", "--network", "none", "busybox", "sleep", "100000"];
    for _ in 0..CONTAINERS {
        wharf.ok(&idle);
        docker.ok(&idle);
    }
    assert_eq!(wharf.ok(&["ps", "-q"]).lines().count(), CONTAINERS);
    assert_eq!(docker.ok(&["ps", "-q"]).lines().count(), CONTAINERS);
    report.race(
        "ps with 200 containers / docker ps",
        n,
        Side::program("wharf", || wharf.command(&["ps"])),
        Side::program("docker", || docker.command(&["ps"])),
        0.5,
        0.5,
    );
    report.end()
}
