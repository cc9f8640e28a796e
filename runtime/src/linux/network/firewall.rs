//! The packet filter of an instance: one nf_tables table of its own, written as a whole.
//!
//! The `nft` program is not needed, and its start would cost more than a container's. All of a table goes to the kernel in
//! one batch, which it takes as one transaction: at no moment is there half a firewall. A published port is an element of
//! a map, so publishing one is one message, and neither more rules nor slower ones.
//!
//! What the table says, in the words of nft(8), for the bridges `b1` (10.0.0.0/24) and `b2`, which is internal:
//!
//! ```text
//! table ip wharf {
//!     set bridges { type ifname; elements = { b1, b2 } }
//!     set internal { type ifname; elements = { b2 } }
//!     set same { type ifname . ifname; elements = { b1 . b1, b2 . b2 } }
//!     map ports { type inet_proto . inet_service : ipv4_addr . inet_service }
//!     map addressed { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!     chain raw { type filter hook prerouting priority -300;
//!         ip daddr 127.0.0.0/8 iif != lo iifname @bridges drop    # route_localnet is for answers only
//!     }
//!     chain prerouting { type nat hook prerouting priority -100;
//!         fib daddr type local dnat ip to ip daddr . meta l4proto . th dport map @addressed
//!         fib daddr type local dnat ip to meta l4proto . th dport map @ports
//!     }
//!     chain output { type nat hook output priority -100; (the same) }
//!     chain forward { type filter hook forward priority 0;
//!         iifname . oifname @same accept                          # within a network
//!         iifname @internal drop                                  # no way out
//!         oifname @internal drop                                  # nor in
//!         oifname @bridges ct state established,related accept    # answers
//!         oifname @bridges ct status dnat accept                  # published ports
//!         oifname @bridges drop                                   # networks are apart, and nothing else gets in
//!     }
//!     chain postrouting { type nat hook postrouting priority 100;
//!         oifname @bridges ip saddr 127.0.0.0/8 masquerade        # the host, by its loopback
//!         ip saddr 10.0.0.0/24 oifname != @bridges masquerade     # the way out
//!         ip saddr 10.0.0.0/24 ip daddr 10.0.0.0/24 ct status dnat masquerade  # a container, by its published port
//!     }
//! }
//! ```
//!
//! When a network has IPv6 addresses there is a table `ip6` of the same name too, which says the same of them. Bridges of
//! other networks do not speak IPv6 at all. In the place of its chain `raw` its chain `output` begins with
//! `ip6 daddr ::1 accept`: what is for `::1` cannot leave the loopback, and is [relayed](super::relay).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use rustix::io::Errno;
use rustix::net::netlink;

use super::netlink::{Attributes, DUMP, REQUEST, Requests, Socket};

/// A network as the firewall sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its bridge.
    pub bridge: String,
    /// Its first address.
    pub network: Ipv4Addr,
    /// The length of its prefix.
    pub prefix: u8,
    /// Its first IPv6 address and the length of that prefix, if it has any.
    pub six: Option<(Ipv6Addr, u8)>,
    /// It has no way out.
    pub internal: bool,
}

impl Zone {
    /// Its addresses of this family.
    fn network(&self, family: &Family) -> Option<(Vec<u8>, u8)> {
        match family.number {
            IPV4 => Some((self.network.octets().to_vec(), self.prefix)),
            _ => self.six.map(|(first, prefix)| (first.octets().to_vec(), prefix)),
        }
    }
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    pub protocol: u8,
    /// The host's address, if not all of the container's family.
    pub host: Option<IpAddr>,
    /// The host's port.
    pub port: u16,
    /// The container.
    pub to: SocketAddr,
}

/// A family of addresses, with its own tables.
#[derive(Debug)]
struct Family {
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    number: u32,
    /// Bytes of an address.
    length: u32,
    /// Where addresses lie in the header.
    source: u32,
    destination: u32,
    /// What nft(8) calls an address's type.
    address: u32,
    /// The host itself.
    loopback: (&'static [u8], u8),
}

const INTERNET: Family =
    Family { number: IPV4, length: 4, source: 12, destination: 16, address: 7, loopback: (&[127, 0, 0, 0], 8) };
static FOUR: Family = INTERNET;
/// `NFPROTO_NETDEV`, of whose packets those of IPv4 are looked at: what comes to a device, before anything else sees it.
static DEVICE: Family = Family { number: 5, ..INTERNET };
static SIX: Family = Family {
    number: 10,
    length: 16,
    source: 8,
    destination: 24,
    address: 8,
    loopback: (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 128),
};

impl Family {
    /// That of these published ports' containers.
    fn of(forward: &Forward) -> &'static Family {
        if forward.to.is_ipv4() { &FOUR } else { &SIX }
    }

