//! Published ports that the packet filter cannot lead to a Linux container: those of the IPv6 loopback, and IPv6 where the
//! container has none. Its monitor relays them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::networks::{Machine, inside};
use crate::support::{Wharf, eventually, tool};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn start(wharf: &Wharf, name: &str, flags: &[&str]) {
    wharf.ok(&[&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "1000"]].concat());
}

/// A server of the container's.
fn server(wharf: &Wharf, name: &str, at: &'static str) -> TcpListener {
    inside(wharf, name, move || TcpListener::bind(at).expect("a port of the container"))
}

fn call(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).expect("a published port");
    stream.set_read_timeout(PATIENCE).expect("a time limit");
    stream
}

/// What the container says to whoever comes, as he hears it.
fn hears(listener: &TcpListener, port: u16, word: &str) -> String {
    let mut outside = call(port);
    let (mut own, _) = listener.accept().expect("a caller");
    own.write_all(word.as_bytes()).expect("said");
    drop(own);
    let mut heard = String::new();
    outside.read_to_string(&mut heard).expect("an answer");
    heard
}

#[test]
fn the_ipv6_loopback_is_a_place_to_publish() {
    let wharf = Wharf::with_busybox();
    start(&wharf, "web", &["-p", "[::1]:28780:80", "-p", "28781:81", "-p", "[::1]:28782:53/udp"]);
    assert_eq!(
        wharf.ok(&["port", "web"]),
        "53/udp -> [::1]:28782\n80/tcp -> [::1]:28780\n81/tcp -> 0.0.0.0:28781\n81/tcp -> [::]:28781"
    );
    // While nobody listens there.
    let heard = call(28780).read(&mut [0; 1]).map_err(|e| e.kind());
    assert_eq!(heard, Err(ErrorKind::ConnectionReset));
    let (first, second) = (server(&wharf, "web", "0.0.0.0:80"), server(&wharf, "web", "0.0.0.0:81"));
    assert_eq!(hears(&first, 28780, "first"), "first");
    assert_eq!(hears(&second, 28781, "second"), "second");
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, 28780)).is_err(), "published on ::1 and nowhere else");

    // Each half ends on its own.
    let mut outside = call(28780);
    outside.write_all(b"a question").expect("said");
    outside.shutdown(Shutdown::Write).expect("no more");
    let (mut own, from) = first.accept().expect("a caller");
    own.set_read_timeout(PATIENCE).expect("a time limit");
    let gateway = wharf.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.Gateway}}{{end}}", "web"]);
    assert_eq!(from.ip().to_string(), gateway);
    let mut question = String::new();
    own.read_to_string(&mut question).expect("all of it");
    assert_eq!(question, "a question");
    own.write_all(b"an answer").expect("said");
    drop(own);
    let mut answer = String::new();
    outside.read_to_string(&mut answer).expect("all of it");
    assert_eq!(answer, "an answer");

    // Whoever goes without a word is gone at the other end too.
    let outside = call(28780);
    let (mut own, _) = first.accept().expect("a caller");
    own.set_read_timeout(PATIENCE).expect("a time limit");
    rustix::net::sockopt::set_socket_linger(&outside, Some(Duration::ZERO)).expect("a socket");
    drop(outside);
    assert_eq!(own.read(&mut [0; 1]).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
    let mut outside = call(28780);
    let (own, _) = first.accept().expect("a caller");
    rustix::net::sockopt::set_socket_linger(&own, Some(Duration::ZERO)).expect("a socket");
    drop(own);
    assert_eq!(outside.read(&mut [0; 1]).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));

    // More than anybody keeps, in both directions at once, to one who begins to read late; and others are served meanwhile.
    const MUCH: usize = 24 << 20;
    let bulk: Vec<u8> = (0..MUCH).map(|at| (at / 977) as u8).collect();
    let (mut outside, (mut own, _)) = (call(28780), first.accept().expect("a caller"));
    std::thread::scope(|scope| {
        for stream in [&outside, &own] {
            let (mut stream, bulk) = (stream.try_clone().expect("dup"), &bulk);
            scope.spawn(move || stream.write_all(bulk).and_then(|()| stream.shutdown(Shutdown::Write)).expect("sent"));
        }
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(hears(&second, 28781, "meanwhile"), "meanwhile");
        for stream in [&mut own, &mut outside] {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("all of it");
            assert!(all == bulk, "{} bytes", all.len());
        }
    });

    // Datagrams: each sender has his own answers.
    let own = inside(&wharf, "web", || UdpSocket::bind("0.0.0.0:53").expect("a socket of the container"));
    own.set_read_timeout(PATIENCE).expect("a time limit");
    let senders = [(); 2].map(|()| UdpSocket::bind("[::1]:0").expect("a socket"));
    let mut bytes = [0; 100];
    for (sender, word) in senders.iter().zip(["one", "two"]) {
        sender.set_read_timeout(PATIENCE).expect("a time limit");
        sender.send_to(word.as_bytes(), "[::1]:28782").expect("sent");
        let (length, from) = own.recv_from(&mut bytes).expect("a datagram");
        assert_eq!(&bytes[..length], word.as_bytes());
        own.send_to(format!("{word} too").as_bytes(), from).expect("sent");
    }
    for (sender, word) in senders.iter().zip(["one too", "two too"]) {
        let (length, from) = sender.recv_from(&mut bytes).expect("an answer");
        assert_eq!((&bytes[..length], from.to_string().as_str()), (word.as_bytes(), "[::1]:28782"));
    }

    // Another one cannot have the port, and when the container has ended anybody can.
    let taken = wharf.exits(125, &["run", "--rm", "-p", "[::1]:28780:80", "busybox", "true"]);
    assert!(taken.stderr.contains("failed to bind host port for [::1]:28780/tcp: address already in use"), "{taken}");
    let mut outside = call(28780);
    let (_own, _) = first.accept().expect("a caller");
    wharf.ok(&["stop", "-t", "0", "web"]);
    assert!(outside.read(&mut [0; 1]).is_ok_and(|n| n == 0) || outside.read(&mut [0; 1]).is_err(), "it is over");
    for port in [28780, 28781] {
        let refused = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).map_err(|e| e.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    }
}

