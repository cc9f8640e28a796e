//! Containers made by somebody who is not root, with one user and with ranges of them. The tests make the users.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::json;
use wharf_runtime::task::{ExecSpec, Limits};

use super::harness::{Plan, Test, Tree};

pub const TESTS: &[Test] = &[("rootless_single", single), ("rootless_ranges", ranges)];

/// A user of the host, who goes when the test ends.
struct User {
    name: &'static str,
    uid: u32,
}

impl User {
    fn new(name: &'static str, ranges: bool) -> User {
        run("userdel", &[name]);
        assert!(run("useradd", &["--no-create-home", name]), "useradd");
        for file in ["/etc/subuid", "/etc/subgid"] {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let mut text: String =
                text.lines().filter(|line| !line.starts_with(name)).map(|line| format!("{line}\n")).collect();
            if ranges {
                text += &format!("{name}:3000000:65536\n");
            }
            std::fs::write(file, text).unwrap();
        }
        let output = Command::new("id").args(["-u", name]).output().unwrap();
        User { name, uid: String::from_utf8_lossy(&output.stdout).trim().parse().unwrap() }
    }

    /// Runs the test's other half as this user, in a process of its own.
    fn run(&self, tree: &Tree, half: &str) {
        let base = tree.0.to_str().unwrap();
        let owner = format!("{0}:{0}", self.name);
        assert!(run("chown", &["-R", &owner, base]));
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.env(HALF, half).env(TREE, base).uid(self.uid).gid(self.uid);
        assert!(command.status().expect("the test must be readable by everybody").success());
    }
}

/// Which half of a test this process is, and the tree it works on.
const HALF: &str = "WHARF_TEST_ROOTLESS";
const TREE: &str = "WHARF_TEST_TREE";

/// Runs half a test, if this process was started for one.
pub fn as_child() -> bool {
    let Ok(half) = std::env::var(HALF) else { return false };
    let tree = Tree::borrowed(&std::env::var(TREE).unwrap());
    common(&tree);
    match half.as_str() {
        "single" => inside_single(&tree),
        _ => inside_ranges(&tree),
    }
    true
}

impl Drop for User {
    fn drop(&mut self) {
        run("userdel", &[self.name]);
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

fn common(tree: &Tree) {
    let output = Plan::script(tree, "id -u; cat /proc/self/uid_map | wc -l; echo x > /new; echo $$; ip addr show lo")
        .run()
        .unwrap();
    assert!(output.out.starts_with("0\n"), "{output:?}");
    assert!(output.out.contains("127.0.0.1/8") && output.out.contains("\n1\n"), "{output:?}");
    assert!(tree.upper("new").exists());
    let output = Plan::script(
        tree,
        "echo x > /dev/null; cat /proc/kcore | wc -c; mount -t tmpfs x /tmp; echo $?; \
                                     stat -c %t:%T /dev/null; ls /dev/shm /dev/mqueue | wc -l",
    )
    .run()
    .unwrap();
    assert!(output.out.starts_with("0\n") && output.out.contains("1:3\n"), "{output:?}");
    let mut plan = Plan::script(tree, "ls /sys | wc -l; echo x > /sys/kernel/x");
    plan.host_network = true;
    assert_ne!(plan.run().unwrap().out, "0\n");
    let mut plan = Plan::script(tree, "tty; stty size");
    plan.tty = true;
    let mut container = plan.start().unwrap();
    assert_eq!(container.expect("80\r\n"), "/dev/pts/0\r\n24 80\r\n");
    assert_eq!(container.finish().exit.code, 0);
    let container = Plan::new(tree.rootfs(), &["sleep", "100"]).start().unwrap();
    assert_eq!(container.sh("id -u; hostname; readlink /proc/self/ns/user").out, {
        let output = container.sh("id -u; hostname; readlink /proc/1/ns/user");
        output.out
    });
    assert!(container.exec(&ExecSpec { args: vec!["nope".into()], ..ExecSpec::default() }).is_err());
    drop(container);
    // Here nobody has delegated a cgroup: a limit is refused, not forgotten.
    let mut plan = Plan::script(tree, "true");
    plan.limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    assert!(plan.run().is_err());
    let mut plan = Plan::script(tree, "cat /proc/self/limits | grep open");
    plan.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 1u64 << 40}]);
    assert!(plan.run().unwrap().out.contains(" 64 "));
}

fn single() {
    let user = User::new("wharf-test-single", false);
    user.run(&Tree::new(), "single");
}

fn inside_single(tree: &Tree) {
    let mut plan = Plan::script(tree, "id -u");
    plan.user = "bob".to_owned();
    let error = plan.run().unwrap_err();
    assert!(error.to_string().contains("does not exist in this user namespace"), "{error}");
    assert!(error.hint().is_some());
}

fn ranges() {
    let user = User::new("wharf-test-ranges", true);
    user.run(&Tree::new(), "ranges");
}

fn inside_ranges(tree: &Tree) {
    let mut plan = Plan::script(tree, "id -u; id -G; echo x > /tmp/bobs; cat /proc/self/uid_map | wc -l");
    plan.user = "bob".to_owned();
    assert_eq!(plan.run().unwrap().out, "1000\n100 63\n2\n");
    let owner = std::fs::metadata(tree.upper("tmp/bobs")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 3_000_000 + 999);
}
