//! At a terminal: raw mode while attached, and the terminal as it was before, however it ends.

use std::process::Command;
use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::wharf::program;
use crate::support::{Wharf, eventually};

/// A shell at a terminal that runs a script of which `wharf` is a part. `stty` then shows what became of the terminal.
fn shell(wharf: &Wharf, script: &str) -> Terminal {
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("WHARF", program()).env("WHARF_ROOT", wharf.root());
    Terminal::start(&command)
}

/// An instance with the image `tools`, whose `cat` waits for its input.
fn with_tools() -> Wharf {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/tools-p1.wasm"), "-t", "tools"]);
    wharf
}

fn running(wharf: &Wharf, name: &str) {
    eventually("the container runs", Duration::from_secs(30), || {
        (wharf.ok(&["ps", "--format", "{{.Names}}"]) == name).then_some(())
    });
}

#[test]
fn the_terminal_is_itself_again_after_the_end() {
    let wharf = Wharf::new();
    let mut terminal = shell(&wharf, "$WHARF run -it --rm wharf/hello; echo code $?; stty -a");
    terminal.expect("Hello from Wharf!");
    terminal.expect("code 0");
    terminal.expect(" icanon");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn detaching_leaves_the_container_and_restores_the_terminal() {
    let wharf = with_tools();
    let mut terminal = shell(&wharf, "$WHARF run -it --name kept tools cat; echo code $?; stty -a");
    running(&wharf, "kept");
    terminal.send("typed\r");
    terminal.expect("typed");
    terminal.send("\x10\x11");
    terminal.expect("code 0");
    terminal.expect(" icanon");
    running(&wharf, "kept");
}

#[test]
fn a_signal_restores_the_terminal() {
    let wharf = with_tools();
    let script = "$WHARF run -it --name hit tools cat & echo $! >\"$WHARF_ROOT.pid\"; fg 2>/dev/null; wait $!; stty -a";
    let mut terminal = shell(&wharf, &format!("set -m; {script}"));
    running(&wharf, "hit");
    let pid = std::fs::read_to_string(wharf.dir().join("root.pid")).expect("the pid");
    assert!(Command::new("kill").args(["-TERM", pid.trim()]).status().expect("kill").success());
    terminal.expect(" icanon");
}

#[test]
fn no_archive_is_read_from_a_terminal() {
    let wharf = Wharf::new();
    let mut terminal = shell(&wharf, "$WHARF volume import typed; echo code $?");
    terminal.expect("cowardly refusing to read an archive from a terminal");
    terminal.expect("code 1");
    assert_eq!(terminal.wait(), 0);
}
