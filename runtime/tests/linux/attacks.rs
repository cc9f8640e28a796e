//! Images and containers that mean harm. Each is refused, or reaches nothing but itself.

use std::os::unix::fs::symlink;

use serde_json::json;
use wharf_runtime::task::ExecSpec;

use super::harness::{Plan, Test, Tree, sh};

pub const TESTS: &[Test] = &[
    ("kernel_file_systems_through_links", kernel_file_systems_through_links),
    ("mount_targets_through_links", mount_targets_through_links),
    ("cwd_outside", cwd_outside),
    ("masked_path_replaced", masked_path_replaced),
    ("links_to_the_host", links_to_the_host),
    ("own_program", own_program),
    ("own_program_as_interpreter", own_program_as_interpreter),
    ("denied", denied),
];

/// CVE-2019-19921 and its kin: proc or sys mounted where the image says, and not where the masks go.
fn kernel_file_systems_through_links() {
    for name in ["proc", "sys"] {
        let tree = Tree::new();
        symlink("/tmp", tree.lower(name)).unwrap();
        let error = Plan::script(&tree, "true").run().unwrap_err();
        assert_eq!(error.to_string(), format!("/{name} is not a directory in this image"));
        std::fs::remove_file(tree.lower(name)).unwrap();
        std::fs::write(tree.lower(name), "").unwrap();
        assert!(Plan::script(&tree, "true").run().is_err());
    }
    // A link where /dev goes leads somewhere in the image at worst.
    let tree = Tree::new();
    symlink("/../../../tmp", tree.lower("dev")).unwrap();
    let before: Vec<_> = std::fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(sh(&tree, "stat -c %t:%T /tmp/null").out, "1:3\n");
    let after: Vec<_> = std::fs::read_dir("/tmp").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(before.len(), after.len());
}

/// CVE-2021-30465 without the race: what a target's links name is looked for in the container.
fn mount_targets_through_links() {
    let tree = Tree::new();
    let outside = Tree::new();
    let source = Tree::new();
    std::fs::write(source.lower("mark"), "mark").unwrap();
    symlink(outside.lower("tmp"), tree.lower("link")).unwrap();
    symlink("../../../../../../../..", tree.lower("up")).unwrap();
    let mut plan = Plan::script(&tree, "cat /link/data/mark /up/there/mark");
    for target in ["/link/data", "/up/there"] {
        plan.spec["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": target, "type": "bind", "source": source.lower(""), "options": ["rbind"]}));
    }
    // The link leads to a directory that the container has not: it is made there, and the host's of that name is left alone.
    for is_there in [false, true] {
        if is_there {
            let there = outside.lower("tmp");
            std::fs::create_dir_all(tree.0.join("lower").join(there.strip_prefix("/").unwrap())).unwrap();
        }
        assert_eq!(plan.run().unwrap().out, "markmark", "{is_there}");
        assert_eq!(std::fs::read_dir(outside.lower("tmp")).unwrap().count(), 0);
    }
    assert!(!std::path::Path::new("/there").exists());
}

/// CVE-2024-21626: a working directory in a descriptor that leads to the host.
fn cwd_outside() {
    let tree = Tree::new();
    let leak = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    for n in 0..20 {
        for path in [format!("/proc/self/fd/{n}"), format!("/proc/self/fd/{n}/etc"), "/proc/self/cwd".to_owned()] {
            let mut plan = Plan::script(&tree, "cat /proc/1/cmdline; ls ../../../..");
            plan.spec["process"]["cwd"] = json!(path);
            assert!(plan.run().is_err(), "{path}");
        }
    }
    symlink("/proc/self/fd/7", tree.lower("in")).unwrap();
    let mut container = Plan::new(tree.rootfs(), &["sleep", "100"]).start().unwrap();
    for path in ["/in", "/proc/self/fd/7", "/proc/self/root", "/proc/1/root"] {
        let exec = ExecSpec { args: vec!["pwd".to_owned()], cwd: Some(path.to_owned()), ..ExecSpec::default() };
        assert!(container.exec(&exec).is_err(), "{path}");
    }
    container.task.signal(libc::SIGKILL).unwrap();
    container.finish();
}

/// CVE-2025-31133: what a mask is made of, or what it covers, is a link.
fn masked_path_replaced() {
    let tree = Tree::new();
    std::fs::create_dir_all(tree.lower("dev")).unwrap();
    // An image's own /dev/null is not what masks.
    symlink("/proc/sys/kernel/core_pattern", tree.lower("dev/null")).unwrap();
    assert_eq!(sh(&tree, "cat /proc/kcore | wc -c").out, "0\n");
    // A mask of a link covers what it leads to, in the container.
    std::fs::write(tree.lower("secret"), "secret").unwrap();
    symlink("../../../secret", tree.lower("etc/alias")).unwrap();
    let mut plan = Plan::script(&tree, "cat /secret /etc/alias /etc/shadow");
    plan.spec["linux"]["maskedPaths"] = json!(["/etc/alias", "/none/such", "/etc/passwd/x"]);
    assert_eq!(plan.run().unwrap().out, "");
    assert_eq!(std::fs::read_to_string(tree.lower("secret")).unwrap(), "secret");
}

