//! The process that hosts a wasm guest, and the backend that makes it.
//!
//! It is forked from the single-threaded monitor, so it needs no exec and finds its plan in memory. While the monitor
//! makes the container's directories and its record, it loads: engine, compiled component. Told that the directories are
//! there, it opens them, puts up the second wall ([`jail`]), says that it is ready, waits for one more word, and only then
//! runs guest code. When the monitor dies it does not run: an end of the line ([`super::line`]) instead of the word, or
//! SIGKILL by `PR_SET_PDEATHSIG` (prctl(2)), ends it. A guest that may use sockets keeps the line to ask for them.
//!
//! An exec is another such process beside the first one: forked from the same monitor, in the same cgroup, with the same
//! trees and network behind the same walls. Only what it runs is its own.
//!
//! WASI has no signals. SIGTERM and the like have their default action here, so `stop` ends a guest with 143.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::{Winsize, tcsetwinsize};
use wharf_images::snapshot::Rootfs;

use crate::backend::wasm::run::{Loaded, Program, Ready};
use crate::error::{Class, Error, Result};
use crate::linux::cgroup::{self, Cgroup};
use crate::linux::http_task;
use crate::linux::jail::{self, Jail};
use crate::linux::jailed::Jailed;
use crate::linux::line::Line;
use crate::linux::process::{self, Child, SpawnOptions};
use crate::monitor::protocol::Failure;
use crate::network::line::{Answer, Ask, Gatekeeper, Nobody};
use crate::network::{Unconnected, VirtualNetwork};
use crate::task::{Anticipated, Backend, ExecSpec, Exit, Limits, Stdio, Task, TaskSpec, Usage, WasmTask, Workload};
use crate::walls::Walls;
use crate::wasi::vfs::Held;

/// The exit code of a task whose monitor went away before its guest ran. Nobody sees it.
const ABANDONED: i32 = 125;

/// Runs WebAssembly components.
#[derive(Debug, Default, Clone, Copy)]
pub struct WasmBackend;

impl Backend for WasmBackend {
    fn name(&self) -> &'static str {
        "wasm"
    }

    fn create(&self, spec: &TaskSpec, stdio: Stdio) -> Result<Box<dyn Task>> {
        let task = wasm_of(spec)?;
        Ok(Box::new(spawn(spec, stdio, |line| host(spec, task, None, line))?))
    }

    fn anticipate(&self, early: &TaskSpec, module: &Path, stdio: Stdio) -> Result<Box<dyn Anticipated>> {
        let guest = spawn(early, stdio, |line| load_then_host(module, line))?;
        Ok(Box::new(Waiting(Some(guest))))
    }

    fn clean(&self, spec: &TaskSpec) -> Result<()> {
        cgroup::clear(&spec.cgroup)
    }
}

fn wasm_of(spec: &TaskSpec) -> Result<&WasmTask> {
    match &spec.workload {
        Workload::Wasm(task) => Ok(task),
        Workload::Linux(_) => Err(Error::new(Class::Internal, "the wasm backend was given a Linux workload")),
    }
}

/// A guest's process that waits for its plan.
struct Waiting(Option<HostedGuest>);

