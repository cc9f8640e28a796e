//! Bridges and pairs of virtual Ethernet devices, by rtnetlink(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::netdevice::{index_to_name, name_to_index};

use super::netlink::{Attributes, CREATE, DUMP, REQUEST, Requests, Socket, attributes};
use crate::network::Mac;
use crate::network::networks::Wiring;

/// A network interface's flag: it is up.
const UP: u32 = libc::IFF_UP as u32;
/// `IFLA_INFO_SLAVE_KIND`, `IFLA_INFO_SLAVE_DATA`, and of a bridge's port `IFLA_BRPORT_MODE`.
const SLAVE_KIND: u16 = 4;
const SLAVE_DATA: u16 = 5;
const HAIRPIN: u16 = 4;
/// `VETH_INFO_PEER`.
const PEER: u16 = 1;
/// `IFLA_NET_NS_FD`.
const NAMESPACE: u16 = libc::IFLA_NET_NS_FD;

/// The interfaces, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct Links(Socket);

impl Links {
    /// Those of this process's network namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> Result<Self, Errno> {
        Socket::open(None).map(Links)
    }

    /// The number of the interface, if there is one of this name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn index(&self, name: &str) -> Result<Option<u32>, Errno> {
        match name_to_index(self.0.as_fd(), name) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::NODEV | Errno::NXIO) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Makes a bridge with this address, up. True if it is new.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_bridge(&self, name: &str, address: Ipv4Addr, prefix: u8, mtu: Option<u32>) -> Result<bool, Errno> {
        let mut make = Requests::default();
        make.add(libc::RTM_NEWLINK, REQUEST | CREATE, &link(0, 0, 0), |a| {
            // Its own, or it would change with what is connected.
            a.text(libc::IFLA_IFNAME, name).put(libc::IFLA_ADDRESS, &Mac::of(address).0);
            if let Some(mtu) = mtu {
                a.number(libc::IFLA_MTU, mtu);
            }
            a.nest(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "bridge");
            });
        });
        let new = match self.0.ask(&make) {
            Ok(_) => true,
            Err((_, Errno::EXIST)) => false,
            Err((_, e)) => return Err(e),
        };
        let index = self.index(name)?.ok_or(Errno::NODEV)?;
        let mut up = Requests::default();
        add_address(&mut up, index, address.into(), prefix);
        up.add(libc::RTM_NEWLINK, REQUEST, &link(index, UP, UP), |_| ());
        match self.0.ask(&up) {
            Ok(_) | Err((1, Errno::EXIST)) => Ok(new),
            Err((_, e)) => Err(e),
        }
    }

    /// Gives a bridge an IPv6 address, unless it has it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address6(&self, name: &str, address: Ipv6Addr, prefix: u8) -> Result<(), Errno> {
        let index = self.index(name)?.ok_or(Errno::NODEV)?;
        let mut requests = Requests::default();
        add_address(&mut requests, index, address.into(), prefix);
        match self.0.ask(&requests) {
            Ok(_) | Err((_, Errno::EXIST)) => Ok(()),
            Err((_, e)) => Err(e),
        }
    }

    /// Makes a pair of devices in this namespace and another one (`there`): the outer one here, connected to the bridge and
    /// up; the inner one, with its hardware address, there, where [`Links::settle`] is to wake it. The pair goes with
    /// whichever namespace goes first.
    ///
    /// # Errors
    /// The kernel's.
    pub fn make_pair(&self, wiring: &Wiring, there: BorrowedFd<'_>) -> Result<(), Errno> {
        let both = |a: &mut Attributes<'_>, name: &str| {
            a.text(libc::IFLA_IFNAME, name);
            if let Some(mtu) = wiring.mtu {
                a.number(libc::IFLA_MTU, mtu);
            }
        };
        let mut make = Requests::default();
        make.add(libc::RTM_NEWLINK, REQUEST | CREATE, &link(0, UP, UP), |a| {
            both(a, &wiring.outer);
            a.number(libc::IFLA_MASTER, wiring.bridge).nest(libc::IFLA_LINKINFO, |info| {
                info.text(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                    data.nest(PEER, |peer| {
                        // It cannot be up before it has its other end.
                        both(peer.fixed(&link(0, 0, 0)), &wiring.inner);
                        peer.put(libc::IFLA_ADDRESS, &wiring.mac.0);
                        peer.number(NAMESPACE, there.as_raw_fd() as u32);
                    });
                });
            });
        });
        if wiring.hairpin {
            hairpin(&mut make, &wiring.outer);
        }
        self.0.ask(&make).map(drop).map_err(|(_, e)| e)
    }

    /// Connects the outer one of such a pair to a bridge again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn plug(&self, outer: &str, bridge: u32, reflects: bool) -> Result<(), Errno> {
        let mut plug = Requests::default();
        plug.add(libc::RTM_NEWLINK, REQUEST, &link(0, UP, UP), |a| {
            a.text(libc::IFLA_IFNAME, outer).number(libc::IFLA_MASTER, bridge);
        });
        if reflects {
            hairpin(&mut plug, outer);
        }
        self.0.ask(&plug).map(drop).map_err(|(_, e)| e)
    }

    /// Gives new interfaces their places, and the loopback its life. All in one call.
    ///
    /// # Errors
    /// The kernel's.
    pub fn settle(&self, wirings: &[Wiring]) -> Result<(), Errno> {
        let mut requests = Requests::default();
        requests.add(libc::RTM_NEWLINK, REQUEST, &link(1, UP, UP), |_| ());
        for wiring in wirings {
            let index = self.index(&wiring.inner)?.ok_or(Errno::NODEV)?;
            requests.add(libc::RTM_NEWLINK, REQUEST, &link(index, UP, UP), |_| ());
            for (address, prefix, gateway) in families(wiring) {
                add_address(&mut requests, index, address, prefix);
                if wiring.gateway.is_some() {
                    default_route(&mut requests, libc::RTM_NEWROUTE, CREATE, index, gateway, true);
                }
            }
        }
        self.0.ask(&requests).map(drop).map_err(|(_, e)| e)
    }

    /// Gives the one interface its place when no bridge is at its other end: nobody there need answer for the gateway.
    ///
    /// # Errors
    /// The kernel's.
    pub fn settle_alone(&self, wiring: &Wiring) -> Result<(), Errno> {
        let index = self.index(&wiring.inner)?.ok_or(Errno::NODEV)?;
        let mut requests = Requests::default();
        requests.add(libc::RTM_NEWLINK, REQUEST, &link(index, 0, 0), |a| {
            a.put(libc::IFLA_ADDRESS, &wiring.mac.0);
            if let Some(mtu) = wiring.mtu {
                a.number(libc::IFLA_MTU, mtu);
            }
        });
        if let Some(gateway) = wiring.gateway {
            // `struct ndmsg`: family, interface, state.
            let mut header = [0; 12];
            header[0] = libc::AF_INET as u8;
            header[4..8].copy_from_slice(&index.to_ne_bytes());
            header[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
            requests.add(libc::RTM_NEWNEIGH, REQUEST | CREATE, &header, |a| {
                a.put(libc::NDA_DST, &gateway.octets()).put(libc::NDA_LLADDR, &Mac::of(gateway).0);
            });
        }
        self.0.ask(&requests).map_err(|(_, e)| e)?;
        self.settle(std::slice::from_ref(wiring))
    }

    /// Gives an interface its place, of which it may have parts already. It is no way out then: see [`Links::lead_out`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn settle_again(&self, wiring: &Wiring) -> Result<(), Errno> {
        let index = self.index(&wiring.inner)?.ok_or(Errno::NODEV)?;
        let one = |unless: Errno, write: &dyn Fn(&mut Requests)| {
            let mut requests = Requests::default();
            write(&mut requests);
            match self.0.ask(&requests) {
                Err((_, e)) if e != unless => Err(e),
                _ => Ok(()),
            }
        };
        one(Errno::EXIST, &|r| r.add(libc::RTM_NEWLINK, REQUEST, &link(index, UP, UP), |_| ()))?;
        for (address, prefix, gateway) in families(wiring) {
            one(Errno::EXIST, &|r| add_address(r, index, address, prefix))?;
            one(Errno::SRCH, &|r| default_route(r, libc::RTM_DELROUTE, 0, index, gateway, false))?;
        }
        Ok(())
    }

    /// Makes this place the way out. No other one is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn lead_out(&self, wiring: &Wiring) -> Result<(), Errno> {
        let index = self.index(&wiring.inner)?.ok_or(Errno::NODEV)?;
        let mut requests = Requests::default();
        for (_, _, gateway) in families(wiring) {
            default_route(&mut requests, libc::RTM_NEWROUTE, CREATE, index, gateway, true);
        }
        self.0.ask(&requests).map(drop).map_err(|(_, e)| e)
    }

    /// Removes an interface; true if it was there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self, name: &str) -> Result<bool, Errno> {
        let mut requests = Requests::default();
        requests.add(libc::RTM_DELLINK, REQUEST, &link(0, 0, 0), |a| {
            a.text(libc::IFLA_IFNAME, name);
        });
        match self.0.ask(&requests) {
            Ok(_) => Ok(true),
            Err((_, Errno::NODEV)) => Ok(false),
            Err((_, e)) => Err(e),
        }
    }

    /// The names of all interfaces.
    ///
    /// # Errors
    /// The kernel's.
    pub fn names(&self) -> Result<Vec<String>, Errno> {
        let mut requests = Requests::default();
        requests.add(libc::RTM_GETLINK, REQUEST | DUMP, &link(0, 0, 0), |_| ());
        let answers = self.0.ask(&requests).map_err(|(_, e)| e)?;
        let name = |payload: &[u8]| {
            let (_, value) = attributes(payload.get(16..)?).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
            Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned())
        };
        Ok(answers.iter().filter_map(|(_, payload)| name(payload)).collect())
    }

    /// The name of the interface by which packets to this address leave; none if there is no way.
    ///
    /// # Errors
    /// The kernel's.
    pub fn way(&self, to: IpAddr) -> Result<Option<String>, Errno> {
        let (family, bytes) = match to {
            IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
            IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
        };
        // `struct rtmsg`: family, length of the destination, and what the answer is to say.
        let mut header = [0; 12];
        (header[0], header[1]) = (family as u8, bytes.len() as u8 * 8);
        let mut requests = Requests::default();
        requests.add(libc::RTM_GETROUTE, REQUEST, &header, |a| {
            a.put(libc::RTA_DST, &bytes);
        });
        let answers = match self.0.ask(&requests) {
            Ok(answers) => answers,
            Err((_, Errno::NETUNREACH | Errno::HOSTUNREACH)) => return Ok(None),
            Err((_, e)) => return Err(e),
        };
        let index = answers.iter().find_map(|(_, payload)| {
            let (_, value) = attributes(payload.get(12..)?).find(|(kind, _)| *kind == libc::RTA_OIF)?;
            Some(u32::from_ne_bytes(*value.first_chunk()?))
        });
        index.map(|index| index_to_name(self.0.as_fd(), index)).transpose()
    }

    /// All IPv4 addresses of the host's interfaces, with the lengths of their prefixes and the interfaces' numbers.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&self) -> Result<Vec<(Ipv4Addr, u8, u32)>, Errno> {
        let all = self.addresses_of(libc::AF_INET, libc::IFA_LOCAL)?;
        let four =
            |(bytes, prefix, index): (Vec<u8>, _, _)| Some((Ipv4Addr::from(*bytes.first_chunk::<4>()?), prefix, index));
        Ok(all.into_iter().filter_map(four).collect())
    }

    /// All IPv6 addresses of the host's interfaces, with the lengths of their prefixes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses6(&self) -> Result<Vec<(Ipv6Addr, u8)>, Errno> {
        let all = self.addresses_of(libc::AF_INET6, libc::IFA_ADDRESS)?;
        let six = |(bytes, prefix, _): (Vec<u8>, _, _)| Some((Ipv6Addr::from(*bytes.first_chunk::<16>()?), prefix));
        Ok(all.into_iter().filter_map(six).collect())
    }

    fn addresses_of(&self, family: i32, attribute: u16) -> Result<Vec<(Vec<u8>, u8, u32)>, Errno> {
        let mut requests = Requests::default();
        requests.add(libc::RTM_GETADDR, REQUEST | DUMP, &address_header(family as u8, 0, 0), |_| ());
        let answers = self.0.ask(&requests).map_err(|(_, e)| e)?;
        let one = |payload: &[u8]| {
            let index = u32::from_ne_bytes(*payload.get(4..)?.first_chunk()?);
            let (_, value) = attributes(payload.get(8..)?).find(|(kind, _)| *kind == attribute)?;
            Some((value.to_vec(), *payload.get(1)?, index))
        };
        Ok(answers.iter().filter_map(|(_, payload)| one(payload)).collect())
    }
}

