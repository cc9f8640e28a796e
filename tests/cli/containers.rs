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
    for line in ["stop x", "wait x", "rm x", "rm -l x", "logs x", "attach x", "exec x sh", "pause x", "unpause x"] {
        let ran = wharf.exits(1, &line.split(' ').collect::<Vec<_>>());
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", "Error: No such container: x\n"), "{ran}");
    }
    // Docker says more of these.
    let more = [
        ("start x", "Error: No such container: x\nError: failed to start containers: x\n"),
        ("kill x", "Error: cannot kill container: x: No such container: x\n"),
        ("rename x y", "Error: No such container: x\nError: failed to rename container named x\n"),
    ];
    for (line, stderr) in more {
        let ran = wharf.exits(1, &line.split(' ').collect::<Vec<_>>());
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", stderr), "{ran}");
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
    assert_eq!(stderr("foo=bar"), "Error: invalid filter 'foo'\n");
    assert_eq!(stderr("status=sleeping"), "Error: invalid filter 'status=sleeping'\n");
    assert_eq!(stderr("exited=x"), "Error: strconv.Atoi: parsing \"x\": invalid syntax\n");
    assert_eq!(stderr("before=x"), "Error: No such container: x\n");
}

#[test]
fn info_counts() {
    let wharf = Wharf::new();
    assert_eq!(wharf.ok(&["info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.OSType}}"]), "0 0 linux");
    assert_eq!(wharf.ok(&["system", "info", "-f", "{{.DockerRootDir}}"]), wharf.root().to_str().expect("UTF-8"));
}

/// One container through its life; the built-in image needs neither network nor registry.
#[test]
fn a_container_lives_under_dockers_verbs() {
    let wharf = Wharf::new();
    let cid = wharf.dir().join("cid");
    let id = wharf.ok(&[
        "create",
        "--name",
        "first",
        "-l",
        "tier=a",
        "--cidfile",
        cid.to_str().expect("UTF-8"),
        "wharf/hello",
    ]);
    assert_eq!(std::fs::read_to_string(&cid).expect("the file"), id);
    assert_eq!(wharf.ok(&["ps", "-q"]), "");
    assert_eq!(wharf.ok(&["ps", "-aq"]), &id[..12]);
    let ran = wharf.exits(1, &["create", "--name", "first", "wharf/hello"]);
    assert!(ran.stderr.starts_with("Error: Conflict. The container name \"/first\" is already in use"), "{ran}");
    let ran = wharf.exits(125, &["run", "--name", "first", "wharf/hello"]);
    assert!(ran.stderr.starts_with("wharf: Conflict. "), "{ran}");

    assert!(wharf.ok(&["start", "-a", &id[..6]]).starts_with("Hello from Wharf!"));
    assert!(wharf.ok(&["logs", "first"]).starts_with("Hello from Wharf!"));
    assert_eq!(wharf.ok(&["logs", "--tail", "1", "first"]).lines().count(), 1);
    assert_eq!(wharf.ok(&["wait", "first"]), "0");
    assert_eq!(wharf.ok(&["start", "first"]), "first");
    assert_eq!(wharf.ok(&["wait", "first", "first"]), "0\n0");

    wharf.ok(&["rename", "first", "second"]);
    let state = "{{.Name}} {{.State.Status}} {{.State.ExitCode}} {{.State.Running}} {{index .Config.Labels \"tier\"}}";
    assert_eq!(wharf.ok(&["inspect", "-f", state, "second"]), "/second exited 0 false a");
    let ran = wharf.exits(1, &["rm", "nosuch", "second"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("second\n", "Error: No such container: nosuch\n"));
}

#[test]
fn filters_choose() {
    let wharf = Wharf::new();
    for (name, label) in [("web-1", "tier=front"), ("web-2", "tier=back"), ("job", "cron")] {
        wharf.ok(&["create", "--name", name, "--label", label, "wharf/hello"]);
    }
    wharf.ok(&["start", "-a", "job"]);
    let names = |filters: &[&str]| {
        let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
        args.extend(filters.iter().flat_map(|filter| ["-f", filter]));
        let mut names: Vec<_> = wharf.ok(&args).lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&[]), "job web-1 web-2");
    assert_eq!(names(&["name=web"]), "web-1 web-2");
    assert_eq!(names(&["name=^web-1$", "name=job"]), "job web-1");
    assert_eq!(names(&["label=tier"]), "web-1 web-2");
    assert_eq!(names(&["label=tier=back"]), "web-2");
    assert_eq!(names(&["label=tier", "label=cron"]), "");
    assert_eq!(names(&["status=created"]), "web-1 web-2");
    assert_eq!(names(&["status=exited"]), "job");
    assert_eq!(names(&["exited=0"]), "job");
    assert_eq!(names(&["exited=1"]), "");
    assert_eq!(names(&["since=web-1"]), "job web-2");
    assert_eq!(names(&["before=web-2"]), "web-1");
    assert_eq!(names(&["ancestor=wharf/hello"]), "job web-1 web-2");
    assert_eq!(names(&["ancestor=nosuch"]), "");
    assert_eq!(names(&["health=none"]), "job web-1 web-2");
    assert_eq!(wharf.ok(&["ps", "-n", "1", "--format", "{{.Names}}"]), "job");
    assert_eq!(wharf.ok(&["ps", "-l", "--format", "{{.Names}} {{.Label \"cron\"}}|"]), "job |");
    assert_eq!(wharf.ok(&["container", "prune", "-f"]).lines().count(), 6);
}

#[test]
fn run_ends_with_the_programs_code() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/tools-p1.wasm"), "-t", "tools"]);
    for code in [0, 3, 42, 255] {
        wharf.exits(code, &["run", "--rm", "tools", "exit", &code.to_string()]);
    }
    // Variables: ours where only the name is given, none where we have none.
    let mut command =
        wharf.command(&["run", "--rm", "-e", "OURS", "-e", "NOT_SET_ANYWHERE", "-e", "A=b=c", "tools", "env"]);
    let out = command.env("OURS", "from here").output().expect("wharf runs");
    let mut lines: Vec<_> = String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
    lines.retain(|line| line.starts_with("OURS") || line.starts_with("A=") || line.starts_with("NOT_SET"));
    lines.sort();
    assert_eq!(lines, ["A=b=c", "OURS=from here"]);
    assert_eq!(wharf.run_with(&["run", "-i", "--rm", "tools", "cat"], b"through\n").stdout, "through\n");
}
