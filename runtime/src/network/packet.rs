//! A datagram with its other end's address, as one packet between monitor and task.
//!
//! A descriptor of the host's for datagrams could send anywhere, past all grants, should a guest break its sandbox. So
//! the monitor keeps those and passes packets on, each judged.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes before the data: family, address, port.
pub const HEADER: usize = 19;

/// The most data that a datagram can carry (UDP over IPv4).
pub const MOST: usize = 65507;

/// The packet of `data` to or from `address`.
pub fn encode(address: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    match address.ip() {
        IpAddr::V4(ip) => {
            packet[0] = 4;
            packet[1..5].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            packet[0] = 6;
            packet[1..17].copy_from_slice(&ip.octets());
        }
    }
    packet[17..19].copy_from_slice(&address.port().to_be_bytes());
    packet.extend_from_slice(data);
    packet
}

/// The address and the data of a packet; `None` when it is none.
pub fn decode(packet: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (header, data) = packet.split_at_checked(HEADER)?;
    let bytes: [u8; 16] = header[1..17].try_into().ok()?;
    let ip: IpAddr = match header[0] {
        4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        6 => Ipv6Addr::from(bytes).into(),
        _ => return None,
    };
    Some((SocketAddr::new(ip, u16::from_be_bytes([header[17], header[18]])), data))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(ip: IpAddr, port: u16, data: Vec<u8>) {
            let address = SocketAddr::new(ip, port);
            let packet = encode(address, &data);
            prop_assert_eq!(decode(&packet), Some((address, data.as_slice())));
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
