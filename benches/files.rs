//! Work on files against `wasmtime run --dir` of the same component: 10 000 small files made, looked at, written, read and
//! removed, and one of a gigabyte written and read. Once in a directory of the host, once in the container's own layer.

mod support;

use std::path::Path;
use std::process::ExitCode;

use support::fixtures::Wharf;
use support::peers;
use support::{Report, Side, rounds};

fn main() -> ExitCode {
    let n = rounds(10);
    let mut report = Report::default();
    let wharf = Wharf::new();
    let guest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/files-p2.wasm");
    let guest = guest.to_str().expect("a path that is text");
    let [ours, theirs] = ["ours", "theirs"].map(|name| {
        let dir = wharf.dir().join(name);
        std::fs::create_dir(&dir).expect("a directory");
        dir
    });
    let volume = format!("{}:/data", ours.display());
    for work in ["small", "large"] {
        for (place, dir) in [("a directory of the host", "/data"), ("the container's own layer", "/")] {
            let ours = ["wasm", "run", "-v", &volume, guest, work, dir];
            report.race(
                &format!("{work} files in {place} / wasmtime run --dir"),
                n,
                Side::program("wharf", || wharf.command(&ours)),
                Side::program("wasmtime", peers::wasmtime_with_dir(wharf.dir(), guest, &theirs, &[work, "/data"])),
                1.2,
                1.0,
            );
        }
    }
    report.end()
}
