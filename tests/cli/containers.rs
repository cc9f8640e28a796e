//! The container verbs against an instance without images and containers.

use crate::support::Wharf;

#[test]
fn an_empty_instance_lists_nothing() {
    let wharf = Wharf::new();
    assert_eq!(wharf.ok(&["ps"]), "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES");
    assert_eq!(
        wharf.ok(&["ps", "-as"]),
        "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES     SIZE"
    );
    assert_eq!(wharf.ok(&["container", "ls", "-q"]), "");
    assert_eq!(wharf.ok(&["ps", "--format", "table {{.Names}}\\t{{upper .ID}}"]), "NAMES     CONTAINER ID");
    assert_eq!(wharf.ok(&["ps", "--format", "json"]), "");
}

#[test]
fn what_does_not_exist_is_named() {
    let wharf = Wharf::new();
    for line in
        ["start x", "stop x", "kill x", "wait x", "rm x", "logs x", "rename x y", "attach x", "exec x sh", "pause x"]
    {
        let ran = wharf.exits(1, &line.split(' ').collect::<Vec<_>>());
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "Error: No such container: x\n"), "{ran}");
    }
    // Docker is content when there is nothing to remove by force.
    let ran = wharf.exits(0, &["rm", "-f", "x"]);
    assert_eq!(ran.stderr, "Error: No such container: x\n");
    let ran = wharf.exits(1, &["inspect", "x"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("[]\n", "Error: No such object: x\n"), "{ran}");
}

/// Each of several is tried.
#[test]
fn failures_are_partial() {
    let ran = Wharf::new().exits(1, &["rm", "x", "y"]);
    assert_eq!(ran.stderr, "Error: No such container: x\nError: No such container: y\n");
}

#[test]
fn filters_are_checked() {
    let wharf = Wharf::new();
    let stderr = |filter: &str| wharf.exits(1, &["ps", "--filter", filter]).stderr;
    assert_eq!(stderr("foo=bar"), "invalid filter 'foo'\n");
    assert_eq!(stderr("status=sleeping"), "invalid filter 'status=sleeping'\n");
    assert_eq!(stderr("exited=x"), "invalid filter 'exited=x'\n");
    assert_eq!(stderr("before=x"), "Error: No such container: x\n");
}

#[test]
fn info_counts() {
    let wharf = Wharf::new();
    assert_eq!(wharf.ok(&["info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.OSType}}"]), "0 0 linux");
    assert_eq!(wharf.ok(&["system", "info", "-f", "{{.DockerRootDir}}"]), wharf.root().to_str().expect("UTF-8"));
}
