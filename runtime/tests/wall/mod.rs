//! The walls against the real kernel: cgroups, system call filters, capabilities and the jail.
//!
//! One thread and no harness, because the tests fork and confine themselves for good. Needs root. A word on the
//! command line chooses the tests whose names contain it.

// Forking and raw system calls are what is tested.
#![allow(unsafe_code)]

mod cgroup;
mod confine;
mod process;

use std::panic::catch_unwind;
use std::process::ExitCode;

/// A test: its name and what it does.
type Test = (&'static str, fn());

pub fn main() -> ExitCode {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let tests: Vec<Test> = cgroup::TESTS.iter().chain(confine::TESTS).copied().collect();
    if std::env::args().any(|arg| arg == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("these tests need root");
        return ExitCode::FAILURE;
    }
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests.into_iter().filter(|(name, _)| name.contains(&wanted)) {
        let ok = catch_unwind(test).is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        if ok { passed += 1 } else { failed += 1 }
    }
    println!("{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
