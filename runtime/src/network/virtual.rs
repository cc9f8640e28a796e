//! The rules of a container's own network, which are the same wherever its sockets really are: which addresses it has,
//! which ports are taken, and where a destination lies.
//!
//! A container's places on networks are told in the order in which they lead out: what goes further goes by the first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::networks::overlap6;
use super::{Endpoint, Fault, Protocol, Six, WasmMode, grants};
use crate::config::{EndpointConfig, HOST_GATEWAY};
use crate::error::Result;

/// Ports for whoever asks for any (RFC 6056; Linux's default range).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// The order in which networks lead out, which is docker's: internal ones do not, then the greatest priority, then by name.
pub fn rank(internal: bool, priority: i64, network: &str) -> (bool, Reverse<i64>, &str) {
    (internal, Reverse(priority), network)
}

/// True when none of a container's networks leads out, or in.
pub fn is_internal(mode: &WasmMode, places: &[Endpoint]) -> bool {
    *mode != WasmMode::Host && places.iter().all(|place| place.internal)
}

/// Brings places into that order. What was asked for says their priorities.
pub fn arrange(places: &mut [Endpoint], wanted: &[EndpointConfig]) {
    let priority = |name: &str| wanted.iter().find(|place| place.network == name).map_or(0, |p| p.gateway_priority);
    places.sort_by(|a, b| {
        let rank_of = |own: &Endpoint| (own.internal, priority(&own.network));
        let ((shut_a, first_a), (shut_b, first_b)) = (rank_of(a), rank_of(b));
        rank(shut_a, first_a, &a.network).cmp(&rank(shut_b, first_b, &b.network))
    });
}

/// What a name leads to: what `find` knows of it on the first of a container's networks that has it, in the order in which
/// they lead out. Docker's containers are also known by their names with their network's behind (`web.back`).
///
/// # Errors
/// Those of `find`.
pub fn look_up<'a, P, T>(
    places: &'a [P],
    network: impl Fn(&'a P) -> &'a str,
    name: &str,
    find: impl Fn(&'a P, &str) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    for full in [false, true] {
        for place in places {
            let name = if full { before(name, network(place)) } else { Some(name) };
            let found = name.map_or(Ok(Vec::new()), |name| find(place, name))?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
    }
    Ok(Vec::new())
}

/// What stands in a name before a network's, and the dot between them.
fn before<'a>(name: &'a str, network: &str) -> Option<&'a str> {
    let (own, last) = name.split_at_checked(name.len().checked_sub(network.len())?)?;
    own.strip_suffix('.').filter(|_| last.eq_ignore_ascii_case(network))
}

impl Six {
    /// True for the addresses of its network.
    fn is_neighbour(&self, address: Ipv6Addr) -> bool {
        overlap6((self.address, self.prefix), (address, 128))
    }
}

impl Endpoint {
    /// The container's addresses on the network, IPv4 first, each with the host's of its family.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + use<> {
        let six = self.six.map(|six| (six.address.into(), six.gateway.into()));
        std::iter::once((self.address.into(), self.gateway.into())).chain(six)
    }

    /// True for the container's addresses on it.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses().any(|(own, _)| own == address)
    }

    /// The container's address of the family of this one.
    pub fn like(&self, other: IpAddr) -> Option<IpAddr> {
        self.addresses().map(|(own, _)| own).find(|own| own.is_ipv4() == other.is_ipv4())
    }
}

/// Where a destination lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// In the container itself.
    Own,
    /// Another container of one of its networks.
    Neighbour(SocketAddr),
    /// The host, on this port.
    Host(u16),
    /// Beyond.
    Outside,
    /// Nowhere.
    Nowhere,
}

/// Where `to` lies for a container that has these places.
pub fn route(mode: &WasmMode, places: &[Endpoint], to: SocketAddr) -> Route {
    if *mode == WasmMode::Host {
        return Route::Outside;
    }
    let meant = grants::canonical(to.ip());
    if meant.is_loopback() {
        return Route::Own;
    }
    if places.is_empty() {
        return Route::Nowhere;
    }
    // An address that means another elsewhere (6to4) means itself where a network has it.
    let ip = if on(places, to.ip()).is_some() { to.ip() } else { meant };
    match on(places, ip) {
        Some(own) if own.has(ip) => Route::Own,
        Some(own) if own.addresses().any(|(_, host)| host == ip) => Route::Host(to.port()),
        Some(_) => Route::Neighbour(SocketAddr::new(ip, to.port())),
        None => Route::Outside,
    }
}

