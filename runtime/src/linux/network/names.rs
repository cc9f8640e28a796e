//! Names in a container's network: an answerer on 127.0.0.11 in the container's network namespace, where docker has it.
//!
//! Names, aliases and short ids of containers on the same network are answered from the store; for everything else the
//! host's servers (or `--dns`) are asked and their answers passed on as they come. It runs in the monitor's poll loop and
//! waits for nobody. A question is forwarded from a socket of its own, connected to the server, so an answer counts if it
//! comes from there with the question's number (RFC 5452); the kernel picks the port. RFC 1035 and RFC 8020 for the rest:
//! a container's name exists, so what it has no record of (an IPv6 address, on most networks) is an empty answer, not an
//! error.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, getsockname, listen, recv, recvfrom, send,
    sendto, socket_with,
};

use super::{conversation, firewall};
use crate::error::{Error, Result};
use crate::linux::process::Child;
use crate::linux::resolver;

/// Where containers ask.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// How long an answer of ours counts, in seconds: docker's.
const LIFE: u32 = 600;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions under way at one time; more are dropped, and asked again by whoever asked.
const MOST: usize = 256;
/// The longest datagram.
const LONGEST: usize = 4096;
/// The longest answer to one who does not say that he takes longer ones (RFC 1035, 4.2.1).
const SHORT: usize = 512;
/// Conversations over TCP at one time.
const CALLERS: usize = 16;

/// In the container's network namespace: the sockets on which containers ask, for datagrams and for streams.
///
/// # Errors
/// The kernel's.
pub fn sockets() -> Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let open = |kind| {
        let socket = socket_with(AddressFamily::INET, kind, flags, None)?;
        bind(&socket, &SocketAddr::from((ADDRESS, 0)))?;
        let port = SocketAddr::try_from(getsockname(&socket)?)?.port();
        Ok((socket, port))
    };
    let opened = open(SocketType::DGRAM).and_then(|(datagrams, udp)| {
        let (streams, tcp) = open(SocketType::STREAM)?;
        listen(&streams, CALLERS as i32)?;
        firewall::redirect(SocketAddrV4::new(ADDRESS, PORT), udp, tcp)?;
        Ok((datagrams, streams))
    });
    opened.map_err(|e: rustix::io::Errno| Error::os("open the sockets for names", e))
}

/// Who knows the names of a network.
pub trait Directory {
    /// The addresses of the containers with this name.
    fn addresses(&self, name: &str) -> Vec<IpAddr>;
    /// The name of the container with this address.
    fn name(&self, address: IpAddr) -> Option<String>;
    /// The container may ask others. One that has no way out must have none by the names that it asks for either.
    fn leads_out(&self) -> bool;
}

/// The answerer of one container.
#[derive(Debug)]
pub struct Answerer {
    socket: File,
    listener: File,
    /// Those who talk over TCP: see [`conversation`].
    conversations: Vec<Child>,
    servers: Vec<IpAddr>,
    /// Questions that were passed on.
    passed: Vec<Passed>,
}

#[derive(Debug)]
struct Passed {
    socket: OwnedFd,
    /// The question's number.
    id: [u8; 2],
    who: SocketAddr,
    question: Vec<u8>,
    /// How many servers have been asked.
    asked: usize,
    until: Instant,
}

/// Why the answerer is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Somebody asks.
    Question,
    /// A server answers.
    Answer(usize),
    /// Somebody calls, to ask over TCP.
    Caller,
    /// Such a conversation is over.
    Hung,
}

impl Answerer {
    /// Answers on these sockets, and passes on to these servers; to the host's when there are none.
    pub fn new((socket, listener): (File, File), servers: &[IpAddr]) -> Self {
        Answerer { socket, listener, conversations: Vec::new(), servers: servers.to_vec(), passed: Vec::new() }
    }

    /// What to poll for reading.
    pub fn polls(&self) -> impl Iterator<Item = (Wake, BorrowedFd<'_>)> {
        let passed = self.passed.iter().enumerate().map(|(at, passed)| (Wake::Answer(at), passed.socket.as_fd()));
        let caller = (self.conversations.len() < CALLERS).then(|| (Wake::Caller, self.listener.as_fd()));
        let hung = self.conversations.iter().map(|child| (Wake::Hung, conversation::ending(child)));
        std::iter::once((Wake::Question, self.socket.as_fd())).chain(passed).chain(caller).chain(hung)
    }

    /// When to call [`Answerer::on_time`].
    pub fn deadline(&self) -> Option<Instant> {
        self.passed.iter().map(|passed| passed.until).min()
    }

    /// Gives up what took too long.
    pub fn on_time(&mut self, now: Instant) {
        let mut late = Vec::new();
        self.passed.retain_mut(|passed| {
            let keep = passed.until > now;
            if !keep {
                late.push((std::mem::take(&mut passed.question), passed.who, passed.asked));
            }
            keep
        });
        for (question, who, asked) in late {
            self.pass_on(question, who, asked);
        }
    }

