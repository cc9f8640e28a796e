//! What the benches share: alternating rounds, medians, and a verdict against a promised ratio.
//!
//! A number by itself says more about the machine than about Wharf. So both sides are measured in the same run, turn by
//! turn, and only their ratio is judged. Programs are started directly, without a shell, as `hyperfine -N` does.
//! A peer that is missing is an error, never a silence.

#![allow(dead_code, reason = "each bench uses its part of this")]

#[path = "../../tests/support/mod.rs"]
pub mod fixtures;
pub mod peers;

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The number of rounds: the first number among the arguments (`cargo bench --bench start -- 200`), or this.
pub fn rounds(default: usize) -> usize {
    std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(default)
}

/// What a bench has found so far.
#[derive(Default)]
pub struct Report {
    missed: Vec<String>,
}

impl Report {
    /// Measures two programs in turn, and judges: ours takes at most `bound` of theirs; `goal` is what we would like.
    pub fn race(&mut self, what: &str, n: usize, ours: Side<'_>, theirs: Side<'_>, bound: f64, goal: f64) {
        let mut sides = [ours, theirs];
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=n {
            // Neither side always goes first.
            for turn in 0..2 {
                let side = (round + turn) % 2;
                let time = (sides[side].measure)();
                // The first round warms up.
                if round > 0 {
                    times[side].push(time.as_secs_f64() * 1e3);
                }
            }
        }
        println!("{what}  (n = {n})");
        let medians = [0, 1].map(|side| {
            times[side].sort_by(f64::total_cmp);
            let at = |part: f64| times[side][((n - 1) as f64 * part).round() as usize];
            println!("  {:9} {:9.2} ms   (quartiles {:.2} to {:.2})", sides[side].name, at(0.5), at(0.25), at(0.75));
            at(0.5)
        });
        self.judge(what, medians[0] / medians[1], bound, goal);
    }

    /// Races `run` as we have it against the same by a peer, each after a rest.
    pub fn race_run<'a>(
        &mut self,
        peer: &'a str,
        n: usize,
        wharf: &'a fixtures::Wharf,
        ours: &'a [&'a str],
        theirs: impl Fn() -> Command + 'a,
        bound: f64,
    ) {
        let what = format!("{} / the same by {peer}", ours.join(" "));
        let (ours, theirs) = (Side::rested("wharf", || wharf.command(ours)), Side::rested(peer, theirs));
        self.race(&what, n, ours, theirs, bound, bound);
    }

    /// Judges a ratio (or an amount in megabytes) against its bound.
    pub fn judge(&mut self, what: &str, value: f64, bound: f64, goal: f64) {
        let verdict = match value {
            v if v <= goal => "goal reached",
            v if v <= bound => "within the bound",
            _ => "MISSED",
        };
        println!("  => {value:.3}   bound {bound}, goal {goal}: {verdict}\n");
        if value > bound {
            self.missed.push(format!("{what}: {value:.3}, bound {bound}"));
        }
    }

    /// Success if every bound was kept.
    pub fn end(self) -> ExitCode {
        for missed in &self.missed {
            eprintln!("missed: {missed}");
        }
        if self.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// One side of a race.
pub struct Side<'a> {
    name: &'a str,
    measure: Box<dyn FnMut() -> Duration + 'a>,
}

impl<'a> Side<'a> {
    /// A program, from its start to its end.
    pub fn program(name: &'a str, command: impl Fn() -> Command + 'a) -> Self {
        Side::around(name, move || time(&mut command()))
    }

    /// The same after a rest, for a race with a peer that goes on working when its command has ended: it takes networks and
    /// mounts apart, and whoever makes some meanwhile waits for that.
    pub fn rested(name: &'a str, command: impl Fn() -> Command + 'a) -> Self {
        Side::around(name, move || {
            settle();
            time(&mut command())
        })
    }

    /// What this closure measures.
    pub fn around(name: &'a str, measure: impl FnMut() -> Duration + 'a) -> Self {
        Side { name, measure: Box::new(measure) }
    }
}

/// What one side has left to do or to write must not slow down the other.
pub fn settle() {
    fixtures::tool(&mut Command::new("sync"));
    std::thread::sleep(Duration::from_millis(200));
}

/// How long a program takes. One that fails was not measured.
pub fn time(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status();
    let time = start.elapsed();
    if !status.is_ok_and(|s| s.success()) {
        let out = command.stderr(Stdio::piped()).output().expect("a program that starts");
        panic!("{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    }
    time
}
