//! Help, version and completion.

use std::process::{Command, Stdio};

use crate::support::wharf::{Wharf, program};

/// Help does not depend on the machine: no root is opened, and the width is that of no terminal.
fn help(line: &str) -> String {
    Wharf::new().ok(&line.split_whitespace().collect::<Vec<_>>())
}

/// What is said where nothing is asked for.
fn bare(line: &str) -> String {
    let ran = Wharf::new().exits(0, &line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(ran.stdout, "");
    ran.stderr.trim_end().to_owned()
}

#[test]
fn help_of_run_is_grouped() {
    insta::assert_snapshot!(help("run --help"));
}

#[test]
fn help_of_ps() {
    insta::assert_snapshot!(help("ps --help"));
}

#[test]
fn help_of_exec() {
    insta::assert_snapshot!(help("exec --help"));
}

/// The list of commands grows; what must stay is docker's order of the groups and the forms that lead there.
#[test]
fn help_of_wharf_has_dockers_groups() {
    let top = help("--help");
    let titles: Vec<_> = top.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    assert_eq!(titles, ["Common Commands:", "Management Commands:", "Commands:", "Global Options:"]);
    assert!(top.starts_with("Usage:  wharf [OPTIONS] COMMAND\n"), "{top}");
    assert!(top.contains("\n  run         Create and run a new container from an image\n"), "{top}");
    assert!(top.contains("\n  container   Manage containers\n"), "{top}");
    assert_eq!(bare(""), top);
    assert_eq!(help("help"), top);
    assert_eq!(help("-h"), top);
}

#[test]
fn every_spelling_leads_to_the_same_help() {
    let ps = help("ps --help");
    for spelling in ["container ls", "container list", "container ps"] {
        assert_eq!(
            help(&format!("{spelling} --help")),
            ps.replace("Usage:  wharf ps", &format!("Usage:  wharf {spelling}"))
        );
    }
    assert_eq!(help("help ps"), ps);
    assert_eq!(help("help container"), bare("container"));
}

/// Every verb that help lists has help of its own; `-h` is help too where no flag takes it.
#[test]
fn every_listed_verb_has_help() {
    let top = help("--help");
    let (commands, _) = top.split_once("Global Options:").expect("global options come last");
    let commands = commands.lines().filter_map(|line| line.strip_prefix("  "));
    let names: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let text = help(&format!("{name} --help"));
        assert!(text.starts_with(&format!("Usage:  wharf {name}")), "{name}: {text}");
    }
}

#[test]
fn version_is_told_in_three_ways() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(help("--version"), format!("Wharf version {version}"));
    assert_eq!(help("version --format {{.Client.Version}}"), version);
    assert_eq!(help("version -f {{.Server.Version}}"), version);
    let json: serde_json::Value = serde_json::from_str(&help("version --format json")).expect("JSON");
    assert_eq!(json["Client"]["Version"], version);
}

#[test]
fn completions_are_accepted_by_their_shells() {
    for (shell, known) in
        [("bash", "_wharf"), ("zsh", "#compdef wharf"), ("fish", "complete -c wharf"), ("powershell", "wharf")]
    {
        let script = help(&format!("completion {shell}"));
        assert!(script.contains(known) && script.contains("container"), "{shell}");
    }
    let script = help("completion bash");
    // As a file: it is longer than one argument may be.
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), script).expect("a script");
    let parsed = Command::new("bash").arg("-n").arg(file.path()).status().expect("bash");
    assert!(parsed.success());
}

/// `wharf --help | head -1` ends quietly.
#[test]
fn a_reader_that_goes_away_is_no_failure_worth_words() {
    let mut child = Command::new(program())
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wharf starts");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("wharf ends");
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
}
