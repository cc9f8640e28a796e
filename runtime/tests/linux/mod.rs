//! The list of the tests, and what runs them.

mod attacks;
mod basics;
mod bench;
mod harness;
mod rootless;

use std::panic::catch_unwind;

pub fn main() {
    if rootless::as_child() {
        return;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if filters == ["bench"] {
        bench::main();
        return;
    }
    let list = std::env::args().any(|argument| argument == "--list");
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in [basics::TESTS, attacks::TESTS, rootless::TESTS].concat() {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        if list {
            println!("{name}: test");
            continue;
        }
        let before = harness::host();
        let ok = catch_unwind(test).is_ok();
        let clean = harness::host() == before;
        if !clean {
            println!("left behind: {:?}", harness::host());
        }
        println!("{name} ... {}", if ok && clean { "ok" } else { "FAILED" });
        if ok && clean { passed += 1 } else { failed += 1 }
    }
    if !list {
        println!("{passed} passed, {failed} failed");
    }
    std::process::exit(i32::from(failed > 0));
}
