//! The README's tour, as it stands there.

use std::process::Command;

use crate::support::{Wharf, wharf};

#[test]
fn the_tour_of_the_readme_works() {
    let readme = include_str!("../../README.md");
    let (_, tour) = readme.split_once("\n## A tour").expect("a tour in README.md");
    let tour = tour.split_once("\n## ").map_or(tour, |(tour, _)| tour);
    let mut script = String::from("set -eux -o pipefail\n");
    for block in tour.split("```sh\n").skip(1) {
        script += block.split_once("```").expect("the block's end").0;
    }
    assert!(script.contains("wharf run"), "{script}");

    let own = Wharf::new();
    // The tour's first line puts the release program on the path; what is tested is this one, elsewhere.
    let (program, bin) = (wharf::program().display().to_string(), own.dir().join("bin").display().to_string());
    let installed = script.replace("target/*-linux-gnu/release/wharf", &program).replace("/usr/local/bin", &bin);
    assert_ne!(installed, script);
    let script = format!("export PATH={bin}:$PATH\n{installed}");
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(env!("CARGO_MANIFEST_DIR"));
    for (name, value) in own.command::<&str>(&[]).get_envs() {
        match value {
            Some(value) => bash.env(name, value),
            None => bash.env_remove(name),
        };
    }
    let ran = wharf::run(bash, &[]);
    assert_eq!(ran.code, 0, "{ran}");
    for promise in ["from the host", "the program's own exit code: 42", "I am ", "tick "] {
        assert!(ran.stdout.contains(promise), "{promise:?} is missing: {ran}");
    }
}
