//! What a monitor does from the start of its task to the exit record. One thread decides; others wait for connections,
//! for output, and for the task's end, and tell it.

use std::fs::File;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wharf_images::events::NewEvent;
use wharf_images::{Class, NoReport};

use super::hosted::Hosted;
use super::hub::Hub;
use super::link::Offer;
use super::monitor::refuse;
use super::{check_limits, hosted, jail, registry};
use crate::backend::modules;
use crate::config::ContainerConfig;
use crate::container::{Container, Status};
use crate::engine::{Attach, Change, Engine, Reconnect};
use crate::error::{Error, Result};
use crate::monitor::ExitRecord;
use crate::monitor::begin::{failed, undo};
use crate::monitor::log::{LogPolicy, LogWriter, Stream};
use crate::monitor::protocol::{self, Frame, Reply, Request};
use crate::plan::{self, PlannedFile};
use crate::restart::{Backoff, RestartPolicy};
use crate::signal::KILL;
use crate::state::{Event, State};
use crate::store;
use crate::task::{Exit, Limits};

/// How long the last frames may take to reach a client that does not read.
const FAREWELL: Duration = Duration::from_secs(10);

/// What a monitor begins with.
pub(super) struct Launch {
    pub container: Container,
    pub lock: File,
    pub attach: Option<Attach>,
    /// Who asked for the start.
    pub client: TcpStream,
}

/// What the monitor hears.
pub(super) enum Heard {
    /// Somebody asks, and waits for the answer.
    Asked(Request, TcpStream),
    /// Somebody who is attached has typed a signal.
    Signal(i32),
    /// Somebody who was attached has typed the keys for that.
    Detached,
    /// The task of this number has ended.
    Ended(u64),
}

/// Runs a container to its end. Returns this process's exit code.
pub(super) fn supervise(engine: Engine, launch: Launch) -> i32 {
    let Launch { mut container, lock, attach, client } = launch;
    let (tell, heard) = mpsc::channel();
    let begun = begin(&engine, &mut container, &tell, attach);
    let (hub, mut task) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            // Failing again while cleaning up changes nothing for the client; the next command repairs.
            let _ = undo(&engine, &container, true, &error);
            drop(lock);
            if container.config.auto_remove {
                // A directory in which a file is open cannot be removed everywhere.
                let _ = engine.remove_bytes(&container.id, None);
            }
            return refuse(&client, &error);
        }
    };
    hub.set_stdin(task.take_stdin());
    let timeout = container.config.timeout_ms.map(Duration::from_millis);
    let mut monitor = Monitor {
        engine,
        container,
        hub,
        tell,
        heard,
        task: None,
        waiting: Vec::new(),
        kill_at: None,
        timeout_at: timeout.map(|t| Instant::now() + t),
        rest: None,
        backoff: Backoff::default(),
        stopping: false,
    };
    monitor.answer(&client, &monitor.started());
    if let Some(attach) = attach {
        monitor.attach(client, attach);
    }
    monitor.run_task(task);
    monitor.engine.close();
    monitor.run(lock)
}

/// Makes the task, records that the container runs, lets the task run. What it writes is not read yet.
fn begin(
    engine: &Engine,
    container: &mut Container,
    tell: &Sender<Heard>,
    attach: Option<Attach>,
) -> Result<(Arc<Hub>, Hosted)> {
    let id = container.id.clone();
    // After a restart of the machine, layers that had not reached the disk for certain are unpacked anew.
    engine.images()?.ensure_unpacked(&container.image, &NoReport)?;
    ExitRecord::remove(&engine.paths().exit_record(&id))?;
    let again = container.state.state == State::Restarting;
    let advance = |status: &mut Status| {
        (status.error, status.stopped) = (None, false);
        status.restarts = if again { status.restarts } else { 0 };
    };
    let attached = attach.map(|_| container.event("attach"));
    let also = (&[][..], attached.as_slice());
    container.state = engine.containers()?.advance(container, Event::Start, also, advance)?;
    let log = LogWriter::open(&engine.paths().log(&id), LogPolicy::of(container)?)?;
    let offer = Offer::new()?;
    offer.write(&engine.paths().socket(&id))?;
    let task = make_task(engine, container)?;
    record_start(engine, container, &task)?;
    let asked = tell.clone();
    offer.serve(move |stream| {
        let mut frame = Vec::new();
        let read = protocol::read_frame(&stream, &mut frame);
        if read.is_ok()
            && let Ok(Some((Frame::Request(json), _))) = Frame::decode(&frame)
        {
            match serde_json::from_slice::<Request>(json) {
                Ok(request) => drop(asked.send(Heard::Asked(request, stream))),
                Err(e) => drop(refuse(&stream, &Error::new(Class::InvalidInput, format!("request: {e}")))),
            }
        }
    });
    Ok((Arc::new(Hub::new(log)), task))
}

