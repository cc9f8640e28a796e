//! The network of a Linux container without root: pasta (<https://passt.top>), a program that is a network's other end.
//!
//! Who is not root may make a network namespace, and connect it to nothing. pasta makes a device in it and does with
//! sockets of the user's what the container does with packets: ways out, published ports, names. The container has the
//! address that the store gives it, but other containers are not there; they have networks like this of their own.
//!
//! pasta does not notice when the namespace has nobody in it any more, and SIGKILL for a dead parent does not reach who has
//! entered another user namespace (prctl(2), `PR_SET_PDEATHSIG`). So a process of ours stands between it and the monitor:
//! it waits for the end of a pipe whose other end the monitor alone has, and then ends pasta.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};

use super::process::{self, Child, SpawnOptions};
use super::{network, sockets, userns};
use crate::config::NetworkMode;
use crate::container::{BackendKind, Container};
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::network::{BRIDGE, Endpoint, PortBinding, Protocol, networks};
use crate::plan;

/// The program.
const PASTA: &str = "pasta";
/// What to install.
pub const ADVICE: &str = "install pasta (Debian's package passt), use --network host, or run wharf as root";
/// The name of the container's device.
const DEVICE: &str = "eth0";

/// True for a container that is to be connected so.
pub fn is_wanted(container: &Container) -> bool {
    let network = &container.config.network;
    (network, container.backend()) == (&NetworkMode::Default, BackendKind::Linux)
        && !super::is_root()
        && program().is_some()
}

fn program() -> Option<PathBuf> {
    userns::program(PASTA)
}

/// Where such a container asks for names: at its way out, which passes them to the server that the host asks.
///
/// # Errors
/// The store's.
pub fn name_server(engine: &Engine) -> Result<Option<Ipv4Addr>> {
    Ok(networks::by_name(engine.containers()?.db(), BRIDGE)?.map(|network| network.gateway))
}

/// A container's connection, as its monitor holds it.
pub struct UserNetwork {
    ports: Vec<PortBinding>,
    endpoint: Option<Endpoint>,
    running: Option<Running>,
}

/// Our process, and the pipe that keeps it.
struct Running {
    keeper: Child,
    lifeline: Option<File>,
}

impl UserNetwork {
    /// Chooses the ports that the container publishes: pasta must bind them itself. `None` for one that is not connected so.
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
        Ok(Some(UserNetwork { ports, endpoint: None, running: None }))
    }

    /// Takes the container's place, by which it is known.
    ///
    /// # Errors
    /// The store's and the disk's.
    pub fn join(&mut self, engine: &Engine, container: &Container) -> Result<()> {
        let places = container.config.places();
        let places: Vec<_> = places.iter().take(1).map(|place| (place, self.ports.as_slice())).collect();
        self.endpoint = engine.attach_networks(&container.id, &places, false)?.pop();
        Ok(())
    }

    /// Connects the network namespace of this process of the container.
    ///
    /// # Errors
    /// `Conflict` when somebody has taken a port meanwhile; what pasta says.
    pub fn connect(&mut self, engine: &Engine, container: &Container, pid: u32) -> Result<()> {
        let (Some(endpoint), Some(program)) = (&self.endpoint, program()) else {
            return Err(Error::new(Class::Internal, "the container has no place on its network"));
        };
        network::append_hosts(engine, container, &network::hosts(container, endpoint))?;
        self.running = None;
        let pid_file = engine.paths().run_container(&container.id).join("pasta");
        let mut command = Command::new(&program);
        command.args(arguments(endpoint, &self.ports)).arg("--pid").arg(&pid_file);
        for (option, namespace) in [("--userns", "user"), ("--netns", "net")] {
            command.args([option, &format!("/proc/{pid}/ns/{namespace}")]);
        }
        command.env_clear().current_dir("/").stdin(Stdio::null());
        let (report, say) = pipe()?;
        let (hold, lifeline) = pipe()?;
        let mut parts = Some((command, hold, say));
        let keeper = process::spawn(SpawnOptions::default(), || match parts.take() {
            Some((command, hold, say)) => keep(command, &pid_file, hold, say),
            None => 1,
        });
        drop(parts);
        let keeper = keeper.map_err(|e| Error::os("fork a process for pasta", e))?;
        self.running = Some(Running { keeper, lifeline: Some(lifeline) });
        let mut said = String::new();
        let mut report = report;
        report.read_to_string(&mut said).map_err(|e| Error::os("hear of pasta", e))?;
        if said == DONE { Ok(()) } else { Err(self.failed(&said)) }
    }

    fn failed(&mut self, said: &str) -> Error {
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
        Error::new(Class::Unavailable, format!("connect the container: pasta: {why}"))
            .with_hint("pasta needs /dev/net/tun; use --network host or --network none to do without")
    }

    /// Ends it: from here on others can have the ports.
    pub fn close(&mut self) {
        self.running = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.lifeline = None;
        // Whoever hears of the container's end may take its ports at once.
        let _ = self.keeper.wait();
    }
}

