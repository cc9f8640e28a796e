//! What a machine cannot test is listed by name, never passed over in silence. Unit tests of the crates take this file
//! in by its path.

use std::io::Write;

/// Says by name what is not tested here, and why. `.ci/run` collects these lines through `WHARF_TEST_SKIPS`.
pub fn skip(name: &str, why: &str) {
    eprintln!("SKIP {name}: {why}");
    if let Some(list) = std::env::var_os("WHARF_TEST_SKIPS") {
        let mut list = std::fs::OpenOptions::new().append(true).create(true).open(list).expect("the list of skips");
        writeln!(list, "{name}: {why}").expect("the list of skips");
    }
}
