//! A task is what a backend runs: the plan as data ([`TaskSpec`]), and the traits that execute it.
//!
//! Backends hold no lifecycle rule. They create, start, signal, reap and delete; the monitor decides.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wharf_images::snapshot::Rootfs;

use crate::error::{Class, Error, Result};
use crate::network::WasmNetwork;
use crate::network::line::Gatekeeper;
use crate::network::networks::Wiring;
use crate::walls::Walls;

/// Everything a backend needs to run one container. No more decisions are taken after this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// The root filesystem.
    pub rootfs: Rootfs,
    /// Limits, enforced by the operating system (cgroups) for both kinds of workload.
    pub limits: Limits,
    /// The cgroup, relative to the root of each hierarchy (or to our own cgroup when not root): `wharf/ID`.
    pub cgroup: String,
    /// What runs.
    pub workload: Workload,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Workload {
    /// Processes in namespaces, as an OCI runtime spec says. `root` is not used: [`TaskSpec::rootfs`] is.
    Linux(Box<LinuxTask>),
    /// A WebAssembly component.
    Wasm(Box<WasmTask>),
}

/// A Linux workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinuxTask {
    /// Process, mounts, namespaces, capabilities, seccomp, masked paths, devices.
    pub spec: oci_spec::runtime::Spec,
    /// Run a small init as pid 1 that reaps zombies and forwards signals.
    pub init: bool,
    /// Connected to a network: its first process waits for its place ([`Task::connect`]).
    #[serde(default)]
    pub connected: bool,
    /// Connected by a program of the user's ([`Task::relay`]).
    #[serde(default)]
    pub relayed: bool,
    /// No new network namespace: the host's.
    pub host_network: bool,
    /// Whose processes it sees, if they are another container's.
    #[serde(default)]
    pub pid: Option<Neighbour>,
    /// Whose shared memory it has, if it is another container's.
    #[serde(default)]
    pub ipc: Option<Neighbour>,
    /// Whose network it has, if it is another container's.
    #[serde(default)]
    pub network: Option<Neighbour>,
    /// The user as docker spells it (`user`, `uid:gid`, `name:group`), looked up in the root filesystem's
    /// passwd and group by the backend, which fills in the process's user.
    pub user: String,
}

/// The first process of another container, whose namespaces are joined. A number can come to mean another process; its
/// number and its start together cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its process id in our namespace.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the machine did.
    pub started: u64,
}

/// A WebAssembly workload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WasmTask {
    /// The compiled component in the module cache.
    pub module: PathBuf,
    /// Arguments; the first is the program's name.
    pub args: Vec<String>,
    /// Environment, in order.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
    /// Directories and files the guest sees, besides the root filesystem at `/`.
    pub mounts: Vec<WasmMount>,
    /// The root filesystem is read-only.
    pub read_only: bool,
    /// The most bytes that the container's own layer may hold.
    #[serde(default)]
    pub storage: Option<u64>,
    /// The most files that the guest may have open, its standard streams among them.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// End the guest after this many milliseconds.
    pub timeout_ms: Option<u64>,
    /// An exported function to call instead of the command's entry.
    pub function: Option<String>,
    /// Its network. The process that runs the guest gets the sockets themselves from a
    /// [`VirtualNetwork`](crate::network::VirtualNetwork).
    pub network: WasmNetwork,
    /// It answers HTTP requests, instead of running once.
    pub http: Option<HttpTask>,
}

/// How a component that serves HTTP (`wasi:http/incoming-handler`) does so. The limits are each request's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTask {
    /// The container's port that it answers on.
    pub port: u16,
    /// Milliseconds without a sign of life after which a request is ended; `None` is never.
    pub timeout_ms: Option<u64>,
    /// Bytes of memory.
    pub memory: u64,
    /// How many requests are with guests at one time; others wait.
    pub concurrency: usize,
    /// Write a line for each on standard output.
    pub access_log: bool,
}

impl HttpTask {
    /// The time limit.
    pub fn timeout(&self) -> Duration {
        self.timeout_ms.map_or(Duration::MAX, Duration::from_millis)
    }
}

/// A directory or file of the host that a wasm guest sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WasmMount {
    /// On the host.
    pub source: PathBuf,
    /// A directory beneath the source that is shown in its place. No link in it leads out of the source.
    #[serde(default)]
    pub subpath: Option<String>,
    /// In the guest.
    pub target: String,
    /// No writing.
    pub read_only: bool,
    /// The most bytes it may hold, if it is a directory.
    #[serde(default)]
    pub size: Option<u64>,
}

