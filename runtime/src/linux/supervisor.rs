//! What a monitor does from the start of its task to the exit record: one poll loop over its task, its clients and
//! its signals. It decides; backends only execute.

mod call;
mod health;
mod restart;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use wharf_images::events::NewEvent;
use wharf_images::{Class, NoReport};

use crate::backend::modules;
use crate::config::{ContainerConfig, NetworkMode};
use crate::container::{Container, Status};
use crate::engine::{Attach, Change, Engine, Protection, Reconnect};
use crate::error::{Error, Result};
use crate::linux::ahead::{self, Ahead};
use crate::linux::cgroup_note;
use crate::linux::check_limits;
use crate::linux::client::{Client, Role};
use crate::linux::gate::{self, Desk, Gate};
use crate::linux::monitor::{backend, in_run_dir};
use crate::linux::network::{self, Connected};
use crate::linux::process;
use crate::linux::signals::SignalFd;
use crate::linux::streams::{self, Ends, Streams};
use crate::linux::usernet::UserNetwork;
use crate::monitor::ExitRecord;
use crate::monitor::begin::{failed, undo};
use crate::monitor::log::{LogPolicy, LogWriter, Stream};
use crate::monitor::protocol::{self, ExecState, Failure, Frame, Reply, Request};
use crate::plan::{self, PlannedFile};
use crate::restart::{Backoff, RestartPolicy};
use crate::state::{Event, State};
use crate::store;
use crate::task::{ExecSpec, Exit, Limits, Stdio, Workload};

use self::health::Checks;
use self::restart::Rest;

/// A monitor that has nothing to do for so long gives back the memory that start-up took.
const QUIET: Duration = Duration::from_millis(300);

/// How long the last frames may take to reach a client that does not read.
const FAREWELL: Duration = Duration::from_secs(10);

/// So many execs that have ended are remembered.
const ENDED_EXECS: usize = 32;

/// The container's first task; execs count on from here.
pub(super) const MAIN: u64 = 0;

/// What a monitor begins with.
pub(crate) struct Launch {
    pub container: Container,
    /// Bytes and record are still to be made, under this protection.
    pub unrecorded: Option<Protection>,
    /// Its process, if that was begun before anybody knew what it is.
    pub ahead: Option<Ahead>,
    pub lock: File,
    pub attach: Option<Attach>,
    pub warnings: Vec<String>,
    /// Who asked for the start.
    pub client: UnixStream,
}

/// Runs a container to its end. Returns this process's exit code.
pub(crate) fn supervise(engine: Engine, launch: Launch) -> i32 {
    let afterwards = engine.reopened();
    let on_network = !launch.container.config.places().is_empty();
    let code = watch_over(engine, launch);
    if on_network {
        network::linger(&afterwards);
    }
    code
}

fn watch_over(engine: Engine, launch: Launch) -> i32 {
    let _ = rustix::process::setsid();
    let Launch { container, unrecorded, ahead, lock, attach, warnings, client } = launch;
    let id = container.id.clone();
    let refuse = |error: &Error| {
        let _ = (&client).write_all(&protocol::reply_bytes(&Reply::Error(Failure::from(error))));
        125
    };
    let mut monitor = match Monitor::begin(engine, container, unrecorded, ahead, attach) {
        Ok(monitor) => monitor,
        Err(failed) => {
            let Unbegun { engine, container, recorded, error } = *failed;
            // Failing again while cleaning up changes nothing for the client; the next command repairs.
            let _ = undo(&engine, &container, recorded, &error);
            return refuse(&error);
        }
    };
    let started = Reply::Started { id, pid: monitor.container.state.pid.unwrap_or(0), warnings };
    let sent = (&client).write_all(&protocol::reply_bytes(&started));
    let role = attach.map_or(Role::Answered, |attach| Role::Attached { task: MAIN, attach });
    if sent.is_ok()
        && attach.is_some()
        && let Ok(client) = Client::new(client, role)
    {
        monitor.clients.push(client);
    }
    if let Some(size) = attach.and_then(|attach| attach.size) {
        monitor.resized(MAIN, size);
    }
    health::told(monitor.begin_checks());
    monitor.run(lock)
}

/// Has somebody answer what the container asks about names.
fn answer_names(connected: Option<&mut Connected>, relayed: Option<&mut UserNetwork>, sockets: (File, File)) {
    match (connected, relayed) {
        (Some(connected), _) => connected.answer(sockets),
        (None, Some(relayed)) => relayed.answer(sockets),
        (None, None) => {}
    }
}

/// How it ends for good.
enum Ending {
    /// The task has ended.
    Exited(Exit),
    /// The task that ended so was to be followed by another one, until somebody wanted its end.
    Cancelled(Exit),
    /// The next task could not be made.
    Failed(Error),
}

/// A monitor that could not begin.
struct Unbegun {
    engine: Engine,
    container: Container,
    /// There is a record of the container.
    recorded: bool,
    error: Error,
}