impl Anticipated for Waiting {
    fn plan(mut self: Box<Self>, spec: &TaskSpec) -> Result<Box<dyn Task>> {
        wasm_of(spec)?;
        let plan = serde_json::to_vec(spec).map_err(|e| wharf_images::Error::json("plan", e))?;
        let Some(guest) = self.0.take() else {
            return Err(Error::new(Class::Internal, "the guest's process has its plan already"));
        };
        let missing = limit_devices(spec, &guest.cgroup);
        if let Some(line) = &guest.line {
            // If its process is gone, `start` hears of it.
            let _ = line.give(&plan);
        }
        Ok(Box::new(HostedGuest { spec: Rc::new(spec.clone()), missing, ..guest }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(mut guest) = self.0.take() {
            // What stays is found by its cgroup.
            let _ = guest.delete();
        }
    }
}

/// What the process that hosts a guest may take for itself, beyond the guest's memory limit: so a guest that asks for too
/// much is told so ([`crate::backend::wasm::run`] counts what it has), and the kernel kills only what got past that.
const OWN_MEMORY: u64 = 16 << 20;

fn of_process(limits: &Limits) -> Limits {
    let swap = |swap: i64| if swap > 0 { swap.saturating_add_unsigned(OWN_MEMORY) } else { swap };
    Limits {
        memory: limits.memory.map(|memory| memory.saturating_add(OWN_MEMORY)),
        memory_swap: limits.memory_swap.map(swap),
        ..limits.clone()
    }
}

/// Forks the container's first process, in its cgroup, where `body` does all the rest.
fn spawn(spec: &TaskSpec, stdio: Stdio, body: impl FnOnce(Line) -> i32) -> Result<HostedGuest> {
    let cgroup = Rc::new(Cgroup::create(&spec.cgroup, &of_process(&spec.limits))?);
    let missing = limit_devices(spec, &cgroup);
    let guest = fork(stdio, &cgroup, body).map(|forked| HostedGuest::new(forked, spec, &cgroup, true));
    let guest = guest.inspect_err(|_| {
        // The first error is the one that tells why.
        let _ = cgroup.remove();
    })?;
    Ok(HostedGuest { missing, ..guest })
}

/// Layers and mounts may have nodes of the host's devices, which root's guests could open if they broke their sandbox.
/// Gives what is missing then, if anything is.
fn limit_devices(spec: &TaskSpec, cgroup: &Cgroup) -> Option<String> {
    let task = wasm_of(spec).ok()?;
    let made_by_others = match &spec.rootfs {
        Rootfs::Overlay { lower, .. } => !lower.is_empty(),
        Rootfs::Dir(dir) => !dir.as_os_str().is_empty(),
    };
    if crate::linux::is_root() && (made_by_others || !task.mounts.is_empty()) {
        let limited = cgroup.limit_devices(&cgroup::docker_devices());
        return limited.err().map(|e| format!("a limit on devices: {e}"));
    }
    None
}

/// What has been forked: the child, the master of its terminal, if it has one, our end of the line to it, and where it
/// says its exit code.
type Forked = (Child, Option<File>, Line, File);

fn fork(stdio: Stdio, cgroup: &Cgroup, body: impl FnOnce(Line) -> i32) -> Result<Forked> {
    let (ours, theirs) = Line::pair()?;
    let (last_word, saying) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::os("make a pipe", e))?;
    let (streams, console) = Streams::open(stdio)?;
    let options = SpawnOptions { cgroup: cgroup.v2_dir(), ..SpawnOptions::default() };
    let monitor = rustix::process::getpid();
    let child = process::spawn(options, || {
        if rustix::process::getppid() != Some(monitor) {
            return ABANDONED;
        }
        if let Err(e) = cgroup.enter() {
            // If the monitor is gone there is nobody to tell.
            let _ = theirs.tell(&Ask::Failed(Failure::from(&e)));
            return ABANDONED;
        }
        match settle(&streams, theirs, saying) {
            Ok((line, last_word)) => {
                let code = body(line);
                // What the kernel takes a while to take apart nobody needs to wait for. If the monitor is gone, nobody does.
                let _ = rustix::io::write(&last_word, &[code as u8]);
                code
            }
            Err(_) => ABANDONED,
        }
    })
    .map_err(|e| Error::os("fork the guest's process", e))?;
    if let Err(e) = cgroup.watch(child.pid()) {
        let _ = child.signal(libc::SIGKILL).and_then(|()| child.wait());
        return Err(e);
    }
    Ok((child, console, ours, File::from(last_word)))
}

/// The task's ends of its standard streams.
struct Streams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    terminal: bool,
}

impl Streams {
    fn open(stdio: Stdio) -> Result<(Self, Option<File>)> {
        match stdio {
            Stdio::Pipes { stdin, stdout, stderr } => {
                let stdin = match stdin {
                    Some(stdin) => stdin.into(),
                    None => File::open("/dev/null").map_err(|e| Error::io("open", "/dev/null", e))?.into(),
                };
                Ok((Streams { stdin, stdout: stdout.into(), stderr: stderr.into(), terminal: false }, None))
            }
            Stdio::Terminal { size } => {
                let failed = |e| Error::os("make a terminal", e);
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                let master = rustix::pty::openpt(flags).map_err(failed)?;
                rustix::pty::unlockpt(&master).map_err(failed)?;
                // By the master, not by a name.
                let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(failed)?;
                if let Some((ws_row, ws_col)) = size {
                    tcsetwinsize(&master, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).map_err(failed)?;
                }
                let copy = || slave.try_clone().map_err(|e| Error::os("make a terminal", e));
                let streams = Streams { stdin: copy()?, stdout: copy()?, stderr: slave, terminal: true };
                Ok((streams, Some(File::from(master))))
            }
        }
    }
}

