//! The process that hosts a container's guest, as the monitor holds it: a child of ours, and a line to it.
//!
//! It is what a task of a backend is on Linux, as far as every system can: it can be killed, and asked to come to an end
//! when it serves HTTP. Signals do not exist here, so those that would end a program end it, with the exit code that
//! they would have given it.

use std::io::Read;
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::hub::Hub;
use super::link::{self, Offer};
use super::supervisor::Heard;
use super::{monitor, system};
use crate::config::EndpointConfig;
use crate::container::Container;
use crate::engine::{Engine, Reconnect};
use crate::error::{Class, Error, Result};
use crate::monitor::log::Stream;
use crate::monitor::protocol::Failure;
use crate::network::r#virtual::arrange;
use crate::network::{Endpoint, PortBinding, store};
use crate::plan;
use crate::signal::{self, KILL};
use crate::task::{TaskSpec, Workload};

/// The word by which this program knows that it is to host a guest.
pub(super) const REEXEC: &str = "wharf-task";

/// What the guest's process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// What to run.
    Plan(Box<Plan>),
    /// Its places on its networks from now on, in the order in which they lead out.
    Place(Vec<Endpoint>),
    /// Run.
    Go,
    /// Come to an end, as this signal would have it.
    End(i32),
}

/// What the guest's process says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// It is loaded, and these ports are bound. True if the guest can use a network.
    Bound(Vec<PortBinding>, bool),
    /// It waits for its [`Order::Go`].
    Ready,
    /// It has taken the places that it was given while it ran.
    Placed,
    /// It cannot be.
    Failed(Failure),
}

/// All that a guest's process has to know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub spec: TaskSpec,
    /// The instance's directories.
    pub root: std::path::PathBuf,
    pub run: std::path::PathBuf,
    /// A file to be locked as long as the process lives.
    pub lock: std::path::PathBuf,
    /// What the container is called.
    pub names: Vec<String>,
    /// Names that were given addresses by hand.
    pub hosts: Vec<(String, String)>,
}

/// A guest's process. Dropped, it is killed.
pub(super) struct Hosted {
    child: Child,
    line: TcpStream,
    /// The same line, for whoever waits for its end.
    ended: Option<TcpStream>,
    serves: bool,
    /// Its places on its networks.
    places: Vec<Endpoint>,
    /// The ports of the host that it has.
    ports: Vec<PortBinding>,
}

/// How long it may take to come to a network.
const PATIENCE: Duration = Duration::from_secs(5);

impl Hosted {
    /// Starts the process, and gives it all it needs.
    ///
    /// # Errors
    /// What the process says that is wrong with its plan. Nothing is left behind.
    pub fn make(engine: &Engine, container: &Container, spec: &TaskSpec) -> Result<Self> {
        let Workload::Wasm(task) = &spec.workload else {
            return Err(Error::new(Class::Unsupported, "Linux images run on Linux only"));
        };
        let offer = Offer::new()?;
        let mut command = monitor::command(REEXEC, &offer)?;
        let serves = task.http.is_some();
        let stdin = if container.config.interactive && !serves { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        system::detach(&mut command);
        let mut child = monitor::begin(&mut command).map_err(|e| Error::os("start the guest's process", e))?;
        let line = offer.accept(&mut child).and_then(|line| {
            let ended = line.try_clone().map_err(|e| Error::os("duplicate a connection", e))?;
            Ok((line, ended))
        });
        let mut hosted = match line {
            Ok((line, ended)) => {
                Hosted { child, line, ended: Some(ended), serves, places: Vec::new(), ports: Vec::new() }
            }
            Err(e) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(e);
            }
        };
        let plan = Plan {
            spec: spec.clone(),
            root: engine.paths().root.clone(),
            run: engine.paths().run.clone(),
            lock: monitor::task_lock(engine, &container.id),
            names: vec![plan::hostname(container).to_owned(), container.short_id().to_owned()],
            hosts: container.config.extra_hosts.clone(),
        };
        link::send(&hosted.line, &Order::Plan(Box::new(plan)))?;
        let (ports, connects) = match hosted.hear()? {
            Word::Bound(ports, connects) => (ports, connects),
            _ => return Err(unexpected()),
        };
        let wanted = container.config.places();
        if connects || !ports.is_empty() || wanted.iter().any(|place| !place.aliases.is_empty()) {
            hosted.join(engine, container, &wanted, ports)?;
        }
        link::send(&hosted.line, &Order::Place(hosted.places.clone()))?;
        match hosted.hear()? {
            Word::Ready => link::send(&hosted.line, &Order::Go)?,
            _ => return Err(unexpected()),
        }
        Ok(hosted)
    }

