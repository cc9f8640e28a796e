//! The peers: crun, podman, docker and wasmtime as `.ci/peers` installs them, each with directories of its own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::fixtures::{eventually, tool};

/// Where `.ci/peers` puts wasmtime.
const WASMTIME: &str = "/opt/wharf-peers/bin/wasmtime";
/// crun refuses to work when the second hierarchy beside version 1 of the cgroups has a controller.
const HYBRID: &str = "/sys/fs/cgroup/unified";

/// Ends the bench when a peer is missing, and says what to do.
fn need(program: &str) {
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
    need(WASMTIME);
    let compiled = dir.join("precompiled.cwasm");
    tool(Command::new(WASMTIME).args(["compile", module, "-o"]).arg(&compiled));
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    move || {
        let mut command = Command::new(WASMTIME);
        command.args(["run", "--allow-precompiled"]).arg(&compiled).args(&args);
        command
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

/// Podman with storage of its own.
pub struct Podman {
    dir: PathBuf,
}

impl Podman {
    /// One that has the images of this archive.
    pub fn new(dir: &Path, archive: &Path) -> Self {
        need("podman");
        let podman = Podman { dir: dir.join("podman") };
        tool(podman.command(&["load", "-i"]).arg(archive));
        podman
    }

    /// `podman ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
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

/// A docker daemon with everything of its own: it touches neither firewall nor bridge, and ends with us.
pub struct Docker {
    dir: PathBuf,
    daemon: Child,
}

impl Docker {
    /// Starts it.
    pub fn start(dir: &Path) -> Self {
        need("dockerd");
        need("docker");
        let dir = dir.join("docker");
        fs::create_dir(&dir).expect("a directory");
        let log = fs::File::create(dir.join("log")).expect("a log");
        let daemon = Command::new("dockerd")
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg(format!("--host=unix://{}", dir.join("sock").display()))
            .args(["--iptables=false", "--ip-masq=false", "--bridge=none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .expect("dockerd starts");
        let docker = Docker { dir, daemon };
        eventually("dockerd answers", Duration::from_secs(60), || {
            docker.command(&["version"]).output().is_ok_and(|out| out.status.success()).then_some(())
        });
        docker
    }

    /// Starts it with the images of this archive.
    pub fn with(dir: &Path, archive: &[u8]) -> Self {
        let docker = Docker::start(dir);
        let file = docker.dir.join("archive.tar");
        fs::write(&file, archive).expect("an archive");
        docker.ok(&["load", "-i", file.to_str().expect("a plain path")]);
        docker
    }

    /// `docker ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", format!("unix://{}", self.dir.join("sock").display())).args(args);
        command
    }

    /// Runs `docker ARGS`, and gives what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        tool(&mut self.command(args)).trim_end().to_owned()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Ok(out) = self.command(&["ps", "-aq"]).output() {
            let ids = String::from_utf8_lossy(&out.stdout).into_owned();
            let ids: Vec<&str> = ids.split_whitespace().collect();
            if !ids.is_empty() {
                self.command(&["rm", "-f"]).args(ids).output().ok();
            }
        }
        // It ends its containerd too when it is asked to end, and not when it is killed.
        Command::new("kill").arg(self.daemon.id().to_string()).status().ok();
        self.daemon.wait().ok();
    }
}
