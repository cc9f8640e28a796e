//! What is said when the command line is wrong, and the exit codes.

use crate::support::Wharf;

fn fails(code: i32, args: &[&str]) -> String {
    let ran = Wharf::new().exits(code, args);
    assert_eq!(ran.stdout, "", "{ran}");
    ran.stderr
}

#[test]
fn typos_get_a_suggestion() {
    insta::assert_snapshot!(fails(1, &["pss"]), @r"
    wharf: unknown command: wharf pss

    Did you mean: ps

    Run 'wharf --help' for more information
    ");
    insta::assert_snapshot!(fails(1, &["container", "lss"]), @r"
    wharf: unknown command: wharf container lss

    Did you mean: ls

    Usage:  wharf container

    Run 'wharf container --help' for more information
    ");
    insta::assert_snapshot!(fails(1, &["xyzzy"]), @r"
    wharf: unknown command: wharf xyzzy

    Run 'wharf --help' for more information
    ");
}

#[test]
fn flags_that_come_later_are_refused_by_name() {
    insta::assert_snapshot!(fails(125, &["run", "--link-local-ip", "y", "x"]), @r"
    --link-local-ip is not supported yet

    Usage:  wharf run [OPTIONS] IMAGE [COMMAND] [ARG...]

    Run 'wharf run --help' for more information
    ");
    for flag in ["--kernel-memory=1m", "--isolation=process", "--use-api-socket", "--gpus=all"] {
        let stderr = fails(125, &["create", flag, "x"]);
        let name = flag.split('=').next().unwrap_or(flag);
        assert!(stderr.starts_with(&format!("{name} is not supported yet\n")), "{flag}: {stderr}");
    }
}

#[test]
fn errors_of_run_carry_its_name_and_lead_to_its_help() {
    insta::assert_snapshot!(fails(125, &["run", "--pull", "foo", "x"]), @r#"
    wharf: invalid pull option: 'foo': must be one of "always", "missing" or "never"

    Run 'wharf run --help' for more information
    "#);
    insta::assert_snapshot!(fails(125, &["run", "--log-driver", "syslog", "wharf/hello"]), @r#"
    wharf: error looking up logging plugin syslog: plugin "syslog" not found
    use json-file, local, journald or none

    Run 'wharf run --help' for more information
    "#);
}

#[test]
fn there_is_no_daemon_to_connect_to() {
    let stderr = fails(125, &["-H", "tcp://x", "ps"]);
    assert!(stderr.starts_with("-H, --host is not supported: there is no daemon"), "{stderr}");
    let wharf = Wharf::new();
    assert_eq!(wharf.ok(&["--context", "default", "ps", "-q"]), "");
}

#[test]
fn arguments_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let wharf = Wharf::new();
    let out = wharf.command(&["run"]).arg(std::ffi::OsStr::from_bytes(b"a\xff")).output().expect("wharf runs");
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("is not valid UTF-8"));
}

#[test]
fn a_cidfile_that_exists_is_left_alone() {
    let wharf = Wharf::new();
    let path = wharf.dir().join("cid");
    std::fs::write(&path, "other").expect("write");
    let path = path.to_str().expect("UTF-8");
    let ran = wharf.exits(125, &["run", "--cidfile", path, "x"]);
    assert!(
        ran.stderr.contains("container ID file found, make sure the other container isn't running or delete"),
        "{ran}"
    );
    assert_eq!(std::fs::read_to_string(path).expect("read"), "other");
}

#[test]
fn it_needs_a_terminal_where_keys_are_to_be_typed() {
    assert_eq!(fails(1, &["run", "-it", "x"]), "the input device is not a TTY\n");
}
