//! Published ports as docker spells them: `-p [ip:][host]:container[/protocol]`, ranges, `--expose`
//! (<https://docs.docker.com/engine/network/#published-ports>, the words are those of docker's `nat` package).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::Protocol;

/// A range may not ask for more sockets than this; docker would start one proxy for each.
const MOST: usize = 4096;

/// A port of the container that the host publishes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortBinding {
    /// The port in the container.
    pub container_port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// The host's address; all of them, of both families, when `None`.
    pub host_ip: Option<IpAddr>,
    /// The host's port: 0 is one that is free.
    pub host_port: u16,
    /// Any free port from `host_port` to this one, if it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port_last: Option<u16>,
}

impl PortBinding {
    /// An exposed port on a free port of the host.
    pub fn any(exposed: ExposedPort) -> Self {
        PortBinding {
            container_port: exposed.port,
            protocol: exposed.protocol,
            host_ip: None,
            host_port: 0,
            host_port_last: None,
        }
    }

    /// The host's addresses that it binds.
    pub fn host_ips(&self) -> Vec<IpAddr> {
        match self.host_ip {
            Some(ip) => vec![ip],
            None => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        }
    }

    /// The host's ports, of which it takes the first that is free.
    pub fn host_ports(&self) -> RangeInclusive<u16> {
        self.host_port..=self.host_port_last.unwrap_or(self.host_port)
    }

    /// The same with the port that was really bound.
    #[must_use]
    pub fn bound(&self, host_ip: IpAddr, host_port: u16) -> Self {
        PortBinding { host_ip: Some(host_ip), host_port, host_port_last: None, ..self.clone() }
    }

    /// What docker says when the host's port is taken.
    pub fn taken(&self, at: SocketAddr) -> String {
        if self.protocol == Protocol::Tcp && at.ip().is_ipv4() {
            format!("failed to bind host port for {at}: Bind for {at} failed: port is already allocated")
        } else {
            format!("failed to bind host port for {at}/{}: address already in use", self.protocol)
        }
    }
}

impl fmt::Display for PortBinding {
    /// As `docker ps` shows it: `0.0.0.0:8080->80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(ip) => write!(f, "{}->", SocketAddr::new(ip, self.host_port))?,
            None => write!(f, "0.0.0.0:{}->", self.host_port)?,
        }
        write!(f, "{}/{}", self.container_port, self.protocol)
    }
}

/// A port of the container that is documented, not published: `--expose`, `EXPOSE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExposedPort {
    /// The port in the container.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for ExposedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// Reads one `-p`: what it publishes, one entry for each port of a range.
///
/// # Errors
/// Docker's words.
pub fn parse_publish(spec: &str) -> Result<Vec<PortBinding>, String> {
    let (rest, protocol) = split_protocol(spec)?;
    let (ip, host, container) = split_parts(rest).ok_or_else(|| format!("invalid containerPort: {rest}"))?;
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let host_ip = match ip {
        "" => None,
        text => Some(text.parse().map_err(|_| format!("invalid IP address: {text}"))?),
    };
    let containers = range(container).map_err(|_| format!("invalid containerPort: {container}"))?;
    let count = containers.len();
    if count > MOST {
        return Err(format!("invalid ranges specified for container ports: {container}: more than {MOST} ports"));
    }
    let binding = |container_port, host_port, host_port_last| PortBinding {
        container_port,
        protocol,
        host_ip,
        host_port,
        host_port_last,
    };
    // 0 is docker's other word for any port that is free.
    let any = host.parse() == Ok(0_u16);
    if host.is_empty() || (any && count == 1) {
        return Ok(containers.map(|port| binding(port, 0, None)).collect());
    }
    let mismatch = || format!("invalid ranges specified for container and host Ports: {container} and {host}");
    if any {
        return Err(mismatch());
    }
    let hosts = range(host).map_err(|_| format!("invalid hostPort: {host}"))?;
    if hosts.len() == count {
        return Ok(containers.zip(hosts).map(|(port, host)| binding(port, host, None)).collect());
    }
    // A range of the host's for one port: the first that is free.
    if count == 1 {
        let last = hosts.clone().last();
        return Ok(containers.zip(hosts).map(|(port, first)| binding(port, first, last)).collect());
    }
    Err(mismatch())
}

/// Reads one `--expose` or one entry of an image's `EXPOSE`: `80`, `80/udp`, `8000-8010`.
///
/// # Errors
/// Docker's words.
pub fn parse_expose(text: &str) -> Result<Vec<ExposedPort>, String> {
    if text.contains(':') {
        return Err(format!("invalid port format for --expose: {text}"));
    }
    let (ports, protocol) = split_protocol(text)?;
    let ports = range(ports).map_err(|why| format!("invalid range format for --expose: {text}, error: {why}"))?;
    Ok(ports.map(|port| ExposedPort { port, protocol }).collect())
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), String> {
    match text.split_once('/') {
        None | Some((_, "")) => Ok((text.trim_end_matches('/'), Protocol::Tcp)),
        Some((rest, protocol)) => match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Ok((rest, Protocol::Tcp)),
            "udp" => Ok((rest, Protocol::Udp)),
            "sctp" => Err(format!("cannot publish {text}: SCTP is not supported, only tcp and udp are")),
            _ => Err(format!("invalid proto: {protocol}")),
        },
    }
}