/// What comes from this device may go back to it: a container that calls itself by a published port.
fn hairpin(requests: &mut Requests, outer: &str) {
    requests.add(libc::RTM_NEWLINK, REQUEST, &link(0, 0, 0), |a| {
        a.text(libc::IFLA_IFNAME, outer).nest(libc::IFLA_LINKINFO, |info| {
            info.text(SLAVE_KIND, "bridge").nest(SLAVE_DATA, |data| {
                data.put(HAIRPIN, &[1]);
            });
        });
    });
}

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// `struct ifaddrmsg`.
fn address_header(family: u8, prefix: u8, index: u32) -> [u8; 8] {
    // Nobody else has an IPv6 address that we gave: it need not be asked for first.
    let flags = if family == libc::AF_INET6 as u8 { libc::IFA_F_NODAD as u8 } else { 0 };
    let mut header = [family, prefix, flags, 0, 0, 0, 0, 0];
    header[4..].copy_from_slice(&index.to_ne_bytes());
    header
}

/// The addresses of a place, of each family, with the ways out that they would have.
fn families(wiring: &Wiring) -> impl Iterator<Item = (IpAddr, u8, Option<IpAddr>)> {
    let four = (wiring.address.into(), wiring.prefix, wiring.gateway.map(IpAddr::from));
    let six = wiring.six.map(|six| (six.address.into(), six.prefix, Some(six.gateway.into())));
    std::iter::once(four).chain(six)
}