    /// Takes the container's places on its networks. The first that leads out carries its published ports.
    fn join(
        &mut self,
        engine: &Engine,
        container: &Container,
        wanted: &[EndpointConfig],
        ports: Vec<PortBinding>,
    ) -> Result<()> {
        let places: Vec<_> = wanted.iter().map(|place| (place, &[][..])).collect();
        self.places = engine.attach_networks(&container.id, &places)?;
        arrange(&mut self.places, wanted);
        self.ports = ports;
        store::move_ports(engine.containers()?.db(), &container.id, &self.places, &self.ports)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn hear(&mut self) -> Result<Word> {
        match link::receive(&self.line)? {
            Some(Word::Failed(failure)) => Err(failure.into()),
            Some(word) => Ok(word),
            None => Err(Error::new(Class::Internal, self.last_words())),
        }
    }

    /// What a process that has ended too early wrote on its standard error.
    fn last_words(&mut self) -> String {
        let _ = self.child.kill();
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.take() {
            let _ = stderr.take(4096).read_to_end(&mut said);
        }
        let said = String::from_utf8_lossy(&said).trim().escape_debug().to_string();
        format!("the guest's process ended at its start: {said}")
    }

    /// Its stdin, if it has one, to be given to the hub before any client is.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Reads its output from now on, and tells when it has ended.
    pub fn run(mut self, hub: &Arc<Hub>, tell: &Sender<Heard>) -> Running {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut pumps = Vec::new();
        if let Some(stdout) = self.child.stdout.take() {
            let hub = Arc::clone(hub);
            pumps.push(std::thread::spawn(move || hub.pump(Stream::Stdout, stdout)));
        }
        if let Some(stderr) = self.child.stderr.take() {
            let hub = Arc::clone(hub);
            pumps.push(std::thread::spawn(move || hub.pump(Stream::Stderr, stderr)));
        }
        let (tell_placed, placed) = mpsc::channel();
        if let Some(ended) = self.ended.take() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                // The line ends when the process does.
                while let Ok(Some(Word::Placed)) = link::receive(&ended) {
                    let _ = tell_placed.send(());
                }
                let _ = tell.send(Heard::Ended(number));
            });
        }
        Running { number, hosted: self, pumps, placed, ended_by: None }
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn unexpected() -> Error {
    Error::new(Class::Internal, "the guest's process gave an answer that was not asked for")
}

/// A guest's process at work.
pub(super) struct Running {
    number: u64,
    hosted: Hosted,
    pumps: Vec<JoinHandle<()>>,
    /// It has taken the places that it was told.
    placed: Receiver<()>,
    /// The signal that we have ended it with.
    ended_by: Option<i32>,
}

/// What a program does with a signal that it does not know of: signal(7).
#[derive(Debug, PartialEq, Eq)]
enum Disposition {
    Ignore,
    Stop,
    End,
}

fn disposition(signal: i32) -> Disposition {
    match signal::name(signal).as_str() {
        "SIGCHLD" | "SIGCONT" | "SIGURG" | "SIGWINCH" => Disposition::Ignore,
        "SIGSTOP" | "SIGTSTP" | "SIGTTIN" | "SIGTTOU" => Disposition::Stop,
        _ => Disposition::End,
    }
}

/// True for the signals that ask a server to let its requests finish.
fn asks(signal: i32) -> bool {
    ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"].contains(&signal::name(signal).as_str())
}