/// Limits, in the kernel's units. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1 for no limit on swap.
    pub memory_swap: Option<i64>,
    /// Soft limit of memory.
    pub memory_reservation: Option<u64>,
    /// Billionths of a CPU: 1 500 000 000 is one and a half.
    pub nano_cpus: Option<u64>,
    /// CFS period in microseconds.
    pub cpu_period: Option<u64>,
    /// CFS quota in microseconds.
    pub cpu_quota: Option<i64>,
    /// Relative weight, 1024 by default.
    pub cpu_shares: Option<u64>,
    /// CPUs, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Block I/O weight, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Processes wait for memory, instead of being killed for want of it.
    pub oom_kill_disable: bool,
}

impl Limits {
    /// Refuses to give less memory than is kept for it. What is changed later is not held against what was said before.
    ///
    /// # Errors
    /// `InvalidInput`.
    pub fn check_reservation(&self) -> Result<()> {
        let memory = self.memory.filter(|&bytes| bytes > 0);
        if memory.is_some_and(|memory| self.memory_reservation.is_some_and(|kept| kept > memory)) {
            let text = "Minimum memory limit can not be less than memory reservation limit, see usage";
            return Err(Error::new(Class::InvalidInput, text));
        }
        Ok(())
    }

    /// The bytes of memory and swap together: as docker does it as much swap as memory unless said otherwise. -1 is no
    /// limit.
    pub fn memory_and_swap(&self) -> Option<i64> {
        let twice = |bytes: u64| i64::try_from(bytes.saturating_mul(2)).unwrap_or(i64::MAX);
        match self.memory_swap {
            None | Some(0) => self.memory.filter(|&bytes| bytes > 0).map(twice),
            asked => asked,
        }
    }
}

/// Where a task's standard streams go.
#[derive(Debug)]
pub enum Stdio {
    /// Three ends of pipes (or files), given to the task.
    Pipes {
        /// `None` is an empty stdin.
        stdin: Option<File>,
        /// Standard output.
        stdout: File,
        /// Standard error.
        stderr: File,
    },
    /// A pseudo-terminal that the backend makes; its master is [`Task::console`].
    Terminal {
        /// Its first size, as rows and columns.
        size: Option<(u16, u16)>,
    },
}

/// How a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code: the program's own, or 128 + signal.
    pub code: i32,
    /// The kernel killed it for want of memory.
    pub oom_killed: bool,
}

/// What a container uses now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// When it was looked at, on the system's monotonic clock, in nanoseconds.
    #[serde(default)]
    pub at_ns: u64,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// The limit that holds, in bytes.
    pub memory_limit: Option<u64>,
    /// Processes.
    pub pids: u64,
    /// Bytes read from and written to block devices.
    pub block_io: (u64, u64),
    /// Bytes received and sent, by interface.
    pub network: BTreeMap<String, (u64, u64)>,
}

/// Makes tasks of one kind. Called in the single-threaded monitor.
pub trait Backend {
    /// `linux` or `wasm`.
    fn name(&self) -> &'static str;

    /// Makes the task's process, which loads and builds what it needs up to its first instruction.
    ///
    /// The root filesystem and the files that the spec mounts need not be there yet: [`Task::place`] says when they are.
    ///
    /// # Errors
    /// [`crate::Error::Exec`] when the program cannot be executed; all else as it is. Nothing is left behind.
    fn create(&self, spec: &TaskSpec, stdio: Stdio) -> Result<Box<dyn Task>>;

    /// Makes the process of a wasm task whose plan is still being made: it loads `module` meanwhile. Of `early` only
    /// cgroup and limits count.
    ///
    /// # Errors
    /// `Unsupported` by other backends.
    fn anticipate(&self, early: &TaskSpec, module: &Path, stdio: Stdio) -> Result<Box<dyn Anticipated>> {
        let _ = (early, module, stdio);
        Err(Error::new(Class::Unsupported, format!("the {} backend begins with a plan", self.name())))
    }

    /// Ends and takes away whatever a task of this spec has left, when its monitor has died: processes, cgroup, mounts.
    ///
    /// # Errors
    /// Fails when something stays.
    fn clean(&self, spec: &TaskSpec) -> Result<()>;
}

/// A task's process that waits for its plan. Dropped before, it ends and leaves nothing.
pub trait Anticipated {
    /// Gives it the plan. Its cgroup and limits must be those it began with.
    ///
    /// # Errors
    /// As [`Backend::create`].
    fn plan(self: Box<Self>, spec: &TaskSpec) -> Result<Box<dyn Task>>;
}

/// One task's process: a container's first, or one of its execs.
pub trait Task {
    /// Its process id in our namespace.
    fn pid(&self) -> u32;

    /// Becomes readable when [`Task::reap`] may have something new: a pidfd, or what tells of the end earlier.
    fn exit_handle(&self) -> &File;

    /// The master of its pseudo-terminal, once.
    fn console(&mut self) -> Option<File>;

    /// The root filesystem and all that the spec mounts are there: the process may go and look.
    /// [`Task::start`] says so itself if nobody has.
    ///
    /// # Errors
    /// The kernel's.
    fn place(&mut self) -> Result<()>;