    /// So many 4-byte registers hold an address.
    fn words(&self) -> u32 {
        self.length / 4
    }
}

/// The table of one instance.
#[derive(Debug)]
pub struct Firewall<'a> {
    socket: Socket,
    table: &'a str,
}

// The names and numbers of linux/netfilter/nf_tables.h.
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const NEW_SET: u16 = 9;
const NEW_ELEMENTS: u16 = 12;
const DELETE_ELEMENTS: u16 = 14;
/// In one list: the length of an attribute has 16 bits, and an error brings the whole message back (netlink(7)).
const MOST_ELEMENTS: usize = 128;
/// Deletes what is there, and does not mind what is not.
const DESTROY_ELEMENTS: u16 = 30;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NLM_F_REQUEST | NLM_F_CREATE`, without an answer unless it fails.
const QUIET: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;
const IPV4: u32 = 2;

// Registers: the 4-byte ones, four of which make one of the old 16-byte ones.
const WORD: u32 = 8;
/// The 16-byte registers 1 and 2, behind one another.
const WIDE: u32 = 1;

const ACCEPT: u32 = 1;
const DROP: u32 = 0;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const META_PROTOCOL: u32 = 1;
const META_IIF: u32 = 4;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// `established`, `related`.
const STATES: u32 = 2 | 4;
/// `IPS_DST_NAT`.
const DNAT: u32 = 0x20;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
/// `LOOPBACK_IFINDEX`: the number of each namespace's own loopback.
const LOOPBACK: u32 = 1;
/// `ETH_P_IP`, as it is in a packet.
const PROTOCOL_IPV4: [u8; 2] = [8, 0];

/// Where ports lie in the headers of UDP and TCP.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

// What nft(8) calls the types, so that it can show the sets.
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_IFNAME: u32 = 41;

/// The bytes of an interface's name in a register.
const NAME: usize = 16;

fn types(list: &[u32]) -> u32 {
    list.iter().fold(0, |all, one| all << 6 | one)
}

impl<'a> Firewall<'a> {
    /// The table of this name, in this process's network namespace.
    ///
    /// # Errors
    /// The kernel's; `ENOPROTOOPT`, `EAFNOSUPPORT` or `EPROTONOSUPPORT` without nf_tables.
    pub fn open(table: &'a str) -> Result<Self, Errno> {
        Ok(Firewall { socket: Socket::open(Some(netlink::NETFILTER))?, table })
    }

    /// True if the table is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn exists(&self) -> Result<bool, Errno> {
        let mut requests = Requests::default();
        requests.add(kind(GET_TABLE), REQUEST, &header(IPV4 as u8, 0), |a| {
            a.text(1, self.table);
        });
        match self.socket.ask(&requests) {
            Ok(_) => Ok(true),
            Err((_, Errno::NOENT)) => Ok(false),
            Err((_, e)) => Err(e),
        }
    }

    /// True if the table is there and says something.
    ///
    /// # Errors
    /// The kernel's.
    pub fn has_rules(&self) -> Result<bool, Errno> {
        let mut requests = Requests::default();
        requests.add(kind(GET_RULE), REQUEST | DUMP, &header(IPV4 as u8, 0), |a| {
            a.text(1, self.table);
        });
        match self.socket.ask(&requests) {
            Ok(rules) => Ok(!rules.is_empty()),
            Err((_, Errno::NOENT)) => Ok(false),
            Err((_, e)) => Err(e),
        }
    }

    /// Makes the table say this, whatever it said before.
    ///
    /// # Errors
    /// The kernel's; the table is then as it was.
    pub fn write(&self, zones: &[Zone], forwards: &[Forward]) -> Result<(), Errno> {
        let mut batch = Batch::new(self.table);
        batch.write(&FOUR, zones, forwards);
        let sixes: Vec<Zone> = zones.iter().filter(|zone| zone.six.is_some()).cloned().collect();
        match sixes.is_empty() {
            true => {}
            false => batch.write(&SIX, &sixes, forwards),
        }
        batch.send(&self.socket)
    }

    /// Takes the table away. What is not there is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self) -> Result<(), Errno> {
        // A kernel may have no IPv6.
        for (family, is_needed) in [(&FOUR, true), (&SIX, false)] {
            let mut batch = Batch::new(self.table);
            batch.family = family;
            batch.table();
            batch.add(DELETE_TABLE, |_| ());
            match batch.send(&self.socket) {
                Err(e) if is_needed => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Publishes ports.
    ///
    /// # Errors
    /// The kernel's; `ENOENT` when there is no table.
    pub fn publish(&self, forwards: &[Forward]) -> Result<(), Errno> {
        let mut batch = Batch::new(self.table);
        for family in [&FOUR, &SIX] {
            batch.family = family;
            batch.elements(NEW_ELEMENTS, forwards);
        }
        batch.send(&self.socket)
    }

    /// Takes published ports back. What is not there is no error.
    ///
    /// # Errors
    /// The kernel's.
    pub fn withdraw(&self, forwards: &[Forward]) -> Result<(), Errno> {
        [&FOUR, &SIX].into_iter().try_for_each(|family| match self.take_back(family, DESTROY_ELEMENTS, forwards) {
            // Before Linux 6.3: there what is not there fails, and all else with it.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                forwards.chunks(1).try_for_each(|forward| self.take_back(family, DELETE_ELEMENTS, forward))
            }
            done => done,
        })
    }

    fn take_back(&self, family: &'static Family, message: u16, forwards: &[Forward]) -> Result<(), Errno> {
        if !forwards.iter().any(|forward| Family::of(forward).number == family.number) {
            return Ok(());
        }
        let mut batch = Batch::new(self.table);
        batch.family = family;
        batch.elements(message, forwards);
        match batch.send(&self.socket) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    }
}

/// In a container's network namespace: sends what is for `from` to port `udp` or `tcp` of the same address. So whoever
/// answers there does not hold the port that the address is known by, and a name server in the container can.
///
/// The ports are written over in the packets, both ways. A translation by connections (`nat`) would have the kernel keep
/// account of every connection of the container, which costs small requests a tenth of their rate.
///
/// # Errors
/// The kernel's.
pub fn redirect(from: SocketAddrV4, udp: u16, tcp: u16) -> Result<(), Errno> {
    let firewall = Firewall::open("wharf")?;
    let renamed = |family, chain: fn(&mut Batch<'_>)| {
        let mut batch = Batch::new(firewall.table);
        batch.family = family;
        batch.table();
        chain(&mut batch);
        for (protocol, to) in [(libc::IPPROTO_UDP, udp), (libc::IPPROTO_TCP, tcp)] {
            let (known, own) = (from.port().to_be_bytes(), to.to_be_bytes());
            for (address, offset, old, new) in
                [(FOUR.destination, DESTINATION_PORT, known, own), (FOUR.source, SOURCE_PORT, own, known)]
            {
                batch.rule("names", |r| {
                    r.meta(META_PROTOCOL, WORD).compare(WORD, &PROTOCOL_IPV4, EQUAL);
                    r.address(address, &from.ip().octets(), 32).meta(META_L4PROTO, WORD);
                    r.compare(WORD, &[protocol as u8], EQUAL);
                    r.payload(WORD, 2, offset, 2).compare(WORD, &old, EQUAL);
                    r.immediate(WORD, &new).set_port(WORD, offset, protocol);
                });
            }
        }
        batch.send(&firewall.socket)
    };
    // At the loopback's door it costs other packets nothing. Not every kernel has doors there (CONFIG_NF_TABLES_NETDEV).
    renamed(&DEVICE, |batch| batch.door("names", "lo"))
        .or_else(|_| renamed(&FOUR, |batch| batch.chain("names", "filter", 3, 0)))
}

/// In a container's network namespace: keeps in it what is for its loopback. A socket that is bound to another device sends
/// that there (`SO_BINDTODEVICE`, socket(7)), for which nobody needs a right.
///
/// # Errors
/// The kernel's.
pub fn keep_loopback() -> Result<(), Errno> {
    let firewall = Firewall::open("wharf")?;
    let mut batch = Batch::new(firewall.table);
    batch.table();
    batch.chain("loopback", "filter", 3, 0);
    let (loopback, bits) = FOUR.loopback;
    batch.rule("loopback", |r| {
        r.address(FOUR.destination, loopback, bits);
        r.meta(META_OIFNAME, WIDE).compare(WIDE, &interface("lo"), NOT_EQUAL).verdict(DROP);
    });
    batch.send(&firewall.socket)
}

fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn interface(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    bytes[..name.len().min(NAME - 1)].copy_from_slice(&name.as_bytes()[..name.len().min(NAME - 1)]);
    bytes
}

/// Messages that the kernel takes together or not at all.
struct Batch<'a> {
    table: &'a str,
    /// What the messages are about.
    family: &'static Family,
    requests: Requests,
}

impl<'a> Batch<'a> {
    fn new(table: &'a str) -> Self {
        let mut requests = Requests::default();
        requests.add(BATCH_BEGIN, libc::NLM_F_REQUEST as u16, &header(0, SUBSYSTEM), |_| ());
        Batch { table, family: &FOUR, requests }
    }

    /// A message about the table, whose name is attribute 1 of all of them.
    fn add(&mut self, message: u16, attributes: impl FnOnce(&mut Attributes<'_>)) {
        let table = self.table;
        self.requests.add(kind(message), QUIET, &header(self.family.number as u8, 0), |a| {
            a.text(1, table);
            attributes(a);
        });
    }

    /// The table itself. To make one that is there is no error.
    fn table(&mut self) {
        self.add(NEW_TABLE, |a| {
            a.big(2, 0);
        });
    }

    fn send(mut self, socket: &Socket) -> Result<(), Errno> {
        self.requests.end_batch(BATCH_END, &header(0, SUBSYSTEM));
        socket.ask(&self.requests).map(drop).map_err(|(_, e)| e)
    }

    /// The whole table of a family, in the place of what there was.
    fn write(&mut self, family: &'static Family, zones: &[Zone], forwards: &[Forward]) {
        self.family = family;
        // Deleting what is not there fails, making what is there does not.
        self.table();
        self.add(DELETE_TABLE, |_| ());
        self.table();
        let name = |zone: &Zone| interface(&zone.bridge).to_vec();
        let pair = |zone: &Zone| [interface(&zone.bridge), interface(&zone.bridge)].concat();
        self.set("bridges", 1, types(&[TYPE_IFNAME]), NAME, &zones.iter().map(name).collect::<Vec<_>>());
        let internal = zones.iter().filter(|zone| zone.internal);
        self.set("internal", 2, types(&[TYPE_IFNAME]), NAME, &internal.map(name).collect::<Vec<_>>());
        let both = types(&[TYPE_IFNAME, TYPE_IFNAME]);
        self.set("same", 3, both, 2 * NAME, &zones.iter().map(pair).collect::<Vec<_>>());
        self.map("ports", 4, types(&[TYPE_PROTOCOL, TYPE_PORT]), 8);
        self.map("addressed", 5, types(&[family.address, TYPE_PROTOCOL, TYPE_PORT]), family.length + 8);
        self.elements(NEW_ELEMENTS, forwards);

        let (loopback, bits) = family.loopback;
        if family.number == IPV4 {
            self.chain("raw", "filter", 0, -300);
            self.rule("raw", |r| {
                // What is asked of every packet is asked first.
                r.address(family.destination, loopback, bits);
                r.meta(META_IIF, WORD).compare(WORD, &LOOPBACK.to_ne_bytes(), NOT_EQUAL);
                r.within(META_IIFNAME, "bridges").verdict(DROP);
            });
        }
        for (chain, hook) in [("prerouting", 0), ("output", 3)] {
            self.chain(chain, "nat", hook, -100);
            if family.number != IPV4 && chain == "output" {
                // The kernel itself drops what comes from elsewhere, and does not let the loopback's own packets out.
                self.rule(chain, |r| {
                    r.address(family.destination, loopback, bits).verdict(ACCEPT);
                });
            }
            self.rule(chain, |r| {
                r.for_this_host().payload(WORD, 1, family.destination, family.length);
                r.ports(WORD + family.words()).translate("addressed", family);
            });
            self.rule(chain, |r| {
                r.for_this_host().ports(WORD).translate("ports", family);
            });
        }
        self.chain("forward", "filter", 2, 0);
        self.rule("forward", |r| {
            r.meta(META_IIFNAME, WIDE).meta(META_OIFNAME, WIDE + 1).lookup("same", WIDE, false).verdict(ACCEPT);
        });
        self.rule("forward", |r| {
            r.within(META_IIFNAME, "internal").verdict(DROP);
        });
        self.rule("forward", |r| {
            r.within(META_OIFNAME, "internal").verdict(DROP);
        });
        for (key, bits) in [(CT_STATE, STATES), (CT_STATUS, DNAT)] {
            self.rule("forward", |r| {
                r.within(META_OIFNAME, "bridges").tracked(key, bits).verdict(ACCEPT);
            });
        }
        self.rule("forward", |r| {
            r.within(META_OIFNAME, "bridges").verdict(DROP);
        });
        self.chain("postrouting", "nat", 4, 100);
        self.rule("postrouting", |r| {
            r.within(META_OIFNAME, "bridges").address(family.source, loopback, bits).masquerade();
        });
        for zone in zones.iter().filter(|zone| !zone.internal) {
            let Some((network, prefix)) = zone.network(family) else { continue };
            self.rule("postrouting", |r| {
                r.address(family.source, &network, prefix)
                    .meta(META_OIFNAME, WIDE)
                    .lookup("bridges", WIDE, true)
                    .masquerade();
            });
            self.rule("postrouting", |r| {
                r.address(family.source, &network, prefix).address(family.destination, &network, prefix);
                r.tracked(CT_STATUS, DNAT).masquerade();
            });
        }
    }

    fn set(&mut self, name: &str, id: u32, key_type: u32, key_length: usize, elements: &[Vec<u8>]) {
        self.add(NEW_SET, |a| {
            a.text(2, name).big(3, 0).big(4, key_type).big(5, key_length as u32).big(10, id);
        });
        if !elements.is_empty() {
            self.add(NEW_ELEMENTS, |a| {
                a.text(2, name).nest(3, |list| {
                    for element in elements {
                        list.nest(1, |e| {
                            e.nest(1, |key| {
                                key.put(1, element);
                            });
                        });
                    }
                });
            });
        }
    }

    fn map(&mut self, name: &str, id: u32, key_type: u32, key_length: u32) {
        const MAP: u32 = 8;
        let family = self.family;
        self.add(NEW_SET, |a| {
            a.text(2, name).big(3, MAP).big(4, key_type).big(5, key_length);
            a.big(6, types(&[family.address, TYPE_PORT])).big(7, family.length + 4).big(10, id);
        });
    }

    /// Elements of the maps of published ports, of those of this family.
    fn elements(&mut self, message: u16, forwards: &[Forward]) {
        let port = |port: u16| [&port.to_be_bytes()[..], &[0, 0]].concat();
        for (map, addressed) in [("ports", false), ("addressed", true)] {
            let own = |forward: &&Forward| Family::of(forward).number == self.family.number;
            let mapped = forwards.iter().filter(own).filter(|forward| forward.host.is_some() == addressed);
            for forwards in mapped.collect::<Vec<_>>().chunks(MOST_ELEMENTS) {
                self.add(message, |a| {
                    a.text(2, map).nest(3, |list| {
                        for forward in forwards {
                            let host = forward.host.map(bytes).unwrap_or_default();
                            let key = [&host[..], &[forward.protocol, 0, 0, 0], &port(forward.port)].concat();
                            let value = [&bytes(forward.to.ip())[..], &port(forward.to.port())].concat();
                            list.nest(1, |e| {
                                e.nest(1, |data| {
                                    data.put(1, &key);
                                });
                                if message == NEW_ELEMENTS {
                                    e.nest(2, |data| {
                                        data.put(1, &value);
                                    });
                                }
                            });
                        }
                    });
                });
            }
        }
    }

    fn chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32) {
        self.hooked(name, kind, hook, priority, |_| ());
    }

    /// A chain for what comes to a device (the hook `ingress`).
    fn door(&mut self, name: &str, device: &str) {
        self.hooked(name, "filter", 0, 0, |h| {
            h.text(3, device);
        });
    }

    fn hooked(&mut self, name: &str, kind: &str, hook: u32, priority: i32, at: impl FnOnce(&mut Attributes<'_>)) {
        self.add(NEW_CHAIN, |a| {
            a.text(3, name).nest(4, |h| {
                h.big(1, hook).put(2, &priority.to_be_bytes());
                at(h);
            });
            a.big(5, ACCEPT).text(7, kind);
        });
    }

    fn rule(&mut self, chain: &str, write: impl FnOnce(&mut Rule<'_, '_>)) {
        self.add(NEW_RULE, |a| {
            a.text(2, chain).nest(4, |list| write(&mut Rule(list)));
        });
    }
}

/// A rule's expressions, which the kernel goes through until one does not match.
struct Rule<'r, 'b>(&'r mut Attributes<'b>);

impl Rule<'_, '_> {
    fn expression(&mut self, name: &str, data: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nest(1, |e| {
            e.text(1, name).nest(2, data);
        });
        self
    }

    fn compare(&mut self, register: u32, value: &[u8], operation: u32) -> &mut Self {
        self.expression("cmp", |a| {
            a.big(1, register).big(2, operation).nest(3, |data| {
                data.put(1, value);
            });
        })
    }

    fn meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.expression("meta", |a| {
            a.big(1, register).big(2, key);
        })
    }

    /// An interface's name is (or, inverted, is not) in a set.
    fn lookup(&mut self, set: &str, register: u32, inverted: bool) -> &mut Self {
        self.expression("lookup", |a| {
            a.text(1, set).big(2, register);
            if inverted {
                a.big(5, 1);
            }
        })
    }

    fn within(&mut self, key: u32, set: &str) -> &mut Self {
        self.meta(key, WIDE).lookup(set, WIDE, false)
    }

    fn payload(&mut self, register: u32, base: u32, offset: u32, length: u32) -> &mut Self {
        self.expression("payload", |a| {
            a.big(1, register).big(2, base).big(3, offset).big(4, length);
        })
    }

    /// Writes a port over, and the checksum with it.
    fn set_port(&mut self, register: u32, offset: u32, protocol: libc::c_int) -> &mut Self {
        const INTERNET_CHECKSUM: u32 = 1;
        let checksum = if protocol == libc::IPPROTO_UDP { 6 } else { 16 };
        self.expression("payload", |a| {
            a.big(5, register).big(2, 2).big(3, offset).big(4, 2);
            a.big(6, INTERNET_CHECKSUM).big(7, checksum);
        })
    }

    /// The address at `offset` lies in the network with this first address.
    fn address(&mut self, offset: u32, network: &[u8], prefix: u8) -> &mut Self {
        let mask: Vec<u8> = (0..network.len())
            .map(|byte| {
                let bits = usize::from(prefix).saturating_sub(8 * byte).min(8);
                (0xff00u16 >> bits) as u8
            })
            .collect();
        let first: Vec<u8> = network.iter().zip(&mask).map(|(byte, mask)| byte & mask).collect();
        self.payload(WORD, 1, offset, network.len() as u32).mask(WORD, &mask).compare(WORD, &first, EQUAL)
    }

    fn mask(&mut self, register: u32, mask: &[u8]) -> &mut Self {
        self.expression("bitwise", |a| {
            a.big(1, register).big(2, register).big(3, mask.len() as u32);
            a.nest(4, |data| {
                data.put(1, mask);
            })
            .nest(5, |data| {
                data.put(1, &vec![0; mask.len()]);
            });
        })
    }

    /// The connection's state or status has one of these bits.
    fn tracked(&mut self, key: u32, bits: u32) -> &mut Self {
        self.expression("ct", |a| {
            a.big(1, WORD).big(2, key);
        })
        .mask(WORD, &bits.to_ne_bytes());
        self.compare(WORD, &[0; 4], NOT_EQUAL)
    }

    fn for_this_host(&mut self) -> &mut Self {
        const ADDRESS_TYPE: u32 = 3;
        const BY_DESTINATION: u32 = 2;
        self.expression("fib", |a| {
            a.big(1, WORD).big(2, ADDRESS_TYPE).big(3, BY_DESTINATION);
        });
        self.compare(WORD, &LOCAL.to_ne_bytes(), EQUAL)
    }

    /// Protocol and destination port, in two registers.
    fn ports(&mut self, register: u32) -> &mut Self {
        self.meta(META_L4PROTO, register).payload(register + 1, 2, DESTINATION_PORT, 2)
    }

    /// Sends it to where the map says, by the key in the first registers.
    fn translate(&mut self, map: &str, family: &Family) -> &mut Self {
        const TO_DESTINATION: u32 = 1;
        self.expression("lookup", |a| {
            a.text(1, map).big(2, WORD).big(3, WORD);
        });
        self.expression("nat", |a| {
            a.big(1, TO_DESTINATION).big(2, family.number).big(3, WORD).big(5, WORD + family.words());
        })
    }

    fn immediate(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.expression("immediate", |a| {
            a.big(1, register).nest(2, |data| {
                data.put(1, value);
            });
        })
    }

    fn masquerade(&mut self) -> &mut Self {
        self.expression("masq", |_| ())
    }

    fn verdict(&mut self, verdict: u32) -> &mut Self {
        self.expression("immediate", |a| {
            a.big(1, 0).nest(2, |data| {
                data.nest(2, |v| {
                    v.big(1, verdict);
                });
            });
        })
    }
}