struct Monitor {
    engine: Engine,
    container: Container,
    listener: UnixListener,
    signals: SignalFd,
    log: LogWriter,
    /// Of a wasm container: what its guest's sockets come through.
    gate: Option<Gate>,
    /// By number: [`MAIN`] and the execs.
    tasks: BTreeMap<u64, Streams>,
    next_task: u64,
    /// What people ask about execs, by number: of those that run, and of the last that ended.
    execs: BTreeMap<u64, ExecState>,
    clients: Vec<Client>,
    /// Of a Linux container that is on a network.
    connected: Option<Connected>,
    /// The same without root.
    relayed: Option<UserNetwork>,
    /// When a stop runs out of patience.
    kill_at: Option<Instant>,
    /// When the guest's time is up.
    timeout_at: Option<Instant>,
    /// When to give back memory.
    quiet_at: Option<Instant>,
    /// The time has come.
    idle: Cell<bool>,
    paused: bool,
    /// Between two runs of a container that its policy starts again.
    rest: Option<Rest>,
    backoff: Backoff,
    checks: Option<Checks>,
    /// The system is going down: nothing is started again.
    leaving: bool,
    /// Somebody has asked for a stop: the end is told as one.
    stopping: bool,
    /// Events that wait to be told with the next change, or when nobody waits for an answer.
    untold: Vec<NewEvent>,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Makes the task, records the container, lets the task run. On failure gives back what is to be undone.
    fn begin(
        engine: Engine,
        mut container: Container,
        mut unrecorded: Option<Protection>,
        ahead: Option<Ahead>,
        attach: Option<Attach>,
    ) -> Result<Self, Box<Unbegun>> {
        let (mut made, mut gate, mut connected, mut relayed) = (None, None, None, None);
        let ways = (&mut gate, &mut connected, &mut relayed);
        let begun = Self::try_begin(&engine, &mut container, &mut unrecorded, ahead, attach, &mut made, ways);
        let recorded = unrecorded.is_none();
        match begun {
            Ok((listener, signals, log)) => {
                let Some(streams) = made else {
                    let error = Error::new(Class::Internal, "no task was made");
                    return Err(Box::new(Unbegun { engine, container, recorded, error }));
                };
                let timeout = container.config.timeout_ms.map(Duration::from_millis);
                Ok(Monitor {
                    engine,
                    container,
                    listener,
                    signals,
                    log,
                    gate,
                    tasks: BTreeMap::from([(MAIN, streams)]),
                    next_task: MAIN + 1,
                    execs: BTreeMap::new(),
                    clients: Vec::new(),
                    connected,
                    relayed,
                    kill_at: None,
                    timeout_at: timeout.map(|t| Instant::now() + t),
                    quiet_at: Some(Instant::now() + QUIET),
                    idle: Cell::new(false),
                    paused: false,
                    rest: None,
                    backoff: Backoff::default(),
                    checks: None,
                    leaving: false,
                    stopping: false,
                    untold: Vec::new(),
                    buffer: vec![0; 32 * 1024],
                })
            }
            Err(error) => {
                if let Some(mut streams) = made {
                    let _ = streams.task.signal(libc::SIGKILL);
                    let _ = streams.task.delete();
                }
                Err(Box::new(Unbegun { engine, container, recorded, error }))
            }
        }
    }