/// Makes a task that runs.
fn make_task(engine: &Engine, container: &Container) -> Result<Hosted> {
    let (spec, files) = plan::task_spec(engine, container, modules::known(engine, container)?)?;
    files.iter().try_for_each(PlannedFile::write)?;
    Hosted::make(engine, container, &spec)
}

fn record_start(engine: &Engine, container: &mut Container, task: &Hosted) -> Result<()> {
    let pid = task.pid();
    container.state = engine.containers()?.advance(container, Event::Started, (&[], &[]), |status| {
        status.begin(pid, Some(jail::offered()));
    })?;
    Ok(())
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

/// What somebody waits for who is answered at the end.
enum Waits {
    Done,
    Code,
}

/// The pause before the next start.
struct Rest {
    until: Instant,
    /// How the last task ended.
    exit: Exit,
}

struct Monitor {
    engine: Engine,
    container: Container,
    hub: Arc<Hub>,
    tell: Sender<Heard>,
    heard: Receiver<Heard>,
    task: Option<hosted::Running>,
    waiting: Vec<(TcpStream, Waits)>,
    /// When a stop runs out of patience.
    kill_at: Option<Instant>,
    /// When the guest's time is up.
    timeout_at: Option<Instant>,
    /// Between two runs of a container that its policy starts again.
    rest: Option<Rest>,
    backoff: Backoff,
    /// Somebody has asked for a stop: the end is told as one.
    stopping: bool,
}

impl Monitor {
    fn run(mut self, lock: File) -> i32 {
        loop {
            let deadlines = [self.kill_at, self.timeout_at, self.rest.as_ref().map(|rest| rest.until)];
            let heard = match deadlines.into_iter().flatten().min() {
                Some(at) => self.heard.recv_timeout(at.saturating_duration_since(Instant::now())),
                None => self.heard.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let ended = match heard {
                Ok(Heard::Asked(request, client)) => {
                    self.asked(request, client);
                    None
                }
                Ok(Heard::Signal(signal)) => {
                    // It may have ended in this moment: then there is nothing to signal.
                    let _ = self.signal(signal);
                    None
                }
                Ok(Heard::Detached) => {
                    let _ = self.tell_event(&self.container.event("detach"));
                    None
                }
                Ok(Heard::Ended(number)) => self.ended(number),
                // Nothing was said in time. (We can speak to ourselves, so the channel stays open.)
                Err(_) => None,
            };
            self.on_time(Instant::now());
            let ending = match ended {
                Some(exit) => match self.rests(exit) {
                    Ok(true) => None,
                    Ok(false) | Err(_) => Some(Ending::Exited(exit)),
                },
                None => self.after_rest(),
            };
            if let Some(ending) = ending {
                return self.end(ending, lock);
            }
            self.engine.close();
        }
    }

    /// Takes over a task that runs.
    fn run_task(&mut self, task: Hosted) {
        self.task = Some(task.run(&self.hub, &self.tell));
    }

    /// The task of this number has ended: how, when it was ours.
    fn ended(&mut self, number: u64) -> Option<Exit> {
        let task = self.task.take_if(|task| task.number() == number)?;
        task.places().iter().for_each(|place| registry::forget(&self.engine, place));
        let code = task.finish(&self.hub, FAREWELL);
        Some(Exit { code, oom_killed: false })
    }

    fn started(&self) -> Reply {
        let pid = self.container.state.pid.unwrap_or(0);
        Reply::Started { id: self.container.id.clone(), pid, warnings: Vec::new() }
    }

    fn answer(&self, mut client: &TcpStream, reply: &Reply) {
        // Who asks and does not wait for the answer gets none.
        let _ = std::io::Write::write_all(&mut client, &protocol::reply_bytes(reply));
    }

    /// Gives a client the container's streams, and takes what it sends.
    fn attach(&self, client: TcpStream, attach: Attach) {
        let Ok(attached) = self.hub.join(&client, attach) else { return };
        let (hub, tell) = (Arc::clone(&self.hub), self.tell.clone());
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while protocol::read_frame(&client, &mut bytes).is_ok() {
                match Frame::decode(&bytes) {
                    Ok(Some((Frame::Stdin(input), _))) if attach.stdin => hub.write_stdin(input),
                    Ok(Some((Frame::CloseStdin, _))) if attach.stdin => hub.close_stdin(),
                    Ok(Some((Frame::Detach, _))) => drop(tell.send(Heard::Detached)),
                    Ok(Some((Frame::Signal(signal), _))) => drop(tell.send(Heard::Signal(signal))),
                    Ok(Some(_)) => {}
                    _ => break,
                }
            }
            hub.leave(&attached);
        });
    }

    fn asked(&mut self, request: Request, client: TcpStream) {
        match self.request(request) {
            Ok(Asked::Answered(reply)) => self.answer(&client, &reply),
            Ok(Asked::Attached(attach)) => {
                self.answer(&client, &self.started());
                self.attach(client, attach);
            }
            Ok(Asked::Later(waits)) => self.waiting.push((client, waits)),
            Err(e) => drop(refuse(&client, &e)),
        }
    }

    /// Does what a client asks.
    fn request(&mut self, request: Request) -> Result<Asked> {
        let unsupported = |what: &str| {
            let text = format!("{what} is not supported on this system yet");
            Err(Error::new(Class::Unsupported, text))
        };
        match request {
            Request::Attach(attach) => {
                self.main()?;
                self.tell_event(&self.container.event("attach"))?;
                Ok(Asked::Attached(attach))
            }
            Request::Signal(signal) => {
                self.main()?;
                self.signal(signal)?;
                if self.container.stop_signal().is_ok_and(|stop| stop == signal) {
                    self.stop_asked()?;
                }
                Ok(Asked::Answered(Reply::Done))
            }
            Request::Kill => {
                self.signal(KILL)?;
                self.stop_asked()?;
                Ok(Asked::Later(Waits::Done))
            }
            Request::Stop { signal, timeout } => {
                self.signal(signal)?;
                self.stopping = true;
                self.stop_asked()?;
                self.kill_at = timeout.map(|s| Instant::now() + Duration::from_secs(u64::from(s)));
                Ok(Asked::Later(Waits::Done))
            }
            Request::Wait => Ok(Asked::Later(Waits::Code)),
            Request::Update(change) => {
                self.update(&change)?;
                Ok(Asked::Answered(Reply::Done))
            }
            // There are no bridges that Linux containers could have come to.
            Request::Bridged => Ok(Asked::Answered(Reply::Done)),
            Request::Reconnect(change) => {
                self.reconnect(&change)?;
                Ok(Asked::Answered(Reply::Done))
            }
            Request::Execs => Ok(Asked::Answered(Reply::Execs(Vec::new()))),
            Request::Exec { .. } => unsupported("exec"),
            Request::Pause(_) | Request::Hold => unsupported("pause"),
            Request::Usage => unsupported("stats"),
            Request::Processes => unsupported("top"),
        }
    }

    fn tell_event(&self, event: &NewEvent) -> Result<()> {
        self.engine.containers()?.tell(&self.container.id, std::slice::from_ref(event))
    }

    /// Sends the task, if there is one now, a signal that somebody asked for, and tells so.
    fn signal(&mut self, signal: i32) -> Result<()> {
        let Some(task) = &mut self.task else { return Ok(()) };
        task.signal(signal)?;
        self.tell_event(&self.container.event("kill").with("signal", signal.to_string()))
    }

    /// Somebody wants its end: no policy starts it again.
    fn stop_asked(&mut self) -> Result<()> {
        self.container.state.stopped = true;
        if self.container.config.restart != RestartPolicy::No {
            self.engine.containers()?.stop_asked(&self.container.id, &[])?;
        }
        Ok(())
    }

    /// Puts the container on a network, or takes it from one, and records that.
    fn reconnect(&mut self, change: &Reconnect) -> Result<()> {
        self.main()?;
        if let Some(task) = &mut self.task {
            task.reconnect(&self.engine, &self.container, change)?;
        }
        let containers = self.engine.containers()?;
        self.container.config =
            containers.set_endpoints(&self.container, |places| change.apply(&self.container, places))?;
        Ok(())
    }

    /// Records another restart policy. Limits that could be changed now are not enforced by this system.
    fn update(&mut self, change: &Change) -> Result<()> {
        if change.limits != Limits::default() {
            let text = "the limits of a running container cannot be changed on this system";
            return Err(Error::new(Class::Unsupported, text).with_hint("stop it first"));
        }
        let record = |config: &mut ContainerConfig| {
            change.apply(config);
            check_limits(&config.limits).map(drop)
        };
        self.container.config = self.engine.containers()?.update(&self.container, record)?;
        Ok(())
    }

    /// The container's task, which there is none of between two runs.
    fn main(&self) -> Result<&hosted::Running> {
        self.task.as_ref().ok_or_else(|| {
            let text = format!("Container {} is restarting, wait until the container is running", self.container.id);
            Error::new(Class::Conflict, text)
        })
    }

    fn on_time(&mut self, now: Instant) {
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            let _ = self.signal(KILL);
        }
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.timeout_at = None;
            self.hub.write(Stream::Stderr, b"wharf: the time limit (--timeout) was reached\n");
            if let Some(task) = &mut self.task {
                let _ = task.signal(KILL);
            }
        }
    }

    /// The task has ended: true if another one is to follow, which is then recorded and waited for.
    fn rests(&mut self, exit: Exit) -> Result<bool> {
        let status = &self.container.state;
        if status.stopped || !self.container.config.restart.wants(exit.code, status.restarts) {
            return Ok(false);
        }
        let record = ExitRecord { exit, finished: Timestamp::now() };
        let lived = status.started.map_or(0, |started| record.finished.duration_since(started).as_millis());
        let pause = self.backoff.next(Duration::from_millis(u64::try_from(lived).unwrap_or(0)));
        record.write(&self.engine.paths().exit_record(&self.container.id))?;
        self.container.state = self.engine.record_restart(&self.container, &record, &[])?;
        self.hub.end(exit.code, FAREWELL);
        (self.kill_at, self.timeout_at) = (None, None);
        self.rest = Some(Rest { until: Instant::now() + pause, exit });
        Ok(true)
    }

    fn after_rest(&mut self) -> Option<Ending> {
        let rest = self.rest.as_ref()?;
        if self.container.state.stopped {
            return Some(Ending::Cancelled(rest.exit));
        }
        if rest.until > Instant::now() {
            return None;
        }
        self.rest = None;
        self.resume().err().map(Ending::Failed)
    }

    /// The pause is over: starts another task.
    fn resume(&mut self) -> Result<()> {
        let started = self.engine.containers()?.advance(&self.container, Event::Start, (&[], &[]), |_| ())?;
        self.container.state = started;
        ExitRecord::remove(&self.engine.paths().exit_record(&self.container.id))?;
        let mut task = make_task(&self.engine, &self.container)?;
        self.hub.set_stdin(task.take_stdin());
        record_start(&self.engine, &mut self.container, &task)?;
        self.timeout_at = self.container.config.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        self.run_task(task);
        Ok(())
    }

    /// The container has ended: record it, tell everybody, tidy up, let go of the lock.
    fn end(mut self, ending: Ending, lock: File) -> i32 {
        self.hub.finish();
        let code = match &ending {
            Ending::Exited(exit) | Ending::Cancelled(exit) => exit.code,
            Ending::Failed(error) => error.exit_code(),
        };
        let recorded = self.record(ending);
        // Whoever hears of the end may take address and ports at once.
        let recorded = recorded.and(self.engine.detach_network(&self.container.id));
        for (client, waits) in std::mem::take(&mut self.waiting) {
            self.answer(
                &client,
                &match waits {
                    Waits::Done => Reply::Done,
                    Waits::Code => Reply::Exited(code),
                },
            );
        }
        self.hub.end(code, FAREWELL);
        let released = self.engine.release_volumes(&self.container);
        let id = self.container.id.clone();
        // What stays is seen to by the next command that looks.
        let word = std::fs::remove_file(self.engine.paths().socket(&id)).map_err(|e| Error::os("remove the word", e));
        // A directory in which a file is open cannot be removed everywhere.
        drop(lock);
        let tidied = match recorded {
            Ok(()) if self.container.config.auto_remove => self.engine.discard(&self.container),
            _ => word,
        };
        i32::from(released.and(tidied).is_err())
    }

    fn record(&mut self, ending: Ending) -> Result<()> {
        let after = self.stopping.then(|| self.container.event("stop"));
        let exit = match ending {
            Ending::Exited(exit) => exit,
            Ending::Cancelled(_) => {
                let also = (&[][..], after.as_slice());
                return self.engine.containers()?.advance(&self.container, Event::Cancel, also, |_| ()).map(drop);
            }
            Ending::Failed(error) => return failed(&self.engine, &self.container, &error),
        };
        let record = ExitRecord { exit, finished: Timestamp::now() };
        if self.container.config.auto_remove {
            let status = &mut self.container.state;
            (status.exit_code, status.finished) = (exit.code, Some(record.finished));
            let mut before = self.container.unmount_events();
            before.push(store::died(&self.container, &self.container.state));
            before.extend(after);
            return self.engine.containers()?.remove(&self.container, &before).map(drop);
        }
        record.write(&self.engine.paths().exit_record(&self.container.id))?;
        self.engine.record_exit(&self.container, &record, (&[], after.as_slice())).map(drop)
    }
}

/// What becomes of a request.
enum Asked {
    /// It is answered now.
    Answered(Reply),
    /// The client gets the container's streams.
    Attached(Attach),
    /// It is answered at the end.
    Later(Waits),
}
