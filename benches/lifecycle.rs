//! A container's days after its first start, against docker and podman: every row is to be faster than both.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use support::fixtures::{Wharf, eventually, images, tool};
use support::peers::{self, Podman};
use support::{Report, Side, rounds, settle, time};

/// Bytes of the long log and of the large file, small files, running containers, and containers in all.
const LOG: &str = "100000000";
const MEGABYTES: &str = "1000";
const FILES: &str = "10000";
const RUNNING: usize = 50;
const ALL: usize = 1000;

/// The command line of one of the three, with these arguments.
type CommandLine<'a> = Box<dyn Fn(&[&str]) -> Command + 'a>;

/// One of the three, with containers to work on.
struct Engine<'a> {
    name: &'static str,
    command: CommandLine<'a>,
    /// What its `run` and `create` need besides.
    flags: &'static [&'static str],
    /// Where files of this engine's are copied to.
    dir: tempfile::TempDir,
}

impl<'a> Engine<'a> {
    fn new(
        name: &'static str,
        dir: &Path,
        flags: &'static [&'static str],
        command: impl Fn(&[&str]) -> Command + 'a,
    ) -> Self {
        // In memory: what files cost on a disk depends on what was removed there before.
        let dir = match Path::new("/dev/shm").is_dir() {
            true => tempfile::tempdir_in("/dev/shm").expect("a directory in memory"),
            false => tempfile::tempdir_in(dir).expect("a directory"),
        };
        let engine = Engine { name, command: Box::new(command), flags, dir };
        engine.make("run", &["-d", "--name", "idle"], &["sleep", "1000000"]);
        let shout = format!(
            "busybox yes 'a line of sixty-three bytes, as programs like to write in logs' | busybox head -c {LOG}"
        );
        engine.make("run", &["--name", "loud"], &["sh", "-c", &shout]);
        let fill = format!(
            "busybox dd if=/dev/zero of=/big bs=1M count={MEGABYTES} 2>/dev/null; mkdir /many; n=0
             while [ $n -lt {FILES} ]; do echo $n >/many/$n; n=$((n+1)); done; echo filled; exec sleep 1000000"
        );
        engine.make("run", &["-d", "--name", "full"], &["sh", "-c", &fill]);
        eventually("a container full of files", Duration::from_secs(300), || {
            tool(&mut engine.command(&["logs", "full"])).contains("filled").then_some(())
        });
        engine
    }

    fn command(&self, args: &[&str]) -> Command {
        (self.command)(args)
    }

    fn make(&self, verb: &str, flags: &[&str], args: &[&str]) {
        let all = [&[verb, "--network", "none"], self.flags, flags, &["busybox"], args].concat();
        let out = self.command(&all).output().expect("a program that starts");
        assert!(out.status.success(), "{} {all:?}: {}", self.name, String::from_utf8_lossy(&out.stderr));
    }

    fn time(&self, args: &[&str]) -> Duration {
        time(&mut self.command(args))
    }

    /// Copies `from` to `to`, where the words DIR mean this engine's directory, after `what` there was taken away.
    fn copy(&self, from: &str, to: &str, away: &str) -> Duration {
        tool(Command::new("rm").arg("-rf").arg(self.dir.path().join(away)));
        settle();
        let own = |path: &str| path.replace("DIR", self.dir.path().to_str().expect("a plain path"));
        self.time(&["cp", &own(from), &own(to)])
    }
}

/// A row: its name, its rounds, and how it is measured.
type Row = (&'static str, usize, fn(&Engine<'_>) -> Duration);

/// With the few containers that every engine has.
const FEW: [Row; 7] = [
    ("stop and start", 10, |e| e.time(&["stop", "-t", "0", "idle"]) + e.time(&["start", "idle"])),
    ("exec", 20, |e| e.time(&["exec", "idle", "true"])),
    ("logs of 100 MB", 5, |e| e.time(&["logs", "loud"])),
    ("cp of 1 GB out", 3, |e| e.copy("full:/big", "DIR/big", "big")),
    ("cp of 1 GB in", 3, |e| e.copy("DIR/big", "full:/back", "nothing")),
    ("cp of 10 000 files out", 3, |e| e.copy("full:/many", "DIR/many", "many")),
    ("cp of 10 000 files in", 3, |e| e.copy("DIR/many", "full:/returned", "nothing")),
];

/// With [`RUNNING`] that run.
const RUN: [Row; 1] = [("stats of 50 containers", 3, |e| e.time(&["stats", "--no-stream"]))];

/// With [`ALL`].
const MANY: [Row; 2] = [
    ("ps -a of 1000 containers", 10, |e| e.time(&["ps", "-a"])),
    ("inspect with 1000 containers", 10, |e| e.time(&["inspect", "idle"])),
];

fn main() -> ExitCode {
    peers::without_hybrid_cgroups();
    let most = rounds(usize::MAX);
    let mut report = Report::default();
    let wharf = Wharf::with_busybox();
    let dir = wharf.dir();
    let docker = peers::docker(dir, &[&images::busybox()]);
    let archive = dir.join("busybox.tar");
    fs::write(&archive, images::busybox()).expect("an archive");
    let podman = Podman::new(dir, &archive);
    let ours = Engine::new("wharf", dir, &[], |args| wharf.command(args));
    let theirs = [
        Engine::new("docker", dir, &[], |args| docker.command(args)),
        Engine::new("podman", dir, &peers::PODMAN_LIMITS, |args| podman.command(args)),
    ];
    let mut race = |rows: &[Row]| {
        for (what, n, measure) in rows {
            for peer in &theirs {
                report.race(
                    &format!("{what} / the same by {}", peer.name),
                    (*n).min(most),
                    Side::around("wharf", || measure(&ours)),
                    Side::around(peer.name, || measure(peer)),
                    1.0,
                    0.2,
                );
            }
        }
    };
    let engines = || std::iter::once(&ours).chain(&theirs);
    race(&FEW);
    for engine in engines() {
        // Two run already.
        (2..RUNNING).for_each(|_| engine.make("run", &["-d"], &["sleep", "1000000"]));
    }
    race(&RUN);
    for engine in engines() {
        (RUNNING + 1..ALL).for_each(|_| engine.make("create", &[], &["true"]));
    }
    race(&MANY);
    report.end()
}