    fn try_begin(
        engine: &Engine,
        container: &mut Container,
        unrecorded: &mut Option<Protection>,
        ahead: Option<Ahead>,
        attach: Option<Attach>,
        made: &mut Option<Streams>,
        (gate, connected, relayed): (&mut Option<Gate>, &mut Option<Connected>, &mut Option<UserNetwork>),
    ) -> Result<(UnixListener, SignalFd, LogWriter)> {
        let paths = engine.paths();
        let id = container.id.clone();
        if unrecorded.is_none() {
            // After a restart of the machine, layers that had not reached the disk for certain are unpacked anew.
            engine.images()?.ensure_unpacked(&container.image, &NoReport)?;
            ExitRecord::remove(&paths.exit_record(&id))?;
            let again = container.state.state == State::Restarting;
            let advance = |status: &mut Status| {
                (status.error, status.stopped) = (None, false);
                status.restarts = if again { status.restarts } else { 0 };
            };
            let attached = attach.map(|_| container.event("attach"));
            let also = (&[][..], attached.as_slice());
            container.state = engine.containers()?.advance(container, Event::Start, also, advance)?;
        }
        // What the plan needs of the bytes is there already, but for volumes, which may still have to be made and filled, and
        // for a module in the root filesystem that was not compiled yet.
        let volumes = container.config.mounts.iter().any(|mount| mount.volume().is_some());
        let known = modules::known(engine, container)?;
        let early = unrecorded.is_some() && !volumes && (known.is_some() || !container.image.is_wasm());
        if let Some(protection) = unrecorded.as_mut().filter(|_| !early) {
            engine.make_bytes(container, protection)?;
        }
        *connected = Connected::reserve(container)?;
        *relayed = UserNetwork::choose(container)?;
        let (spec, files) = plan::task_spec(engine, container, known)?;
        if let Workload::Wasm(task) = &spec.workload {
            gate.insert(Gate::new(engine, container, task)).publish()?;
        }
        if let (true, Some(parent)) = (unrecorded.is_some(), &container.config.cgroup_parent) {
            cgroup_note::leave(&paths.run_container(&id), parent)?;
        }
        let (task, ends) = match ahead.and_then(|ahead| ahead.into_parts(&spec)) {
            Some((task, ends)) => (task.plan(&spec)?, ends),
            None => {
                let (tty, stdin) = (container.config.tty, container.config.interactive);
                let (stdio, ends) = streams::make(tty, stdin, attach.and_then(|a| a.size))?;
                (backend(container.backend())?.create(&spec, stdio)?, ends)
            }
        };
        // From here on the task loads, on the other core, while we write.
        let streams = made.insert(Streams::new(task, ends));
        if early {
            engine.make_tree(container)?;
        }
        files.iter().try_for_each(PlannedFile::write)?;
        streams.task.place()?;
        ahead::remember(engine, &container.config, &spec);
        if unrecorded.is_some() {
            container.state.state = container.state.state.after(Event::Start)?;
            engine.containers()?.insert(container, attach.is_some())?;
            *unrecorded = None;
        }
        if let Some(gate) = gate.as_mut().filter(|gate| gate.is_wanted()) {
            gate.join(engine)?;
        }
        if let Some(connected) = &mut *connected {
            streams.task.connect(connected.join(engine, container)?)?;
            connected.publish(engine)?;
        }
        if let Some(relayed) = &mut *relayed {
            relayed.join(engine, container)?;
            streams.task.relay(&mut |pid| relayed.connect(engine, container, pid))?;
        }
        // Before it runs if it is still busy, else while it runs.
        let ears = match streams.task.is_ready() {
            true => None,
            false => Some(ears(engine, container)?),
        };
        streams.take_console()?;
        if let Some(sockets) = streams.task.take_names() {
            answer_names(connected.as_mut(), relayed.as_mut(), sockets);
        }
        match gate {
            Some(gate) => streams.task.start_connected(&mut Desk { gate, engine, guest: MAIN })?,
            None => streams.task.start()?,
        }
        let (listener, log) = ears.map_or_else(|| self::ears(engine, container), Ok)?;
        let (pid, walls) = (streams.task.pid(), streams.task.walls().cloned());
        container.state =
            engine.containers()?.advance(container, Event::Started, (&[], &[]), |status| status.begin(pid, walls))?;
        let signals = SignalFd::new(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT])
            .map_err(|e| Error::os("take signals", e))?;
        silence()?;
        Ok((listener, signals, log))
    }

    fn run(mut self, lock: File) -> i32 {
        loop {
            if let Err(error) = self.turn() {
                // A loop that cannot poll cannot watch over anything: end the task, record it, go.
                eprintln!("wharf: {error}");
                let _ = self.main().and_then(|main| main.task.signal(libc::SIGKILL));
                std::thread::sleep(Duration::from_millis(100));
            }
            let over = match (self.rest, self.tasks.get(&MAIN).and_then(|main| main.exit)) {
                (Some(rest), _) => self.after_rest(rest),
                (None, None) => None,
                (None, Some(exit)) => match self.rests(exit) {
                    Ok(true) => None,
                    Ok(false) => Some(Ending::Exited(exit)),
                    Err(error) => {
                        eprintln!("wharf: {error}");
                        Some(Ending::Exited(exit))
                    }
                },
            };
            if let Some(ending) = over {
                return self.end(ending, lock);
            }
        }
    }

    fn after_rest(&mut self, rest: Rest) -> Option<Ending> {
        if self.leaving || self.container.state.stopped {
            return Some(Ending::Cancelled(rest.exit));
        }
        if rest.until > Instant::now() {
            return None;
        }
        self.resume().err().map(Ending::Failed)
    }

    /// Waits for something to happen, and does what it asks for.
    fn turn(&mut self) -> Result<()> {
        let (sources, ready) = self.wait()?;
        for (source, ready) in sources.into_iter().zip(ready) {
            if !ready {
                continue;
            }
            match source {
                Source::Listener => self.accept(),
                Source::Signals => self.signalled(),
                Source::Client(index) => self.serve(index),
                Source::Stdin(task) => {
                    if let Some(streams) = self.tasks.get_mut(&task) {
                        streams.flush_stdin();
                    }
                }
                Source::Output(task, stream) => self.copy_output(task, stream),
                Source::Exit(task) => self.reap(task)?,
                Source::Line(task) => self.asked(task),
                Source::Check => health::told(self.called()),
                Source::Gate(wake) => self.gate_woken(|gate, engine| gate.woken(engine, wake)),
                Source::Network(wake) => {
                    self.quiet_at = Some(Instant::now() + QUIET);
                    if wake == network::Wake::Names(network::names::Wake::Caller) {
                        // A child is forked, which opens the database anew: it must not be open across that.
                        self.engine.close();
                    }
                    if let Some(connected) = &mut self.connected {
                        connected.woken(wake, &self.engine);
                    } else if let (Some(relayed), network::Wake::Names(wake)) = (&mut self.relayed, wake) {
                        relayed.woken(wake);
                    }
                }
            }
        }
        self.clients.iter().filter(|c| c.gone).for_each(|client| {
            // Who ran it with -i and leaves has closed its stdin (docker's StdinOnce).
            if let Role::Attached { task, attach } = client.role
                && attach.stdin
                && let Some(streams) = self.tasks.get_mut(&task)
            {
                streams.close_stdin();
            }
        });
        let let_go = self.clients.iter().any(|c| c.gone && c.role == Role::Holding);
        self.clients.retain(|c| !c.gone);
        if let_go && self.paused {
            self.set_paused(false)?;
        }
        self.on_time()?;
        self.tell()
    }

    /// Tells what has happened, now that whoever asked has been answered.
    fn tell(&mut self) -> Result<()> {
        if self.untold.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.untold);
        self.quiet_at = Some(Instant::now() + QUIET);
        self.engine.containers()?.tell(&self.container.id, &events)
    }

    /// Sends a signal that somebody asked for, and tells so.
    fn signal(&mut self, signal: i32) -> Result<()> {
        self.main()?.task.signal(signal)?;
        self.untold.push(self.container.event("kill").with("signal", signal.to_string()));
        Ok(())
    }

    fn wait(&self) -> Result<(Vec<Source>, Vec<bool>)> {
        let mut sources = vec![Source::Listener, Source::Signals];
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        for (index, client) in self.clients.iter().enumerate() {
            let reads = match client.role {
                Role::Attached { task, .. } => self.tasks.get(&task).is_none_or(Streams::takes_stdin),
                _ => true,
            };
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, client.wants_write());
            sources.push(Source::Client(index));
            fds.push(PollFd::new(client, flags));
        }
        for (number, streams) in &self.tasks {
            for stream in [Stream::Stdout, Stream::Stderr] {
                if let Some(fd) = streams.output(stream)
                    && !self.clients.iter().any(|c| c.holds_back(*number, stream))
                {
                    sources.push(Source::Output(*number, stream));
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                }
            }
            if let Some(fd) = streams.wants_write() {
                sources.push(Source::Stdin(*number));
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
            }
            if let Some(line) = streams.task.line() {
                sources.push(Source::Line(*number));
                fds.push(PollFd::new(line, PollFlags::IN));
            }
            if streams.exit.is_none() {
                sources.push(Source::Exit(*number));
                fds.push(PollFd::new(streams.task.exit_handle(), PollFlags::IN));
            }
        }
        for (wake, fd) in self.gate.iter().flat_map(Gate::polls) {
            sources.push(Source::Gate(wake));
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        for (wake, fd, flags) in self.connected.iter().flat_map(Connected::polls) {
            sources.push(Source::Network(wake));
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
        for (wake, fd) in self.relayed.iter().flat_map(UserNetwork::polls) {
            sources.push(Source::Network(network::Wake::Names(wake)));
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        }
        if let Some(fd) = self.checks.as_ref().and_then(Checks::poll) {
            sources.push(Source::Check);
            fds.push(fd);
        }
        let rest = self.rest.map(|rest| rest.until);
        let gate = self.gate.as_ref().and_then(Gate::deadline);
        let names = self.connected.as_ref().and_then(Connected::deadline);
        let relayed = self.relayed.as_ref().and_then(UserNetwork::deadline);
        let deadlines = [self.kill_at, self.timeout_at, self.quiet_at, rest, self.check_due(), gate, names, relayed];
        let deadline = deadlines.into_iter().flatten().min();
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        // Last, or the pages of what is done until then are there again.
        if self.idle.take() {
            crate::linux::give_back_memory();
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(Error::os("poll", e)),
        }
        let ready = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok((sources, ready))
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Ok(client) = Client::new(stream, Role::New) {
                self.clients.push(client);
            }
        }
    }

    /// Somebody signals the monitor itself: the system is going down. Stop the container.
    fn signalled(&mut self) {
        while let Some(signal) = self.signals.next() {
            if signal == libc::SIGTERM {
                self.leaving = true;
                let _ = self.signal(libc::SIGTERM);
                self.kill_at.get_or_insert(Instant::now() + Duration::from_secs(10));
            }
        }
    }

    fn serve(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.flush();
        client.fill();
        let input = client.take_input();
        let mut used = 0;
        while !self.clients[index].gone {
            match Frame::decode(&input[used..]) {
                Ok(Some((frame, length))) => {
                    self.frame(index, frame);
                    used += length;
                }
                Ok(None) => break,
                Err(_) => self.clients[index].gone = true,
            }
        }
        self.clients[index].put_back(&input[used..]);
    }

    fn frame(&mut self, index: usize, frame: Frame<'_>) {
        match (self.clients[index].role, frame) {
            (Role::New, Frame::Request(json)) => {
                let reply = match serde_json::from_slice::<Request>(json) {
                    Ok(request) => self.request(index, request),
                    Err(e) => Err(Error::new(Class::InvalidInput, format!("request: {e}"))),
                };
                let reply = match reply {
                    Ok(None) => return,
                    Ok(Some(reply)) => reply,
                    Err(e) => Reply::Error(Failure::from(&e)),
                };
                self.answer(index, &reply);
            }
            (Role::Attached { task, attach }, frame) => {
                let Some(streams) = self.tasks.get_mut(&task) else { return };
                match frame {
                    Frame::Stdin(bytes) if attach.stdin => streams.write_stdin(bytes),
                    Frame::CloseStdin if attach.stdin => streams.close_stdin(),
                    Frame::Resize(rows, cols) => {
                        streams.resize(rows, cols);
                        self.resized(task, (rows, cols));
                    }
                    Frame::Detach => {
                        let event = match task {
                            MAIN => self.container.event("detach"),
                            exec => self.container.event("exec_detach").with("execID", exec_id(&self.container, exec)),
                        };
                        self.untold.push(event);
                    }
                    // It may have ended in this moment: then there is nothing to signal.
                    Frame::Signal(signal) => drop(streams.task.signal(signal)),
                    _ => {}
                }
            }
            _ => self.clients[index].gone = true,
        }
    }

    fn answer(&mut self, index: usize, reply: &Reply) {
        let client = &mut self.clients[index];
        if client.role == Role::New {
            client.role = Role::Answered;
        }
        client.send_bytes(&protocol::reply_bytes(reply));
        client.flush();
    }

    /// Does what a client asks. `None`: the answer comes later.
    fn request(&mut self, index: usize, request: Request) -> Result<Option<Reply>> {
        match request {
            Request::Attach(attach) => {
                self.untold.push(self.container.event("attach"));
                self.main()?;
                let reply = self.attached(index, MAIN, attach);
                if let Some((rows, cols)) = attach.size {
                    self.main()?.resize(rows, cols);
                    self.resized(MAIN, (rows, cols));
                }
                Ok(Some(reply))
            }
            Request::Exec { spec, tty, attach } => {
                let stdin = attach.is_some_and(|a| a.stdin);
                let number = self.start_exec(&spec, streams::make(tty, stdin, attach.and_then(|a| a.size))?)?;
                self.execs.insert(
                    number,
                    ExecState {
                        id: exec_id(&self.container, number),
                        container: self.container.id.clone(),
                        pid: self.tasks[&number].task.pid(),
                        exit_code: None,
                        args: spec.args,
                        user: spec.user,
                        privileged: spec.privileged,
                        tty,
                        stdin,
                        attached: attach.is_some(),
                    },
                );
                Ok(Some(self.attached(index, number, attach.unwrap_or_default())))
            }
            Request::Signal(signal) => {
                self.signal(signal)?;
                if self.container.stop_signal().is_ok_and(|stop| stop == signal) {
                    self.stop_asked()?;
                }
                self.tell()?;
                Ok(Some(Reply::Done))
            }
            Request::Kill => {
                if self.rest.is_none() {
                    self.signal(libc::SIGKILL)?;
                }
                self.stop_asked()?;
                self.clients[index].role = Role::Stopping;
                Ok(None)
            }
            Request::Stop { signal, timeout } => {
                if self.rest.is_none() {
                    self.signal(signal)?;
                }
                self.stopping = true;
                self.stop_asked()?;
                self.kill_at = timeout.map(|s| Instant::now() + Duration::from_secs(u64::from(s)));
                self.clients[index].role = Role::Stopping;
                Ok(None)
            }
            Request::Wait => {
                self.clients[index].role = Role::Waiting;
                Ok(None)
            }
            Request::Update(change) => {
                self.tell()?;
                self.update(&change)?;
                Ok(Some(Reply::Done))
            }
            Request::Reconnect(change) => {
                self.tell()?;
                self.reconnect(&change)?;
                Ok(Some(Reply::Done))
            }
            Request::Pause(paused) => {
                self.set_paused(paused)?;
                Ok(Some(Reply::Done))
            }
            Request::Hold => {
                self.set_paused(true)?;
                self.clients[index].role = Role::Holding;
                Ok(Some(self.started(MAIN)))
            }
            Request::Usage => Ok(Some(Reply::Usage(self.main()?.task.usage()?))),
            Request::Processes => {
                let mut pids = self.main()?.task.processes()?;
                let execs = self.tasks.values().filter_map(|exec| Some((exec.task.pid(), exec.command.clone()?)));
                let execs: BTreeMap<u32, String> = execs.collect();
                // Where there is no cgroup, a guest's execs are known to nobody else.
                let unknown: Vec<u32> = execs.keys().filter(|pid| !pids.contains(pid)).copied().collect();
                pids.extend(unknown);
                Ok(Some(Reply::Processes { pids, execs }))
            }
            Request::Execs => Ok(Some(Reply::Execs(self.execs.values().cloned().collect()))),
            Request::Bridged => {
                self.gate_woken(Gate::meet);
                self.quiet_at = Some(Instant::now() + QUIET);
                Ok(Some(Reply::Done))
            }
        }
    }

    /// Freezes or thaws the container, and records it.
    fn set_paused(&mut self, paused: bool) -> Result<()> {
        self.main()?.task.set_paused(paused)?;
        self.paused = paused;
        let event = if paused { Event::Pause } else { Event::Unpause };
        let before = std::mem::take(&mut self.untold);
        let also = (&before[..], &[][..]);
        self.container.state = self.engine.containers()?.advance(&self.container, event, also, |_| ())?;
        self.quiet_at = Some(Instant::now() + QUIET);
        Ok(())
    }

    /// A terminal has another size.
    fn resized(&mut self, task: u64, (rows, cols): (u16, u16)) {
        if task == MAIN {
            let event = self.container.event("resize").with("height", rows.to_string());
            self.untold.push(event.with("width", cols.to_string()));
        }
    }

    /// Starts another process in the container, and gives it its number.
    fn start_exec(&mut self, spec: &ExecSpec, (stdio, ends): (Stdio, Ends)) -> Result<u64> {
        if self.paused {
            // It would be born frozen, and we would wait for it.
            let text = format!("Container {} is paused, unpause the container before exec", self.container.name);
            return Err(Error::new(Class::Conflict, text));
        }
        self.main()?;
        let number = self.next_task;
        self.next_task += 1;
        // Docker has a space before arguments that are not there, and tells it also of what then cannot be started.
        let (program, args) = spec.args.split_first().map_or(("", &[][..]), |(program, args)| (program.as_str(), args));
        for action in ["exec_create", "exec_start"] {
            let event = self.container.event(format!("{action}: {program} {}", args.join(" ")));
            self.untold.push(event.with("execID", exec_id(&self.container, number)));
        }
        let task = self.main()?.task.exec(spec, stdio)?;
        let mut streams = Streams::new(task, ends);
        let started = match &mut self.gate {
            Some(gate) => streams.task.start_connected(&mut Desk { gate, engine: &self.engine, guest: number }),
            None => streams.task.start(),
        };
        if let Err(error) = started.and_then(|()| streams.take_console()) {
            // The first error is the one that tells why.
            let _ = streams.task.signal(libc::SIGKILL);
            let _ = streams.task.delete();
            self.gate_woken(|gate, engine| gate.left(engine, number));
            return Err(error);
        }
        // It may have been given its place on the network by the store.
        self.quiet_at = Some(Instant::now() + QUIET);
        streams.command = Some(spec.args.join(" "));
        self.tasks.insert(number, streams);
        Ok(number)
    }

    /// Somebody wants its end: no policy starts it again, and a frozen task, which takes no signal, is thawed.
    fn stop_asked(&mut self) -> Result<()> {
        self.container.state.stopped = true;
        if self.paused {
            self.main()?.task.set_paused(false)?;
            self.paused = false;
        }
        if self.container.config.restart != RestartPolicy::No {
            let events = std::mem::take(&mut self.untold);
            self.engine.containers()?.stop_asked(&self.container.id, &events)?;
        }
        Ok(())
    }

    /// Puts the container on another network, or takes it from one, and records it.
    fn reconnect(&mut self, change: &Reconnect) -> Result<()> {
        self.quiet_at = Some(Instant::now() + QUIET);
        change.apply(&self.container, &mut self.container.config.places().into_owned())?;
        if let Some(gate) = &mut self.gate {
            let moved = match change {
                Reconnect::Connect(place) => gate.connect_to(&self.engine, place),
                Reconnect::Disconnect(network) => gate.disconnect_from(&self.engine, network),
            };
            self.gate_woken(|_, _| ());
            moved?;
        } else {
            let own = self.main()?.task.network()?;
            let (Some(connected), Some(own)) = (&mut self.connected, own) else {
                let message = match self.container.config.network {
                    NetworkMode::None => "a container without a network cannot be given one while it runs",
                    _ => "the networks of a container that another program connects cannot be changed while it runs",
                };
                return Err(Error::new(Class::Unsupported, message).with_hint("stop it first"));
            };
            match change {
                Reconnect::Connect(place) => connected.connect(&self.engine, &self.container, &own, place)?,
                Reconnect::Disconnect(network) => connected.disconnect(&self.engine, &self.container, &own, network)?,
            }
        }
        let containers = self.engine.containers()?;
        self.container.config =
            containers.set_endpoints(&self.container, |places| change.apply(&self.container, places))?;
        Ok(())
    }

    /// Puts other limits in force and records them.
    fn update(&mut self, change: &Change) -> Result<()> {
        let mut wanted = self.container.config.clone();
        change.apply(&mut wanted);
        if change.limits != Limits::default() {
            match self.tasks.get(&MAIN) {
                Some(main) => main.task.update(&wanted.limits)?,
                None => drop(check_limits(&wanted.limits)?),
            }
        }
        let containers = self.engine.containers()?;
        let record = |config: &mut ContainerConfig| {
            change.apply(config);
            Ok(())
        };
        self.container.config = containers.update(&self.container, record)?;
        self.quiet_at = Some(Instant::now() + QUIET);
        Ok(())
    }

    fn attached(&mut self, index: usize, task: u64, attach: Attach) -> Reply {
        self.clients[index].role = Role::Attached { task, attach };
        self.started(task)
    }

    fn started(&self, task: u64) -> Reply {
        let pid = self.tasks[&task].task.pid();
        Reply::Started { id: self.container.id.clone(), pid, warnings: Vec::new() }
    }

    fn copy_output(&mut self, task: u64, stream: Stream) {
        let Some(streams) = self.tasks.get_mut(&task) else { return };
        let Some(n) = streams.read(stream, &mut self.buffer) else { return };
        let bytes = &self.buffer[..n];
        // Logged before it is shown: what somebody has seen is not lost.
        if task == MAIN
            && let Err(e) = self.log.write(stream, bytes)
        {
            eprintln!("wharf: log: {e}");
        }
        if let Some(checks) = &mut self.checks {
            checks.hear(task, bytes);
        }
        for client in self.clients.iter_mut().filter(|c| c.wants(task, stream)) {
            client.send(&match stream {
                Stream::Stdout => Frame::Stdout(bytes),
                Stream::Stderr => Frame::Stderr(bytes),
            });
        }
    }

    /// A task has ended: what it wrote is passed on, then its clients hear of its end. The container's own end is
    /// recorded first: see [`Monitor::end`].
    fn reap(&mut self, number: u64) -> Result<()> {
        let Some(streams) = self.tasks.get_mut(&number) else { return Ok(()) };
        let Some(exit) = streams.task.reap()? else { return Ok(()) };
        streams.exit = Some(exit);
        self.drain(number);
        self.gate_woken(|gate, engine| gate.left(engine, number));
        if number == MAIN {
            // The container's end is theirs. Where there is a pid namespace the kernel has seen to it.
            for exec in self.tasks.range(MAIN + 1..).map(|(_, streams)| streams) {
                let _ = exec.task.signal(libc::SIGKILL);
            }
        }
        if number != MAIN {
            self.tell_exit(number, exit.code);
            let event = self.container.event("exec_die").with("exitCode", exit.code.to_string());
            self.untold.push(event.with("execID", exec_id(&self.container, number)));
            self.forget_execs(number, exit.code);
            if let Some(mut streams) = self.tasks.remove(&number) {
                streams.task.delete()?;
            }
            health::told(self.checked(number, exit.code));
        }
        Ok(())
    }

    /// An exec has ended. The last ones are remembered.
    fn forget_execs(&mut self, number: u64, code: i32) {
        if let Some(exec) = self.execs.get_mut(&number) {
            exec.exit_code = Some(code);
        }
        let ended: Vec<u64> = self.execs.iter().filter(|(_, e)| e.exit_code.is_some()).map(|(n, _)| *n).collect();
        for old in &ended[..ended.len().saturating_sub(ENDED_EXECS)] {
            self.execs.remove(old);
        }
    }

    /// Reads what is left in the pipes. Whoever still holds their other ends is not waited for.
    fn drain(&mut self, number: u64) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            loop {
                let before = self.tasks.get(&number).is_some_and(|s| s.output(stream).is_some());
                let readable = before && self.readable(number, stream);
                if !readable {
                    break;
                }
                self.copy_output(number, stream);
            }
        }
    }

    fn readable(&self, number: u64, stream: Stream) -> bool {
        self.tasks.get(&number).and_then(|s| s.output(stream)).is_some_and(|fd| process::is_readable(&fd))
    }

    fn tell_exit(&mut self, number: u64, code: i32) {
        for client in &mut self.clients {
            if matches!(client.role, Role::Attached { task, .. } if task == number) {
                client.role = Role::Answered;
                client.send(&Frame::Exit(code));
                client.flush();
            }
        }
    }

    fn on_time(&mut self) -> Result<()> {
        let now = Instant::now();
        if let Some(connected) = &mut self.connected {
            connected.on_time(now);
        }
        if let Some(relayed) = &mut self.relayed {
            relayed.on_time(now);
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            let _ = self.signal(libc::SIGKILL);
        }
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.timeout_at = None;
            self.log_notice("wharf: the time limit (--timeout) was reached\n");
            let _ = self.main().and_then(|main| main.task.signal(libc::SIGKILL));
        }
        if self.check_due().is_some_and(|at| at <= now) {
            health::told(self.check());
        }
        self.gate_woken(|gate, _| gate.on_time(now));
        if self.quiet_at.is_some_and(|at| at <= now) {
            self.quiet_at = None;
            // Who came to the network before this monitor could be told has told nobody.
            self.gate_woken(Gate::meet);
            self.engine.close();
            self.idle.set(true);
        }
        Ok(())
    }

    /// A guest asks for a socket.
    fn asked(&mut self, number: u64) {
        let opened_before = self.engine.is_used();
        if let (Some(streams), Some(gate)) = (self.tasks.get_mut(&number), &mut self.gate) {
            streams.task.hear(&mut Desk { gate, engine: &self.engine, guest: number });
        }
        if self.engine.is_used() && !opened_before {
            // A name was looked up in the store.
            self.quiet_at = Some(Instant::now() + QUIET);
        }
        self.gate_woken(|_, _| ());
    }

    /// Does something with the gate, and writes down what it has to say.
    fn gate_woken(&mut self, act: impl FnOnce(&mut Gate, &Engine)) {
        let Some(gate) = &mut self.gate else { return };
        act(gate, &self.engine);
        for notice in gate.take_notices() {
            self.log_notice(&notice);
        }
    }

    fn log_notice(&mut self, text: &str) {
        let _ = self.log.write(Stream::Stderr, text.as_bytes());
        for client in self.clients.iter_mut().filter(|c| c.wants(MAIN, Stream::Stderr)) {
            client.send(&Frame::Stderr(text.as_bytes()));
        }
    }

    /// The container has ended: record it, tell everybody, tidy up, let go of the lock.
    fn end(mut self, ending: Ending, lock: File) -> i32 {
        if let Err(e) = self.log.finish() {
            eprintln!("wharf: log: {e}");
        }
        let code = match &ending {
            Ending::Exited(exit) | Ending::Cancelled(exit) => exit.code,
            Ending::Failed(error) => error.exit_code(),
        };
        let recorded = self.record(ending);
        let mut joined = self.connected.is_some();
        // Whoever hears of the end may take address and ports at once.
        let released = match self.gate.take() {
            Some(gate) if gate.has_joined() => {
                joined = true;
                self.engine.detach_network(&self.container.id)
            }
            _ => Ok(()),
        };
        let released = released.and_then(|()| match self.relayed.as_mut().map(UserNetwork::close) {
            Some(()) => self.engine.detach_network(&self.container.id),
            None => Ok(()),
        });
        let recorded = recorded.and(released);
        if let Err(e) = &recorded {
            eprintln!("wharf: {e}");
        }
        // Whoever hears of the end may publish the same ports at once, and ask for the same addresses.
        if self.container.config.places().iter().any(|place| place.address.is_some() || place.address6.is_some())
            && let Err(e) = self.engine.detach_network(&self.container.id)
        {
            eprintln!("wharf: {e}");
        }
        let left = self.connected.as_mut().map_or(Ok(()), |connected| connected.close(&self.engine));
        let removed = recorded.is_ok() && self.container.config.auto_remove;
        // And finds its volumes unmounted, or gone with it. Who has none does not wait.
        if self.container.volume_names().next().is_some() {
            self.delete_tasks();
            if let Err(e) = self.free_volumes(removed) {
                eprintln!("wharf: {e}");
            }
        }
        for mut client in std::mem::take(&mut self.clients) {
            match client.role {
                Role::Stopping => client.send_bytes(&protocol::reply_bytes(&Reply::Done)),
                Role::Waiting => client.send_bytes(&protocol::reply_bytes(&Reply::Exited(code))),
                Role::Attached { task: MAIN, .. } => client.send(&Frame::Exit(code)),
                // Execs died with the container's first process.
                Role::Attached { .. } => client.send(&Frame::Exit(137)),
                Role::New | Role::Holding | Role::Answered => {}
            }
            client.finish(FAREWELL);
        }
        self.delete_tasks();
        let left = left.and_then(|()| match joined {
            true => network::leave(&self.engine, &self.container),
            false => Ok(()),
        });
        if let Err(e) = left {
            eprintln!("wharf: {e}");
        }
        let id = &self.container.id;
        let tidied = match removed {
            true => self.engine.remove_bytes(id, None),
            false => {
                std::fs::remove_file(self.engine.paths().socket(id)).map_err(|e| Error::os("remove the socket", e))
            }
        };
        drop(lock);
        i32::from(tidied.is_err())
    }

    fn delete_tasks(&mut self) {
        for (_, mut streams) in std::mem::take(&mut self.tasks) {
            if let Err(e) = streams.task.delete() {
                eprintln!("wharf: {e}");
            }
        }
    }

    /// Unmounts what only it had mounted of its volumes, and removes those that go with it if it is `removed`.
    fn free_volumes(&self, removed: bool) -> Result<()> {
        self.engine.release_volumes(&self.container)?;
        match removed {
            true => self.engine.volumes().remove_anonymous(&self.container.config.mounts),
            false => Ok(()),
        }
    }

    /// The events of a task that has ended, before its end is told.
    fn last_words(&mut self, exit: Exit) -> Vec<NewEvent> {
        let mut words = std::mem::take(&mut self.untold);
        if exit.oom_killed {
            words.push(self.container.event("oom"));
        }
        words
    }

    fn record(&mut self, ending: Ending) -> Result<()> {
        let after = self.stopping.then(|| self.container.event("stop"));
        let exit = match ending {
            Ending::Exited(exit) => exit,
            Ending::Cancelled(_) => {
                let before = std::mem::take(&mut self.untold);
                let also = (&before[..], after.as_slice());
                return self.engine.containers()?.advance(&self.container, Event::Cancel, also, |_| ()).map(drop);
            }
            Ending::Failed(error) => return failed(&self.engine, &self.container, &error),
        };
        let record = ExitRecord { exit, finished: Timestamp::now() };
        let mut before = self.last_words(exit);
        if self.container.config.auto_remove {
            let status = &mut self.container.state;
            (status.exit_code, status.finished) = (exit.code, Some(record.finished));
            before.extend(self.container.unmount_events());
            before.push(store::died(&self.container, &self.container.state));
            before.extend(after);
            return self.engine.containers()?.remove(&self.container, &before).map(drop);
        }
        record.write(&self.engine.paths().exit_record(&self.container.id))?;
        self.engine.record_exit(&self.container, &record, (&before, after.as_slice())).map(drop)
    }
}