fn bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(ip) => (libc::AF_INET as u8, ip.octets().to_vec()),
        IpAddr::V6(ip) => (libc::AF_INET6 as u8, ip.octets().to_vec()),
    }
}

fn add_address(requests: &mut Requests, index: u32, address: IpAddr, prefix: u8) {
    let (family, own) = bytes(address);
    requests.add(libc::RTM_NEWADDR, REQUEST | CREATE, &address_header(family, prefix, index), |a| {
        a.put(libc::IFA_LOCAL, &own).put(libc::IFA_ADDRESS, &own);
        if let IpAddr::V4(address) = address
            && prefix < 31
        {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            a.put(libc::IFA_BROADCAST, &(u32::from(address) | !mask).to_be_bytes());
        }
    });
}

/// The way to everywhere else, by an interface: to be made by this gateway, or to be taken away.
fn default_route(requests: &mut Requests, kind: u16, flags: u16, index: u32, gateway: Option<IpAddr>, made: bool) {
    let (family, gateway) = gateway.map_or((libc::AF_INET as u8, Vec::new()), bytes);
    // `struct rtmsg`: family, lengths of destination and source, type of service, table, protocol, scope, type, flags.
    let header = [
        family,
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ];
    requests.add(kind, REQUEST | flags, &header, |a| {
        if made {
            a.put(libc::RTA_GATEWAY, &gateway);
        }
        a.number(libc::RTA_OIF, index);
    });
}