    /// Tells it its places on networks, for which it waits if the spec says that it is connected.
    ///
    /// # Errors
    /// The kernel's.
    fn connect(&mut self, _places: Vec<Wiring>) -> Result<()> {
        Ok(())
    }

    /// Its network namespace, if it has one of its own.
    ///
    /// # Errors
    /// `Conflict` when it has ended.
    fn network(&self) -> Result<Option<File>> {
        Ok(None)
    }

    /// Has the network namespace of its process connected by `connect`, for which it waits if the spec says so, and tells it
    /// which of its places it is to settle itself.
    ///
    /// # Errors
    /// Those of `connect`.
    fn relay(&mut self, _connect: &mut dyn FnMut(u32) -> Result<Vec<Wiring>>) -> Result<()> {
        Ok(())
    }

    /// Once it has been connected: the sockets on which names are asked for in its network, of datagrams and of streams.
    fn take_names(&mut self) -> Option<(File, File)> {
        None
    }

    /// True when [`Task::start`] would not have to wait for it.
    fn is_ready(&self) -> bool;

    /// Lets it run.
    ///
    /// # Errors
    /// [`crate::Error::Exec`] when execve fails; the task is then over.
    fn start(&mut self) -> Result<()>;

    /// The same, with somebody who answers what it asks about the network.
    ///
    /// # Errors
    /// As [`Task::start`].
    fn start_connected(&mut self, _network: &mut dyn Gatekeeper) -> Result<()> {
        self.start()
    }

    /// Becomes readable when it asks something about the network; `None` when it does not.
    fn line(&self) -> Option<&File> {
        None
    }

    /// Answers what it asks.
    fn hear(&mut self, _network: &mut dyn Gatekeeper) {}

    /// What a guest that broke its sandbox would stand behind, once it has started; `None` of what is no guest.
    fn walls(&self) -> Option<&Walls> {
        None
    }

    /// Sends it a signal by its pidfd.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    fn signal(&self, signal: i32) -> Result<()>;

    /// Its exit, if it has ended. Does not wait.
    ///
    /// # Errors
    /// The kernel's.
    fn reap(&mut self) -> Result<Option<Exit>>;

    /// Starts another process in the same container.
    ///
    /// # Errors
    /// As [`Backend::create`] and [`Task::start`].
    fn exec(&self, process: &ExecSpec, stdio: Stdio) -> Result<Box<dyn Task>>;

    /// A TCP socket of the container's own network, not connected and not blocking.
    ///
    /// # Errors
    /// `Unsupported` where the network is none of the kernel's; `Unavailable` when the task has ended.
    fn socket(&self) -> Result<File> {
        Err(Error::new(Class::Unsupported, "the container has no network of the kernel's"))
    }

    /// Stops or continues all its processes.
    ///
    /// # Errors
    /// The kernel's.
    fn set_paused(&self, paused: bool) -> Result<()>;

    /// Puts other limits in force; what they do not mention stays.
    ///
    /// # Errors
    /// `InvalidInput` for limits that contradict each other, the kernel's for a value it refuses.
    fn update(&self, limits: &Limits) -> Result<()>;

    /// What it uses.
    ///
    /// # Errors
    /// The kernel's.
    fn usage(&self) -> Result<Usage>;

    /// The ids of the container's processes in our namespace, its own first.
    ///
    /// # Errors
    /// The kernel's.
    fn processes(&self) -> Result<Vec<u32>>;

    /// Takes away what the ended task leaves: remaining processes, cgroup, mounts.
    ///
    /// # Errors
    /// Fails when something stays.
    fn delete(&mut self) -> Result<()>;
}

/// Another process in a running container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables added to the container's.
    pub env: Vec<String>,
    /// The user, if another than the container's.
    pub user: Option<String>,
    /// The working directory, if another than the container's.
    pub cwd: Option<String>,
    /// All capabilities.
    pub privileged: bool,
    /// In a WebAssembly container: the image whose program runs, with `args` as what `run` takes after the image's name.
    #[serde(default)]
    pub tool_image: Option<String>,
    /// In a WebAssembly container: what runs, once [`Engine::exec`](crate::Engine::exec) has found it.
    #[serde(default)]
    pub program: Option<ExecProgram>,
}

/// A compiled component that is executed in a running container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecProgram {
    /// In the module cache.
    pub module: PathBuf,
    /// An exported function to call instead of the command's entry.
    pub function: Option<String>,
}

impl ExecSpec {
    /// The variables of the container's environment `own`, each `NAME=value`, with those that are asked for.
    pub fn environment(&self, mut own: Vec<String>) -> Vec<String> {
        for variable in &self.env {
            let name = variable.split('=').next();
            own.retain(|known| known.split('=').next() != name);
            // A name alone takes the variable away.
            if variable.contains('=') {
                own.push(variable.clone());
            }
        }
        own
    }
}