/// Where the monitor hears its clients, and where it writes down what it hears of the task.
fn ears(engine: &Engine, container: &Container) -> Result<(UnixListener, LogWriter)> {
    let (paths, id) = (engine.paths(), &container.id);
    let listener = in_run_dir(engine, id, |path| {
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path)
    })
    .map_err(|e| Error::io("bind", paths.socket(id), e))?;
    listener.set_nonblocking(true).map_err(|e| Error::os("prepare the socket", e))?;
    let log = paths.log(id);
    let log = LogWriter::open(&log, LogPolicy::of(container)?)?;
    Ok((listener, log))
}

/// The id of an exec in events: 64 digits of its container and its number, as nobody else's.
fn exec_id(container: &Container, number: u64) -> String {
    wharf_images::Digest::of(format!("{} {number}", container.id).as_bytes()).hex().to_owned()
}

/// What a descriptor in the poll belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Client(usize),
    Stdin(u64),
    Output(u64, Stream),
    Exit(u64),
    Line(u64),
    Check,
    Gate(gate::Wake),
    Network(network::Wake),
}

/// Lets go of the streams of whoever started us: a reader of their pipe must see its end.
fn silence() -> Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("open", "/dev/null", e))?;
    let all = rustix::stdio::dup2_stdin(&null)
        .and_then(|()| rustix::stdio::dup2_stdout(&null))
        .and_then(|()| rustix::stdio::dup2_stderr(&null));
    all.map_err(|e| Error::os("let go of the standard streams", e))
}
