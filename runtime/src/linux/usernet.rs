//! The network of a Linux container without root: a program of the user's is its other end, [`pasta`] or [`slirp`].
//!
//! Who is not root may make a network namespace, and connect it to nothing. Such a program holds the other end of a device
//! in it and does with sockets of the user's what the container does with packets: ways out, published ports. The
//! container has the address that the store gives it, but other containers are not there; they have networks like this of
//! their own.
//!
//! The program does not notice when the namespace has nobody in it any more, and SIGKILL for a dead parent does not reach
//! who has entered another user namespace (prctl(2), `PR_SET_PDEATHSIG`). So a process of ours stands between it and the
//! monitor: it waits for the end of a pipe whose other end the monitor alone has, and then ends the program.

mod pasta;
mod slirp;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdin};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};

use super::network::names::{self, Answerer, Directory};
use super::process::{self, Child, SpawnOptions};
use super::{network, sockets, userns};
use crate::container::{BackendKind, Container};
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::network::networks::Wiring;
use crate::network::{BRIDGE, Endpoint, PortBinding, networks};
use crate::plan;

/// What to install.
pub const ADVICE: &str =
    "install pasta (Debian's package passt) or slirp4netns, use --network host, or run wharf as root";
/// The name of the container's device.
const DEVICE: &str = "eth0";

/// True for a container that is to be connected so.
pub fn is_wanted(container: &Container) -> bool {
    container.backend() == BackendKind::Linux
        && container.config.is_on_default_alone()
        && !super::is_root()
        && program().is_some()
}

/// The programs that can do it.
#[derive(Debug)]
enum Program {
    Pasta(PathBuf),
    Slirp(PathBuf),
}

impl Program {
    fn name(&self) -> &'static str {
        match self {
            Program::Pasta(_) => "pasta",
            Program::Slirp(_) => "slirp4netns",
        }
    }
}

/// The one to take: pasta, if it is there.
fn program() -> Option<Program> {
    let pasta = userns::program("pasta").map(Program::Pasta);
    pasta.or_else(|| userns::program("slirp4netns").map(Program::Slirp))
}

/// Where such a container asks for names: at pasta's way out, which passes them to the server that the host asks; or us.
///
/// # Errors
/// The store's.
pub fn name_server(engine: &Engine) -> Result<Option<Ipv4Addr>> {
    if matches!(program(), Some(Program::Slirp(_))) {
        return Ok(Some(names::ADDRESS));
    }
    Ok(networks::by_name(engine.containers()?.db(), BRIDGE)?.map(|network| network.gateway))
}

/// The names that such a container knows of others: none, so whoever knows all names is asked.
struct Nobody;

impl Directory for Nobody {
    fn addresses(&self, _: &str) -> Vec<IpAddr> {
        Vec::new()
    }

    fn name(&self, _: IpAddr) -> Option<String> {
        None
    }

    fn leads_out(&self) -> bool {
        true
    }
}

/// A container's connection, as its monitor holds it.
pub struct UserNetwork {
    ports: Vec<PortBinding>,
    endpoint: Option<Endpoint>,
    running: Option<Running>,
    names: Option<Answerer>,
}

/// Our process, and the pipe that keeps it.
struct Running {
    keeper: Child,
    lifeline: Option<File>,
}

impl UserNetwork {
    /// Chooses the ports that the container publishes: the program must bind them itself. `None` for one that is not connected so.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, when one is taken.
    pub fn choose(container: &Container) -> Result<Option<Self>> {
        if !is_wanted(container) {
            return Ok(None);
        }
        let mut chosen = Vec::new();
        for wanted in plan::published(&container.config, &container.image)? {
            let wanted = PortBinding { host_ip: wanted.host_ip.or(Some(Ipv4Addr::UNSPECIFIED.into())), ..wanted };
            if wanted.host_ip.is_some_and(|ip| ip.is_ipv6()) {
                let message = format!("{wanted}: without root ports are published on IPv4 addresses only");
                return Err(Error::new(Class::Unsupported, message));
            }
            // Held until all are chosen, so that no two are one.
            chosen.extend(sockets::publish(&wanted)?);
        }
        let ports = chosen.into_iter().map(|(binding, _)| binding).collect();
        Ok(Some(UserNetwork { ports, endpoint: None, running: None, names: None }))
    }

    /// Takes the container's place, by which it is known.
    ///
    /// # Errors
    /// The store's and the disk's.
    pub fn join(&mut self, engine: &Engine, container: &Container) -> Result<()> {
        let places = container.config.places();
        let places: Vec<_> = places.iter().take(1).map(|place| (place, self.ports.as_slice())).collect();
        self.endpoint = engine.attach_networks(&container.id, &places)?.pop();
        Ok(())
    }

    /// Connects the network namespace of this process of the container. Gives what the container has yet to configure.
    ///
    /// # Errors
    /// `Conflict` when somebody has taken a port meanwhile; what the program says.
    pub fn connect(&mut self, engine: &Engine, container: &Container, pid: u32) -> Result<Vec<Wiring>> {
        let (Some(endpoint), Some(program)) = (&self.endpoint, program()) else {
            return Err(Error::new(Class::Internal, "the container has no place on its network"));
        };
        network::append_hosts(engine, container, &network::hosts(container, endpoint))?;
        self.running = None;
        let dir = engine.paths().run_container(&container.id);
        let (report, say) = pipe()?;
        let (hold, lifeline) = pipe()?;
        let begin = || {
            std::env::set_current_dir(&dir).map_err(|e| e.to_string())?;
            match &program {
                Program::Pasta(path) => pasta::start(path, pid, endpoint, &self.ports),
                Program::Slirp(path) => slirp::start(path, pid, endpoint, &self.ports),
            }
        };
        let mut ends = Some((hold, say));
        let keeper = process::spawn(SpawnOptions::default(), || match ends.take() {
            Some((hold, say)) => keep(begin, hold, say),
            None => 1,
        });
        drop(ends);
        let keeper = keeper.map_err(|e| Error::os("fork a process for the network", e))?;
        let wirings = match &program {
            Program::Pasta(_) => Vec::new(),
            Program::Slirp(_) => vec![slirp::wiring(endpoint)],
        };
        self.running = Some(Running { keeper, lifeline: Some(lifeline) });
        let mut said = String::new();
        let mut report = report;
        report.read_to_string(&mut said).map_err(|e| Error::os("hear of the network's program", e))?;
        if said == DONE { Ok(wirings) } else { Err(self.failed(&program, &said)) }
    }

