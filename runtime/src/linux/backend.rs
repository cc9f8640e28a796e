//! The Linux backend: makes tasks of namespaces, cgroups and a root filesystem, and looks after their processes.
//!
//! `create` returns as soon as the first process exists; what that process still does (most of the making) goes on while
//! the monitor does other things, and `start` waits for it. So an error of the making shows in `start`, or in `console`
//! and then `start`.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::rc::Rc;

use rustix::thread::ThreadNameSpaceType;

use super::cgroup::{self, Cgroup, DeviceRule};
use super::channel::{Channel, Message};
use super::container::{self, Plan};
use super::exec::{self, Join};
use super::launch::Streams;
use super::neighbour::{self, Nursery};
use super::process::{self, Child, SpawnOptions};
use super::seccomp::{self, Filter};
use super::sockets;
use super::tty;
use super::userns::{self, Mappings};
use crate::error::{Class, Error, Result};
use crate::network::Protocol;
use crate::network::networks::Wiring;
use crate::task::{Backend, ExecSpec, Exit, Limits, LinuxTask, Stdio, Task, TaskSpec, Usage, Workload};

/// Runs Linux programs in namespaces.
#[derive(Debug, Default, Clone, Copy)]
pub struct LinuxBackend;

impl Backend for LinuxBackend {
    fn name(&self) -> &'static str {
        "linux"
    }

    fn create(&self, spec: &TaskSpec, stdio: Stdio) -> Result<Box<dyn Task>> {
        let linux = linux_of(spec)?;
        let namespaces = container::namespaces(linux);
        let streams = Streams::of(stdio)?;
        let filter = seccomp::of_spec(&linux.spec)?;
        let mappings = mappings(linux);
        let cgroup = Cgroup::create(&spec.cgroup, &spec.limits)?;
        let ipc = linux.ipc.as_ref().map(neighbour::open).transpose()?;
        let ipc = ipc.as_ref().map(AsFd::as_fd);
        let network = linux.network.as_ref().map(neighbour::open).transpose()?;
        let network = network.as_ref().map(AsFd::as_fd);
        let plan = Plan { task: spec, linux, filter: filter.as_ref(), mappings: &mappings, ipc, network };
        let process = match first_process(&plan, namespaces, streams, &cgroup) {
            Ok(process) => process,
            Err(error) => {
                // The first error is the one that tells why.
                let _ = cgroup.remove();
                return Err(error);
            }
        };
        let user = if mappings.0.is_empty() { 0 } else { libc::CLONE_NEWUSER };
        let container = Container { spec: spec.clone(), namespaces: namespaces | user, filter, cgroup };
        Ok(Box::new(ContainerTask { process, container: Rc::new(container), mounts: None }))
    }

    fn clean(&self, spec: &TaskSpec) -> Result<()> {
        cgroup::clear(&spec.cgroup)
    }
}

fn linux_of(spec: &TaskSpec) -> Result<&LinuxTask> {
    match &spec.workload {
        Workload::Linux(linux) => Ok(linux),
        Workload::Wasm(_) => Err(Error::new(Class::InvalidInput, "the Linux backend runs no WebAssembly")),
    }
}

/// The spec's mappings; without, those of a user who is not root.
fn mappings(linux: &LinuxTask) -> Mappings {
    let spec = linux.spec.linux().as_ref();
    let users = spec.and_then(|linux| linux.uid_mappings().clone()).unwrap_or_default();
    let groups = spec.and_then(|linux| linux.gid_mappings().clone()).unwrap_or_default();
    if users.is_empty() { userns::mappings() } else { (users, groups) }
}

/// The device filter. As a program of version 2 it takes the kernel a while to check, which is best done while the process
/// sets itself up; but a hierarchy of version 1 must be there before the process enters it.
fn limit_devices(linux: &LinuxTask, namespaces: i32, cgroup: &Cgroup) -> Result<()> {
    match DeviceRule::of_spec(&linux.spec).filter(|_| namespaces & libc::CLONE_NEWUSER == 0) {
        Some(rules) => cgroup.limit_devices(&rules),
        None => Ok(()),
    }
}

