//! slirp4netns (<https://github.com/rootless-containers/slirp4netns>), for who has no pasta.
//!
//! It knows addresses of its own, counted from the network that it is told (the second is its way out), and gives the
//! container one of them; but it passes on what comes from any address. So it is told a corner of the network that the
//! container is not in, the container configures the device itself, and reaches whatever it likes by its gateway, whose
//! hardware address it is told: nobody would answer for it. Its own name server is off, for that would pass on more than
//! questions: to any port of the server that the host asks, which is often on the host's loopback. The monitor answers as
//! it does for root's containers. Published ports are asked for over a socket (slirp4netns(1), "API SOCKET").

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use serde::Deserialize;

use super::{DEVICE, Working};
use crate::network::networks::Wiring;
use crate::network::{Endpoint, PortBinding};

/// Where it is asked for ports, in the working directory.
const SOCKET: &str = "slirp";
/// How long it may take to open a port.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the largest packet: nothing is gained by small ones between two processes.
const MTU: u32 = 65520;
/// The length of the prefix of what it takes for its own network: the longest that it takes.
const CORNER: u8 = 25;
/// How far from the network's address its way out is; the next one would be its name server.
const WAY_OUT: u32 = 2;

/// Starts it for the namespaces of this process, confined as it can be here.
///
/// # Errors
/// What it says.
pub(super) fn start(program: &Path, pid: u32, endpoint: &Endpoint, ports: &[PortBinding]) -> Result<Working, String> {
    let confined = begin(program, pid, endpoint, &["--enable-sandbox", "--enable-seccomp"]);
    // A container in a container may not mount, and not every build has the filter.
    let working = confined.or_else(|_| begin(program, pid, endpoint, &[]))?;
    let published = ports.iter().try_for_each(|port| publish(endpoint, port));
    let _ = fs::remove_file(SOCKET);
    published.inspect_err(|_| working.end())?;
    Ok(working)
}

fn begin(program: &Path, pid: u32, endpoint: &Endpoint, walls: &[&str]) -> Result<Working, String> {
    let failed = |e: std::io::Error| e.to_string();
    let _ = fs::remove_file(SOCKET);
    // Its end of this one is for it to inherit; ours is not.
    let (ready, say) = pipe_with(PipeFlags::empty()).map_err(|e| failed(e.into()))?;
    rustix::io::fcntl_setfd(&ready, rustix::io::FdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut command = Command::new(program);
    command.args(walls).args(arguments(endpoint, say.as_raw_fd())).arg(pid.to_string()).arg(DEVICE);
    // It ends when its stdin does, should this process be killed.
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    drop(say);
    let mut word = [0; 1];
    if fs::File::from(ready).read(&mut word).is_ok_and(|length| length == 1) {
        let pid = Pid::from_child(&child);
        let says = child.stderr.take();
        return Ok(Working { pid, says, _held: child.stdin.take() });
    }
    let mut said = String::new();
    if let Some(mut says) = child.stderr.take() {
        let _ = says.read_to_string(&mut said);
    }
    let _ = child.wait();
    Err(said)
}

/// What it is told, but for whom and how it is to be confined.
fn arguments(endpoint: &Endpoint, ready: RawFd) -> Vec<String> {
    let mut all = vec!["--disable-host-loopback".to_owned(), "--disable-dns".to_owned()];
    let corner = format!("{}/{CORNER}", corner(endpoint));
    let options = [
        ("--cidr", corner),
        ("--mtu", MTU.to_string()),
        ("--api-socket", SOCKET.to_owned()),
        ("--ready-fd", ready.to_string()),
        ("--exit-fd", "0".to_owned()),
    ];
    all.extend(options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    all
}

/// The last corner of the network, or the first if the container has one of the two addresses there.
fn corner(endpoint: &Endpoint) -> Ipv4Addr {
    let mask = |prefix: u8| u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    let first = u32::from(endpoint.gateway) & mask(endpoint.prefix.min(CORNER));
    let last = (first | !mask(endpoint.prefix)) & mask(CORNER);
    let own = u32::from(endpoint.address).wrapping_sub(last);
    Ipv4Addr::from(if own == WAY_OUT || own == WAY_OUT + 1 { first } else { last })
}

/// How the container configures the device.
pub(super) fn wiring(endpoint: &Endpoint) -> Wiring {
    Wiring {
        bridge: 0,
        outer: String::new(),
        inner: DEVICE.to_owned(),
        mac: endpoint.mac,
        address: endpoint.address,
        prefix: endpoint.prefix,
        gateway: Some(endpoint.gateway),
        six: None,
        hairpin: false,
        mtu: Some(MTU),
    }
}

#[derive(Deserialize)]
struct Answer {
    error: Option<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    desc: String,
}

fn publish(endpoint: &Endpoint, port: &PortBinding) -> Result<(), String> {
    let request = serde_json::json!({
        "execute": "add_hostfwd",
        "arguments": {
            "proto": port.protocol.to_string(),
            "host_addr": port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            "host_port": port.host_port,
            "guest_addr": endpoint.address,
            "guest_port": port.container_port,
        },
    });
    let asked = || -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(SOCKET)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(request.to_string().as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        Ok(serde_json::from_reader(stream)?)
    };
    let place = format!("bind {}:{}", port.host_port, port.container_port);
    match asked().map_err(|e| format!("{place}: {e}"))? {
        Answer { error: Some(fault) } => Err(format!("{place}: {}", fault.desc)),
        Answer { error: None } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_addresses_are_nobody_elses() {
        let at = |address: &str, gateway: &str, prefix| {
            let (address, gateway) = (address.parse().unwrap(), gateway.parse().unwrap());
            corner(&Endpoint { address, gateway, prefix, ..super::super::tests::endpoint() }).to_string()
        };
        assert_eq!(at("172.30.0.2", "172.30.0.1", 16), "172.30.255.128");
        assert_eq!(at("172.30.255.130", "172.30.0.1", 16), "172.30.0.0");
        assert_eq!(at("10.201.7.131", "10.201.7.1", 24), "10.201.7.0");
        assert_eq!(at("10.201.7.132", "10.201.7.1", 24), "10.201.7.128");
        let words = arguments(&super::super::tests::endpoint(), 7).join(" ");
        assert!(words.starts_with("--disable-host-loopback --disable-dns --cidr 172.30.255.128/25 "), "{words}");
    }
}