    fn failed(&mut self, program: &Program, said: &str) -> Error {
        self.running = None;
        // What it says to a system log that is not there is of no use.
        let why: Vec<&str> = said.lines().filter(|line| !line.ends_with("to syslog")).collect();
        let why = why.join(" ");
        let taken = self.ports.iter().find(|port| {
            let option = format!("{}:{}", port.host_port, port.container_port);
            why.contains("bind") && why.contains(&option)
        });
        if let Some(taken) = taken {
            let at = SocketAddr::new(taken.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()), taken.host_port);
            return Error::new(Class::Conflict, taken.taken(at));
        }
        Error::new(Class::Unavailable, format!("connect the container: {}: {why}", program.name()))
            .with_hint("it takes /dev/net/tun; use --network host or --network none to do without")
    }

    /// Answers on these sockets what the container asks about names.
    pub fn answer(&mut self, sockets: (File, File)) {
        self.names = Some(Answerer::new(sockets, &[]));
    }

    /// What to poll for reading.
    pub fn polls(&self) -> impl Iterator<Item = (names::Wake, BorrowedFd<'_>)> {
        self.names.iter().flat_map(Answerer::polls)
    }

    /// When to call [`UserNetwork::on_time`].
    pub fn deadline(&self) -> Option<Instant> {
        self.names.as_ref().and_then(Answerer::deadline)
    }

    /// Gives up what took too long.
    pub fn on_time(&mut self, now: Instant) {
        if let Some(names) = &mut self.names {
            names.on_time(now);
        }
    }

    /// Does what has become possible.
    pub fn woken(&mut self, wake: names::Wake) {
        match (wake, &mut self.names) {
            (names::Wake::Caller, Some(names)) => names.called(|| Nobody),
            (wake, Some(names)) => names.woken(wake, &Nobody),
            (_, None) => {}
        }
    }

    /// Ends it: from here on others can have the ports.
    pub fn close(&mut self) {
        self.running = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A word, for its end may have another holder yet: a process of the container's that waits for its new network.
        if let Some(mut lifeline) = self.lifeline.take() {
            let _ = lifeline.write_all(b".");
        }
        // Whoever hears of the container's end may take its ports at once.
        let _ = self.keeper.wait();
    }
}

/// What our process says when the program is at work.
const DONE: &str = "connected";

fn pipe() -> Result<(File, File)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::os("make a pipe", e))?;
    Ok((read.into(), write.into()))
}

/// The program at work.
struct Working {
    pid: Pid,
    /// What it says, which it must not be kept from.
    says: Option<ChildStderr>,
    /// It ends when this does.
    _held: Option<ChildStdin>,
}

impl Working {
    /// Until a pipe has come to its end, or something is written to it.
    fn wait_for(&mut self, mut end: &File) {
        loop {
            let Some(says) = &mut self.says else {
                let _ = end.read(&mut [0; 1]);
                return;
            };
            let mut fds = [PollFd::new(end, PollFlags::IN), PollFd::new(says, PollFlags::IN)];
            let waited = poll(&mut fds, None);
            let [ended, said] = fds.map(|fd| !fd.revents().is_empty());
            if ended || waited.is_err_and(|e| e != rustix::io::Errno::INTR) {
                return;
            }
            if said && says.read(&mut [0; 4096]).is_ok_and(|length| length == 0) {
                self.says = None;
            }
        }
    }

    /// Ends it. It is our child and has not been waited for, so the number is its own.
    fn end(&self) {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = waitpid(Some(self.pid), WaitOptions::empty());
    }
}

/// Our process: starts the program, says what became of it, and ends it when the monitor is gone or says so.
fn keep(begin: impl FnOnce() -> Result<Working, String>, hold: File, mut say: File) -> i32 {
    process::default_signals();
    // Nothing else of the monitor's: not its lock, and not the streams of whoever started it.
    let alone = process::close_all_but(&[hold.as_raw_fd(), say.as_raw_fd()]).and_then(|()| silence()).is_ok();
    // What runs in the background becomes our child, and nobody else's.
    if !alone || set_child_subreaper(Some(rustix::process::getpid())).is_err() || rustix::process::setsid().is_err() {
        return 1;
    }
    let begun = begin();
    let word = begun.as_ref().map_or_else(String::as_str, |_| DONE);
    let told = say.write_all(word.as_bytes());
    drop(say);
    let Ok(mut working) = begun else { return 1 };
    if told.is_ok() {
        working.wait_for(&hold);
    }
    working.end();
    0
}

fn silence() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn endpoint() -> Endpoint {
        Endpoint {
            network: BRIDGE.to_owned(),
            network_id: 1,
            address: Ipv4Addr::new(172, 30, 0, 2),
            prefix: 16,
            gateway: Ipv4Addr::new(172, 30, 0, 1),
            six: None,
            mac: crate::network::Mac::default(),
            number: 0,
            internal: false,
            aliases: Vec::new(),
        }
    }
}