/// In the child: makes it a process of its own, with its standard streams, the two ways to the monitor, and nothing else.
fn settle(streams: &Streams, line: Line, last_word: OwnedFd) -> std::io::Result<(Line, OwnedFd)> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    process::default_signals();
    rustix::process::setsid()?;
    rustix::stdio::dup2_stdin(&streams.stdin)?;
    rustix::stdio::dup2_stdout(&streams.stdout)?;
    rustix::stdio::dup2_stderr(&streams.stderr)?;
    if streams.terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    only(line, last_word)
}

/// Closes all descriptors but the standard streams, the line and the pipe, which become descriptors 3 and 4.
fn only(line: Line, last_word: OwnedFd) -> std::io::Result<(Line, OwnedFd)> {
    // First out of the way of those numbers. Like the originals, the copies are closed with all others.
    let copy = |fd: OwnedFd| Ok::<_, Errno>(ManuallyDrop::new(fcntl_dupfd_cloexec(ManuallyDrop::new(fd).as_fd(), 5)?));
    let (line, last_word) = (copy(line.into_fd())?, copy(last_word)?);
    let kept = (Line::of(onto(3, &line)?), onto(4, &last_word)?);
    process::close_from(5)?;
    Ok(kept)
}

/// Gives `fd` this number.
fn onto(number: i32, fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    // SAFETY: whatever had the number in the monitor, its owner there is not used or dropped in this process, which ends
    // by _exit. It is a target for dup3 only, and ours from then on.
    let mut target = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    dup3(fd, &mut target, DupFlags::CLOEXEC)?;
    Ok(ManuallyDrop::into_inner(target))
}

/// In the child: loads what it is probably to run, then waits for its plan.
fn load_then_host(module: &Path, line: Line) -> i32 {
    // If the guess was wrong, what the plan names is loaded, or its error told.
    let loaded = Loaded::load(module).ok();
    let plan = line.take().ok().flatten();
    let Some(spec) = plan.and_then(|plan| serde_json::from_slice::<TaskSpec>(&plan).ok()) else { return ABANDONED };
    match &spec.workload {
        Workload::Wasm(task) => host(&spec, task, loaded, line),
        Workload::Linux(_) => ABANDONED,
    }
}

/// In the child: loads the guest, if it is not `loaded`, waits for the word, runs it. Returns the exit code.
fn host(spec: &TaskSpec, task: &WasmTask, loaded: Option<Loaded>, line: Line) -> i32 {
    let network = Arc::new(Jailed::new(line));
    let prepared = Program::load(task, loaded).and_then(|program| {
        if !network.hears(&Answer::Placed) {
            return Ok(None);
        }
        let connected: Arc<dyn VirtualNetwork> = if program.wants_network() {
            network.join()?;
            Arc::clone(&network) as _
        } else {
            Arc::new(Unconnected)
        };
        let guest = program.prepare(task, &spec.rootfs, spec.limits.memory, connected)?;
        let walls = wall(&guest, task.open_files, jail::user_of(&spec.id))?;
        Ok(Some((guest, walls)))
    });
    let (guest, walls) = match prepared {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return ABANDONED,
        Err(e) => {
            // If the monitor is gone there is nobody to tell.
            let _ = network.tell(&Ask::Failed(Failure::from(&e)));
            return e.exit_code();
        }
    };
    if network.tell(&Ask::Ready(walls)).is_err() || !network.may_run() {
        return ABANDONED;
    }
    match guest {
        Ready::Command(guest) => {
            // A guest without sockets has nothing more to say, which ends the line.
            drop(network);
            guest.run()
        }
        Ready::Server(serving) => http_task::serve(serving, network).unwrap_or_else(|e| {
            // The container's own standard error: its log.
            eprintln!("wharf: {e}");
            e.exit_code()
        }),
    }
}

/// The lowest number that no descriptor has.
fn first_free() -> Result<u64, Errno> {
    let free = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0)?;
    Ok(u64::try_from(free.as_raw_fd()).unwrap_or(0))
}