/// The place on the network that has this address.
pub fn on(places: &[Endpoint], address: IpAddr) -> Option<&Endpoint> {
    let is_there = |own: &&Endpoint| match address {
        IpAddr::V4(address) => own.is_neighbour(address),
        IpAddr::V6(address) => own.six.is_some_and(|six| six.is_neighbour(address)),
    };
    places.iter().find(is_there)
}

/// The container's own address towards `to`: what a socket that connects there is called.
pub fn source(places: &[Endpoint], to: IpAddr, port: u16) -> SocketAddr {
    let ip = match to {
        ip if ip.is_loopback() => ip,
        IpAddr::V4(_) => on(places, to).or(places.first()).map_or(Ipv4Addr::LOCALHOST, |own| own.address).into(),
        // Without one towards the outside the host's is used, which is not shown.
        IpAddr::V6(_) => {
            let six = on(places, to).and_then(|own| own.six).or_else(|| first_six(places));
            six.map_or(Ipv6Addr::UNSPECIFIED, |six| six.address).into()
        }
    };
    SocketAddr::new(ip, port)
}

fn first_six(places: &[Endpoint]) -> Option<Six> {
    places.iter().find_map(|own| own.six)
}

/// The loopback's address of the family of this one.
pub fn loopback_like(other: SocketAddr) -> IpAddr {
    if other.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// What a container's own name leads to, IPv4 first.
pub fn own_addresses(places: &[Endpoint]) -> Vec<IpAddr> {
    let mut all: Vec<_> = places.iter().flat_map(|own| own.addresses().map(|(ip, _)| ip)).collect();
    all.sort_by_key(IpAddr::is_ipv6);
    all
}

/// The host as a container's socket of this family sees it: by an address that it can answer to, if there is one.
pub fn host(places: &[Endpoint], v6: bool) -> Option<IpAddr> {
    let six = first_six(places).filter(|_| v6).map(|six| six.gateway.into());
    six.or(places.first().map(|own| own.gateway.into()))
}

/// Where neighbours reach a socket that is bound so, with the numbers of their networks. One of all IPv6 addresses is
/// reached by IPv4 too, as the kernel's are unless they are told not to.
pub fn reached(places: &[Endpoint], bound: SocketAddr) -> Vec<(i64, SocketAddr)> {
    let is_reached = |ip: IpAddr| match bound.ip() {
        all if all.is_unspecified() => all.is_ipv6() || ip.is_ipv4(),
        one => one == ip,
    };
    let at = |own: &Endpoint| {
        let (network, port) = (own.network_id, bound.port());
        let addresses = own.addresses().map(|(ip, _)| ip).filter(|ip| is_reached(*ip));
        addresses.map(|ip| (network, SocketAddr::new(ip, port))).collect::<Vec<_>>()
    };
    places.iter().flat_map(at).collect()
}

/// What `bound` is towards `to`.
pub fn towards(mode: &WasmMode, places: &[Endpoint], bound: SocketAddr, to: SocketAddr) -> SocketAddr {
    // Which of the host's addresses it would be, only the host knows.
    let unknown = *mode == WasmMode::Host && !to.ip().is_loopback();
    if unknown || !bound.ip().is_unspecified() { bound } else { source(places, to.ip(), bound.port()) }
}

/// The addresses that somebody gave a name by hand (`--add-host`). Whether they may be reached is another question.
pub fn given(hosts: &[(String, String)], places: &[Endpoint], name: &str) -> Vec<IpAddr> {
    let gateway = places.first().map(|own| IpAddr::V4(own.gateway));
    let address = |text: &str| if text == HOST_GATEWAY { gateway } else { text.parse().ok() };
    let of_name = hosts.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    of_name.filter_map(|(_, text)| address(text)).collect()
}

/// True if a socket bound to `bound` is reached at `at`.
pub fn covers(bound: SocketAddr, at: SocketAddr) -> bool {
    let same_family = bound.is_ipv4() == at.is_ipv4();
    bound.port() == at.port() && same_family && (bound.ip().is_unspecified() || bound.ip() == at.ip())
}

/// Whom a caller reaches at `at`, of those that are bound to these addresses.
pub fn called<T>(bound: impl Iterator<Item = (SocketAddr, T)> + Clone, at: SocketAddr) -> Option<T> {
    let first = |covers: fn(SocketAddr, SocketAddr) -> bool| bound.clone().find(|(bound, _)| covers(*bound, at));
    first(covers).or_else(|| first(covers_both)).map(|(_, called)| called)
}

/// True if a caller reaches a socket that is bound to `bound` at `at`, when no socket of the family of `at` is there: one of
/// all IPv6 addresses, as [`reached`] has it of neighbours.
fn covers_both(bound: SocketAddr, at: SocketAddr) -> bool {
    at.is_ipv4() && bound.is_ipv6() && bound.ip().is_unspecified() && bound.port() == at.port()
}

/// A socket of one family sees no address of the other: IPv6 callers of an IPv4 socket are the host, as behind docker's
/// proxy; IPv4 callers of an IPv6 socket have mapped addresses.
pub fn in_family(at: SocketAddr, v6: bool, gateway: IpAddr) -> SocketAddr {
    let ip = match at.ip() {
        IpAddr::V4(ip) if v6 => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) if !v6 => match ip.to_ipv4_mapped() {
            Some(ip) => ip.into(),
            None if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            None => gateway,
        },
        same => same,
    };
    SocketAddr::new(ip, at.port())
}

