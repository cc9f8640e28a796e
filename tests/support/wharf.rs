//! A Wharf of its own: the real program with a root, a home and a docker configuration that no other test shares.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::leaks;
use super::registry::Registry;

/// No single command takes longer on a busy two-core machine; one that does hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// An isolated instance. Dropping it removes its containers and fails the test if anything of them stays.
pub struct Wharf {
    dir: TempDir,
    program: PathBuf,
    /// Who runs it, if not we.
    user: Option<String>,
    /// What its programs find in another one's place: both paths.
    covers: Vec<(String, String)>,
}

impl Wharf {
    /// A fresh one, without images.
    pub fn new() -> Self {
        // Not cargo's directory for test files: a unix socket's path must stay below 108 bytes.
        let dir = tempfile::Builder::new().prefix("wharf-").tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("home")).expect("a home");
        Wharf { dir, program: program().to_owned(), user: None, covers: Vec::new() }
    }

    /// One whose program is a copy, as an installed one is: what the linker leaves in the page cache is in smaller pieces,
    /// which take longer to map.
    pub fn installed() -> Self {
        let mut wharf = Wharf::new();
        wharf.program = wharf.dir().join("wharf");
        std::fs::copy(program(), &wharf.program).expect("a copy of the program");
        wharf
    }

    /// One of another user's, by name or number.
    pub fn of(user: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        // Where cargo put it, others may not look.
        let mut wharf = Wharf::installed();
        std::fs::set_permissions(wharf.dir(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        std::fs::create_dir(wharf.root()).expect("a root");
        for place in [wharf.root(), wharf.dir().join("home")] {
            super::tool(Command::new("chown").arg(user).arg(place));
        }
        wharf.user = Some(user.to_owned());
        wharf
    }

    /// Has its programs find the file `cover` where the host has `path`; `/dev/null` is as good as none.
    pub fn cover(&mut self, path: &str, cover: &str) {
        self.covers.push((path.to_owned(), cover.to_owned()));
    }

    /// One with the image `busybox`.
    pub fn with_busybox() -> Self {
        let wharf = Wharf::new();
        wharf.load(&super::images::busybox());
        wharf
    }

    /// Makes it trust the certificates of a protected registry.
    pub fn trust(&self, registry: &Registry) {
        let settings = self.dir().join("home/.config/wharf");
        std::fs::create_dir_all(&settings).expect("the user's settings");
        let ca = registry.authority().join("ca.crt");
        let text = format!("[registry.\"{}\"]\nca = \"{}\"\n", registry.host(), ca.display());
        std::fs::write(settings.join("registries.toml"), text).expect("registries.toml");
    }

    /// Its directory; the state is in `root` below it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its state directory.
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// The program with these arguments, to be run at will.
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Command {
        let mut words: Vec<&OsStr> = Vec::new();
        let mounts: String = self.covers.iter().map(|(path, cover)| format!("mount --bind {cover} {path}; ")).collect();
        let script = format!("{mounts}exec \"$@\"");
        if !self.covers.is_empty() {
            words.extend(["unshare", "-m", "sh", "-ec", &script, "sh"].map(OsStr::new));
        }
        if let Some(user) = &self.user {
            words.extend(["setpriv", "--reuid", user, "--regid", user, "--clear-groups"].map(OsStr::new));
        }
        words.push(self.program.as_os_str());
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(args.iter().map(AsRef::as_ref))
            .env("WHARF_ROOT", self.root())
            .env("HOME", self.dir().join("home"))
            .envs(
                ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "DOCKER_CONFIG", "NO_COLOR"]
                    .map(|name| (name, "")),
            )
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<str>>(&self, args: &[S]) -> Ran {
        run(self.command(args), &[])
    }

    /// Runs it to its end with this on standard input.
    pub fn run_with<S: AsRef<str>>(&self, args: &[S], stdin: &[u8]) -> Ran {
        run(self.command(args), stdin)
    }

    /// Runs it, expects success, and gives standard output without the last line's end.
    pub fn ok<S: AsRef<str>>(&self, args: &[S]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{ran}");
        ran.stdout.trim_end().to_owned()
    }

    /// Runs it, expects this exit code, and gives both streams.
    pub fn exits<S: AsRef<str>>(&self, code: i32, args: &[S]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{ran}");
        ran
    }

    /// Starts it with all three streams piped.
    pub fn spawn<S: AsRef<str>>(&self, args: &[S]) -> Child {
        self.command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("wharf starts")
    }

    /// Loads an archive of images.
    pub fn load(&self, archive: &[u8]) {
        let ran = self.run_with(&["load"], archive);
        assert_eq!(ran.code, 0, "{ran}");
    }

    /// The whole ids of all containers, running or not.
    pub fn ids(&self) -> Vec<String> {
        self.ok(&["ps", "-aq", "--no-trunc"]).lines().map(str::to_owned).collect()
    }

    /// The monitors, with their containers' ids: the processes that hold a container's lock open.
    pub fn monitors(&self) -> BTreeMap<u32, String> {
        let containers = self.root().join("run/containers");
        let mut found = BTreeMap::new();
        for process in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = process.file_name().to_string_lossy().parse() else { continue };
            let links = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
            for target in links.filter_map(|link| std::fs::read_link(link.path()).ok()) {
                // The directory itself, or without Linux's parts a file in it.
                if let Ok(rest) = target.strip_prefix(&containers)
                    && (rest.components().count() == 1 || rest.ends_with("lock"))
                    && let Some(id) = rest.iter().next()
                {
                    found.insert(pid, id.to_string_lossy().into_owned());
                }
            }
        }
        found
    }

    /// Removes every container, and fails when anything of them stays: process, mount, cgroup, directory.
    pub fn sweep(&self) {
        let ids = self.ids();
        if !ids.is_empty() {
            let mut args = vec!["rm".to_owned(), "-f".to_owned()];
            args.extend(ids.iter().cloned());
            self.ok(&args);
        }
        assert_eq!(self.ok(&["ps", "-aq"]), "");
        leaks::assert_none(&self.root(), &ids);
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        if !self.root().exists() {
            return;
        }
        if !std::thread::panicking() {
            return self.sweep();
        }
        // A failed test must not disturb those that follow; what it found is already told.
        if let Ok(out) = self.command(&["ps", "-aq"]).output() {
            for id in String::from_utf8_lossy(&out.stdout).lines() {
                self.command(&["rm", "-f", id]).output().ok();
            }
        }
    }
}