/// Puts up the second wall: from here on the process has its guest's directories, what is open, and little else.
fn wall(guest: &Ready, open_files: Option<u64>, user: Option<u32>) -> Result<Walls> {
    // What is open but for the standard streams is ours and not the guest's.
    let open_files = open_files.map(|files| Ok::<_, Errno>(files.saturating_add(first_free()?.saturating_sub(3))));
    let open_files = open_files.transpose().map_err(|e| Error::os("count what is open", e))?;
    let mut jail = Jail { capabilities: jail::FILES, open_files, user, ..Jail::default() };
    for held in guest.held() {
        match held {
            Held::ReadOnly(tree) => jail.read_only.push(tree.as_fd()),
            Held::ReadWrite(tree) => jail.read_write.push(tree.as_fd()),
            Held::Union(tree) => jail.unions.push(tree.as_fd()),
            Held::File { file, writable: true } => jail.read_write.push(file.as_fd()),
            Held::File { file, writable: false } => jail.read_only.push(file.as_fd()),
        }
    }
    jail::enter(&jail)
}

/// A guest's process, as the monitor holds it.
#[derive(Debug)]
struct HostedGuest {
    child: Child,
    console: Option<File>,
    /// To the process, as long as it has something to say.
    line: Option<Line>,
    placed: bool,
    /// Where its exit code comes before its end does; until then.
    last_word: Option<File>,
    reaped: bool,
    /// Behind what its guest runs, once it does.
    walls: Option<Walls>,
    /// What its walls have not got.
    missing: Option<String>,
    exit: Option<Exit>,
    /// The container's first process, with which it ends.
    first: bool,
    /// The container's plan.
    spec: Rc<TaskSpec>,
    cgroup: Rc<Cgroup>,
    /// The guest's limit of memory.
    memory: Cell<Option<u64>>,
}

impl HostedGuest {
    fn new((child, console, line, last_word): Forked, spec: &TaskSpec, cgroup: &Rc<Cgroup>, first: bool) -> Self {
        HostedGuest {
            child,
            console,
            line: Some(line),
            placed: false,
            last_word: Some(last_word),
            reaped: false,
            walls: None,
            missing: None,
            exit: None,
            first,
            spec: Rc::new(spec.clone()),
            cgroup: Rc::clone(cgroup),
            memory: Cell::new(spec.limits.memory),
        }
    }

    /// The container's plan, with what is to be executed in the place of its program.
    fn plan_of(&self, exec: &ExecSpec) -> Result<(TaskSpec, WasmTask)> {
        let Some(program) = &exec.program else {
            return Err(Error::new(Class::Internal, "what is to be executed was not looked for"));
        };
        let task = wasm_of(&self.spec)?;
        let own = task.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let pair = |variable: String| variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        let task = WasmTask {
            module: program.module.clone(),
            function: program.function.clone(),
            args: exec.args.clone(),
            env: exec.environment(own).into_iter().filter_map(pair).collect(),
            cwd: exec.cwd.clone().unwrap_or_else(|| task.cwd.clone()),
            http: None,
            ..task.clone()
        };
        let limits = Limits { memory: self.memory.get(), ..self.spec.limits.clone() };
        Ok((TaskSpec { limits, ..TaskSpec::clone(&self.spec) }, task))
    }
}

impl Task for HostedGuest {
    fn pid(&self) -> u32 {
        self.child.pid()
    }

    fn exit_handle(&self) -> &File {
        self.last_word.as_ref().unwrap_or(self.child.pidfd())
    }

    fn console(&mut self) -> Option<File> {
        self.console.take()
    }

