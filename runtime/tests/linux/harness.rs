//! Root filesystems, specs as docker would write them, and containers that are gone when they are dropped.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use wharf_images::snapshot::Rootfs;
use wharf_runtime::linux::LinuxBackend;
use wharf_runtime::task::{Backend, ExecSpec, Exit, Limits, LinuxTask, Stdio, Task, TaskSpec, Workload};

/// One test: its name and its body, which panics when it fails.
pub type Test = (&'static str, fn());

const APPLETS: &str = "sh ls cat id true false sleep echo kill ps mount env pwd stat readlink chmod touch head hostname \
                       ulimit test stty dd grep wc mkdir ln mknod tty ip printf sysctl nc cp rm find sort dmesg umount";

/// A directory that goes away with its value.
pub struct Tree(pub PathBuf);

impl Tree {
    /// An image's layer with busybox, a passwd and a group, and an empty writable layer.
    pub fn new() -> Tree {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("wharf-linux-{}-{number}", std::process::id()));
        for dir in ["lower/bin", "lower/etc", "lower/tmp", "lower/root", "upper", "work"] {
            fs::create_dir_all(base.join(dir)).unwrap();
        }
        let tree = Tree(base);
        fs::copy("/bin/busybox", tree.lower("bin/busybox")).expect("install busybox-static");
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", tree.lower(&format!("bin/{applet}"))).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:100:Bob:/home/bob:/bin/sh\n";
        fs::write(tree.lower("etc/passwd"), passwd).unwrap();
        fs::write(tree.lower("etc/group"), "root:x:0:\nusers:x:100:\naudio:x:63:bob\n").unwrap();
        fs::set_permissions(tree.lower("tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
        tree
    }

    /// One that another process has made, and takes away.
    pub fn borrowed(base: &str) -> std::mem::ManuallyDrop<Tree> {
        std::mem::ManuallyDrop::new(Tree(base.into()))
    }

    /// A path in the image's layer.
    pub fn lower(&self, path: &str) -> PathBuf {
        self.0.join("lower").join(path)
    }

    /// The writable layer's path.
    pub fn upper(&self, path: &str) -> PathBuf {
        self.0.join("upper").join(path)
    }

    pub fn rootfs(&self) -> Rootfs {
        Rootfs::Overlay { lower: vec![self.lower("")], upper: self.0.join("upper"), work: self.0.join("work") }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a container is to be; `spec` is the OCI spec's JSON.
pub struct Plan {
    pub spec: Value,
    pub rootfs: Rootfs,
    pub init: bool,
    pub host_network: bool,
    pub user: String,
    pub limits: Limits,
    pub tty: bool,
}

const CAPS: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SETFCAP",
];

impl Plan {
    /// What docker would make of `run IMAGE args`.
    pub fn new(rootfs: Rootfs, args: &[&str]) -> Plan {
        let mount = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
        let spec = json!({
            "ociVersion": "1.2.0",
            "annotations": {"wharf.seccomp": "default"},
            "root": {"path": "rootfs"},
            "hostname": "box",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "cwd": "/",
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "capabilities": {"bounding": CAPS, "effective": CAPS, "permitted": CAPS},
            },
            "mounts": [
                mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
                mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts",
                    &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
                mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                mount("/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
                mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            ],
            "linux": {
                "namespaces": (["pid", "mount", "ipc", "uts", "network", "cgroup"]).map(|kind| json!({"type": kind})),
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi",
                    "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
                "resources": {"devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "access": "m"},
                    {"allow": true, "type": "b", "access": "m"},
                    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 7, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 5, "minor": 2, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 136, "access": "rwm"}
                ]},
            },
        });
        Plan {
            spec,
            rootfs,
            init: false,
            host_network: false,
            user: String::new(),
            limits: Limits::default(),
            tty: false,
        }
    }

    /// `sh -c script`.
    pub fn script(tree: &Tree, script: &str) -> Plan {
        Plan::new(tree.rootfs(), &["sh", "-c", script])
    }

    pub fn task(&self) -> TaskSpec {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:x}-{number}", std::process::id());
        TaskSpec {
            cgroup: format!("wharf-linux-test/{id}"),
            id,
            rootfs: self.rootfs.clone(),
            limits: self.limits.clone(),
            workload: Workload::Linux(Box::new(LinuxTask {
                relayed: false,
                connected: false,
                spec: serde_json::from_value(self.spec.clone()).expect("spec"),
                init: self.init,
                pid: None,
                ipc: None,
                network: None,
                host_network: self.host_network,
                user: self.user.clone(),
            })),
        }
    }

    /// Makes and starts it.
    pub fn start(&self) -> wharf_runtime::Result<Container> {
        let spec = self.task();
        let (stdio, pipes) = stdio(self.tty);
        let task = LinuxBackend.create(&spec, stdio)?;
        let mut container = Container { task, pipes };
        if self.tty {
            container.pipes = container.task.console().into_iter().collect();
        }
        container.task.start()?;
        Ok(container)
    }

    /// Runs it to its end.
    pub fn run(&self) -> wharf_runtime::Result<Output> {
        let mut container = self.start()?;
        let output = container.finish();
        Ok(output)
    }
}