fn first_process(plan: &Plan<'_>, namespaces: i32, streams: Streams, cgroup: &Cgroup) -> Result<Process> {
    let user = if plan.mappings.0.is_empty() { 0 } else { libc::CLONE_NEWUSER };
    if cgroup.v2_dir().is_none() {
        limit_devices(plan.linux, namespaces | user, cgroup)?;
    }
    let (ours, theirs) = Channel::pair()?;
    let born_into = namespaces & libc::CLONE_NEWPID | user;
    let options = SpawnOptions { namespaces: born_into, cgroup: cgroup.v2_dir(), ..SpawnOptions::default() };
    // Moved into the child, where the monitor's end must not stay open: it would hide the monitor's death.
    let mut child_side = Some((streams, theirs));
    let mut monitor_side = Some(ours);
    let nursery = plan.linux.pid.as_ref().map(Nursery::enter).transpose()?;
    let child = process::spawn(options, || {
        drop(monitor_side.take());
        match child_side.take() {
            Some((streams, channel)) => channel
                .tell(cgroup.enter().and_then(|()| container::first_process(plan, namespaces, streams, &channel))),
            None => 1,
        }
    })
    .map_err(|e| Error::os("make the container's first process", e));
    nursery.map_or(Ok(()), Nursery::leave)?;
    let child = child?;
    drop(child_side);
    let channel = monitor_side.take();
    let mut process = Process { child, channel, stage: Stage::Unplaced, console: None, names: None, exit: None };
    let joined = cgroup.watch(process.child.pid()).and_then(|()| match user {
        0 => Ok(()),
        _ => userns::write(process.child.pid(), plan.mappings),
    });
    match joined {
        Ok(()) => Ok(process),
        Err(error) => Err(process.abandon(error)),
    }
}

/// What a container's processes have in common.
#[derive(Debug)]
struct Container {
    spec: TaskSpec,
    namespaces: i32,
    filter: Option<Filter>,
    cgroup: Cgroup,
}

/// How far a process is.
#[derive(Debug)]
enum Stage {
    /// It sets itself up, as far as it can without its root filesystem.
    Unplaced,
    /// It sets itself up.
    Making,
    /// It waits for the word.
    Ready,
    /// It could not be set up; the error waits to be returned.
    Failed(Error),
    /// It runs the program, or has ended.
    Running,
}

/// A process of a container.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Open until the program runs.
    channel: Option<Channel>,
    stage: Stage,
    console: Option<File>,
    /// On which names are asked for in its network namespace.
    names: Option<(File, File)>,
    exit: Option<Exit>,
}

impl Process {
    fn say(&self, message: &Message) -> Result<()> {
        self.channel.as_ref().map_or(Ok(()), |channel| channel.send(message))
    }

    fn hear(&self) -> Result<Option<Message>> {
        self.channel.as_ref().map_or(Ok(None), Channel::receive)
    }

    /// Waits until it has a network namespace.
    fn wait_until_apart(&mut self) -> Result<()> {
        match self.hear()? {
            Some(Message::Apart) => Ok(()),
            Some(Message::Failed(error)) => Err(self.abandon(error)),
            _ => Err(Error::new(Class::Internal, "the container's process ended before it was connected")),
        }
    }

    /// Lets it look for its root filesystem.
    fn place(&mut self) {
        if matches!(self.stage, Stage::Unplaced) {
            self.stage = Stage::Making;
            self.give(&Message::Placed);
        }
    }

    /// Says what it waits for. One that has failed does not listen any more, and what it said itself is heard by
    /// [`Process::settle`].
    fn give(&self, message: &Message) {
        let _ = self.say(message);
    }

    fn is_ready(&self) -> bool {
        self.channel.as_ref().is_none_or(Channel::has_message)
    }