    fn place(&mut self) -> Result<()> {
        if let (Some(line), false) = (&self.line, self.placed) {
            self.placed = true;
            // A process that has failed to load does not listen any more; what it said is heard by `start`.
            let _ = line.answer(&Answer::Placed, &[]);
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.line.as_ref().is_none_or(|line| process::is_readable(line.file()))
    }

    fn start(&mut self) -> Result<()> {
        self.start_connected(&mut Nobody)
    }

    fn start_connected(&mut self, network: &mut dyn Gatekeeper) -> Result<()> {
        self.place()?;
        let Some(line) = self.line.as_ref().filter(|_| self.walls.is_none()) else {
            return Err(Error::new(Class::Conflict, "the guest runs already"));
        };
        let ended = || Error::new(Class::Internal, "load the guest: its process ended");
        // Before it is ready: then it need not wait. If it cannot load, it says so, and has ended.
        let _ = line.answer(&Answer::Go, &[]);
        loop {
            let ask = match line.hear(true)?.ok_or_else(ended)? {
                Ask::Failed(failure) => return Err(failure.into()),
                ask => ask,
            };
            let walls = match &ask {
                Ask::Ready(walls) => {
                    let missing = walls.missing.iter().cloned().chain(self.missing.take()).collect();
                    Some(Walls { cgroup: self.cgroup.is_there(), missing, ..walls.clone() })
                }
                _ => None,
            };
            if let Some((answer, descriptors)) = network.answer(ask) {
                line.answer(&answer, &descriptors)?;
            }
            if walls.is_some() {
                self.walls = walls;
                return Ok(());
            }
        }
    }

    fn line(&self) -> Option<&File> {
        self.line.as_ref().map(Line::file)
    }

    fn hear(&mut self, network: &mut dyn Gatekeeper) {
        while let Some(line) = &self.line {
            let answered = match line.hear(false) {
                Ok(Some(ask)) => match network.answer(ask) {
                    Some((answer, descriptors)) => line.answer(&answer, &descriptors),
                    None => Ok(()),
                },
                Ok(None) => Err(Error::new(Class::Cancelled, "the guest's process has no more to say")),
                Err(e) if e.class() == Class::Unavailable => return,
                Err(e) => Err(e),
            };
            // Who says what is no question, or does not read his answers, is not heard any more.
            if answered.is_err() {
                self.line = None;
            }
        }
    }

    fn walls(&self) -> Option<&Walls> {
        self.walls.as_ref()
    }

    fn signal(&self, signal: i32) -> Result<()> {
        let ended = || Error::new(Class::NotFound, "the guest has ended");
        if self.exit.is_some() {
            return Err(ended());
        }
        self.child.signal(signal).map_err(|e| match e.raw_os_error() {
            Some(libc::ESRCH) => ended(),
            _ => Error::os("signal the guest", e),
        })
    }

    fn reap(&mut self) -> Result<Option<Exit>> {
        if let Some(last_word) = self.last_word.take_if(|pipe| process::is_readable(pipe)) {
            let mut code = [0];
            if rustix::io::read(&last_word, &mut code) == Ok(1) {
                self.exit = Some(Exit { code: i32::from(code[0]), oom_killed: false });
            }
        }
        // It was killed, or could not even begin.
        if self.exit.is_none() && self.last_word.is_none() {
            let ended = self.child.try_wait().map_err(|e| Error::os("wait for the guest", e))?;
            self.reaped = ended.is_some();
            self.exit = ended.map(|ended| Exit { code: ended.code(), oom_killed: self.cgroup.oom_killed() });
        }
        Ok(self.exit)
    }

    fn exec(&self, exec: &ExecSpec, stdio: Stdio) -> Result<Box<dyn Task>> {
        let (spec, task) = self.plan_of(exec)?;
        let forked = fork(stdio, &self.cgroup, |line| host(&spec, &task, None, line))?;
        Ok(Box::new(HostedGuest::new(forked, &spec, &self.cgroup, false)))
    }

    fn set_paused(&self, paused: bool) -> Result<()> {
        self.cgroup.freeze(paused)
    }

    fn update(&self, limits: &Limits) -> Result<()> {
        self.cgroup.update(&of_process(limits))?;
        self.memory.set(limits.memory.or(self.memory.get()));
        Ok(())
    }

    fn usage(&self) -> Result<Usage> {
        let mut usage = self.cgroup.usage();
        if self.memory.get().is_some() {
            usage.memory_limit = usage.memory_limit.map(|limit| limit.saturating_sub(OWN_MEMORY));
        }
        Ok(usage)
    }

    fn processes(&self) -> Result<Vec<u32>> {
        Ok(self.cgroup.processes(self.pid()))
    }

    fn delete(&mut self) -> Result<()> {
        self.line = None;
        if !std::mem::replace(&mut self.reaped, true) {
            // It ends by itself after its last word, if the word was its own and not a guest's that broke both walls.
            let _ = self.child.signal(libc::SIGKILL);
            self.child.wait().map_err(|e| Error::os("wait for the guest", e))?;
        }
        // What is left in the group dies with it.
        if self.first { self.cgroup.remove() } else { Ok(()) }
    }
}
