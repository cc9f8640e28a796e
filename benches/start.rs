//! From typing `run` of a WebAssembly image to having the shell back, against wasmtime's command line.

mod support;

use std::process::ExitCode;

use support::fixtures::{Wharf, images};
use support::{Report, Side, peers, rounds};

fn main() -> ExitCode {
    let mut report = Report::default();
    let wharf = Wharf::installed();
    report.race(
        "run --rm wharf/hello / wasmtime run --allow-precompiled of the same module",
        rounds(200),
        Side::program("wharf", || wharf.command(&["run", "--rm", "wharf/hello"])),
        Side::program("wasmtime", peers::wasmtime(wharf.dir(), &images::guest("hello"), &[])),
        1.0,
        0.6,
    );
    report.end()
}
