//! The monitor: one small single-threaded process per container.
//!
//! It holds the container's lock, owns its log, answers on its socket, and writes its end. It runs no code of the
//! container and maps no wasmtime memory; it sees everything in one poll loop. It is made by a fork of the client (which
//! must be single-threaded and must not have opened the database: <https://www.sqlite.org/howtocorrupt.html>), or else by
//! executing this program again.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio as ProcessStdio};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use wharf_images::{Class, Reporter};

use crate::config::ContainerConfig;
use crate::container::{BackendKind, Container};
use crate::engine::{Attach, Designed, Engine, LOCK_PATIENCE, Options, PullPolicy, Started};
use crate::error::{Error, Result};
use crate::linux::ahead::{self, Ahead};
use crate::linux::cgroup;
use crate::linux::cgroup_note;
use crate::linux::process::{self, SpawnOptions};
use crate::linux::session::Session;
use crate::linux::supervisor::{Launch, supervise};
use crate::linux::system;
use crate::monitor::begin::to_be_started;
use crate::monitor::client::{gone, open_session};
use crate::monitor::protocol::{self, ExecState, Failure, Reply, Request};
use crate::task::Backend;
use crate::{names, paths};

/// The name under which this program executes itself to be a monitor.
pub const REEXEC: &str = "wharf-monitor";

/// True when this process may fork a monitor: it has one thread and no open database.
fn can_fork(engine: &Engine) -> bool {
    !engine.is_used() && system::is_single_threaded()
}

/// `run`: the forked child makes the container, then is its monitor. `None`: this process must not fork one.
pub(crate) fn fork_run(
    engine: &Engine,
    config: &ContainerConfig,
    pull: PullPolicy,
    attach: Option<Attach>,
    reporter: &dyn Reporter,
) -> Option<Result<Started>> {
    can_fork(engine)
        .then(|| fork_monitor(attach, |client| run_in_child(engine, config, pull, attach, reporter, client)))
}

fn run_in_child(
    engine: &Engine,
    config: &ContainerConfig,
    pull: PullPolicy,
    attach: Option<Attach>,
    reporter: &dyn Reporter,
    client: UnixStream,
) -> i32 {
    let engine = engine.reopened();
    let id = match names::new_id() {
        Ok(id) => id,
        Err(e) => return refuse(client, &e),
    };
    let mut begun = None;
    let designed = begin_ahead(&engine, config, &id, pull, attach).and_then(|ahead| {
        begun = ahead;
        engine.design(id.clone(), config, pull, reporter)
    });
    let mut designed = match designed {
        Ok(designed) => designed,
        Err(e) => {
            drop(begun);
            // What cannot be removed is swept.
            let _ = paths::remove_dir(&engine.paths().run_container(&id));
            return refuse(client, &e);
        }
    };
    if designed.brought {
        drop(begun);
        // Bringing an image took memory and threads that a monitor must not keep: begin anew.
        if let Err(e) = engine.make(&mut designed) {
            return refuse(client, &e);
        }
        let Err(e) = command(&engine, &id, attach, &designed.warnings).and_then(|mut command| {
            let stdin = client.try_clone().map_err(|e| Error::os("duplicate a descriptor", e))?;
            Err::<(), _>(Error::os("execute the monitor", command.stdin(OwnedFd::from(stdin)).exec()))
        }) else {
            return 0;
        };
        return refuse(client, &e);
    }
    let (lock, ahead) = match begun {
        Some((lock, ahead)) => (lock, Some(ahead)),
        None => match new_lock(&engine, &id) {
            Ok(lock) => (lock, None),
            Err(e) => return refuse(client, &e),
        },
    };
    let Designed { container, warnings, protection, .. } = designed;
    let unrecorded = Some(protection);
    supervise(engine, Launch { container, unrecorded, ahead, lock, attach, warnings, client })
}