/// The ports that a container's sockets have taken.
#[derive(Debug, Default)]
pub struct PortTable {
    taken: BTreeMap<(Protocol, u16), Vec<IpAddr>>,
    next: u16,
}

impl PortTable {
    /// Takes an address; port 0 stands for any that is free.
    ///
    /// # Errors
    /// `AddressNotBindable` for an address that is not the container's; `AddressInUse`.
    pub fn bind(&mut self, protocol: Protocol, local: SocketAddr, places: &[Endpoint]) -> Result<SocketAddr, Fault> {
        let ip = local.ip();
        let is_own = places.iter().any(|own| own.has(ip));
        if !(ip.is_unspecified() || ip.is_loopback() || is_own) {
            return Err(Fault::AddressNotBindable);
        }
        if local.port() != 0 {
            return self.take(protocol, local).then_some(local).ok_or(Fault::AddressInUse);
        }
        for _ in EPHEMERAL {
            let local = SocketAddr::new(ip, self.ephemeral());
            if self.take(protocol, local) {
                return Ok(local);
            }
        }
        Err(Fault::AddressInUse)
    }

    /// A port for a connection that nobody will look for by it.
    pub fn ephemeral(&mut self) -> u16 {
        let (first, last) = (*EPHEMERAL.start(), *EPHEMERAL.end());
        self.next = if (first..last).contains(&self.next) { self.next + 1 } else { first };
        self.next
    }

    fn take(&mut self, protocol: Protocol, local: SocketAddr) -> bool {
        let takers = self.taken.entry((protocol, local.port())).or_default();
        let clash = |other: &IpAddr| {
            // The families are apart: WASI's IPv6 sockets take no IPv4.
            other.is_ipv4() == local.is_ipv4()
                && (other.is_unspecified() || local.ip().is_unspecified() || *other == local.ip())
        };
        if takers.iter().any(clash) {
            return false;
        }
        takers.push(local.ip());
        true
    }

