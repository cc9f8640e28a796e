//! The peers: crun, podman, docker and wasmtime as `.ci/peers` installs them, each with directories of its own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::fixtures::docker::Docker;
use super::fixtures::{eventually, tool};

/// Where `.ci/peers` puts wasmtime.
const WASMTIME: &str = "/opt/wharf-peers/bin/wasmtime";
/// crun refuses to work when the second hierarchy beside version 1 of the cgroups has a controller.
const HYBRID: &str = "/sys/fs/cgroup/unified";

/// Ends the bench when a peer is missing, and says what to do.
pub fn need(program: &str) {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("{program} is not here, so there is nothing to compare with: run .ci/peers as root");
        std::process::exit(2);
    }
}

/// Goes on in a mount namespace without the hybrid hierarchy, where there is one, so that crun and podman work.
/// Both sides of a race run there.
pub fn without_hybrid_cgroups() {
    let crowded = fs::read_to_string(format!("{HYBRID}/cgroup.controllers")).is_ok_and(|c| !c.trim().is_empty());
    if crowded {
        let me = std::env::current_exe().expect("a path");
        let script = format!("umount {HYBRID} && exec \"$0\" \"$@\"");
        let failed = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(me)
            .args(std::env::args_os().skip(1))
            .exec();
        panic!("unshare: {failed}");
    }
}

/// `wasmtime run` of a module that wasmtime has compiled before.
pub fn wasmtime(dir: &Path, module: &str, args: &[&str]) -> impl Fn() -> Command + use<> {
    wasmtime_with(dir, module, &[], args)
}

/// The same, which shows the directory `shown` as `/data`.
pub fn wasmtime_with_dir(dir: &Path, module: &str, shown: &Path, args: &[&str]) -> impl Fn() -> Command + use<> {
    wasmtime_with(dir, module, &["--dir", &format!("{}::/data", shown.display())], args)
}

fn wasmtime_with(dir: &Path, module: &str, options: &[&str], args: &[&str]) -> impl Fn() -> Command + use<> {
    need(WASMTIME);
    let compiled = dir.join("precompiled.cwasm");
    tool(Command::new(WASMTIME).args(["compile", module, "-o"]).arg(&compiled));
    let own = |words: &[&str]| -> Vec<String> { words.iter().map(ToString::to_string).collect() };
    let (options, args) = (own(options), own(args));
    move || {
        let mut command = Command::new(WASMTIME);
        command.args(["run", "--allow-precompiled"]).args(&options).arg(&compiled).args(&args);
        command
    }
}

/// `wasmtime serve`, until it is dropped.
pub struct WasmtimeServe {
    child: Child,
    /// Where it answers.
    pub port: u16,
}

/// `wasmtime serve` of a component, with the settings it chooses itself, on a port of the loopback.
pub fn wasmtime_serve(component: &str) -> WasmtimeServe {
    need(WASMTIME);
    // The port is free now; should another program take it at once, the server says so and the bench ends.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let address = format!("127.0.0.1:{port}");
    // Without `-S cli` it links only what its proxies may import, and this component reads files.
    let child = Command::new(WASMTIME)
        .args(["serve", "-S", "cli", "--addr", &address, component])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("wasmtime");
    eventually("wasmtime serve (.ci/peers builds one that can)", Duration::from_secs(30), || {
        TcpStream::connect(&address).ok()
    });
    WasmtimeServe { child, port }
}

impl Drop for WasmtimeServe {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// `crun run` of a bundle with this root file system, that runs `true`.
pub fn crun(dir: &Path, layer: &[u8]) -> impl Fn() -> Command + use<> {
    need("crun");
    let bundle = dir.join("bundle");
    let rootfs = bundle.join("rootfs");
    fs::create_dir_all(&rootfs).expect("a bundle");
    tar::Archive::new(layer).unpack(&rootfs).expect("a root file system");
    tool(Command::new("crun").arg("spec").current_dir(&bundle));
    let file = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).expect("a spec")).expect("JSON");
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["true"]);
    config["process"]["env"] = serde_json::json!(["PATH=/bin"]);
    fs::write(&file, config.to_string()).expect("a spec");
    move || {
        let mut command = Command::new("crun");
        command.args(["run", "--bundle"]).arg(&bundle).arg("wharf-bench");
        command
    }
}

/// A network namespace of a peer's own, with its loopback.
pub struct Namespace(String);

impl Namespace {
    /// One of this name (and this process).
    pub fn new(name: &str) -> Self {
        let name = format!("wharf-bench-{}-{name}", std::process::id());
        tool(Command::new("ip").args(["netns", "add", &name]));
        tool(Command::new("ip").args(["-n", &name, "link", "set", "lo", "up"]));
        Namespace(name)
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).output().ok();
    }
}

/// Podman raises the limits of files and processes, which root in a virtual machine may not be allowed to: what its `run`
/// and `create` need besides.
pub const PODMAN_LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

/// Podman with storage of its own.
pub struct Podman {
    dir: PathBuf,
    /// Where its networks are, if not the host's.
    namespace: Option<PathBuf>,
}

impl Podman {
    /// One that has the images of this archive.
    pub fn new(dir: &Path, archive: &Path) -> Self {
        Podman::with(dir, archive, None)
    }

    /// The same in a network namespace.
    pub fn apart(dir: &Path, archive: &Path, namespace: &Namespace) -> Self {
        Podman::with(dir, archive, Some(namespace.path()))
    }

    fn with(dir: &Path, archive: &Path, namespace: Option<PathBuf>) -> Self {
        need("podman");
        let podman = Podman { dir: dir.join("podman"), namespace };
        tool(podman.command(&["load", "-i"]).arg(archive));
        podman
    }

    /// `podman ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match &self.namespace {
            None => Command::new("podman"),
            Some(path) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", path.display())).arg("podman");
                command
            }
        };
        command.arg("--root").arg(self.dir.join("root")).arg("--runroot").arg(self.dir.join("run")).args(args);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.command(&["rm", "--all", "--force", "--time", "0"]).output().ok();
        // Its storage stays mounted on itself.
        Command::new("umount").arg(self.dir.join("root/overlay")).output().ok();
    }
}

/// A docker daemon of the bench's own, with the images of these archives.
pub fn docker(dir: &Path, archives: &[&[u8]]) -> Docker {
    started(|| Docker::start(dir), archives)
}

/// The same with networks, in a namespace.
pub fn docker_apart(dir: &Path, namespace: &Namespace, archives: &[&[u8]]) -> Docker {
    let within = format!("--net={}", namespace.path().display());
    started(|| Docker::start_by(dir, Command::new("nsenter").arg(within).arg("dockerd")), archives)
}

fn started(start: impl FnOnce() -> Result<Docker, String>, archives: &[&[u8]]) -> Docker {
    need("dockerd");
    need("docker");
    let docker = start().unwrap_or_else(|why| {
        eprintln!("{why}");
        std::process::exit(2);
    });
    for archive in archives {
        docker.load(archive);
    }
    docker
}