    /// Waits until it is ready or has failed.
    fn settle(&mut self) {
        self.place();
        if !matches!(self.stage, Stage::Making) {
            return;
        }
        let mut heard = self.hear();
        let mut sockets = Vec::new();
        while let Ok(Some(Message::Names(socket))) = heard {
            sockets.push(socket.into());
            heard = self.hear();
        }
        let mut sockets = sockets.into_iter();
        self.names = sockets.next().zip(sockets.next());
        let ready = heard.and_then(|message| match message {
            Some(Message::Ready(console)) => console.map(tty::accept_master).transpose(),
            Some(Message::Failed(error)) => Err(error),
            _ => Err(Error::new(Class::Internal, "the container's process ended before it was set up")
                .with_hint("see whether its memory limit leaves room for a process")),
        });
        self.stage = match ready {
            Ok(console) => {
                self.console = console;
                Stage::Ready
            }
            Err(error) => Stage::Failed(self.abandon(error)),
        };
    }

    /// Ends it, because of an error, which comes back.
    fn abandon(&mut self, error: Error) -> Error {
        // It may have ended by itself.
        let _ = self.child.signal(libc::SIGKILL);
        if let Ok(ended) = self.child.wait() {
            self.exit.get_or_insert(Exit { code: ended.code(), oom_killed: false });
        }
        self.channel = None;
        error
    }

    fn start(&mut self) -> Result<()> {
        self.settle();
        match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Failed(error) => return Err(error),
            Stage::Running => return Err(Error::new(Class::Conflict, "the task was started before")),
            Stage::Unplaced | Stage::Making | Stage::Ready => {}
        }
        // The end of the channel is the execve.
        match self.say(&Message::Go).and_then(|()| self.hear()) {
            Ok(None) => {
                self.channel = None;
                Ok(())
            }
            Ok(Some(Message::Failed(error))) | Err(error) => Err(self.abandon(error)),
            Ok(Some(_)) => Err(self.abandon(Error::new(Class::Internal, "the container's process spoke out of turn"))),
        }
    }

    fn signal(&self, signal: i32) -> Result<()> {
        self.child.signal(signal).map_err(|e| match e.raw_os_error() {
            Some(libc::ESRCH) => Error::new(Class::NotFound, "the process has ended"),
            _ => Error::os("send a signal", e),
        })
    }

    fn reap(&mut self, oom_killed: impl FnOnce() -> bool) -> Result<Option<Exit>> {
        if self.exit.is_none()
            && let Some(ended) = self.child.try_wait().map_err(|e| Error::os("reap", e))?
        {
            self.exit = Some(Exit { code: ended.code(), oom_killed: oom_killed() });
        }
        Ok(self.exit)
    }
}

/// A container's first process, and the container.
#[derive(Debug)]
struct ContainerTask {
    process: Process,
    container: Rc<Container>,
    /// Its mount namespace. While it is held, the end of the last process does not wait for a union to be taken apart, with
    /// all that was written to it brought to the disk.
    mounts: Option<File>,
}

impl Task for ContainerTask {
    fn pid(&self) -> u32 {
        self.process.child.pid()
    }

    fn exit_handle(&self) -> &File {
        self.process.child.pidfd()
    }

    fn console(&mut self) -> Option<File> {
        self.process.settle();
        self.process.console.take()
    }

    fn place(&mut self) -> Result<()> {
        self.process.place();
        Ok(())
    }

    fn connect(&mut self, places: Vec<Wiring>) -> Result<()> {
        self.process.give(&Message::Connect(places));
        Ok(())
    }

    fn network(&self) -> Result<Option<File>> {
        if self.container.namespaces & libc::CLONE_NEWNET == 0 {
            return Ok(None);
        }
        namespace(&self.process.child, "net")
            .map(Some)
            .map_err(|_| Error::new(Class::Conflict, "the container has ended"))
    }

    fn relay(&mut self, connect: &mut dyn FnMut(u32) -> Result<Vec<Wiring>>) -> Result<()> {
        self.process.wait_until_apart()?;
        let places = connect(self.pid())?;
        self.connect(places)
    }

