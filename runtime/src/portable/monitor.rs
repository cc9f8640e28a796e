//! The monitor where there is no Linux: this program, executed again for each container, with a thread for everything
//! that it waits for.
//!
//! It holds the container's lock, owns its log, answers clients on a loopback connection ([`super::link`], whose word is
//! in the run directory), and writes its end. The guest is hosted by a further process of ours ([`super::task`]).

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use wharf_images::{Class, Reporter};

use super::link::{self, Offer};
use super::session::Session;
use super::supervisor::{Launch, supervise};
use super::system;
use crate::config::ContainerConfig;
use crate::container::Container;
use crate::engine::{Attach, Engine, LOCK_PATIENCE, Options, PullPolicy, Started};
use crate::error::{Error, Result};
use crate::monitor::begin::to_be_started;
use crate::monitor::client::{gone, open_session};
use crate::monitor::protocol::{self, ExecState, Failure, Reply, Request};

/// The word by which this program knows that it is to be a monitor.
pub const REEXEC: &str = "wharf-monitor";

/// Nothing can be forked here: the container is created, then started.
pub(crate) fn fork_run(
    _: &Engine,
    _: &ContainerConfig,
    _: PullPolicy,
    _: Option<Attach>,
    _: &dyn Reporter,
) -> Option<Result<Started>> {
    None
}

/// Nothing can be forked here.
pub(crate) fn fork_start(_: &Engine, _: &str, _: Option<Attach>) -> Option<Result<Started>> {
    None
}

/// Makes the monitor of a container that exists, and waits until the container runs.
pub(crate) fn spawn_start(engine: &Engine, id: &str, attach: Option<Attach>) -> Result<Started> {
    let offer = Offer::new()?;
    let mut command = command(REEXEC, &offer)?;
    let attach_json = serde_json::to_string(&attach).map_err(|e| wharf_images::Error::json("an argument", e))?;
    command.arg(&engine.paths().root).arg(&engine.paths().run).arg(id).arg(attach_json);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    system::detach(&mut command);
    system::keep_streams();
    let mut child = begin(&mut command).map_err(|e| Error::os("execute the monitor", e))?;
    let stream = offer.accept(&mut child)?;
    match protocol::read_reply(&stream) {
        Ok(Reply::Started { id, warnings, .. }) => {
            Ok(Started { id, warnings, session: attach.map(|_| Session::new(stream)) })
        }
        Ok(Reply::Error(failure)) => Err(failure.into()),
        Ok(_) => Err(Error::new(Class::Internal, "the monitor gave an answer that was not asked for")),
        Err(e) => Err(Error::os("start the container: its monitor ended", e)),
    }
}

/// Starts one of our own programs. Where Wine stands for Windows a start fails now and then, whose server was busy; Windows
/// itself never says so (`ERROR_INTERNAL_ERROR`). It is tried again.
pub(super) fn begin(command: &mut Command) -> io::Result<Child> {
    const INTERNAL_ERROR: i32 = 1359;
    let mut again = 0..5;
    loop {
        match command.spawn() {
            Err(e) if cfg!(windows) && e.raw_os_error() == Some(INTERNAL_ERROR) && again.next().is_some() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            begun => return begun,
        }
    }
}

/// This program again, under this word, for a process that calls back.
pub(super) fn command(word: &str, offer: &Offer) -> Result<Command> {
    let program = std::env::current_exe().map_err(|e| Error::os("find our own program", e))?;
    let mut command = Command::new(program);
    command.arg(word).env(link::VARIABLE, offer.word());
    Ok(command)
}

/// The main function of a monitor.
pub(crate) fn main(args: &[OsString]) -> i32 {
    let [root, run, id, attach] = args else { return 125 };
    let (Some(id), Some(attach)) = (id.to_str(), attach.to_str()) else { return 125 };
    let Ok(attach) = serde_json::from_str::<Option<Attach>>(attach) else { return 125 };
    let Ok(client) = link::call_parent() else { return 125 };
    match Engine::open(Options { root: Some(root.into()), run: Some(run.into()), docker_config: None }) {
        Ok(engine) => start(engine, id, attach, client),
        Err(e) => refuse(&client, &e),
    }
}

fn start(engine: Engine, id: &str, attach: Option<Attach>, client: TcpStream) -> i32 {
    match to_be_started(&engine, id) {
        Ok((container, Some(lock))) => supervise(engine, Launch { container, lock, attach, client }),
        Ok((container, None)) => hand_over(&engine, &container, attach, client),
        Err(e) => refuse(&client, &e),
    }
}

/// It runs already, under another monitor: a client that wants its streams gets them relayed.
fn hand_over(engine: &Engine, container: &Container, attach: Option<Attach>, client: TcpStream) -> i32 {
    let other = match attach.map(|attach| open_session(engine, &container.id, &Request::Attach(attach))) {
        Some(Err(e)) => return refuse(&client, &e),
        Some(Ok((_, session))) => Some(session),
        None => None,
    };
    let pid = container.state.pid.unwrap_or(0);
    let reply = Reply::Started { id: container.id.clone(), pid, warnings: Vec::new() };
    if (&client).write_all(&protocol::reply_bytes(&reply)).is_err() {
        return 125;
    }
    other.map_or(0, |session| session.splice(client))
}

/// Tells the client that it cannot be done.
pub(super) fn refuse(mut client: &TcpStream, error: &Error) -> i32 {
    let _ = client.write_all(&protocol::reply_bytes(&Reply::Error(Failure::from(error))));
    125
}

/// The container's execs: there are none here.
pub(crate) fn execs(_: &Engine, _: &str) -> Vec<ExecState> {
    Vec::new()
}

/// To the container's monitor.
///
/// # Errors
/// `Unavailable` when there is none any more.
pub(crate) fn connect(engine: &Engine, id: &str) -> Result<TcpStream> {
    let word = std::fs::read_to_string(engine.paths().socket(id)).map_err(|_| gone(id))?;
    link::call(&word).map_err(|_| gone(id))
}

/// Waits for the end of the guest's process, which does not outlive its monitor: it ends when the line to it does.
///
/// # Errors
/// `Conflict` when it does not end.
pub(crate) fn clean(engine: &Engine, id: &str, _: Option<&str>) -> Result<()> {
    let path = task_lock(engine, id);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("open", path, e)),
    };
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            Err(TryLockError::WouldBlock) => {
                let text = format!("the guest of container {} does not end", &id[..12]);
                return Err(Error::new(Class::Conflict, text));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, e)),
        }
    }
}

/// The same of a container that was never recorded.
pub(crate) fn clean_unrecorded(engine: &Engine, id: &str) -> Result<()> {
    clean(engine, id, None)
}

/// The lock that the guest's process holds.
pub(super) fn task_lock(engine: &Engine, id: &str) -> PathBuf {
    engine.paths().run_container(id).join("task")
}