    /// Gives an address back.
    pub fn release(&mut self, protocol: Protocol, local: SocketAddr) {
        if let Some(takers) = self.taken.get_mut(&(protocol, local.port())) {
            takers.retain(|ip| *ip != local.ip());
            if takers.is_empty() {
                self.taken.remove(&(protocol, local.port()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            network: "bridge".to_owned(),
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

    /// On another network.
    fn second() -> Endpoint {
        Endpoint {
            network: "back".to_owned(),
            network_id: 2,
            address: Ipv4Addr::new(10, 9, 0, 7),
            prefix: 24,
            gateway: Ipv4Addr::new(10, 9, 0, 1),
            number: 1,
            ..endpoint()
        }
    }

    /// With IPv6 addresses too.
    fn with_six() -> Endpoint {
        let six = |text: &str| text.parse().unwrap();
        let six = Six { address: six("fd00:1::5"), prefix: 64, gateway: six("fd00:1::1") };
        Endpoint { network: "six".to_owned(), network_id: 6, six: Some(six), ..second() }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("address")
    }

    #[test]
    fn ipv6_neighbours_are_told_from_the_rest() {
        let (mode, own) = (WasmMode::Network("six".to_owned()), [endpoint(), with_six()]);
        for (to, expected) in [
            ("[fd00:1::5]:80", Route::Own),
            ("[fd00:1::1]:80", Route::Host(80)),
            ("[fd00:1::6]:80", Route::Neighbour(at("[fd00:1::6]:80"))),
            ("[fd00:1::6%3]:80", Route::Neighbour(at("[fd00:1::6]:80"))),
            ("[::ffff:10.9.0.8]:80", Route::Neighbour(at("10.9.0.8:80"))),
            ("[fd00:2::6]:80", Route::Outside),
            ("[fe80::1]:80", Route::Outside),
            ("[::1]:80", Route::Own),
        ] {
            assert_eq!(route(&mode, &own, at(to)), expected, "{to}");
        }
        assert_eq!(route(&mode, &own[..1], at("[fd00:1::6]:80")), Route::Outside);
        // Addresses that mean IPv4 ones elsewhere.
        let six =
            Six { address: "2002:a09:1::5".parse().unwrap(), prefix: 64, gateway: "2002:a09:1::1".parse().unwrap() };
        let odd = [Endpoint { six: Some(six), ..endpoint() }];
        assert_eq!(route(&mode, &odd, at("[2002:a09:1::6]:80")), Route::Neighbour(at("[2002:a09:1::6]:80")));
        let from = |places: &[Endpoint], to: &str| source(places, to.parse().unwrap(), 5).to_string();
        assert_eq!(from(&own, "fd00:1::6"), "[fd00:1::5]:5");
        assert_eq!(from(&own, "2001:db8::1"), "[fd00:1::5]:5");
        assert_eq!((from(&own, "::1"), from(&own[..1], "2001:db8::1")), ("[::1]:5".into(), "[::]:5".into()));
        assert_eq!(host(&own, true), Some("fd00:1::1".parse().unwrap()));
        assert_eq!((host(&own, false), host(&own[..1], true)), (host(&own[..1], false), host(&own, false)));
        let mut table = PortTable::default();
        assert!(table.bind(Protocol::Tcp, at("[fd00:1::5]:80"), &own).is_ok());
        for foreign in ["[fd00:1::6]:81", "[fd00:1::1]:81", "[fd00:2::5]:81"] {
            assert_eq!(table.bind(Protocol::Tcp, at(foreign), &own), Err(Fault::AddressNotBindable), "{foreign}");
        }
    }

    #[test]
    fn sockets_are_reached_at_the_addresses_that_they_are_bound_to() {
        let own = [endpoint(), with_six()];
        let reached = |bound: &str| {
            let all = reached(&own, at(bound)).into_iter().map(|(network, at)| format!("{network} {at}"));
            all.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(reached("0.0.0.0:5"), "1 172.30.0.2:5, 6 10.9.0.7:5");
        assert_eq!(reached("[::]:5"), "1 172.30.0.2:5, 6 10.9.0.7:5, 6 [fd00:1::5]:5");
        assert_eq!(
            (reached("[fd00:1::5]:5"), reached("10.9.0.7:5")),
            ("6 [fd00:1::5]:5".into(), "6 10.9.0.7:5".into())
        );
        assert_eq!(reached("[::1]:5") + &reached("127.0.0.1:5"), "");
        let both = |bound, to| covers_both(at(bound), at(to));
        assert!(both("[::]:5", "127.0.0.1:5") && both("[::]:5", "10.9.0.7:5") && !both("[::]:5", "10.9.0.7:6"));
        assert!(!both("[::1]:5", "127.0.0.1:5") && !both("0.0.0.0:5", "127.0.0.1:5") && !both("[::]:5", "[::1]:5"));
    }

    #[test]
    fn destinations() {
        let mode = WasmMode::Network("bridge".to_owned());
        let own = [endpoint(), second()];
        let to = |text| route(&mode, &own, at(text));
        assert_eq!(to("127.0.0.1:80"), Route::Own);
        assert_eq!(to("127.255.0.9:80"), Route::Own);
        assert_eq!(to("[::1]:80"), Route::Own);
        assert_eq!(to("172.30.0.2:80"), Route::Own);
        assert_eq!(to("[::ffff:127.0.0.1]:80"), Route::Own);
        assert_eq!(to("172.30.0.1:80"), Route::Host(80));
        assert_eq!(to("172.30.9.9:80"), Route::Neighbour(at("172.30.9.9:80")));
        assert_eq!(to("172.31.0.1:80"), Route::Outside);
        assert_eq!(to("[2001:db8::1]:80"), Route::Outside);
        for (second, route) in [
            ("10.9.0.7:80", Route::Own),
            ("10.9.0.1:80", Route::Host(80)),
            ("10.9.0.8:80", Route::Neighbour(at("10.9.0.8:80"))),
            ("10.9.1.8:80", Route::Outside),
        ] {
            assert_eq!(to(second), route, "{second}");
        }
        assert_eq!(route(&mode, &own[..1], at("10.9.0.8:80")), Route::Outside);
        assert_eq!(route(&WasmMode::None, &[], at("1.2.3.4:80")), Route::Nowhere);
        assert_eq!(route(&WasmMode::None, &[], at("127.0.0.1:80")), Route::Own);
        assert_eq!(route(&WasmMode::Host, &[], at("127.0.0.1:80")), Route::Outside);
    }

    #[test]
    fn a_caller_has_the_address_of_the_network_that_he_calls_on() {
        let own = [endpoint(), second()];
        let from = |to: &str| source(&own, to.parse().unwrap(), 5).to_string();
        assert_eq!(from("10.9.0.8"), "10.9.0.7:5");
        assert_eq!(from("172.30.0.9"), "172.30.0.2:5");
        assert_eq!(from("1.2.3.4"), "172.30.0.2:5", "what goes further goes by the first");
        assert_eq!(from("127.0.0.2"), "127.0.0.2:5");
        assert_eq!(source(&[], "1.2.3.4".parse().unwrap(), 5).to_string(), "127.0.0.1:5");
    }

    #[test]
    fn names_are_looked_for_in_the_order_in_which_networks_lead_out() {
        let mut places = [endpoint(), second(), Endpoint { network: "all".into(), internal: true, ..endpoint() }];
        let names = |places: &[Endpoint]| places.iter().map(|own| own.network.clone()).collect::<Vec<_>>();
        arrange(&mut places, &[]);
        assert_eq!(names(&places), ["back", "bridge", "all"]);
        let first = EndpointConfig { gateway_priority: 1, ..EndpointConfig::on("bridge") };
        arrange(&mut places, &[first]);
        assert_eq!(names(&places), ["bridge", "back", "all"]);
        let known =
            [("bridge", "db"), ("back", "db"), ("all", "db"), ("back", "web.all"), ("all", "web"), ("back", "x.y")];
        let found = |name: &str| {
            let on = |own: &Endpoint, name: &str| {
                let known = known.iter().filter(|known| **known == (own.network.as_str(), name));
                Ok(known.map(|(network, _)| *network).collect())
            };
            look_up(&places, |own| &own.network, name, on).unwrap()
        };
        assert_eq!(found("db"), ["bridge"]);
        assert_eq!((found("db.back"), found("db.ALL")), (vec!["back"], vec!["all"]));
        assert_eq!((found("web"), found("web.all")), (vec!["all"], vec!["back"]), "a whole name first");
        assert_eq!(found("x.y.back"), ["back"]);
        for nobody in ["back", ".back", "dbback", "db.other", "x.back", "\u{e9}back", ""] {
            assert!(found(nobody).is_empty(), "{nobody}");
        }
    }

    #[test]
    fn a_socket_of_all_addresses_has_one_towards_another() {
        let own = [endpoint(), second()];
        let network = WasmMode::Network("bridge".to_owned());
        let is = |mode, bound, to| towards(mode, &own, at(bound), at(to)).to_string();
        assert_eq!(is(&network, "0.0.0.0:5", "10.9.0.8:80"), "10.9.0.7:5");
        assert_eq!(is(&network, "[::]:5", "[::1]:80"), "[::1]:5");
        assert_eq!(is(&network, "172.30.0.2:5", "10.9.0.8:80"), "172.30.0.2:5", "it has only that");
        assert_eq!(is(&WasmMode::Host, "0.0.0.0:5", "127.0.0.1:80"), "127.0.0.1:5");
        assert_eq!(is(&WasmMode::Host, "0.0.0.0:5", "10.9.0.8:80"), "0.0.0.0:5", "the host knows");
    }

    #[test]
    fn ports_are_taken_once() {
        let (mut table, own) = (PortTable::default(), [endpoint(), second()]);
        let mut bind = |text| table.bind(Protocol::Tcp, at(text), &own);
        assert_eq!(bind("0.0.0.0:80"), Ok(at("0.0.0.0:80")));
        for taken in ["0.0.0.0:80", "127.0.0.1:80", "172.30.0.2:80"] {
            assert_eq!(bind(taken), Err(Fault::AddressInUse), "{taken}");
        }
        assert!(bind("[::]:80").is_ok(), "the families are apart");
        assert!(bind("127.0.0.1:81").is_ok() && bind("172.30.0.2:81").is_ok() && bind("10.9.0.7:81").is_ok());
        assert_eq!(bind("0.0.0.0:81"), Err(Fault::AddressInUse));
        for foreign in ["172.30.0.3:1", "8.8.8.8:1", "[fe80::1]:1", "172.30.0.1:1", "10.9.0.8:1"] {
            assert_eq!(bind(foreign), Err(Fault::AddressNotBindable), "{foreign}");
        }
        assert!(table.bind(Protocol::Udp, at("0.0.0.0:80"), &[]).is_ok(), "the protocols are apart");
        table.release(Protocol::Tcp, at("0.0.0.0:80"));
        assert!(table.bind(Protocol::Tcp, at("127.0.0.1:80"), &[]).is_ok());
    }

    #[test]
    fn any_port_until_none_is_left() {
        let mut table = PortTable::default();
        let mut seen = std::collections::HashSet::new();
        for _ in EPHEMERAL {
            let local = table.bind(Protocol::Tcp, at("0.0.0.0:0"), &[]).expect("a port");
            assert!(seen.insert(local.port()) && EPHEMERAL.contains(&local.port()));
        }
        assert_eq!(table.bind(Protocol::Tcp, at("0.0.0.0:0"), &[]), Err(Fault::AddressInUse));
        table.release(Protocol::Tcp, at("0.0.0.0:40000"));
        assert_eq!(table.bind(Protocol::Tcp, at("0.0.0.0:0"), &[]), Ok(at("0.0.0.0:40000")));
    }

    #[test]
    fn neighbours_are_told_by_the_prefix() {
        let own = [endpoint()];
        let is_neighbour = |text: &str| on(&own, text.parse().unwrap()).is_some();
        assert!(is_neighbour("172.30.255.1") && !is_neighbour("172.31.0.1") && !is_neighbour("fd00:1::2"));
        let six = [with_six()];
        let is_neighbour = |text: &str| on(&six, text.parse().unwrap()).is_some();
        assert!(is_neighbour("fd00:1::9") && is_neighbour("10.9.0.200") && !is_neighbour("fd00:2::9"));
        assert_eq!(crate::network::Mac::of(own[0].address).to_string(), "02:42:ac:1e:00:02");
    }

    #[test]
    fn addresses_fit_their_socket() {
        let gateway = IpAddr::from([172, 30, 0, 1]);
        let shown = |at: &str, v6| in_family(at.parse().unwrap(), v6, gateway).to_string();
        assert_eq!(shown("10.0.0.1:5", false), "10.0.0.1:5");
        assert_eq!(shown("10.0.0.1:5", true), "[::ffff:10.0.0.1]:5");
        assert_eq!(shown("[::ffff:10.0.0.1]:5", false), "10.0.0.1:5");
        assert_eq!(shown("[::1]:5", false), "127.0.0.1:5");
        assert_eq!(shown("[2001:db8::1]:5", false), "172.30.0.1:5");
        assert_eq!(shown("[2001:db8::1]:5", true), "[2001:db8::1]:5");
    }
}