    fn take_names(&mut self) -> Option<(File, File)> {
        self.process.names.take()
    }

    fn is_ready(&self) -> bool {
        self.process.is_ready()
    }

    fn start(&mut self) -> Result<()> {
        let Container { spec, cgroup, namespaces, .. } = &*self.container;
        if cgroup.v2_dir().is_some() {
            let limited = limit_devices(linux_of(spec)?, *namespaces, cgroup);
            limited.map_err(|error| self.process.abandon(error))?;
        }
        self.process.settle();
        self.mounts = namespace(&self.process.child, "mnt").ok();
        self.process.start()
    }

    fn signal(&self, signal: i32) -> Result<()> {
        self.process.signal(signal)
    }

    fn reap(&mut self) -> Result<Option<Exit>> {
        let container = &self.container;
        self.process.reap(|| container.cgroup.oom_killed())
    }

    fn exec(&self, exec: &ExecSpec, stdio: Stdio) -> Result<Box<dyn Task>> {
        let process = join(&self.container, &self.process.child, exec, Streams::of(stdio)?)?;
        Ok(Box::new(ExecTask { process, container: Rc::clone(&self.container) }))
    }

    fn socket(&self) -> Result<File> {
        let socket = match linux_of(&self.container.spec)?.host_network {
            true => {
                sockets::inet(Protocol::Tcp, Ipv4Addr::LOCALHOST.into()).map_err(|e| Error::os("make a socket", e))?
            }
            false => {
                // The user namespace comes first, for it gives the right to the other one.
                let users =
                    ThreadNameSpaceType::from_bits_retain((self.container.namespaces & libc::CLONE_NEWUSER) as u32);
                exec::fetch(self.process.child.pidfd().as_fd(), users | ThreadNameSpaceType::NETWORK, || {
                    let socket = sockets::inet(Protocol::Tcp, Ipv4Addr::LOCALHOST.into());
                    socket.map_err(|e| Error::os("make a socket", e))
                })?
            }
        };
        Ok(socket.into())
    }

    fn set_paused(&self, paused: bool) -> Result<()> {
        self.container.cgroup.freeze(paused)
    }

    fn update(&self, limits: &Limits) -> Result<()> {
        self.container.cgroup.update(limits)
    }

    fn usage(&self) -> Result<Usage> {
        let mut usage = self.container.cgroup.usage();
        // The pid is our own child's, which is not reaped: it is no other's.
        let path = format!("/proc/{}/net/dev", self.process.child.pid());
        if self.container.namespaces & libc::CLONE_NEWNET != 0 && self.process.exit.is_none() {
            usage.network = std::fs::read_to_string(path).map(|text| network(&text)).unwrap_or_default();
        }
        Ok(usage)
    }

    fn processes(&self) -> Result<Vec<u32>> {
        Ok(self.container.cgroup.processes(self.pid()))
    }

    fn delete(&mut self) -> Result<()> {
        self.container.cgroup.kill_all()?;
        if self.process.exit.is_none() {
            let killed = Error::new(Class::Cancelled, "deleted");
            self.process.abandon(killed);
        }
        self.mounts = None;
        self.container.cgroup.remove()
    }
}

/// A namespace of a child that is not reaped: so the pid is no other's.
fn namespace(child: &Child, kind: &str) -> std::io::Result<File> {
    File::open(format!("/proc/{}/ns/{kind}", child.pid()))
}

/// proc_pid_net(5), `dev`: after two lines of headings, for each interface eight numbers received and eight sent.
fn network(text: &str) -> BTreeMap<String, (u64, u64)> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|number| number.parse().ok()).collect();
        Some((name.trim().to_owned(), (*numbers.first()?, *numbers.get(8)?)))
    };
    text.lines().filter_map(interface).filter(|(name, _)| name != "lo").collect()
}