/// What our process says when pasta has done its work.
const DONE: &str = "connected";

fn pipe() -> Result<(File, File)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::os("make a pipe", e))?;
    Ok((read.into(), write.into()))
}

/// What pasta is told. It ends up in the background, and its first process ends when everything is set up.
fn arguments(endpoint: &Endpoint, ports: &[PortBinding]) -> Vec<String> {
    let (address, prefix, gateway) =
        (endpoint.address.to_string(), endpoint.prefix.to_string(), endpoint.gateway.to_string());
    let mut all = vec!["--quiet", "--ipv4-only", "--config-net", "--ns-ifname", DEVICE];
    all.extend(["--address", &address, "--netmask", &prefix, "--gateway", &gateway, "--dns-forward", &gateway]);
    // The host's loopback is not the container's.
    all.extend(["--no-map-gw", "--tcp-ns", "none", "--udp-ns", "none"]);
    let mut all: Vec<String> = all.into_iter().map(str::to_owned).collect();
    for (protocol, option) in [(Protocol::Tcp, "--tcp-ports"), (Protocol::Udp, "--udp-ports")] {
        let published = ports.iter().filter(|port| port.protocol == protocol).map(|port| {
            let address = port.host_ip.filter(|ip| !ip.is_unspecified()).map(|ip| format!("{ip}/")).unwrap_or_default();
            format!("{address}{}:{}", port.host_port, port.container_port)
        });
        let before = all.len();
        published.for_each(|port| all.extend([option.to_owned(), port]));
        if all.len() == before {
            all.extend([option.to_owned(), "none".to_owned()]);
        }
    }
    all
}

/// Our process: starts pasta, says what became of it, and ends it when the monitor is gone or says so.
fn keep(mut command: Command, pid_file: &Path, mut hold: File, mut say: File) -> i32 {
    process::default_signals();
    // Nothing else of the monitor's: not its lock, and not the streams of whoever started it.
    let alone = process::close_all_but(&[hold.as_raw_fd(), say.as_raw_fd()]).and_then(|()| silence()).is_ok();
    // What runs in the background becomes our child, and nobody else's.
    if !alone || set_child_subreaper(Some(rustix::process::getpid())).is_err() || rustix::process::setsid().is_err() {
        return 1;
    }
    let started = start(&mut command, pid_file);
    let word = started.as_ref().map_or_else(String::as_str, |_| DONE);
    let told = say.write_all(word.as_bytes());
    drop(say);
    let Ok(pid) = started else { return 1 };
    if told.is_ok() {
        // To the end of the pipe: nothing is ever written.
        let _ = hold.read(&mut [0; 1]);
    }
    // It is our child and has not been waited for, so the number is its own.
    let _ = kill_process(pid, Signal::KILL);
    let _ = waitpid(Some(pid), WaitOptions::empty());
    0
}

/// Starts pasta; its process, or what it says.
fn start(command: &mut Command, pid_file: &Path) -> Result<Pid, String> {
    let out = command.output().map_err(|e| e.to_string())?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let pid = fs::read_to_string(pid_file).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
    let _ = fs::remove_file(pid_file);
    pid.ok_or_else(|| "it does not say which process it is".to_owned())
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
    use crate::network::ports::parse_publish;

    #[test]
    fn ports_are_told_to_pasta() {
        let endpoint = Endpoint {
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
        };
        let told = |ports: &[&str]| {
            let ports: Vec<_> = ports.iter().flat_map(|port| parse_publish(port).unwrap()).collect();
            let all = arguments(&endpoint, &ports);
            let first = all.iter().position(|word| word == "--tcp-ports").unwrap();
            all[first..].join(" ")
        };
        assert_eq!(told(&[]), "--tcp-ports none --udp-ports none");
        assert_eq!(
            told(&["8080:80", "127.0.0.1:8081:81", "53:53/udp"]),
            "--tcp-ports 8080:80 --tcp-ports 127.0.0.1/8081:81 --udp-ports 53:53"
        );
    }
}
