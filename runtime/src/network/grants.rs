//! What a container may reach outside of itself.
//!
//! By default that follows its network. Some places are never reached without a grant that names their address: the
//! host's loopback, and link-local addresses, where clouds answer questions about credentials (169.254.169.254). What
//! counts is the address that a connection goes to, however it is spelt and whatever name led to it: a name that
//! resolves to a forbidden address (DNS rebinding) is refused like the address. So a grant for a name never opens such a
//! place; a grant for its address does.
//!
//! `--allow-net` narrows the rest to what it lists; `--deny-net` takes away and wins.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name by which a container calls its host.
pub const HOST_NAME: &str = "host.docker.internal";

/// No more addresses than these are remembered with their names.
const MOST_NAMES: usize = 4096;

/// `HOST[:PORT]` of `--allow-net` and `--deny-net`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    host: Host,
    /// The first and the last port; all of them when `None`.
    ports: Option<(u16, u16)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// `*`
    Any,
    /// A name, in lower case, without a dot at its end.
    Name(String),
    /// `*.example.com`, without the star.
    Below(String),
    /// An address, or all that share its first bits.
    Net(IpAddr, u8),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = |why: &str| format!("invalid network target {text:?}: {why}");
        let (host, ports) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(|| invalid("the bracket is not closed"))?;
                match rest {
                    "" => (host, None),
                    _ => (host, Some(rest.strip_prefix(':').ok_or_else(|| invalid("expected a port after `]:`"))?)),
                }
            }
            // An IPv6 address without brackets has no port.
            None if text.matches(':').count() > 1 => (text, None),
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(invalid("a port is a number from 1 to 65535")),
        };
        let ports = match ports.map(|ports| ports.split_once('-').unwrap_or((ports, ports))) {
            None => None,
            Some((first, last)) => Some((port(first)?, port(last)?)),
        };
        if ports.is_some_and(|(first, last)| first > last) {
            return Err(invalid("the range of ports is empty"));
        }
        Ok(Target { host: Host::parse(host).map_err(invalid)?, ports })
    }
}

impl Host {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text == "*" {
            return Ok(Host::Any);
        }
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        if let Ok(address) = address.parse::<IpAddr>() {
            let width = if address.is_ipv4() { 32 } else { 128 };
            let prefix = match prefix.map(str::parse) {
                None => width,
                Some(Ok(prefix)) if prefix <= width => prefix,
                Some(_) => return Err("the length of the prefix is wrong"),
            };
            return Ok(Host::Net(address, prefix));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        if !is_name(name) {
            return Err("expected HOST[:PORT], where HOST is a name, *.name, an address, a prefix as 10.0.0.0/8, or *");
        }
        let name = canonical_name(name);
        Ok(if text.starts_with("*.") { Host::Below(name) } else { Host::Name(name) })
    }

    fn covers_address(&self, address: IpAddr) -> bool {
        let Host::Net(net, prefix) = self else { return *self == Host::Any };
        match (canonical(*net), address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                // A prefix of a mapped network counts from the beginning of its 128 bits.
                let prefix = if *prefix > 32 { prefix.saturating_sub(96) } else { *prefix };
                let shift = 32 - u32::from(prefix.min(32));
                u32::from(net).checked_shr(shift) == u32::from(address).checked_shr(shift)
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(*prefix);
                u128::from(net).checked_shr(shift) == u128::from(address).checked_shr(shift)
            }
            _ => false,
        }
    }

    fn covers_name(&self, name: &str) -> bool {
        match self {
            Host::Any => true,
            Host::Name(own) => own == name,
            Host::Below(parent) => name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.ends_with('.')),
            Host::Net(..) => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Name(name) => f.write_str(name)?,
            Host::Below(name) => write!(f, "*.{name}")?,
            Host::Net(address, prefix) => {
                let single = *prefix == if address.is_ipv4() { 32 } else { 128 };
                match (address, self.ports.is_some()) {
                    (IpAddr::V6(_), true) if single => write!(f, "[{address}]")?,
                    (IpAddr::V6(_), true) => write!(f, "[{address}/{prefix}]")?,
                    _ if single => write!(f, "{address}")?,
                    _ => write!(f, "{address}/{prefix}")?,
                }
            }
        }
        match self.ports {
            None => Ok(()),
            Some((first, last)) if first == last => write!(f, ":{first}"),
            Some((first, last)) => write!(f, ":{first}-{last}"),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl Target {
    fn has_port(&self, port: u16) -> bool {
        self.ports.is_none_or(|(first, last)| (first..=last).contains(&port))
    }
}

/// True for what can be looked up: labels of letters, digits, `-` and `_`, 253 characters at most (RFC 1035, 2.3.4).
pub fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits)
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// A name as it is compared.
pub fn canonical_name(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The address that packets to `address` really go to: what is written as IPv6 and means IPv4 (mapped, compatible, NAT64
/// and 6to4: RFC 4291, 6052, 3056) is that.
pub fn canonical(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let s = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] => v4(high, low),
        [0, 0, 0, 0, 0, 0, high, low] if v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED => v4(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

/// Why an address is never reached unless a grant names it.
fn forbidden(address: IpAddr) -> Option<&'static str> {
    const LOOPBACK: &str = "the host's loopback is not part of the container's network";
    const LINK_LOCAL: &str = "link-local addresses, where clouds keep credentials, are not reached";
    match address {
        // Linux takes 0.0.0.0 for the loopback.
        IpAddr::V4(v4) if v4.is_loopback() || v4.octets()[0] == 0 => Some(LOOPBACK),
        IpAddr::V4(v4) if v4.is_link_local() => Some(LINK_LOCAL),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => Some("it is not the address of one host"),
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => Some(LOOPBACK),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(LINK_LOCAL),
        // Amazon's.
        IpAddr::V6(v6) if v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Some(LINK_LOCAL),
        IpAddr::V6(v6) if v6.is_multicast() => Some("it is not the address of one host"),
        _ => None,
    }
}

/// Why something may not be reached, and what would change that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// `HOST:PORT`, or a name.
    pub target: String,
    why: &'static str,
    advice: String,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "network access to {} denied: {}; {}", self.target, self.why, self.advice)
    }
}

