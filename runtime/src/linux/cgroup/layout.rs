//! Where cgroups are mounted on this machine, found with one `statfs` on most, and once per process.
//!
//! Three arrangements exist (`cgroups(7)`): one unified v2 tree with controllers; v1 hierarchies, one or more
//! controllers each; and v1 hierarchies beside a v2 tree without controllers ("hybrid").

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Access, access, statfs};

/// `TMPFS_MAGIC`: what v1 hierarchies are mounted in.
const TMPFS: u64 = 0x0102_1994;
/// `CGROUP_SUPER_MAGIC`.
const V1: u64 = 0x0027_e0eb;
/// `CGROUP2_SUPER_MAGIC`.
const V2: u64 = 0x6367_7270;
/// Where every distribution mounts them.
const USUAL: &str = "/sys/fs/cgroup";

/// A controller that a limit or a question needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// CPU quota and weight.
    Cpu,
    /// Which CPUs and memory nodes.
    Cpuset,
    /// Memory and swap.
    Memory,
    /// How many processes and threads.
    Pids,
    /// Block I/O: `blkio` in v1, `io` in v2.
    Blkio,
    /// Which devices may be opened; v1 only.
    Devices,
    /// Stopping all processes; v1 only.
    Freezer,
}

impl Controller {
    /// All of them.
    pub const ALL: [Controller; 7] = [
        Controller::Memory,
        Controller::Pids,
        Controller::Cpu,
        Controller::Cpuset,
        Controller::Blkio,
        Controller::Devices,
        Controller::Freezer,
    ];

    /// Its directory under the v1 mounts.
    pub fn v1(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Cpuset => "cpuset",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
            Controller::Blkio => "blkio",
            Controller::Devices => "devices",
            Controller::Freezer => "freezer",
        }
    }

    /// Its name in `cgroup.controllers`; `None` for what v2 does without a controller.
    pub fn v2(self) -> Option<&'static str> {
        match self {
            Controller::Blkio => Some("io"),
            Controller::Devices | Controller::Freezer => None,
            other => Some(other.v1()),
        }
    }
}

/// The cgroup file systems that we may make directories in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One tree; `base` is the directory that ours go under.
    Unified {
        /// The mount point as root; else the highest directory above us that was delegated to us.
        base: PathBuf,
    },
    /// v1 hierarchies.
    Separate {
        /// Each controller's hierarchy.
        hierarchies: Vec<(Controller, PathBuf)>,
        /// A v2 tree without controllers beside them. It still kills, freezes and counts CPU time.
        unified: Option<PathBuf>,
    },
    /// None that we may write.
    None,
}

impl Layout {
    /// This machine's, looked up once.
    pub fn get() -> &'static Layout {
        static LAYOUT: OnceLock<Layout> = OnceLock::new();
        LAYOUT.get_or_init(|| Layout::detect(Path::new(USUAL)))
    }

    /// What is mounted at `root`, or else anywhere.
    fn detect(root: &Path) -> Layout {
        match magic(root) {
            Some(V2) => unified(root),
            Some(TMPFS) => separate(
                |controller| Some(root.join(controller.v1())).filter(|path| magic(path) == Some(V1)),
                Some(root.join("unified")).filter(|path| magic(path) == Some(V2)),
            ),
            // Mounted elsewhere, if at all: only then is the long list of mounts worth reading.
            _ => from_mountinfo(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default()),
        }
    }
}

/// The type of the file system mounted at `path`.
fn magic(path: &Path) -> Option<u64> {
    statfs(path).ok().map(|s| s.f_type as u64)
}

/// True when we may make directories in `path`.
fn writable(path: &Path) -> bool {
    access(path, Access::WRITE_OK).is_ok()
}

fn separate(find: impl Fn(Controller) -> Option<PathBuf>, unified: Option<PathBuf>) -> Layout {
    let find = |controller| find(controller).filter(|path| writable(path)).map(|path| (controller, path));
    let hierarchies: Vec<_> = Controller::ALL.into_iter().filter_map(find).collect();
    let unified = unified.filter(|path| writable(path));
    if hierarchies.is_empty() && unified.is_none() { Layout::None } else { Layout::Separate { hierarchies, unified } }
}

fn unified(mount: &Path) -> Layout {
    if rustix::process::geteuid().is_root() && writable(mount) {
        return Layout::Unified { base: mount.to_owned() };
    }
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match own_v2_path(&own).and_then(|own| delegated(mount, own, writable)) {
        Some(base) => Layout::Unified { base },
        None => Layout::None,
    }
}

/// The v2 line of `/proc/self/cgroup`.
fn own_v2_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// The highest directory from `mount` down to our own cgroup that was handed to us whole: the directory and its
/// `cgroup.procs` writable, so that processes may be moved within it (`cgroups(7)`, "delegation").
fn delegated(mount: &Path, own: &str, writable: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let own = mount.join(own);
    let mut above: Vec<&Path> = own.ancestors().take_while(|path| path.starts_with(mount)).collect();
    above.reverse();
    above.into_iter().find(|path| writable(path) && writable(&path.join("cgroup.procs"))).map(Path::to_owned)
}

fn from_mountinfo(text: &str) -> Layout {
    let mut v1: Vec<(&str, PathBuf)> = Vec::new();
    let mut v2 = None;
    for line in text.lines() {
        // `proc_pid_mountinfo(5)`: the mount point is the fifth field; type, source and options follow ` - `.
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut kind = kind.splitn(3, ' ');
        match kind.next() {
            Some("cgroup2") => v2 = v2.or(Some(point)),
            Some("cgroup") => v1.push((kind.nth(1).unwrap_or_default(), point)),
            _ => {}
        }
    }
    match (v1.is_empty(), v2) {
        (true, Some(mount)) => unified(&mount),
        (_, v2) => {
            let has = |options: &str, name| options.split(',').any(|option| option == name);
            separate(|c| v1.iter().find(|(options, _)| has(options, c.v1())).map(|(_, point)| point.clone()), v2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_delegated_directory_is_ours() {
        let mount = Path::new("/cg");
        let own = "user.slice/user-1000.slice/user@1000.service/app.slice/shell.scope";
        let ours = Path::new("/cg/user.slice/user-1000.slice/user@1000.service");
        assert_eq!(delegated(mount, own, |path| path.starts_with(ours)).as_deref(), Some(ours));
        assert_eq!(delegated(mount, own, |_| false), None);
        // A writable directory whose cgroup.procs is not ours cannot take processes.
        assert_eq!(delegated(mount, own, |path| !path.ends_with("cgroup.procs")), None);
    }

    #[test]
    fn own_path() {
        assert_eq!(own_v2_path("3:cpuset:/\n0::/user.slice/x\n"), Some("user.slice/x"));
        assert_eq!(own_v2_path("3:cpuset:/\n"), None);
    }

    #[test]
    fn mounts_in_unusual_places_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().display();
        fs::create_dir(dir.path().join("cpu,cpuacct")).unwrap();
        fs::create_dir(dir.path().join("v2")).unwrap();
        let text = format!(
            "22 27 0:21 / /proc rw - proc proc rw\n\
             32 31 0:29 / {at}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             41 31 0:38 / {at}/v2 rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
        );
        let expected = Layout::Separate {
            hierarchies: vec![(Controller::Cpu, dir.path().join("cpu,cpuacct"))],
            unified: Some(dir.path().join("v2")),
        };
        assert_eq!(from_mountinfo(&text), expected);
        assert_eq!(from_mountinfo(""), Layout::None);
    }
}
