//! pasta (<https://passt.top>), which configures the device itself, and answers for the name server at the way out.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Pid;

use super::{DEVICE, Working};
use crate::network::{Endpoint, PortBinding, Protocol};

/// Where it writes its number, in the working directory.
const PID_FILE: &str = "pasta";

/// Starts it for the namespaces of this process.
///
/// # Errors
/// What it says.
pub(super) fn start(program: &Path, pid: u32, endpoint: &Endpoint, ports: &[PortBinding]) -> Result<Working, String> {
    let mut command = Command::new(program);
    command.args(arguments(endpoint, ports)).arg("--pid").arg(PID_FILE);
    for (option, namespace) in [("--userns", "user"), ("--netns", "net")] {
        command.args([option, &format!("/proc/{pid}/ns/{namespace}")]);
    }
    let out = command.env_clear().stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    let pid = fs::read_to_string(PID_FILE).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
    let _ = fs::remove_file(PID_FILE);
    let pid = pid.ok_or_else(|| "it does not say which process it is".to_owned())?;
    Ok(Working { pid, says: None, _held: None })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::ports::parse_publish;

    #[test]
    fn ports_are_told_to_pasta() {
        let endpoint = super::super::tests::endpoint();
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
