//! `wasi:sockets` 0.2 over a [`VirtualNetwork`]: the guest's sockets are the container's, never the host's.
//!
//! What is here is the specification's part: states, arguments, options and errors, in the words of the documents of
//! `wit/deps/sockets.wit`. Where a socket really is, and whether it may be, the network says. Nothing here is `async`:
//! what takes time is begun, polled and finished, as the interfaces have it.

mod name_lookup;
pub(crate) mod p3;
mod streams;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::SocketError;
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddressFamily};
use wasmtime_wasi_io::streams::Error;

pub(crate) use self::streams::Lingering;
pub(super) use self::streams::{GuestOutput, Input};
use crate::network::{Fault, SocketOption, VirtualNetwork};

/// What `bindgen!` makes of the interfaces.
#[allow(missing_docs)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "wharf:host/sockets",
        imports: { default: trappable },
        trappable_error_type: { "wasi:sockets/network.error-code" => wasmtime_wasi::p2::SocketError },
        with: {
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:io": wasmtime_wasi_io::bindings::wasi::io,
            "wasi:sockets/network": wasmtime_wasi::p2::bindings::sockets::network,
            "wasi:sockets/tcp.tcp-socket": super::tcp::TcpSocket,
            "wasi:sockets/udp.udp-socket": super::udp::UdpSocket,
            "wasi:sockets/udp.incoming-datagram-stream": super::udp::Incoming,
            "wasi:sockets/udp.outgoing-datagram-stream": super::udp::Outgoing,
            "wasi:sockets/ip-name-lookup.resolve-address-stream": super::name_lookup::Addresses,
        },
        require_store_data_send: true,
    });
    pub(super) use self::wasi::sockets::{ip_name_lookup, tcp, tcp_create_socket, udp, udp_create_socket};
}

type Result<T> = std::result::Result<T, SocketError>;

/// A guest's sockets: what its host functions work on.
#[derive(Clone)]
pub(crate) struct Sockets {
    /// Its network.
    pub network: Arc<dyn VirtualNetwork>,
    /// What it has written and closed, and what is still on its way.
    pub lingering: Arc<Lingering>,
}

/// The sockets and the guest's resources.
pub(crate) struct SocketsView<'a> {
    pub sockets: &'a Sockets,
    pub table: &'a mut ResourceTable,
}

/// Whose host functions have sockets.
pub(crate) trait HasSockets: Send + 'static {
    fn virtual_sockets(&mut self) -> SocketsView<'_>;
}

/// What the other interfaces need of `wasi:sockets/network`: their errors.
impl network::Host for SocketsView<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn network_error_code(&mut self, error: Resource<Error>) -> wasmtime::Result<Option<ErrorCode>> {
        let error = self.table.get(&error)?;
        Ok(error.downcast_ref::<std::io::Error>().map(|e| code(Fault::from(e))))
    }
}

impl network::HostNetwork for SocketsView<'_> {
    fn drop(&mut self, this: Resource<network::Network>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

struct Data;

impl HasData for Data {
    type Data<'a> = SocketsView<'a>;
}

/// Gives `linker` the interfaces, but for `network` and `instance-network`.
///
/// # Errors
/// When one is there already.
pub(crate) fn add_to_linker<T: HasSockets>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    bindings::tcp::add_to_linker::<T, Data>(linker, T::virtual_sockets)?;
    bindings::tcp_create_socket::add_to_linker::<T, Data>(linker, T::virtual_sockets)?;
    bindings::udp::add_to_linker::<T, Data>(linker, T::virtual_sockets)?;
    bindings::udp_create_socket::add_to_linker::<T, Data>(linker, T::virtual_sockets)?;
    bindings::ip_name_lookup::add_to_linker::<T, Data>(linker, T::virtual_sockets)
}

fn code(fault: Fault) -> ErrorCode {
    match fault {
        Fault::Unknown => ErrorCode::Unknown,
        Fault::AccessDenied => ErrorCode::AccessDenied,
        Fault::NotSupported => ErrorCode::NotSupported,
        Fault::InvalidArgument => ErrorCode::InvalidArgument,
        Fault::OutOfMemory => ErrorCode::OutOfMemory,
        Fault::Timeout => ErrorCode::Timeout,
        Fault::InvalidState => ErrorCode::InvalidState,
        Fault::NewSocketLimit => ErrorCode::NewSocketLimit,
        Fault::AddressNotBindable => ErrorCode::AddressNotBindable,
        Fault::AddressInUse => ErrorCode::AddressInUse,
        Fault::RemoteUnreachable => ErrorCode::RemoteUnreachable,
        Fault::ConnectionRefused => ErrorCode::ConnectionRefused,
        Fault::ConnectionReset => ErrorCode::ConnectionReset,
        Fault::ConnectionAborted => ErrorCode::ConnectionAborted,
        Fault::DatagramTooLarge => ErrorCode::DatagramTooLarge,
        Fault::NameUnresolvable => ErrorCode::NameUnresolvable,
        Fault::TemporaryResolverFailure => ErrorCode::TemporaryResolverFailure,
        Fault::PermanentResolverFailure => ErrorCode::PermanentResolverFailure,
    }
}

fn failed(fault: Fault) -> SocketError {
    code(fault).into()
}

