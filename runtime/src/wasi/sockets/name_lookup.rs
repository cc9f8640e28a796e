//! `wasi:sockets/ip-name-lookup`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable};

use super::bindings::ip_name_lookup;
use super::{Result, SocketsView, failed};
use crate::network::{Fault, Lookup, VirtualNetwork};
use crate::wasi::io::{Ready, at_once, subscribe};

/// The addresses of a name, as they become known.
pub enum Addresses {
    Waiting(Box<dyn Lookup>),
    Known(VecDeque<IpAddr>),
    Failed(Fault),
}

impl Addresses {
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Addresses::Waiting(lookup) = self {
            *self = match std::task::ready!(lookup.poll(cx)) {
                Ok(addresses) => Addresses::Known(addresses.into()),
                Err(fault) => Addresses::Failed(fault),
            };
        }
        Poll::Ready(())
    }
}

#[async_trait]
impl Pollable for Addresses {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }
}

impl Ready for Addresses {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx)
    }
}

/// The address that `name` is, with or without an URL's brackets. IPv4 addresses never have the form of IPv6 ones.
fn address(name: &str) -> Option<IpAddr> {
    let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let address = match bracketed {
        Some(name) => name.parse::<Ipv6Addr>().ok()?.into(),
        None => name.parse::<IpAddr>().ok()?,
    };
    Some(address.to_canonical())
}

/// "Unicode domain names are automatically converted to ASCII using IDNA encoding."
fn in_ascii(name: &str) -> std::result::Result<Cow<'_, str>, Fault> {
    match name.is_ascii() {
        true => Ok(name.into()),
        false => Ok(idna::domain_to_ascii(name).map_err(|_| Fault::InvalidArgument)?.into()),
    }
}

impl Addresses {
    /// Begins to look up a name on `network`, unless it is an address already.
    pub fn of(name: &str, network: &dyn VirtualNetwork) -> std::result::Result<Self, Fault> {
        match address(name) {
            Some(address) => Ok(Addresses::Known([address].into())),
            None => Ok(Addresses::Waiting(network.lookup(&in_ascii(name)?)?)),
        }
    }
}

impl ip_name_lookup::Host for SocketsView<'_> {
    fn resolve_addresses(&mut self, network: Resource<Network>, name: String) -> Result<Resource<Addresses>> {
        self.table.get(&network)?;
        let addresses = Addresses::of(&name, &*self.sockets.network).map_err(failed)?;
        Ok(self.table.push(addresses)?)
    }
}

impl ip_name_lookup::HostResolveAddressStream for SocketsView<'_> {
    fn resolve_next_address(&mut self, this: Resource<Addresses>) -> Result<Option<IpAddress>> {
        let addresses = self.table.get_mut(&this)?;
        if addresses.poll(&mut at_once()).is_pending() {
            return Err(ErrorCode::WouldBlock.into());
        }
        match addresses {
            Addresses::Waiting(_) => Err(ErrorCode::WouldBlock.into()),
            Addresses::Known(known) => Ok(known.pop_front().map(Into::into)),
            Addresses::Failed(fault) => Err(failed(*fault)),
        }
    }

    fn subscribe(&mut self, this: Resource<Addresses>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, &this)
    }

    fn drop(&mut self, this: Resource<Addresses>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_is_not_looked_up() {
        let is = |name: &str, text: &str| assert_eq!(address(name).map(|at| at.to_string()).as_deref(), Some(text));
        is("127.0.0.1", "127.0.0.1");
        is("2001:DB8:0::0", "2001:db8::");
        is("[::1]", "::1");
        is("::ffff:10.0.0.1", "10.0.0.1");
        for name in ["[127.0.0.1]", "[::]:80", "127.0.0.1:80", "[::1", "::1]", "", "localhost"] {
            assert_eq!(address(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_all_scripts_are_looked_up_in_ascii() {
        assert_eq!(in_ascii("b\u{fc}cher.example").unwrap(), "xn--bcher-kva.example");
        assert_eq!(in_ascii("_dns.Example").unwrap(), "_dns.Example");
        assert!(in_ascii("b\u{fc}cher..example\u{fffe}").is_err());
    }
}