/// An image's links to absolute paths stay in the image.
fn links_to_the_host() {
    let tree = Tree::new();
    symlink("/etc/hostname", tree.lower("h")).unwrap();
    let output = sh(&tree, "cat /h; ls /proc/1/root/; cat /proc/1/root/../../../etc/passwd | wc -l");
    assert!(output.out.ends_with("tmp\n2\n"), "{output:?}");
}

/// CVE-2019-5736: our own program's file is not to be had from inside.
fn own_program() {
    let tree = Tree::new();
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let before = std::fs::metadata(&own).unwrap().len();
    symlink("/proc/self/exe", tree.lower("bin/evil")).unwrap();
    for program in ["/proc/self/exe", "evil", "/bin/evil"] {
        let error = Plan::new(tree.rootfs(), &[program]).run().unwrap_err();
        assert_eq!(error.exit_code(), 126, "{error}");
    }
    // The init is our program. It can be neither seen nor written through.
    let mut plan = Plan::script(
        &tree,
        "readlink /proc/1/exe; cat /proc/1/exe | wc -c; echo x >> /proc/1/exe; cat /proc/1/maps /proc/1/environ",
    );
    plan.init = true;
    let output = plan.run().unwrap();
    assert_eq!(output.out, "0\n", "{output:?}");
    assert!(output.err.contains("Permission denied"), "{output:?}");
    // A watcher in the container tries to catch a process that joins before it has executed.
    let watch = "while true; do for p in /proc/[0-9]*; do \
                 case $(readlink $p/exe) in *linux-*) echo caught $p; (echo x >> $p/exe) 2>&1; esac; done; done";
    let mut container = Plan::script(&tree, watch).start().unwrap();
    for _ in 0..100 {
        container.sh("true");
    }
    container.task.signal(libc::SIGKILL).unwrap();
    let output = container.finish();
    assert_eq!(output.out, "", "{output:?}");
    assert_eq!(std::fs::metadata(&own).unwrap().len(), before);
    let busy = std::fs::OpenOptions::new().append(true).open(&own).unwrap_err();
    assert_eq!(busy.raw_os_error(), Some(libc::ETXTBSY));
}

/// CVE-2019-5736 by way of an interpreter: a script that the image brings, or a container writes, would have the kernel
/// start our program inside.
fn own_program_as_interpreter() {
    let own = std::fs::read_link("/proc/self/exe").unwrap();
    let before = std::fs::metadata(&own).unwrap().len();
    let script = |path: &std::path::Path, text: &str| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let tree = Tree::new();
    script(&tree.lower("bin/direct"), "#!/proc/self/exe --list\n");
    script(&tree.lower("bin/spaced"), "#! \t/proc/self/../self/exe");
    script(&tree.lower("bin/twice"), "#!/bin/direct\n");
    script(&tree.lower("bin/linked"), "#!/bin/link\n");
    symlink("/proc/self/exe", tree.lower("bin/link")).unwrap();
    for program in ["direct", "/bin/spaced", "twice", "linked"] {
        let error = Plan::new(tree.rootfs(), &[program]).run().unwrap_err();
        assert_eq!(error.exit_code(), 126, "{program}: {error}");
    }
    script(&tree.lower("bin/honest"), "#!/bin/sh\necho honest\n");
    assert_eq!(Plan::new(tree.rootfs(), &["honest"]).run().unwrap().out, "honest\n");

    // A container that swaps the script between the look and the execve may get our program started. Whatever it opens
    // of it, it cannot write to it.
    script(&tree.lower("bin/swapped"), "#!/bin/sh\n");
    let own_name = own.file_name().unwrap().to_str().unwrap();
    let attack = format!(
        "while true; do echo '#!/proc/self/exe --list' > /bin/swapped; echo '#!/bin/sh' > /bin/swapped; done & \
         while true; do for p in /proc/[0-9]*; do case $(readlink $p/exe) in */{own_name}) \
         if exec 9<$p/exe; then echo caught; (echo x >> /proc/self/fd/9) 2>/dev/null && echo written; exec 9<&-; fi;; \
         esac; done; done 2>/dev/null"
    );
    let mut container = Plan::script(&tree, &attack).start().unwrap();
    for _ in 0..200 {
        // Whether it is refused or runs depends on who was faster.
        let exec = ExecSpec { args: vec!["/bin/swapped".to_owned()], ..ExecSpec::default() };
        let _ = container.exec(&exec);
    }
    container.task.signal(libc::SIGKILL).unwrap();
    let output = container.finish();
    assert!(!output.out.contains("written"), "{output:?}");
    assert_eq!(std::fs::metadata(&own).unwrap().len(), before);
}

/// What docker's capabilities and devices deny.
fn denied() {
    let tree = Tree::new();
    let output = sh(
        &tree,
        "mount -t tmpfs x /tmp; umount /proc; hostname other; echo 1 > /proc/sys/vm/swappiness; \
         echo 0 > /sys/fs/cgroup/cgroup.procs; dmesg | head -1",
    );
    assert!(output.err.lines().count() >= 5, "{output:?}");
    assert_eq!(sh(&tree, "mount -t tmpfs x /tmp || hostname").out, "box\n");
}
