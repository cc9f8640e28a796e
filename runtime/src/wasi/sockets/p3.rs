//! `wasi:sockets` 0.3 over the same network: what takes time is waited for, and what is sent and received are the component
//! model's streams.

mod tcp;
mod udp;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use wasmtime::component::{Accessor, Linker, ResourceTableError};
use wasmtime_wasi::p2::bindings::sockets::network::IpAddressFamily as Family;

pub use self::tcp::TcpSocket;
pub use self::udp::UdpSocket;
use super::name_lookup::Addresses;
use super::{Data, HasSockets, SocketsView};
use crate::network::Fault;
use crate::wasi::bindings::p3::sockets::ip_name_lookup::{self, ErrorCode as LookupError};
use crate::wasi::bindings::p3::sockets::types::{
    self, ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};

/// Why a call failed: in a way that the guest is told, or for good.
#[derive(Debug)]
pub enum Failure {
    /// The guest's to handle.
    Fault(Fault),
    /// A handle that is none.
    Trap(wasmtime::Error),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::Fault(fault)
    }
}

impl From<ResourceTableError> for Failure {
    fn from(error: ResourceTableError) -> Self {
        Failure::Trap(error.into())
    }
}

type Result<T, E = Failure> = std::result::Result<T, E>;

/// Gives `linker` the interfaces.
///
/// # Errors
/// When one is there already.
pub(crate) fn add_to_linker<T: HasSockets>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, Data>(linker, T::virtual_sockets)?;
    ip_name_lookup::add_to_linker::<T, Data>(linker, T::virtual_sockets)
}

impl types::Host for SocketsView<'_> {
    fn convert_error_code(&mut self, failure: Failure) -> wasmtime::Result<ErrorCode> {
        match failure {
            Failure::Fault(fault) => Ok(fault.into()),
            Failure::Trap(error) => Err(error),
        }
    }
}

impl ip_name_lookup::Host for SocketsView<'_> {}

impl<T: Send> ip_name_lookup::HostWithStore<T> for Data {
    async fn resolve_addresses(
        store: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, LookupError>> {
        let mut addresses = match store.with(|mut store| Addresses::of(&name, &*store.get().sockets.network)) {
            Ok(addresses) => addresses,
            Err(fault) => return Ok(Err(fault.into())),
        };
        std::future::poll_fn(|cx| addresses.poll(cx)).await;
        Ok(match addresses {
            // "This function never succeeds with 0 results."
            Addresses::Known(known) if known.is_empty() => Err(LookupError::NameUnresolvable),
            Addresses::Known(known) => Ok(known.into_iter().map(Into::into).collect()),
            Addresses::Failed(fault) => Err(fault.into()),
            Addresses::Waiting(_) => Err(LookupError::TemporaryResolverFailure),
        })
    }
}

impl From<Fault> for ErrorCode {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::AccessDenied => ErrorCode::AccessDenied,
            Fault::NotSupported => ErrorCode::NotSupported,
            Fault::InvalidArgument => ErrorCode::InvalidArgument,
            Fault::OutOfMemory => ErrorCode::OutOfMemory,
            Fault::Timeout => ErrorCode::Timeout,
            Fault::InvalidState => ErrorCode::InvalidState,
            Fault::AddressNotBindable => ErrorCode::AddressNotBindable,
            Fault::AddressInUse => ErrorCode::AddressInUse,
            Fault::RemoteUnreachable => ErrorCode::RemoteUnreachable,
            Fault::ConnectionRefused => ErrorCode::ConnectionRefused,
            Fault::ConnectionReset => ErrorCode::ConnectionReset,
            Fault::ConnectionAborted => ErrorCode::ConnectionAborted,
            Fault::DatagramTooLarge => ErrorCode::DatagramTooLarge,
            Fault::Unknown => ErrorCode::Other(None),
            // Version 0.3 has no words for these.
            Fault::NewSocketLimit
            | Fault::NameUnresolvable
            | Fault::TemporaryResolverFailure
            | Fault::PermanentResolverFailure => ErrorCode::Other(Some(fault.to_string())),
        }
    }
}

impl From<Fault> for LookupError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::AccessDenied => LookupError::AccessDenied,
            Fault::InvalidArgument => LookupError::InvalidArgument,
            Fault::NameUnresolvable => LookupError::NameUnresolvable,
            Fault::TemporaryResolverFailure | Fault::Timeout => LookupError::TemporaryResolverFailure,
            Fault::PermanentResolverFailure => LookupError::PermanentResolverFailure,
            other => LookupError::Other(Some(other.to_string())),
        }
    }
}

impl From<IpAddressFamily> for Family {
    fn from(family: IpAddressFamily) -> Self {
        match family {
            IpAddressFamily::Ipv4 => Family::Ipv4,
            IpAddressFamily::Ipv6 => Family::Ipv6,
        }
    }
}

impl From<Family> for IpAddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4 => IpAddressFamily::Ipv4,
            Family::Ipv6 => IpAddressFamily::Ipv6,
        }
    }
}

/// Any address, any port.
fn anywhere(family: Family) -> SocketAddr {
    match family {
        Family::Ipv4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
        Family::Ipv6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

impl From<std::net::IpAddr> for IpAddress {
    fn from(address: std::net::IpAddr) -> Self {
        match address {
            std::net::IpAddr::V4(ip) => IpAddress::Ipv4(ip.octets().into()),
            std::net::IpAddr::V6(ip) => IpAddress::Ipv6(ip.segments().into()),
        }
    }
}

impl From<SocketAddr> for IpSocketAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(at) => {
                IpSocketAddress::Ipv4(Ipv4SocketAddress { port: at.port(), address: at.ip().octets().into() })
            }
            SocketAddr::V6(at) => IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: at.port(),
                flow_info: at.flowinfo(),
                address: at.ip().segments().into(),
                scope_id: at.scope_id(),
            }),
        }
    }
}

impl From<IpSocketAddress> for SocketAddr {
    fn from(address: IpSocketAddress) -> Self {
        match address {
            IpSocketAddress::Ipv4(at) => {
                let (a, b, c, d) = at.address;
                SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), at.port).into()
            }
            IpSocketAddress::Ipv6(at) => {
                let (a, b, c, d, e, f, g, h) = at.address;
                SocketAddrV6::new(Ipv6Addr::new(a, b, c, d, e, f, g, h), at.port, at.flow_info, at.scope_id).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:65535", "[fe80::1]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(IpSocketAddress::from(address)), address);
        }
    }
}