#[test]
fn ipv6_is_relayed_to_the_containers_own_address_of_its_kind() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "--ipv6", "--subnet", "fd00:222:11::/64", "six"]);
    start(&wharf, "web", &["--network", "six", "-p", "28784:80", "-p", "[::1]:28785:80"]);
    // Nobody is at its other address.
    let own = server(&wharf, "web", "[fd00:222:11::2]:80");
    for port in [28784, 28785] {
        eventually("it is reached", Duration::from_secs(10), || {
            // A new address is not in use at once: the kernel makes sure that it is nobody else's.
            (hears(&own, port, "six") == "six").then_some(())
        });
    }
    // It comes to another network that leads out rather, where it has none: its ports are there.
    wharf.ok(&["network", "create", "four"]);
    wharf.ok(&["network", "connect", "--gw-priority", "10", "four", "web"]);
    let own = server(&wharf, "web", "0.0.0.0:80");
    for port in [28784, 28785] {
        assert_eq!(hears(&own, port, "four"), "four");
    }
}

#[test]
fn who_has_no_way_out_has_none_by_published_ports() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "--internal", "--ipv6", "--subnet", "fd00:222:12::/64", "shut"]);
    wharf.ok(&["network", "create", "--ipv6", "--subnet", "fd00:222:13::/64", "six"]);
    start(&wharf, "web", &["-p", "28786:80", "-p", "28787:53/udp"]);
    start(&wharf, "held", &["--network", "shut"]);
    start(&wharf, "free", &["--network", "six"]);
    let web = server(&wharf, "web", "0.0.0.0:80");
    let datagrams = inside(&wharf, "web", || UdpSocket::bind("0.0.0.0:53").expect("a socket of the container"));
    // By the gateway's address, and by that of the link.
    let gateway = |name: &str| wharf.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 1).Gateway}}", name]);
    let links = tool(std::process::Command::new("ip").args(["-o", "-6", "addr"]));
    let bridge = links.lines().find(|line| line.contains(&gateway("shut"))).expect("the bridge");
    let bridge = bridge.split_whitespace().nth(1).expect("a name");
    let of_link = links.lines().find(|line| line.contains(bridge) && line.contains("fe80:")).expect("the link");
    let of_link = of_link.split_whitespace().nth(3).and_then(|word| word.split('/').next()).expect("an address");
    let try_from = |name: &str, to: String| {
        let connects = format!("timeout 10 nc -w 5 {to} 28786 </dev/null; true");
        wharf.run(&["exec", name, "sh", "-c", &connects]).stdout
    };
    web.set_nonblocking(true).expect("a listener");
    assert_eq!(try_from("held", gateway("shut")), "");
    assert_eq!(try_from("held", format!("{of_link}%eth0")), "");
    assert_eq!(web.accept().map_err(|e| e.kind()).err(), Some(ErrorKind::WouldBlock), "nobody came");
    let (to, linked) = (gateway("shut"), of_link.to_owned());
    inside(&wharf, "held", move || {
        let socket = UdpSocket::bind("[::]:0").expect("a socket");
        socket.send_to(b"held", format!("[{to}]:28787")).expect("sent");
        socket.send_to(b"held", format!("[{linked}%2]:28787")).ok();
    });
    // Whoever has a way out has this one.
    let to = gateway("six");
    inside(&wharf, "free", move || {
        UdpSocket::bind("[::]:0").expect("a socket").send_to(b"free", format!("[{to}]:28787")).expect("sent");
    });
    datagrams.set_read_timeout(PATIENCE).expect("a time limit");
    let mut bytes = [0; 10];
    let (length, _) = datagrams.recv_from(&mut bytes).expect("a datagram");
    assert_eq!(&bytes[..length], b"free");
    web.set_nonblocking(false).expect("a listener");
    let waiting = std::thread::spawn(move || web.accept().and_then(|(mut caller, _)| caller.write_all(b"through")));
    assert_eq!(try_from("free", gateway("six")), "through");
    waiting.join().expect("a thread").expect("a caller");
    // One that is on no other network is published nowhere.
    start(&wharf, "alone", &["--network", "shut", "-p", "28788:80"]);
    let _own = server(&wharf, "alone", "[::]:80");
    for host in ["[::1]:28788", "127.0.0.1:28788"] {
        let mut outside = TcpStream::connect(host).expect("the port is held");
        outside.set_read_timeout(PATIENCE).expect("a time limit");
        assert_eq!(outside.read(&mut [0; 1]).map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset), "{host}");
    }
}

#[test]
fn other_machines_reach_a_container_without_ipv6_by_it() {
    let wharf = Wharf::with_busybox();
    let outside = Machine::new(110);
    let ip = |line: String| tool(std::process::Command::new("ip").args(line.split(' ')));
    ip(format!("-n {} addr add fd00:222:110::2/64 dev eth0 nodad", outside.0));
    ip("addr add fd00:222:110::1/64 dev wt110 nodad".to_owned());
    start(&wharf, "web", &["-p", "28790:80", "-p", "[fd00:222:110::1]:28791:80"]);
    let own = server(&wharf, "web", "0.0.0.0:80");
    for port in [28790, 28791] {
        let answered = std::thread::scope(|scope| {
            let asked = scope.spawn(|| outside.run(&format!("nc -w 5 fd00:222:110::1 {port} </dev/null")));
            own.accept().expect("a caller").0.write_all(b"by six").expect("said");
            asked.join().expect("a thread")
        });
        assert_eq!(answered, "by six");
    }
}