    /// Somebody calls: he is talked with by a process of its own, which looks names up in what `directory` makes.
    pub fn called<D: Directory>(&mut self, directory: impl FnOnce() -> D) {
        // Who has hung up is gone; who cannot be served now asks again.
        if let Ok(child) = conversation::begin(&self.listener, &self.servers, directory) {
            self.conversations.push(child);
        }
    }

    /// Does what has become possible, but for callers: see [`Answerer::called`].
    pub fn woken(&mut self, wake: Wake, directory: &dyn Directory) {
        let mut bytes = [0; LONGEST];
        match wake {
            Wake::Question => {
                // A burst, but not for ever: others wait too.
                for _ in 0..32 {
                    let Ok((length, _, Some(from))) = recvfrom(&self.socket, &mut bytes, RecvFlags::DONTWAIT) else {
                        return;
                    };
                    let Ok(who) = SocketAddr::try_from(from) else { continue };
                    let question = &bytes[..length.min(LONGEST)];
                    match answer(question, directory) {
                        Some(answer) => self.tell(&fitting(question, answer), who),
                        None if directory.leads_out() => self.pass_on(question.to_vec(), who, 0),
                        None => self.fail(question, who),
                    }
                }
            }
            Wake::Caller => {}
            Wake::Hung => self.conversations.retain(|child| !conversation::is_over(child)),
            Wake::Answer(at) => {
                let Some(passed) = self.passed.get(at) else { return };
                match recv(&passed.socket, &mut bytes, RecvFlags::DONTWAIT) {
                    Ok((length, _)) if bytes[..length.min(LONGEST)].starts_with(&passed.id) => {
                        let passed = self.passed.swap_remove(at);
                        self.tell(&bytes[..length.min(LONGEST)], passed.who);
                    }
                    Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                    // Nobody is there: the next one.
                    Err(_) => {
                        let passed = self.passed.swap_remove(at);
                        self.pass_on(passed.question, passed.who, passed.asked);
                    }
                }
            }
        }
    }

    fn tell(&self, answer: &[u8], who: SocketAddr) {
        // Who does not listen any more is not told.
        let _ = sendto(&self.socket, answer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL, &who);
    }

    /// Asks the next server; says that none answers when there is none.
    fn pass_on(&mut self, question: Vec<u8>, who: SocketAddr, asked: usize) {
        let servers = resolver::servers(&self.servers);
        let id = question.first_chunk().copied();
        for (at, server) in servers.iter().enumerate().skip(asked).filter(|_| self.passed.len() < MOST) {
            let Ok(socket) = resolver::ask_from(*server) else { continue };
            if let Some(id) = id
                && send(&socket, &question, SendFlags::NOSIGNAL).is_ok()
            {
                let until = Instant::now() + PATIENCE;
                return self.passed.push(Passed { socket, id, who, question, asked: at + 1, until });
            }
        }
        self.fail(&question, who);
    }

    fn fail(&self, question: &[u8], who: SocketAddr) {
        if let Some(failure) = failure(question) {
            self.tell(&failure, who);
        }
    }
}

/// The answer as a datagram: without its records, and marked so, if it is too long for who asks.
fn fitting(question: &[u8], answer: Vec<u8>) -> Vec<u8> {
    let Ok(question) = Message::from_vec(question) else { return answer };
    let most = question.edns.as_ref().map_or(SHORT, |edns| usize::from(edns.max_payload())).clamp(SHORT, LONGEST);
    if answer.len() <= most {
        return answer;
    }
    let mut short = reply(&question, ResponseCode::NoError);
    short.metadata.authoritative = true;
    short.metadata.truncation = true;
    short.to_vec().unwrap_or(answer)
}

/// Our answer to a question; `None` when it is not about a container.
pub(super) fn answer(bytes: &[u8], directory: &dyn Directory) -> Option<Vec<u8>> {
    let question = Message::from_vec(bytes).ok()?;
    let [query] = question.queries.as_slice() else { return None };
    if question.metadata.message_type != MessageType::Query || question.metadata.op_code != OpCode::Query {
        return None;
    }
    let name = query.name().to_ascii();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let mut records = Vec::new();
    match query.query_type() {
        RecordType::A | RecordType::AAAA | RecordType::ANY => {
            let addresses = directory.addresses(name);
            if addresses.is_empty() {
                return None;
            }
            let (four, six) = (query.query_type() != RecordType::AAAA, query.query_type() != RecordType::A);
            records.extend(addresses.into_iter().filter_map(|address| match address {
                IpAddr::V4(ip) => four.then_some(RData::A(A(ip))),
                IpAddr::V6(ip) => six.then_some(RData::AAAA(AAAA(ip))),
            }));
        }
        RecordType::PTR => {
            let found = directory.name(reverse(name)?)?;
            records.push(RData::PTR(PTR(Name::from_ascii(format!("{found}.")).ok()?)));
        }
        _ if directory.addresses(name).is_empty() => return None,
        _ => {}
    }
    let mut answer = reply(&question, ResponseCode::NoError);
    answer.metadata.authoritative = true;
    let owner = query.name().clone();
    answer.add_answers(records.into_iter().map(|data| Record::from_rdata(owner.clone(), LIFE, data)));
    answer.to_vec().ok()
}