/// Runs a script as docker would, to its end.
pub fn sh(tree: &Tree, script: &str) -> Output {
    Plan::script(tree, script).run().expect("start")
}

fn stdio(tty: bool) -> (Stdio, Vec<File>) {
    if tty {
        return (Stdio::Terminal { size: Some((24, 80)) }, Vec::new());
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((out, stdout), (err, stderr)) = (pipe(), pipe());
    (Stdio::Pipes { stdin: None, stdout: stdout.into(), stderr: stderr.into() }, vec![out.into(), err.into()])
}

/// How it ended and what it said.
#[derive(Debug)]
pub struct Output {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

/// A running container.
pub struct Container {
    pub task: Box<dyn Task>,
    pub pipes: Vec<File>,
}

impl Container {
    /// Waits for its end and takes everything away.
    pub fn finish(&mut self) -> Output {
        finish(&mut self.task, &mut self.pipes)
    }

    /// Runs another process in it, to its end.
    pub fn exec(&self, exec: &ExecSpec) -> wharf_runtime::Result<Output> {
        let (stdio, mut pipes) = stdio(false);
        let mut task = self.task.exec(exec, stdio)?;
        task.start()?;
        Ok(finish(&mut task, &mut pipes))
    }

    /// Runs a script in it, to its end.
    pub fn sh(&self, script: &str) -> Output {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        self.exec(&ExecSpec { args, ..ExecSpec::default() }).expect("exec")
    }

    /// Reads from the first pipe (or the terminal) until `text` has come.
    pub fn expect(&mut self, text: &str) -> String {
        expect(&mut self.pipes[0], text)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let deleted = self.task.delete();
        if !std::thread::panicking() {
            deleted.expect("delete");
        }
    }
}

pub fn expect(from: &mut File, text: &str) -> String {
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !String::from_utf8_lossy(&seen).contains(text) {
        assert!(Instant::now() < deadline, "waited for {text:?}, saw {:?}", String::from_utf8_lossy(&seen));
        if !readable(from, 1) {
            continue;
        }
        let mut buffer = [0; 4096];
        let n = from.read(&mut buffer).unwrap_or(0);
        assert!(n > 0, "ended before {text:?}: {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn readable(file: &File, seconds: i64) -> bool {
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&timeout)).unwrap_or(0) > 0
}

fn finish(task: &mut Box<dyn Task>, pipes: &mut [File]) -> Output {
    let mut texts = Vec::new();
    for pipe in pipes {
        let mut text = Vec::new();
        // A terminal ends with EIO.
        let _ = pipe.read_to_end(&mut text);
        texts.push(String::from_utf8_lossy(&text).into_owned());
    }
    assert!(readable(task.exit_handle(), 20), "it does not end");
    let exit = task.reap().expect("reap").expect("ended");
    task.delete().expect("delete");
    let mut texts = texts.into_iter();
    Output { exit, out: texts.next().unwrap_or_default(), err: texts.next().unwrap_or_default() }
}

/// What a test could leave behind on the host: mounts, cgroups, and our children.
pub fn host() -> (usize, Vec<PathBuf>, String) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let mut cgroups = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        find(&hierarchy.path().join("wharf-linux-test"), &mut cgroups);
    }
    find(Path::new("/sys/fs/cgroup/wharf-linux-test"), &mut cgroups);
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    (mounts, cgroups, children)
}

fn find(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            found.push(entry.path());
        }
    }
}
