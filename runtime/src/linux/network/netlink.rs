//! Speaking netlink(7): requests written one behind the other into one buffer, sent with one call, and the kernel's answers.
//!
//! By hand, over a blocking socket. What is asked here is a dozen kinds of messages; `rtnetlink` would bring an async
//! runtime into a process that must stay single-threaded, and its messages would go one by one.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// `NLM_F_REQUEST | NLM_F_ACK`.
pub const REQUEST: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
/// With [`REQUEST`]: makes what must not exist yet.
pub const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// With [`REQUEST`]: gives all there are.
pub const DUMP: u16 = libc::NLM_F_DUMP as u16;
/// An attribute that holds attributes.
const NESTED: u16 = libc::NLA_F_NESTED as u16;

/// The kernel's buffers hold so much without being asked for more (`net.core.wmem_default` is 212 992 bytes).
const LARGE: usize = 128 << 10;
/// What one answer takes of them.
const ANSWER: usize = 1 << 10;

/// Bytes of a message's header.
const HEADER: usize = 16;

/// A connection to the kernel: to the part of it that belongs to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

/// One answer to a dump: what kind it is, and what follows its header.
pub type Answer = (u16, Vec<u8>);

impl Socket {
    /// `None` is `NETLINK_ROUTE`, whose number is 0.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        Ok(Socket { fd })
    }

    /// Sends requests and waits until the kernel has answered the last of them. It takes each for itself, so those after
    /// one that failed are done all the same (but those of a firewall's batch, which holds together).
    ///
    /// # Errors
    /// The first failure, with the number of its request.
    pub fn ask(&self, requests: &Requests) -> Result<Vec<Answer>, (usize, Errno)> {
        let last = requests.count;
        let failed = |e| (0, e);
        // A batch is taken whole or not at all, and what does not fit is not taken; answers that do not fit are lost.
        if requests.bytes.len() > LARGE {
            set_socket_send_buffer_size_force(&self.fd, 2 * requests.bytes.len()).map_err(failed)?;
        }
        if requests.count * ANSWER > LARGE {
            set_socket_recv_buffer_size_force(&self.fd, requests.count * ANSWER).map_err(failed)?;
        }
        sendto(&self.fd, &requests.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map_err(failed)?;
        let mut buffer = vec![0; 32 << 10];
        let mut answers = Vec::new();
        let mut first_error = None;
        loop {
            let (got, _) =
                rustix::io::retry_on_intr(|| recv(&self.fd, &mut buffer[..], RecvFlags::empty())).map_err(failed)?;
            let mut rest = &buffer[..got];
            while let Some((kind, number, payload, after)) = message(rest) {
                rest = after;
                match i32::from(kind) {
                    libc::NLMSG_DONE => return first_error.map_or(Ok(answers), Err),
                    libc::NLMSG_ERROR => {
                        let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        if code != 0 && first_error.is_none() {
                            first_error = Some((number as usize, Errno::from_raw_os_error(-code)));
                        }
                        if number as usize == last {
                            return first_error.map_or(Ok(answers), Err);
                        }
                    }
                    _ => answers.push((kind, payload.to_vec())),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The first message of a buffer: kind, number, what follows the header; and the rest of the buffer.
fn message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let number = u32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
    let payload = bytes.get(HEADER..length)?;
    Some((kind, number, payload, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes in what follows a message's fixed part.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & !NESTED;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Requests, one behind the other, numbered from 1.
#[derive(Debug, Default)]
pub struct Requests {
    bytes: Vec<u8>,
    count: usize,
    /// Where the last one begins.
    last: usize,
}

impl Requests {
    /// Adds one: a kind, flags, the fixed part, and attributes.
    pub fn add(&mut self, kind: u16, flags: u16, fixed: &[u8], attributes: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.last = start;
        self.count += 1;
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend((self.count as u32).to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(fixed);
        self.pad();
        attributes(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Ends a batch of the firewall's: the message before is to be answered, for all; this one never is.
    pub fn end_batch(&mut self, kind: u16, fixed: &[u8]) {
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            let with_answer = u16::from_ne_bytes([flags[0], flags[1]]) | REQUEST;
            flags.copy_from_slice(&with_answer.to_ne_bytes());
        }
        self.add(kind, libc::NLM_F_REQUEST as u16, fixed, |_| ());
        self.count -= 1;
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Attributes being written: length, kind, value, padding.
#[derive(Debug)]
pub struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    /// Bytes.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.within(kind, |attributes| attributes.0.extend(value))
    }

    /// A text, with the zero byte that the kernel wants.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.within(kind, |attributes| attributes.0.extend(value.bytes().chain([0])))
    }

    /// A number in the host's order, as routing wants it.
    pub fn number(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// A number in the network's order, as the firewall wants it.
    pub fn big(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Attributes in an attribute.
    pub fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.within(kind | NESTED, |attributes| inner(attributes))
    }

    /// The fixed part of a message in an attribute, before further attributes.
    pub fn fixed(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn within(&mut self, kind: u16, write: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        let start = self.0.len();
        self.0.extend([0; 4]);
        write(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut requests = Requests::default();
        requests.add(7, REQUEST, &[1, 2, 3, 4], |a| {
            a.text(1, "ab").nest(2, |inner| {
                inner.number(3, 9);
            });
        });
        requests.add(8, REQUEST, &[], |_| ());
        let (kind, number, payload, rest) = message(&requests.bytes).unwrap();
        assert_eq!((kind, number, &payload[..4]), (7, 1, &[1, 2, 3, 4][..]));
        let found: Vec<_> = attributes(&payload[4..]).collect();
        assert_eq!(found[0], (1, &b"ab\0"[..]));
        assert_eq!(attributes(found[1].1).next(), Some((3, &9u32.to_ne_bytes()[..])));
        assert_eq!(message(rest).map(|m| (m.0, m.1)), Some((8, 2)));
        assert!(message(&[1, 2, 3]).is_none());
        assert_eq!(attributes(&[200, 0, 1, 0]).count(), 0, "a length beyond the end");
    }
}