fn join(container: &Container, first: &Child, exec: &ExecSpec, streams: Streams) -> Result<Process> {
    let linux = linux_of(&container.spec)?;
    let spec = exec::process(&linux.spec, exec)?;
    let join = Join {
        pidfd: first.pidfd().as_fd(),
        namespaces: container.namespaces | container::joined(linux),
        process: &spec,
        user: exec.user.as_deref().unwrap_or(&linux.user),
        groups: container::groups(&linux.spec),
        filter: container.filter.as_ref(),
    };
    let (ours, theirs) = Channel::pair()?;
    let mut child_side = Some((streams, theirs));
    let mut monitor_side = Some(ours);
    let options = SpawnOptions { cgroup: container.cgroup.v2_dir(), ..SpawnOptions::default() };
    let child = process::spawn(options, || {
        drop(monitor_side.take());
        match child_side.take() {
            Some((streams, channel)) => {
                channel.tell(container.cgroup.enter().and_then(|()| exec::joining_process(&join, streams, &channel)))
            }
            None => 1,
        }
    })
    .map_err(|e| Error::os("make a process to join the container", e))?;
    drop(child_side);
    let channel = monitor_side.take();
    let mut joining = Process { child, channel, stage: Stage::Making, console: None, names: None, exit: None };
    let made = container.cgroup.watch(joining.child.pid());
    joining.give(&Message::Placed);
    let made = made.and_then(|()| match joining.hear()? {
        Some(Message::Made(pid, pidfd)) => Ok(Child::from_parts(pid, pidfd)),
        Some(Message::Failed(error)) => Err(error),
        _ => Err(Error::new(Class::Conflict, "the container ended before the process could join it")),
    });
    match made {
        Ok(child) => {
            // It has done its work and ends.
            joining.child.wait().map_err(|e| Error::os("reap", e))?;
            Ok(Process {
                child,
                channel: joining.channel.take(),
                stage: Stage::Making,
                console: None,
                names: None,
                exit: None,
            })
        }
        Err(error) => Err(joining.abandon(error)),
    }
}

/// Another process in a container.
#[derive(Debug)]
struct ExecTask {
    process: Process,
    container: Rc<Container>,
}

impl Task for ExecTask {
    fn pid(&self) -> u32 {
        self.process.child.pid()
    }

    fn exit_handle(&self) -> &File {
        self.process.child.pidfd()
    }

    fn console(&mut self) -> Option<File> {
        self.process.settle();
        self.process.console.take()
    }

    fn place(&mut self) -> Result<()> {
        self.process.place();
        Ok(())
    }

    fn is_ready(&self) -> bool {
        self.process.is_ready()
    }

    fn start(&mut self) -> Result<()> {
        self.process.start()
    }

    fn signal(&self, signal: i32) -> Result<()> {
        self.process.signal(signal)
    }

    fn reap(&mut self) -> Result<Option<Exit>> {
        self.process.reap(|| false)
    }

    fn exec(&self, _: &ExecSpec, _: Stdio) -> Result<Box<dyn Task>> {
        Err(Error::new(Class::Unsupported, "a process is started in a container, not in one of its processes"))
    }

    fn set_paused(&self, _: bool) -> Result<()> {
        Err(Error::new(Class::Unsupported, "a container is paused whole"))
    }

    fn update(&self, _: &Limits) -> Result<()> {
        Err(Error::new(Class::Unsupported, "a container has limits, not one of its processes"))
    }

    fn usage(&self) -> Result<Usage> {
        Ok(self.container.cgroup.usage())
    }

    fn processes(&self) -> Result<Vec<u32>> {
        Ok(vec![self.pid()])
    }

    fn delete(&mut self) -> Result<()> {
        if self.process.exit.is_none() {
            let killed = Error::new(Class::Cancelled, "deleted");
            self.process.abandon(killed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_counters() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0\n  \
                    eth0:12345      10    0    0    0     0          0         0     678       9    0    0    0     0       0          0\n";
        assert_eq!(network(text), BTreeMap::from([("eth0".to_owned(), (12345, 678))]));
    }
}