/// `ip:host:container`, with the first ones left out; an IPv6 address may stand in brackets.
fn split_parts(text: &str) -> Option<(&str, &str, &str)> {
    let Some((rest, container)) = text.rsplit_once(':') else { return Some(("", "", text)) };
    let Some((ip, host)) = rest.rsplit_once(':') else { return Some(("", rest, container)) };
    if let Some(ip) = ip.strip_prefix('[') {
        return Some((ip.strip_suffix(']')?, host, container));
    }
    Some((ip, host, container))
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<u16>() {
            Ok(0) => Err(format!("invalid port number: {text}")),
            Ok(port) if digits => Ok(port),
            _ => Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")),
        }
    };
    let Some((first, last)) = text.split_once('-') else {
        let port = port(text)?;
        return Ok(port..=port);
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("invalid range specified for port: {text}"));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(spec: &str) -> String {
        match parse_publish(spec) {
            Ok(list) => list.iter().map(|b| format!("{b}{:?}", b.host_port_last)).collect::<Vec<_>>().join(" "),
            Err(e) => e,
        }
    }

    #[test]
    fn all_spellings() {
        assert_eq!(one("80"), "0.0.0.0:0->80/tcpNone");
        assert_eq!(one("8080:80"), "0.0.0.0:8080->80/tcpNone");
        assert_eq!(one("127.0.0.1:8080:80"), "127.0.0.1:8080->80/tcpNone");
        assert_eq!(one("127.0.0.1::80/udp"), "127.0.0.1:0->80/udpNone");
        assert_eq!(one("127.0.0.1:0:80"), "127.0.0.1:0->80/tcpNone");
        assert_eq!(one("[::1]:8080:80/TCP"), "[::1]:8080->80/tcpNone");
        assert_eq!(one("::1:8080:80"), "[::1]:8080->80/tcpNone");
        assert_eq!(one("9000-9001:80-81"), "0.0.0.0:9000->80/tcpNone 0.0.0.0:9001->81/tcpNone");
        assert_eq!(one("9000-9009:80"), "0.0.0.0:9000->80/tcpSome(9009)");
        assert_eq!(one("80-81/udp"), "0.0.0.0:0->80/udpNone 0.0.0.0:0->81/udpNone");
    }

    #[test]
    fn wrong_ones_are_named_in_dockers_words() {
        assert_eq!(one(""), "no port specified: <empty>");
        assert_eq!(one("8080:"), "no port specified: 8080:<empty>");
        assert_eq!(one("web"), "invalid containerPort: web");
        assert_eq!(one("0"), "invalid containerPort: 0");
        assert_eq!(one("+80"), "invalid containerPort: +80");
        assert_eq!(one("80:70000"), "invalid containerPort: 70000");
        assert_eq!(one("http:80"), "invalid hostPort: http");
        assert_eq!(one("1.2.3:80:80"), "invalid IP address: 1.2.3");
        assert_eq!(one("80:80/icmp"), "invalid proto: icmp");
        assert_eq!(
            one("8000-8002:80-81"),
            "invalid ranges specified for container and host Ports: 80-81 and 8000-8002"
        );
        assert_eq!(one("0:80-81"), "invalid ranges specified for container and host Ports: 80-81 and 0");
        assert_eq!(one("9-1:80"), "invalid hostPort: 9-1");
        assert!(one("80/sctp").contains("SCTP"));
    }

    #[test]
    fn exposed_ports() {
        let ports = |text| parse_expose(text).map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(ports("53/udp").unwrap(), ["53/udp"]);
        assert_eq!(ports("80-82").unwrap(), ["80/tcp", "81/tcp", "82/tcp"]);
        assert_eq!(ports("80:80").unwrap_err(), "invalid port format for --expose: 80:80");
        assert!(ports("x").unwrap_err().starts_with("invalid range format for --expose: x, error: "));
    }

    proptest! {
        #[test]
        fn any_text_gives_ports_or_words(text in "[-0-9a-z:./\\[\\]]{0,24}|\\PC{0,24}") {
            match parse_publish(&text) {
                Ok(list) => {
                    prop_assert!(!list.is_empty() && list.len() <= MOST);
                    prop_assert!(list.iter().all(|b| b.container_port != 0 && !b.host_ports().is_empty()));
                }
                Err(words) => prop_assert!(!words.is_empty()),
            }
            let _ = parse_expose(&text);
        }

        #[test]
        fn what_is_right_comes_back(ip: IpAddr, host in 1u16.., container in 1u16..) {
            let at = SocketAddr::new(ip, host);
            let expected = PortBinding {
                container_port: container,
                protocol: Protocol::Udp,
                host_ip: Some(ip),
                host_port: host,
                host_port_last: None,
            };
            prop_assert_eq!(parse_publish(&format!("{at}:{container}/udp")), Ok(vec![expected]));
        }
    }
}
