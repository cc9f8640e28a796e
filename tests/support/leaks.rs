//! Looks for what a removed container should have taken with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Fails when processes, mounts, cgroups or files of these containers are left.
///
/// The kernel and the monitor may finish a moment after the command has answered, so this asks for some seconds.
pub fn assert_none(root: &Path, ids: &[String]) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let left = traces(root, ids);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind in {}:\n{}", root.display(), left.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Everything that still speaks of this root or of these containers.
pub fn traces(root: &Path, ids: &[String]) -> Vec<String> {
    let mut found = processes(root, ids);
    found.extend(mounts(root, ids));
    let named = |path: &PathBuf| ids.iter().any(|id| path.to_string_lossy().contains(id.as_str()));
    found.extend(
        tree(Path::new("/sys/fs/cgroup"))
            .into_iter()
            .filter(|p| p.is_dir())
            .filter(named)
            .map(|p| format!("cgroup {}", p.display())),
    );
    found.extend(tree(root).into_iter().filter(named).map(|p| format!("file {}", p.display())));
    found
}

/// Processes that work in the root, hold something of it open, were started for it, or sit in a cgroup of these containers.
pub fn processes(root: &Path, ids: &[String]) -> Vec<String> {
    let text = root.to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let proc = entry.path();
        let read = |name: &str| {
            fs::read(proc.join(name)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
        };
        // A zombie has no command line; whoever is its parent has yet to wait for it.
        let line = read("cmdline").replace('\0', " ");
        let cgroups = read("cgroup");
        let ours = line.contains(&*text)
            || read("environ").contains(&*text)
            || ids.iter().any(|id| cgroups.contains(id.as_str()))
            || ["cwd", "root"].iter().any(|l| fs::read_link(proc.join(l)).is_ok_and(|t| t.starts_with(root)))
            || fs::read_dir(proc.join("fd")).is_ok_and(|fds| {
                fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.starts_with(root)))
            });
        if ours {
            found.push(format!("process {pid} {line}"));
        }
    }
    found
}

/// Lines of our mount table that name the root or a container.
pub fn mounts(root: &Path, ids: &[String]) -> Vec<String> {
    fs::read_to_string("/proc/self/mountinfo")
        .expect("the mount table")
        .lines()
        .filter(|line| line.contains(&*root.to_string_lossy()) || ids.iter().any(|id| line.contains(id.as_str())))
        .map(|line| format!("mount {line}"))
        .collect()
}

/// All paths below a directory, without following links.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                todo.push(entry.path());
            }
            all.push(entry.path());
        }
    }
    all
}