/// The program under test.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_wharf"))
}

/// What a command gave.
pub struct Ran {
    /// The command, for messages.
    pub line: String,
    /// The exit code, or 128 + signal as a shell says it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nexit code {}\n--- stdout\n{}\n--- stderr\n{}", self.line, self.code, self.stdout, self.stderr)
    }
}

/// Runs a command to its end, within [`LIMIT`].
///
/// # Panics
/// When it does not end, or when something it started keeps its output open after it has ended.
pub fn run(mut command: Command, stdin: &[u8]) -> Ran {
    let line = format!("{command:?}");
    command.stdin(if stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{line}: {e}"));
    let out = drain(child.stdout.take().expect("piped"));
    let err = drain(child.stderr.take().expect("piped"));
    std::thread::scope(|scope| {
        let input = child.stdin.take();
        // A program may end without reading all of its input.
        scope.spawn(move || input.map(|mut pipe| pipe.write_all(stdin).ok()));
        let code = wait(&mut child, &line);
        let rest = |stream: mpsc::Receiver<Vec<u8>>| {
            let bytes = stream
                .recv_timeout(Duration::from_secs(10))
                .unwrap_or_else(|_| panic!("{line}: has ended ({code}), but something still holds its output open"));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ran { code, stdout: rest(out), stderr: rest(err), line: line.clone() }
    })
}

/// Waits for a child within [`LIMIT`], and says its exit code as a shell does.
pub fn wait(child: &mut Child, line: &str) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if Instant::now() > end {
            child.kill().ok();
            child.wait().ok();
            panic!("{line}: has not ended after {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Reads a stream to its end on a thread of its own.
fn drain(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok();
        send.send(bytes).ok();
    });
    receive
}
