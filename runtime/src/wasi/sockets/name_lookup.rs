//! `wasi:sockets/ip-name-lookup`.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::task::Poll;

use wasmtime::component::Resource;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, Network};
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::bindings::ip_name_lookup;
use super::{Result, SocketsView, at_once, failed};
use crate::network::{Fault, Lookup};

/// The addresses of a name, as they become known.
pub enum Addresses {
    Waiting(Box<dyn Lookup>),
    Known(VecDeque<IpAddr>),
    Failed(Fault),
}

impl Addresses {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<()> {
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

impl ip_name_lookup::Host for SocketsView<'_> {
    fn resolve_addresses(&mut self, network: Resource<Network>, name: String) -> Result<Resource<Addresses>> {
        self.table.get(&network)?;
        let addresses = match name.parse() {
            Ok(address) => Addresses::Known([address].into()),
            Err(_) => Addresses::Waiting(self.sockets.network.lookup(&name).map_err(failed)?),
        };
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
        subscribe(self.table, this)
    }

    fn drop(&mut self, this: Resource<Addresses>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