const NOT_LISTED: &str = "no --allow-net lists it";
const DENIED: &str = "--deny-net forbids it";

/// The grants of one container.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    allow: Vec<Target>,
    deny: Vec<Target>,
    /// The names that we ourselves have resolved to an address.
    names: HashMap<IpAddr, BTreeSet<String>>,
}

impl Grants {
    /// What these flags grant.
    pub fn new(allow: &[Target], deny: &[Target]) -> Self {
        Grants { allow: allow.to_vec(), deny: deny.to_vec(), names: HashMap::new() }
    }

    /// Remembers that this name led there, for grants that are given to names.
    pub fn learn(&mut self, name: &str, address: IpAddr) {
        let address = canonical(address);
        if self.names.len() < MOST_NAMES || self.names.contains_key(&address) {
            self.names.entry(address).or_default().insert(canonical_name(name));
        }
    }

    /// True when a target means this place, by its address or by a name that led there.
    fn covers(&self, target: &Target, at: SocketAddr) -> bool {
        let mut names = self.names.get(&at.ip()).into_iter().flatten();
        let host = &target.host;
        target.has_port(at.port()) && (host.covers_address(at.ip()) || names.any(|name| host.covers_name(name)))
    }

    /// May a connection go, or a datagram be sent, to this address outside of the container's network?
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, to: SocketAddr) -> Result<(), Denial> {
        let address = canonical(to.ip());
        let at = SocketAddr::new(address, to.port());
        let denial = |why| {
            let advice = match why {
                DENIED => format!("--deny-net would have to leave {at} out"),
                _ => format!("--allow-net {at} would allow it"),
            };
            Err(Denial { target: at.to_string(), why, advice })
        };
        if self.deny.iter().any(|target| self.covers(target, at)) {
            return denial(DENIED);
        }
        if let Some(why) = forbidden(address) {
            // `*` is not a name for it.
            let named = |target: &Target| {
                let is_it = target.has_port(at.port()) && target.host.covers_address(address);
                matches!(target.host, Host::Net(..)) && is_it
            };
            return if self.allow.iter().any(named) { Ok(()) } else { denial(why) };
        }
        let allowed = self.allow.is_empty() || self.allow.iter().any(|target| self.covers(target, at));
        if allowed { Ok(()) } else { denial(NOT_LISTED) }
    }

    /// May a datagram or a connection go to a neighbour on the container's own network? Only `--deny-net` says no.
    ///
    /// # Errors
    /// Why not.
    pub fn check_neighbour(&self, to: SocketAddr) -> Result<(), Denial> {
        let at = SocketAddr::new(canonical(to.ip()), to.port());
        if !self.deny.iter().any(|target| self.covers(target, at)) {
            return Ok(());
        }
        let advice = format!("--deny-net would have to leave {to} out");
        Err(Denial { target: to.to_string(), why: DENIED, advice })
    }

    /// May the host be reached on this port, by the name `host.docker.internal` or the gateway's address? Only if it was
    /// asked for by that name.
    ///
    /// # Errors
    /// Why not.
    pub fn check_host(&self, port: u16) -> Result<(), Denial> {
        let named = |target: &&Target| target.host == Host::Name(HOST_NAME.to_owned()) && target.has_port(port);
        let target = format!("{HOST_NAME}:{port}");
        if self.deny.iter().any(|t| named(&t)) {
            return Err(Denial { advice: format!("--deny-net would have to leave {target} out"), target, why: DENIED });
        }
        if self.allow.iter().any(|t| named(&t)) {
            return Ok(());
        }
        let advice = format!("--allow-net {target} would allow it");
        Err(Denial { target, why: "the host's own services are not part of the container's network", advice })
    }

    /// May this name of a neighbour be looked up? Only `--deny-net` says no.
    ///
    /// # Errors
    /// Why not.
    fn check_neighbours_name(&self, name: &str) -> Result<(), Denial> {
        let name = canonical_name(name);
        // With a port the rest of the host may still be reached.
        let denied = |target: &Target| target.ports.is_none() && target.host.covers_name(&name);
        if !self.deny.iter().any(denied) {
            return Ok(());
        }
        let advice = format!("--deny-net would have to leave {name} out");
        Err(Denial { target: name, why: DENIED, advice })
    }

    /// As [`Grants::check_neighbours_name`], for a name that leads to these; they are remembered by it.
    ///
    /// # Errors
    /// Why not.
    pub fn meet(&mut self, name: &str, neighbours: &[IpAddr]) -> Result<(), Denial> {
        self.check_neighbours_name(name)?;
        neighbours.iter().for_each(|address| self.learn(name, *address));
        Ok(())
    }

    /// May this name be looked up outside?
    ///
    /// # Errors
    /// Why not.
    pub fn check_name(&self, name: &str) -> Result<(), Denial> {
        self.check_neighbours_name(name)?;
        let name = canonical_name(name);
        // An allowed address may hide behind any name, but then the address can be used.
        let allowed = |target: &Target| target.host.covers_name(&name);
        if self.allow.is_empty() || self.allow.iter().any(allowed) {
            return Ok(());
        }
        let advice = format!("--allow-net {name} would allow it");
        Err(Denial { target: name, why: NOT_LISTED, advice })
    }

    /// May an address that a name resolved to be told? One that could not be reached on any port is not.
    ///
    /// # Errors
    /// Why not.
    pub fn check_answer(&self, name: &str, address: IpAddr) -> Result<(), Denial> {
        let canonical = canonical(address);
        let named = |target: &Target| matches!(target.host, Host::Net(..)) && target.host.covers_address(canonical);
        match forbidden(canonical) {
            Some(why) if !self.allow.iter().any(named) => Err(Denial {
                target: format!("{name} ({address})"),
                why,
                advice: format!("--allow-net {canonical} would allow it"),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grants(allow: &[&str], deny: &[&str]) -> Grants {
        let targets = |list: &[&str]| list.iter().map(|t| t.parse().expect("target")).collect::<Vec<Target>>();
        Grants::new(&targets(allow), &targets(deny))
    }

    fn may(grants: &Grants, to: &str) -> bool {
        grants.check(to.parse().expect("address")).is_ok()
    }

    #[test]
    fn forbidden_places_in_every_spelling() {
        let open = grants(&[], &[]);
        for to in [
            "127.0.0.1:80",
            "127.8.9.1:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "169.254.169.254:80",
            "169.254.0.1:80",
            "[::1]:80",
            "[::]:80",
            "[fe80::1]:80",
            "[febf::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::ffff:169.254.169.254]:80",
            "[::127.0.0.1]:80",
            "[::169.254.169.254]:80",
            "[64:ff9b::169.254.169.254]:80",
            "[2002:a9fe:a9fe::1]:80",
            "[fd00:ec2::254]:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[ff02::1]:80",
        ] {
            assert!(!may(&open, to), "{to}");
            assert!(!may(&grants(&["*"], &[]), to), "a star does not name {to}");
        }
        for to in ["93.184.216.34:443", "10.0.0.1:80", "[2606:2800::1]:443", "[::ffff:93.184.216.34]:443"] {
            assert!(may(&open, to), "{to}");
        }
    }

    #[test]
    fn an_address_that_is_named_is_granted() {
        let grants = grants(&["169.254.169.254:80", "127.0.0.0/8:5000-5001"], &[]);
        assert!(may(&grants, "169.254.169.254:80") && may(&grants, "[::ffff:169.254.169.254]:80"));
        assert!(!may(&grants, "169.254.169.254:81") && !may(&grants, "169.254.169.253:80"));
        assert!(may(&grants, "127.3.2.1:5001") && !may(&grants, "127.3.2.1:5002"));
        assert!(!may(&grants, "93.184.216.34:443"), "a list narrows the rest");
    }

    #[test]
    fn names_grant_what_they_resolved_to_and_never_a_forbidden_place() {
        let mut grants = grants(&["example.com:443", "*.cdn.net"], &["bad.cdn.net"]);
        assert!(!may(&grants, "93.184.216.34:443"));
        grants.learn("Example.COM.", "93.184.216.34".parse().unwrap());
        assert!(may(&grants, "93.184.216.34:443") && !may(&grants, "93.184.216.34:80"));
        grants.learn("a.cdn.net", "1.2.3.4".parse().unwrap());
        grants.learn("bad.cdn.net", "1.2.3.5".parse().unwrap());
        assert!(may(&grants, "1.2.3.4:1") && !may(&grants, "1.2.3.5:1"));
        // DNS rebinding.
        for place in ["127.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"] {
            grants.learn("example.com", place.parse().unwrap());
            assert!(!may(&grants, &SocketAddr::new(place.parse().unwrap(), 443).to_string()), "{place}");
            assert!(grants.check_answer("example.com", place.parse().unwrap()).is_err());
        }
        assert!(grants.check_name("example.com").is_ok() && grants.check_name("x.cdn.net").is_ok());
        assert!(grants.check_name("cdn.net").is_err() && grants.check_name("other.org").is_err());
        assert!(grants.check_name("BAD.cdn.net").is_err());
    }

    #[test]
    fn denying_wins() {
        let grants = grants(&["10.0.0.0/8"], &["10.1.0.0/16", "10.2.0.1:22"]);
        assert!(may(&grants, "10.0.0.1:80") && !may(&grants, "10.1.2.3:80"));
        assert!(may(&grants, "10.2.0.1:80") && !may(&grants, "10.2.0.1:22"));
        assert!(grants.check_neighbour("10.1.0.1:80".parse().unwrap()).is_err());
        assert!(grants.check_neighbour("172.17.0.9:80".parse().unwrap()).is_ok(), "a list does not bind neighbours");
    }

    #[test]
    fn neighbours_are_denied_by_name() {
        let mut grants = grants(&[], &["db:5432", "secret"]);
        grants.learn("db", "172.17.0.9".parse().unwrap());
        let may = |to: &str| grants.check_neighbour(to.parse().unwrap()).is_ok();
        assert!(!may("172.17.0.9:5432") && may("172.17.0.9:80") && may("172.17.0.8:5432"));
        assert!(grants.check_neighbours_name("db").is_ok(), "its other ports may be reached");
        assert!(grants.check_neighbours_name("SECRET.").is_err() && grants.check_neighbours_name("web").is_ok());
    }

    #[test]
    fn the_host_is_asked_for_by_name() {
        assert!(grants(&[], &[]).check_host(80).is_err());
        assert!(grants(&["*"], &[]).check_host(80).is_err());
        let grants = grants(&["host.docker.internal:5432"], &[]);
        assert!(grants.check_host(5432).is_ok() && grants.check_host(80).is_err());
    }

    #[test]
    fn a_denial_says_what_would_allow_it() {
        let denial = grants(&[], &[]).check("[::ffff:169.254.169.254]:80".parse().unwrap()).unwrap_err();
        assert_eq!(
            denial.to_string(),
            "network access to 169.254.169.254:80 denied: link-local addresses, where clouds keep credentials, are not \
             reached; --allow-net 169.254.169.254:80 would allow it"
        );
        let denial = grants(&["a.b"], &[]).check_name("x.y").unwrap_err();
        assert!(denial.to_string().ends_with("no --allow-net lists it; --allow-net x.y would allow it"), "{denial}");
    }

    #[test]
    fn wrong_targets() {
        for text in ["", ":80", "a:", "a:0", "a:70000", "a:9-1", "a b", "[::1", "[::1]80", "1.2.3.4/33", "a..b", "-/8"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        for text in
            ["a", "a.b:80", "*", "*:443", "*.a.b:1-9", "1.2.3.4", "10.0.0.0/8:80", "::1", "[::1]:80", "[fe80::/10]:1"]
        {
            assert_eq!(text.parse::<Target>().map(|t| t.to_string()), Ok(text.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_so(text in "[-*a-z0-9:./\\[\\]]{0,20}|\\PC{0,20}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target));
            }
        }

        #[test]
        fn a_mapped_address_is_judged_as_what_it_means(v4: Ipv4Addr, port: u16) {
            let open = grants(&[], &[]);
            let mapped = SocketAddr::new(v4.to_ipv6_mapped().into(), port);
            prop_assert_eq!(open.check(mapped).is_ok(), open.check(SocketAddr::new(v4.into(), port)).is_ok());
        }
    }
}