fn begin_ahead(
    engine: &Engine,
    config: &ContainerConfig,
    id: &str,
    pull: PullPolicy,
    attach: Option<Attach>,
) -> Result<Option<(File, Ahead)>> {
    let Some(module) = ahead::guess(engine, config, pull) else { return Ok(None) };
    let lock = new_lock(engine, id)?;
    Ok(Some((lock, Ahead::begin(engine, config, id, &module, attach)?)))
}

fn new_lock(engine: &Engine, id: &str) -> Result<File> {
    engine.lock(id, LOCK_PATIENCE)?.ok_or_else(|| Error::new(Class::Internal, "a new container's lock is held"))
}

/// `start`: the forked child is the monitor of a container that exists. `None`: this process must not fork one.
pub(crate) fn fork_start(engine: &Engine, name: &str, attach: Option<Attach>) -> Option<Result<Started>> {
    can_fork(engine)
        .then(|| fork_monitor(attach, |client| start_in_child(engine.reopened(), name, attach, Vec::new(), client)))
}

fn start_in_child(
    engine: Engine,
    name: &str,
    attach: Option<Attach>,
    warnings: Vec<String>,
    client: UnixStream,
) -> i32 {
    match to_be_started(&engine, name) {
        Ok((container, Some(lock))) => {
            supervise(engine, Launch { container, unrecorded: None, ahead: None, lock, attach, warnings, client })
        }
        Ok((container, None)) => hand_over(&engine, &container, attach, client),
        Err(e) => refuse(client, &e),
    }
}

/// It runs already, under another monitor: a client that wants its streams gets them relayed.
fn hand_over(engine: &Engine, container: &Container, attach: Option<Attach>, client: UnixStream) -> i32 {
    let other = match attach {
        Some(attach) => match open_session(engine, &container.id, &Request::Attach(attach)) {
            Ok((_, session)) => Some(session),
            Err(e) => return refuse(client, &e),
        },
        None => None,
    };
    let pid = container.state.pid.unwrap_or(0);
    let reply = Reply::Started { id: container.id.clone(), pid, warnings: Vec::new() };
    if (&client).write_all(&protocol::reply_bytes(&reply)).is_err() {
        return 125;
    }
    match other {
        Some(session) => session.splice(client),
        None => 0,
    }
}

/// Makes the monitor by executing this program, for processes that cannot fork one.
pub(crate) fn spawn_start(engine: &Engine, id: &str, attach: Option<Attach>) -> Result<Started> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::os("make a socket pair", e))?;
    let mut command = command(engine, id, attach, &[])?;
    command.stdin(OwnedFd::from(theirs)).stdout(ProcessStdio::null()).stderr(ProcessStdio::inherit());
    command.spawn().map_err(|e| Error::os("execute the monitor", e))?;
    drop(command);
    started(ours, attach)
}

fn command(engine: &Engine, id: &str, attach: Option<Attach>, warnings: &[String]) -> Result<Command> {
    let json = |e| Error::from(wharf_images::Error::json("monitor's arguments", e));
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(REEXEC)
        .arg(&engine.paths().root)
        .arg(&engine.paths().run)
        .arg(id)
        .arg(serde_json::to_string(&attach).map_err(json)?)
        .arg(serde_json::to_string(warnings).map_err(json)?);
    Ok(command)
}

/// The main function of a monitor that was executed: its client's socket is its stdin.
pub(crate) fn main(args: &[OsString]) -> i32 {
    let [root, run, id, attach, warnings] = args else { return 125 };
    let parsed = (|| {
        let attach: Option<Attach> = serde_json::from_str(attach.to_str()?).ok()?;
        let warnings: Vec<String> = serde_json::from_str(warnings.to_str()?).ok()?;
        Some((id.to_str()?, attach, warnings))
    })();
    let Some((id, attach, warnings)) = parsed else { return 125 };
    let Ok(client) = client_on_stdin() else { return 125 };
    match Engine::open(Options { root: Some(root.into()), run: Some(run.into()), docker_config: None }) {
        Ok(engine) => start_in_child(engine, id, attach, warnings, client),
        Err(e) => refuse(client, &e),
    }
}

