//! A real docker daemon with everything of its own: what Wharf writes must be what docker reads, and what Wharf prints
//! what docker prints. It touches neither firewall nor bridge of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{skip, tool};

/// A running daemon. Ends when dropped, and takes its containers along.
pub struct Docker {
    dir: PathBuf,
    daemon: Child,
}

impl Docker {
    /// Starts one below this directory.
    ///
    /// # Errors
    /// What the daemon said last, where it cannot run: in many sandboxes it may not mount, for one.
    pub fn start(dir: &Path) -> Result<Self, String> {
        let alone = ["--iptables=false", "--ip-masq=false", "--ip-forward=false", "--bridge=none"];
        Docker::start_by(dir, Command::new("unshare").args(["--mount", "dockerd"]).args(alone))
    }

    /// The same with networks, and so in a network of its own.
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_with_networks(dir: &Path) -> Result<Self, String> {
        let alone = "ip link set lo up && exec dockerd \"$@\"";
        Docker::start_by(dir, Command::new("unshare").args(["--mount", "--net", "sh", "-c", alone, "dockerd"]))
    }

    /// The same by this command, which may start it elsewhere and let it have networks. It should have mounts of its own:
    /// the daemon leaves one behind (of its network namespace).
    ///
    /// # Errors
    /// As [`Docker::start`].
    pub fn start_by(dir: &Path, command: &mut Command) -> Result<Self, String> {
        let dir = dir.join("docker");
        fs::create_dir(&dir).expect("a directory");
        let log = fs::File::create(dir.join("log")).expect("a log");
        let daemon = command
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg(format!("--host=unix://{}", dir.join("sock").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .map_err(|e| format!("dockerd: {e}"))?;
        let mut docker = Docker { dir, daemon };
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let ended = docker.daemon.try_wait().expect("a child");
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(docker.dir.join("log")).unwrap_or_default();
                return Err(format!("dockerd does not run here: {}", log.lines().last().unwrap_or_default()));
            }
            if docker.command(&["version"]).output().is_ok_and(|out| out.status.success()) {
                return Ok(docker);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same for the test of this name, which is skipped by name where a daemon cannot run.
    ///
    /// # Panics
    /// When docker is not installed.
    pub fn for_test(name: &str, dir: &Path) -> Option<Self> {
        for program in ["dockerd", "docker"] {
            tool(Command::new(program).arg("--version"));
        }
        Docker::start(dir).inspect_err(|why| skip(name, why)).ok()
    }

    /// Loads an archive of images.
    pub fn load(&self, archive: &[u8]) -> String {
        let file = self.dir.join("archive.tar");
        fs::write(&file, archive).expect("an archive");
        self.ok(&["load", "-i", file.to_str().expect("a plain path")])
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