/// A socket's family. IPv6 sockets take no IPv4: neither mapped nor compatible addresses.
fn fits(address: IpAddr, family: IpAddressFamily) -> bool {
    match (address, family) {
        (IpAddr::V4(_), IpAddressFamily::Ipv4) => true,
        (IpAddr::V6(ip), IpAddressFamily::Ipv6) => {
            let compatible = ip.segments()[..6] == [0; 6] && !ip.is_unspecified() && !ip.is_loopback();
            ip.to_ipv4_mapped().is_none() && !compatible
        }
        _ => false,
    }
}

/// True for what one host can have as its address.
fn is_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_multicast(),
    }
}

/// True for what a TCP socket of this family can be bound to.
fn may_bind(local: SocketAddr, family: IpAddressFamily) -> bool {
    fits(local.ip(), family) && is_unicast(local.ip())
}

/// True for what a TCP socket of this family can be connected to.
fn may_connect(remote: SocketAddr, family: IpAddressFamily) -> bool {
    may_bind(remote, family) && is_remote(remote)
}

/// True for what something can be sent to.
fn is_remote(address: SocketAddr) -> bool {
    !address.ip().is_unspecified() && address.port() != 0
}

/// A socket's options as the guest has set them, which is how it reads them back. A listener's are those of the
/// connections that it accepts.
#[derive(Debug, Clone)]
struct Options {
    keep_alive: bool,
    idle: u64,
    interval: u64,
    count: u32,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
    /// What differs from the kernel's defaults.
    set: Vec<SocketOption>,
}

const SECOND: u64 = 1_000_000_000;

impl Default for Options {
    /// Linux's: tcp(7), socket(7), ip(7).
    fn default() -> Self {
        Options {
            keep_alive: false,
            idle: 7200 * SECOND,
            interval: 75 * SECOND,
            count: 9,
            hop_limit: 64,
            receive_buffer: 212_992,
            send_buffer: 212_992,
            set: Vec::new(),
        }
    }
}

impl Options {
    /// Remembers a value, brought into the range that Linux knows. Gives what a socket that is open is to be told.
    ///
    /// # Errors
    /// `InvalidArgument` for 0, as every setter has it.
    fn change(&mut self, option: SocketOption) -> std::result::Result<SocketOption, Fault> {
        let option = match option {
            SocketOption::KeepAlive(on) => option_of(&mut self.keep_alive, on, SocketOption::KeepAlive),
            SocketOption::KeepAliveIdle(time) => {
                option_of(&mut self.idle, duration(time)?, SocketOption::KeepAliveIdle)
            }
            SocketOption::KeepAliveInterval(time) => {
                option_of(&mut self.interval, duration(time)?, SocketOption::KeepAliveInterval)
            }
            SocketOption::KeepAliveCount(count) => {
                let count = positive(u64::from(count))?.min(127) as u32;
                option_of(&mut self.count, count, SocketOption::KeepAliveCount)
            }
            SocketOption::HopLimit(hops) => {
                let hops = positive(u64::from(hops))? as u8;
                option_of(&mut self.hop_limit, hops, SocketOption::HopLimit)
            }
            SocketOption::ReceiveBuffer(bytes) => {
                option_of(&mut self.receive_buffer, positive(bytes)?, SocketOption::ReceiveBuffer)
            }
            SocketOption::SendBuffer(bytes) => {
                option_of(&mut self.send_buffer, positive(bytes)?, SocketOption::SendBuffer)
            }
        };
        let kind = std::mem::discriminant(&option);
        self.set.retain(|old| std::mem::discriminant(old) != kind);
        self.set.push(option);
        Ok(option)
    }
}

fn option_of<T: Copy>(place: &mut T, value: T, option: impl Fn(T) -> SocketOption) -> SocketOption {
    *place = value;
    option(value)
}

fn positive(value: u64) -> std::result::Result<u64, Fault> {
    if value == 0 { Err(Fault::InvalidArgument) } else { Ok(value) }
}

/// Whole seconds, from 1 to 32767, are what Linux takes.
fn duration(nanoseconds: u64) -> std::result::Result<u64, Fault> {
    Ok(positive(nanoseconds)?.clamp(SECOND, i16::MAX as u64 * SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_apart() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(fits(ip("1.2.3.4"), IpAddressFamily::Ipv4) && !fits(ip("1.2.3.4"), IpAddressFamily::Ipv6));
        for v6 in ["::1", "::", "2001:db8::1"] {
            assert!(fits(ip(v6), IpAddressFamily::Ipv6) && !fits(ip(v6), IpAddressFamily::Ipv4), "{v6}");
        }
        for trick in ["::ffff:127.0.0.1", "::127.0.0.1"] {
            assert!(!fits(ip(trick), IpAddressFamily::Ipv6), "{trick}");
        }
    }

    #[test]
    fn options_are_read_back_within_their_ranges() {
        let mut options = Options::default();
        assert!(options.change(SocketOption::KeepAliveIdle(0)).is_err());
        options.change(SocketOption::KeepAliveIdle(1)).unwrap();
        options.change(SocketOption::KeepAliveCount(1000)).unwrap();
        options.change(SocketOption::HopLimit(3)).unwrap();
        options.change(SocketOption::HopLimit(4)).unwrap();
        assert_eq!((options.idle, options.count, options.hop_limit, options.set.len()), (SECOND, 127, 4, 3));
        assert!(
            options.change(SocketOption::HopLimit(0)).is_err() && options.change(SocketOption::SendBuffer(0)).is_err()
        );
    }
}