/// The address in a name like `2.0.17.172.in-addr.arpa`, or of 32 digits and `ip6.arpa` (RFC 3596).
fn reverse(name: &str) -> Option<IpAddr> {
    let name = name.to_ascii_lowercase();
    if let Some(digits) = name.strip_suffix(".ip6.arpa") {
        let digits: Vec<u32> = digits.split('.').map_while(|d| u32::from_str_radix(d, 16).ok()).collect();
        let whole = digits.len() == 32 && digits.iter().all(|digit| *digit < 16);
        let bits = digits.iter().rev().fold(0u128, |bits, digit| bits << 4 | u128::from(*digit));
        return whole.then(|| Ipv6Addr::from_bits(bits).into());
    }
    let parts: Vec<u8> = name.strip_suffix(".in-addr.arpa")?.split('.').map_while(|part| part.parse().ok()).collect();
    match parts[..] {
        [d, c, b, a] => Some(Ipv4Addr::new(a, b, c, d).into()),
        _ => None,
    }
}

/// What is said when nobody knows.
pub(super) fn failure(bytes: &[u8]) -> Option<Vec<u8>> {
    reply(&Message::from_vec(bytes).ok()?, ResponseCode::ServFail).to_vec().ok()
}

fn reply(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.response_code = code;
    answer.add_queries(question.queries.iter().cloned());
    answer
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Query;

    use super::*;

    struct One;

    impl Directory for One {
        fn addresses(&self, name: &str) -> Vec<IpAddr> {
            let six = || Ipv6Addr::from_bits(0xfd00 << 112 | 2).into();
            match name.to_ascii_lowercase().as_str() {
                "db" => vec![Ipv4Addr::new(10, 0, 0, 2).into()],
                "both" => vec![Ipv4Addr::new(10, 0, 0, 3).into(), six()],
                _ => Vec::new(),
            }
        }

        fn name(&self, address: IpAddr) -> Option<String> {
            let known = ["10.0.0.2", "fd00::2"].map(|text| text.parse::<IpAddr>());
            known.contains(&Ok(address)).then(|| "db.net".to_owned())
        }

        fn leads_out(&self) -> bool {
            true
        }
    }

    fn ask(name: &str, kind: RecordType) -> Option<Message> {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        answer(&question.to_vec().unwrap(), &One).map(|bytes| Message::from_vec(&bytes).unwrap())
    }

    #[test]
    fn containers_are_known_and_others_are_not() {
        let found = ask("Db.", RecordType::A).unwrap();
        assert_eq!((found.metadata.id, found.metadata.response_code), (7, ResponseCode::NoError));
        assert!(matches!(&found.answers[..], [one] if one.data == RData::A(A(Ipv4Addr::new(10, 0, 0, 2)))));
        let six = ask("db.", RecordType::AAAA).unwrap();
        assert_eq!((six.answers.len(), six.metadata.response_code), (0, ResponseCode::NoError));
        let back = ask("2.0.0.10.in-addr.arpa.", RecordType::PTR).unwrap();
        assert!(matches!(&back.answers[..], [one] if one.data.to_string() == "db.net."));
        let both = |kind| ask("both.", kind).unwrap().answers.iter().map(|a| a.data.to_string()).collect::<Vec<_>>();
        assert_eq!((both(RecordType::A), both(RecordType::AAAA)), (vec!["10.0.0.3".into()], vec!["fd00::2".into()]));
        let back = format!("2.{}d.f.ip6.arpa.", "0.".repeat(29));
        assert!(
            matches!(&ask(&back, RecordType::PTR).unwrap().answers[..], [one] if one.data.to_string() == "db.net.")
        );
        assert!(ask("2.0.d.f.ip6.arpa.", RecordType::PTR).is_none());
        assert!(ask("example.org.", RecordType::A).is_none());
        assert!(ask("9.0.0.10.in-addr.arpa.", RecordType::PTR).is_none());
        assert!(answer(b"\x00\x07garbage", &One).is_none());
        assert!(answer(b"", &One).is_none());
    }

    #[test]
    fn what_is_too_long_for_a_datagram_is_marked_so() {
        struct Many;
        impl Directory for Many {
            fn addresses(&self, _: &str) -> Vec<IpAddr> {
                (0..60).map(|n| Ipv4Addr::new(10, 0, 0, n).into()).collect()
            }

            fn name(&self, _: IpAddr) -> Option<String> {
                None
            }

            fn leads_out(&self) -> bool {
                true
            }
        }
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii("many.").unwrap(), RecordType::A));
        let told = |question: &Message| {
            let bytes = question.to_vec().unwrap();
            let told = fitting(&bytes, answer(&bytes, &Many).unwrap());
            let told = Message::from_vec(&told).unwrap();
            (told.metadata.truncation, told.answers.len())
        };
        assert_eq!(told(&question), (true, 0));
        let mut edns = hickory_proto::op::Edns::new();
        edns.set_max_payload(1232);
        question.edns = Some(edns);
        assert_eq!(told(&question), (false, 60));
    }
}
