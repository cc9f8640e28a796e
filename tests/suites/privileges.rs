//! Who a container's program is, and how much more it may when it is told to.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::support::Wharf;

#[test]
fn groups_are_added_by_name_and_number() {
    let wharf = Wharf::with_busybox();
    let id = |args: &[&str]| wharf.ok(&[&["run", "--rm"], args, &["busybox", "id", "-G"]].concat());
    assert_eq!(id(&["--group-add", "sailors", "--group-add", "55"]), "0 55 2000");
    assert_eq!(id(&["-u", "anna", "--group-add", "55"]), "1000 55 2000", "beside those of the group file");
    assert_eq!(id(&["-u", "1000", "--group-add", "1000"]), "1000 2000", "none twice");
    let nobodys = wharf.exits(125, &["run", "--rm", "--group-add", "pirates", "busybox", "true"]);
    assert!(nobodys.stderr.contains("unable to find group pirates: no matching entries in group file"), "{nobodys}");
    // An exec has them too.
    let box_ = wharf.ok(&["run", "-d", "--group-add", "sailors", "busybox", "sleep", "1000"]);
    assert_eq!(wharf.ok(&["exec", &box_, "id", "-G"]), "0 2000");
}

/// The character and block devices of the host's /dev, with their numbers.
fn devices(dir: &Path, found: &mut BTreeSet<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        let kind = metadata.file_type();
        let own = ["pts", "shm", "mqueue", "console", "ptmx"].iter().any(|name| entry.file_name() == *name);
        if kind.is_dir() && !own {
            devices(&entry.path(), found);
        } else if (kind.is_char_device() || kind.is_block_device()) && !own {
            found.insert((entry.path(), metadata.rdev()));
        }
    }
}

#[test]
fn the_privileged_have_all_devices_and_no_walls() {
    let wharf = Wharf::with_busybox();
    let run =
        |args: &[&str], script: &str| wharf.run(&[&["run", "--rm"], args, &["busybox", "sh", "-c", script]].concat());
    let mut host = BTreeSet::new();
    devices(Path::new("/dev"), &mut host);
    assert!(host.len() > 6, "{host:?}");
    let script: String =
        host.iter().map(|(path, _)| format!("stat -c %t:%T {0} || echo no {0}\n", path.display())).collect();
    let shown = run(&["--privileged"], &script).stdout;
    let expected: String = host
        .iter()
        .map(|(_, number)| format!("{:x}:{:x}\n", rustix::fs::major(*number), rustix::fs::minor(*number)))
        .collect();
    assert_eq!(shown, expected, "every device of the host by its number");

    let free = "mount -t tmpfs none /tmp && echo mounted; \
                echo x >/proc/sys/kernel/domainname && echo written; \
                grep Seccomp: /proc/self/status; head -c1 /dev/kmsg >/dev/null && echo kmsg; test -s /proc/timer_list; \
                grep NoNewPrivs /proc/self/status";
    let told = run(&["--privileged"], free).stdout;
    assert!(told.starts_with("mounted\nwritten\nSeccomp:\t0\nkmsg\n"), "{told}");
    let told = run(&[], free).stdout;
    assert!(told.starts_with("Seccomp:\t2\n") && !told.contains("kmsg"), "{told}");
    let bounding = "grep CapBnd /proc/self/status";
    let own = std::fs::read_to_string("/proc/self/status").expect("status");
    let own = own.lines().find(|line| line.starts_with("CapBnd")).expect("CapBnd");
    assert_eq!(run(&["--privileged"], bounding).stdout.trim_end(), own, "all that we have ourselves");
}
