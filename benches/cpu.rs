//! Work that needs the processor alone, against `wasmtime run` of the same module: compiled code must be as fast behind two
//! walls as behind one.

mod support;

use std::process::ExitCode;

use support::fixtures::{Wharf, images};
use support::peers;
use support::{Report, Side, rounds};

fn main() -> ExitCode {
    let n = rounds(10);
    let mut report = Report::default();
    let wharf = Wharf::new();
    let guest = images::guest("compute-p1");
    wharf.ok(&["wasm", "pack", &guest, "-t", "compute"]);
    for work in ["sha256", "nbody", "sieve"] {
        let ours = ["run", "--rm", "--network", "none", "compute", work];
        let theirs = peers::wasmtime(wharf.dir(), &guest, &[work]);
        assert_eq!(
            wharf.run(&ours).stdout.into_bytes(),
            theirs().output().expect("wasmtime").stdout,
            "the same result"
        );
        report.race(
            &format!("{work} / wasmtime run"),
            n,
            Side::program("wharf", || wharf.command(&ours)),
            Side::program("wasmtime", theirs),
            1.03,
            1.0,
        );
    }
    report.end()
}