/// Forks a monitor. In the child the client's socket is moved to stdin, which nobody there reads, so that all other
/// descriptors we inherited from whoever started us can be closed.
fn fork_monitor(attach: Option<Attach>, child: impl FnOnce(UnixStream) -> i32) -> Result<Started> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| Error::os("make a socket pair", e))?;
    process::spawn(SpawnOptions::default(), || {
        if rustix::stdio::dup2_stdin(&theirs).is_err() || process::close_from(3).is_err() {
            return 125;
        }
        match client_on_stdin() {
            Ok(client) => child(client),
            Err(_) => 125,
        }
    })
    .map_err(|e| Error::os("fork the monitor", e))?;
    drop(theirs);
    started(ours, attach)
}

fn client_on_stdin() -> io::Result<UnixStream> {
    Ok(UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?))
}

/// Tells the client that it cannot be done.
fn refuse(client: UnixStream, error: &Error) -> i32 {
    let _ = (&client).write_all(&protocol::reply_bytes(&Reply::Error(Failure::from(error))));
    125
}

/// The client's side: waits until the container runs.
fn started(stream: UnixStream, attach: Option<Attach>) -> Result<Started> {
    match protocol::read_reply(&stream) {
        Ok(Reply::Started { id, warnings, .. }) => {
            Ok(Started { id, warnings, session: attach.map(|_| Session::new(stream)) })
        }
        Ok(Reply::Error(failure)) => Err(failure.into()),
        Ok(_) => Err(Error::new(Class::Internal, "the monitor gave an answer that was not asked for")),
        Err(e) => Err(Error::os("start the container: its monitor ended", e)),
    }
}

/// The execs of a container, as far as its monitor tells within a moment: one that does not answer keeps nobody waiting.
pub(crate) fn execs(engine: &Engine, id: &str) -> Vec<ExecState> {
    let asked = connect(engine, id).ok().and_then(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        protocol::ask(&stream, &Request::Execs).ok()
    });
    match asked {
        Some(Reply::Execs(execs)) => execs,
        _ => Vec::new(),
    }
}

/// To the container's monitor.
///
/// # Errors
/// `Unavailable` when there is none any more.
pub(crate) fn connect(engine: &Engine, id: &str) -> Result<UnixStream> {
    in_run_dir(engine, id, |path| UnixStream::connect(path)).map_err(|_| gone(id))
}

/// Runs `f` with a short name for the container's socket: a socket's path may have only 107 bytes (unix(7)).
pub(crate) fn in_run_dir<T>(engine: &Engine, id: &str, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let socket = engine.paths().socket(id);
    if socket.as_os_str().len() < 100 {
        return f(&socket);
    }
    let dir = rustix::fs::open(
        engine.paths().run_container(id),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    f(Path::new(&format!("/proc/self/fd/{}/sock", std::os::fd::AsRawFd::as_raw_fd(&dir))))
}

/// The backend that runs this kind.
pub(crate) fn backend(kind: BackendKind) -> Result<Box<dyn Backend>> {
    match kind {
        BackendKind::Linux => Ok(Box::new(crate::linux::LinuxBackend)),
        #[cfg(feature = "wasm")]
        BackendKind::Wasm => Ok(Box::new(crate::linux::wasm_task::WasmBackend)),
        #[cfg(not(feature = "wasm"))]
        BackendKind::Wasm => Err(Error::new(Class::Unsupported, "this wharf was built without the wasm backend")),
    }
}

/// Ends whatever the container's dead monitor has left. Of both kinds that is what is in its cgroup; mounts end with it.
pub(crate) fn clean(_: &Engine, id: &str, cgroup_parent: Option<&str>) -> Result<()> {
    cgroup::clear(&crate::plan::remains(id, cgroup_parent).cgroup)
}

/// The same of a container that was never recorded.
pub(crate) fn clean_unrecorded(engine: &Engine, id: &str) -> Result<()> {
    clean(engine, id, cgroup_note::read(&engine.paths().run_container(id)).as_deref())
}