impl Running {
    /// Which of the container's tasks it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its places on its networks.
    pub fn places(&self) -> &[Endpoint] {
        &self.hosted.places
    }

    /// Puts the container on a network, or takes it from one.
    ///
    /// # Errors
    /// The store's; it is then as it was. `Unavailable` when the process does not answer.
    pub fn reconnect(&mut self, engine: &Engine, container: &Container, change: &Reconnect) -> Result<()> {
        let mut wanted = container.config.places().into_owned();
        change.apply(container, &mut wanted)?;
        let db = engine.containers()?.db();
        match change {
            Reconnect::Connect(place) => {
                let own = store::connect(db, &container.id, place)?;
                let network = own.network_id;
                self.hosted.places.push(own);
                if let Err(e) = self.settle(&wanted) {
                    self.hosted.places.retain(|own| own.network_id != network);
                    let _ = store::detach(db, &container.id, Some(network));
                    return Err(e);
                }
            }
            Reconnect::Disconnect(network) => {
                let Some(at) = self.places().iter().position(|own| own.network == *network) else { return Ok(()) };
                let gone = self.hosted.places.remove(at);
                // Before another container can have the address.
                self.settle(&wanted)?;
                store::detach(db, &container.id, Some(gone.network_id))?;
            }
        }
        store::move_ports(db, &container.id, self.places(), &self.hosted.ports)
    }

    /// Tells the process which places it has.
    fn settle(&mut self, wanted: &[EndpointConfig]) -> Result<()> {
        arrange(&mut self.hosted.places, wanted);
        // An answer that came too late is not one to this.
        while self.placed.try_recv().is_ok() {}
        link::send(&self.hosted.line, &Order::Place(self.hosted.places.clone()))?;
        match self.placed.recv_timeout(PATIENCE) {
            // One that has come to its end has no places any more.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                Err(Error::new(Class::Unavailable, "the guest's process does not answer"))
            }
        }
    }

    /// Does what a signal would do.
    ///
    /// # Errors
    /// `Unsupported` for a signal that would stop it for a while.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        match disposition(signal) {
            Disposition::Ignore => Ok(()),
            Disposition::Stop => {
                let text = format!("{} is not supported on this system", signal::name(signal));
                Err(Error::new(Class::Unsupported, text))
            }
            Disposition::End if self.hosted.serves && signal != KILL && asks(signal) => {
                link::send(&self.hosted.line, &Order::End(signal))
            }
            Disposition::End => {
                // One that has ended by itself has its own code.
                if matches!(self.hosted.child.try_wait(), Ok(None)) {
                    self.ended_by = Some(signal);
                    self.hosted.child.kill().map_err(|e| Error::os("end the guest's process", e))?;
                }
                Ok(())
            }
        }
    }

    /// Waits for the end of the process, which is near, and of its output. Who does not take that is cut off after
    /// `patience`. Gives the exit code.
    pub fn finish(mut self, hub: &Hub, patience: Duration) -> i32 {
        let code = match self.hosted.child.wait() {
            Ok(status) => self.ended_by.map_or_else(|| system::exit_code(status), |signal| 128 + signal),
            Err(_) => 128 + KILL,
        };
        hub.set_stdin(None);
        let (tell, told) = mpsc::channel::<()>();
        let pumps = std::mem::take(&mut self.pumps);
        let waiter = std::thread::spawn(move || {
            for pump in pumps {
                let _ = pump.join();
            }
            drop(tell);
        });
        if told.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            hub.cut();
        }
        let _ = waiter.join();
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_do_what_they_do_to_a_program_that_does_not_know_them() {
        let of = |name: &str| disposition(signal::parse(name).unwrap());
        for end in ["TERM", "KILL", "INT", "HUP", "USR1", "RTMIN+3"] {
            assert_eq!(of(end), Disposition::End, "{end}");
        }
        for ignored in ["CHLD", "WINCH", "CONT"] {
            assert_eq!(of(ignored), Disposition::Ignore, "{ignored}");
        }
        assert_eq!(of("STOP"), Disposition::Stop);
        assert!(asks(signal::TERM) && !asks(KILL));
    }
}
