//! Virtual sockets: what a guest's network reaches, and what it does not.
//!
//! The guest is `tests/guests/net.rs`, which knows nothing of Wharf.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::support::{Wharf, eventually, images, wharf};

const PATIENCE: Duration = Duration::from_secs(60);

fn with_net() -> Wharf {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("net-p2"), "-t", "net"]);
    wharf
}

/// Starts a server in the background and waits until it listens.
fn serve(wharf: &Wharf, name: &str, flags: &[&str], args: &[&str]) {
    let mut all = vec!["run", "-d", "--name", name];
    all.extend(flags);
    all.push("net");
    all.extend(args);
    wharf.ok(&all);
    ready(wharf, name);
}

fn ready(wharf: &Wharf, name: &str) {
    eventually("the server listens", PATIENCE, || {
        let logs = wharf.ok(&["logs", name]);
        assert!(!logs.contains("failed"), "{logs}");
        (logs.contains("listening on") || logs.contains("answering on")).then_some(())
    });
}

/// Where the host publishes the container's port 80.
fn published(wharf: &Wharf, name: &str) -> SocketAddr {
    let line = wharf.ok(&["port", name, "80"]);
    line.lines().next().expect("a line").replace("0.0.0.0", "127.0.0.1").parse().expect("an address")
}

/// How the first addresses of the default network begin; others of this machine may have the usual ones.
fn prefix(wharf: &Wharf) -> String {
    let gateway = wharf.ok(&["network", "inspect", "bridge", "-f", "{{(index .IPAM.Config 0).Gateway}}"]);
    gateway.strip_suffix('1').expect("the first address").to_owned()
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

/// Sends on one side while it reads on the other, and compares.
fn echoed(stream: &TcpStream, data: &[u8]) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    std::thread::scope(|scope| {
        let (mut writer, mut reader) = (stream, stream);
        scope.spawn(move || {
            writer.write_all(data).expect("sent");
            writer.shutdown(Shutdown::Write).expect("half closed");
        });
        let mut back = Vec::with_capacity(data.len());
        reader.read_to_end(&mut back).expect("everything comes back");
        assert!(back == data, "{} of {} bytes came back, or others", back.len(), data.len());
    });
}

fn round_trip(at: SocketAddr, data: &[u8]) {
    echoed(&TcpStream::connect(at).expect("a connection"), data);
}

#[test]
fn host_and_neighbours_at_once() {
    let wharf = with_net();
    serve(&wharf, "web", &["-p", "80"], &["echo", "0.0.0.0:80"]);
    let at = published(&wharf, "web");
    // Containers by name, with 100 connections each ...
    let clients = ["web:80", "web:80"].map(|to| wharf.spawn(&["run", "--rm", "net", "client", to, "65536", "100"]));
    // ... while the host has 200 of its own.
    let streams: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(at).expect("a connection")).collect();
    std::thread::scope(|scope| {
        for (n, stream) in streams.iter().enumerate() {
            scope.spawn(move || echoed(stream, &bytes(n as u8, 20_000)));
        }
    });
    for mut client in clients {
        let mut said = String::new();
        client.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
        assert_eq!(wharf::wait(&mut client, "client"), 0, "{said}");
        assert_eq!(said, "100 connections, 65536 bytes each, all came back\n");
    }
    round_trip(at, &bytes(1, 64 << 20));
    // By address and between containers as much.
    let address = wharf.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
    let to = format!("{address}:80");
    assert!(
        wharf.ok(&["run", "--rm", "net", "client", &to, "67108864"]).contains("67108864 bytes each, all came back")
    );
}

/// Bytes that `much_traffic` moves each way in all: what a debug build does in half a minute on two busy cores, a gigabyte
/// in a release build, and what `WHARF_TEST_TRAFFIC` says.
fn traffic() -> u64 {
    let default = if cfg!(debug_assertions) { 256 << 20 } else { 1 << 30 };
    std::env::var("WHARF_TEST_TRAFFIC").map_or(default, |bytes| bytes.parse().expect("a number of bytes"))
}

#[test]
fn much_traffic_of_host_and_neighbours_at_once() {
    let wharf = with_net();
    serve(&wharf, "web", &["-p", "80"], &["echo", "0.0.0.0:80"]);
    let at = published(&wharf, "web");
    let began = Instant::now();
    // A hundred connections of a neighbour, who compares every byte himself ...
    let each = traffic() / 200;
    let mut client = wharf.spawn(&["run", "--rm", "net", "client", "web:80", &each.to_string(), "100"]);
    // ... and a hundred of the host's, all of them open before the first one sends.
    let streams: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(at).expect("a connection")).collect();
    let block = bytes(7, 1 << 20);
    let sums = std::thread::scope(|scope| {
        let (block, each) = (&block, each as usize);
        let moved = streams.iter().enumerate().map(|(n, stream)| scope.spawn(move || summed(stream, block, n, each)));
        moved.collect::<Vec<_>>().into_iter().map(|one| one.join().expect("no panic")).collect::<Vec<_>>()
    });
    for (n, (sent, received)) in sums.into_iter().enumerate() {
        assert_eq!(sent, received, "connection {n}");
    }
    let mut said = String::new();
    client.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(wharf::wait(&mut client, "client"), 0, "{said}");
    assert_eq!(said, format!("100 connections, {each} bytes each, all came back\n"));
    eprintln!("{} MiB each way in {:?}", (each * 200) >> 20, began.elapsed());
    // Nobody's end was left open.
    round_trip(at, &bytes(1, 1 << 20));
}

/// Sends so many bytes, a block that repeats from another place on in each connection, while it reads what comes back;
/// gives the checksums of both.
fn summed(stream: &TcpStream, block: &[u8], number: usize, length: usize) -> ([u8; 32], [u8; 32]) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    std::thread::scope(|scope| {
        let (mut writer, mut reader) = (stream, stream);
        let sent = scope.spawn(move || {
            let mut sum = Sha256::new();
            let mut rest = length;
            let mut from = number * 4099 % block.len();
            while rest > 0 {
                let part = &block[from..block.len().min(from + rest)];
                writer.write_all(part).expect("sent");
                sum.update(part);
                (from, rest) = (0, rest - part.len());
            }
            writer.shutdown(Shutdown::Write).expect("half closed");
            sum.finalize().into()
        });
        let mut sum = Sha256::new();
        let mut space = vec![0; 256 << 10];
        let mut count = 0;
        loop {
            match reader.read(&mut space).expect("everything comes back") {
                0 => break,
                n => {
                    sum.update(&space[..n]);
                    count += n;
                }
            }
        }
        assert_eq!(count, length, "bytes that came back");
        (sent.join().expect("no panic"), sum.finalize().into())
    })
}

#[test]
fn ports_are_published_on_ipv6_addresses() {
    let wharf = with_net();
    // Of a guest that listens on such addresses, and of one that knows only the others.
    serve(&wharf, "six", &["-p", "[::1]:28680:80", "-p", "[::]:28681:80"], &["peer", "[::]:80"]);
    serve(&wharf, "four", &["-p", "[::1]:28690:80"], &["peer", "0.0.0.0:80"]);
    serve(&wharf, "dns", &["-p", "[::1]:28691:53/udp"], &["answer", "0.0.0.0:53"]);
    for port in [28680, 28681, 28690] {
        let mut said = [0; 7];
        let mut stream = TcpStream::connect(("::1", port)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.read_exact(&mut said).expect("a word");
        assert_eq!(&said, b"you are");
        let refused = TcpStream::connect(("127.0.0.1", port)).map_err(|e| e.kind());
        assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused), "{port} is not published on IPv4");
    }
    let socket = UdpSocket::bind("[::1]:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.send_to(b"hello", "[::1]:28691").expect("sent");
    let mut space = [0; 100];
    let (length, from) = socket.recv_from(&mut space).expect("an answer");
    assert!(space[..length].starts_with(b"hello from ") && from.to_string() == "[::1]:28691", "{from}");
    assert_eq!(wharf.ok(&["port", "six"]), "80/tcp -> [::1]:28680\n80/tcp -> [::]:28681");
    assert_eq!(wharf.ok(&["port", "dns", "53/udp"]), "[::1]:28691");
    assert_eq!(wharf.ok(&["ps", "--filter", "name=four", "--format", "{{.Ports}}"]), "[::1]:28690->80/tcp");
    let ports = wharf.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "four"]);
    assert_eq!(ports, "{\"80/tcp\":[{\"HostIp\":\"::1\",\"HostPort\":\"28690\"}]}");
    let taken = wharf.exits(125, &["run", "--rm", "-p", "[::1]:28690:80", "net", "peer", "0.0.0.0:80"]);
    assert!(taken.stderr.contains("failed to bind host port for [::1]:28690/tcp: address already in use"), "{taken}");
}

#[test]
fn ports_are_shown_as_docker_shows_them() {
    let wharf = with_net();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let spec = format!("127.0.0.1:{free}:80");
    serve(&wharf, "web", &["-p", &spec, "--expose", "9000", "--network-alias", "www"], &["echo", "0.0.0.0:80"]);
    assert_eq!(wharf.ok(&["port", "web"]), format!("80/tcp -> 127.0.0.1:{free}"));
    assert_eq!(wharf.ok(&["port", "web", "80/tcp"]), format!("127.0.0.1:{free}"));
    let missing = wharf.exits(1, &["port", "web", "81"]);
    assert_eq!(missing.stderr, "Error: No public port '81' published for web\n");
    assert_eq!(wharf.ok(&["ps", "--format", "{{.Ports}}"]), format!("9000/tcp, 127.0.0.1:{free}->80/tcp"));
    let inspect = |template: &str| wharf.ok(&["inspect", "-f", template, "web"]);
    let ports = inspect("{{json .NetworkSettings.Ports}}");
    assert_eq!(
        ports,
        format!("{{\"80/tcp\":[{{\"HostIp\":\"127.0.0.1\",\"HostPort\":\"{free}\"}}],\"9000/tcp\":null}}")
    );
    assert!(inspect("{{json .NetworkSettings.Networks}}").contains("\"Aliases\":[\"www\"]"));
    assert_eq!(inspect("{{.HostConfig.NetworkMode}}"), "bridge");
    let address: Ipv4Addr = inspect("{{.NetworkSettings.IPAddress}}").parse().expect("an address");
    assert!(address.is_private(), "{address}");
    for name in ["web", "www"] {
        assert_eq!(wharf.ok(&["run", "--rm", "net", "lookup", name]), address.to_string());
    }
    let many = ["127.0.0.1::9000", "127.0.0.1::443", "127.0.0.1::53/udp", "127.0.0.1::80"].map(|spec| ["-p", spec]);
    serve(&wharf, "many", many.as_flattened(), &["echo", "0.0.0.0:80"]);
    let all = wharf.ok(&["port", "many"]);
    let shown: Vec<&str> = all.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(shown, ["53/udp", "80/tcp", "443/tcp", "9000/tcp"]);
    wharf.ok(&["rm", "-f", "many"]);
    // A stopped one has let go of everything.
    wharf.ok(&["stop", "-t", "0", "web"]);
    assert_eq!(wharf.ok(&["port", "web"]), "");
    assert_eq!(wharf.ok(&["ps", "-a", "--format", "{{.Ports}}"]), "");
    assert!(TcpListener::bind(("127.0.0.1", free)).is_ok(), "the port is free again");
    let lost = wharf.exits(1, &["run", "--rm", "net", "dial", "www:80"]);
    assert!(lost.stdout.starts_with("failed"), "{lost}");
}

#[test]
fn every_exposed_port_on_request() {
    let wharf = with_net();
    serve(&wharf, "all", &["-P", "--expose", "80"], &["echo", "0.0.0.0:80"]);
    round_trip(published(&wharf, "all"), &bytes(3, 100_000));
}

#[test]
fn a_port_in_use_is_an_error_and_leaves_nothing() {
    let wharf = with_net();
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = holder.local_addr().expect("an address");
    let spec = format!("{at}:80");
    let refused = wharf.exits(125, &["run", "-d", "-p", &spec, "net", "echo", "0.0.0.0:80"]);
    assert!(refused.stderr.contains(&format!("Bind for {at} failed: port is already allocated")), "{refused}");
    assert_eq!(wharf.ok(&["ps", "-aq"]), "");
    drop(holder);
    // Between containers too, while the first has not even begun to listen.
    wharf.ok(&["run", "-d", "-p", &spec, "net", "wait", "1000", "0.0.0.0:80"]);
    let refused = wharf.exits(125, &["run", "-d", "-p", &spec, "net", "echo", "0.0.0.0:80"]);
    assert!(refused.stderr.contains("port is already allocated"), "{refused}");
    for (spec, words) in [
        ("x:80", "invalid hostPort: x"),
        ("80:80/icmp", "invalid proto: icmp"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("1-2:80-90", "invalid ranges specified for container and host Ports"),
    ] {
        let refused = wharf.exits(125, &["run", "-p", spec, "net"]);
        assert!(refused.stderr.contains(words), "{refused}");
    }
}

#[test]
fn who_comes_before_the_guest_listens_is_reset() {
    let wharf = with_net();
    wharf.ok(&["run", "-d", "--name", "late", "-p", "127.0.0.1::80", "net", "wait", "4", "0.0.0.0:80"]);
    let at = published(&wharf, "late");
    let mut early = TcpStream::connect(at).expect("the host's port is there");
    early.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let reset = early.read(&mut [0; 1]).expect_err("nobody to talk to");
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    ready(&wharf, "late");
    let mut text = String::new();
    TcpStream::connect(at).expect("a connection").read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("you are 127.0.0.1:"), "the early one left nothing behind: {text:.60}");
}

#[test]
fn addresses_are_those_of_the_network_and_no_byte_is_lost() {
    let wharf = with_net();
    serve(&wharf, "peer", &["-p", "127.0.0.1::80"], &["peer", "0.0.0.0:80"]);
    // The host's own address is kept, and all 200 000 bytes arrive though the guest closed right after writing.
    let mut stream = TcpStream::connect(published(&wharf, "peer")).expect("a connection");
    let own = stream.local_addr().expect("an address");
    std::thread::sleep(Duration::from_millis(300));
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("all of it");
    assert!(text.starts_with(&format!("you are {own}, I am ")), "{text:.60}");
    assert_eq!(text.matches('!').count(), 200_000);
    // A neighbour is seen by his address on the network.
    let said = wharf.ok(&["run", "--rm", "net", "dial", "peer:80"]);
    let (connected, told) = said.split_once('\n').expect("two lines");
    let from = connected.rsplit(' ').next().expect("an address");
    let prefix = prefix(&wharf);
    assert!(from.starts_with(&prefix) && told.starts_with(&format!("you are {from}")), "{said}");
}

#[test]
fn datagrams_of_host_and_neighbours() {
    let wharf = with_net();
    serve(&wharf, "dns", &["-p", "127.0.0.1::53/udp"], &["answer", "0.0.0.0:53"]);
    let at: SocketAddr = wharf.ok(&["port", "dns", "53/udp"]).parse().expect("an address");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = [0; 100];
    socket.send_to(b"hello", at).expect("sent");
    let (length, from) = socket.recv_from(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer[..length]);
    // The host's loopback is the gateway to a container.
    let prefix = prefix(&wharf);
    assert!(from == at && text.starts_with(&format!("hello from {prefix}1:")), "{text}");
    let said = wharf.ok(&["run", "--rm", "net", "ask", "dns:53", "you there"]);
    assert!(said.contains(&format!(":53 answered: you there from {prefix}")), "{said}");
    // What is not published does not answer, and nobody is told.
    let quiet = wharf.ok(&["run", "--rm", "net", "ask", "127.0.0.1:53", "anybody"]);
    assert_eq!(quiet, "no answer", "another container's port is not our loopback's");
}

#[test]
fn datagrams_by_ipv4_reach_a_socket_of_all_addresses() {
    let wharf = with_net();
    serve(&wharf, "dns", &["-p", "127.0.0.1::53/udp"], &["answer", "[::]:53"]);
    let prefix = prefix(&wharf);
    let at: SocketAddr = wharf.ok(&["port", "dns", "53/udp"]).parse().expect("an address");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut answer = [0; 100];
    for _ in 0..2 {
        socket.send_to(b"hello", at).expect("sent");
        let length = socket.recv(&mut answer).expect("an answer");
        let text = String::from_utf8_lossy(&answer[..length]);
        assert!(text.starts_with(&format!("hello from [::ffff:{prefix}1]:")), "{text}");
    }
    let said = wharf.ok(&["run", "--rm", "net", "ask", "dns:53", "you there"]);
    assert!(said.contains(&format!(":53 answered: you there from [::ffff:{prefix}")), "{said}");
}

#[test]
fn a_socket_behaves_as_the_kernels_do() {
    let wharf = Wharf::new();
    let net = images::guest("net-p2");
    let said = |args: &[&str]| wharf.ok(&[&["wasm", "run", &net], args].concat());
    // One of all addresses has one when it is connected.
    assert_eq!(said(&["own", "127.0.0.1:9"]), "127.0.0.1 towards 127.0.0.1:9");
    // Bytes count, not writes.
    assert_eq!(said(&["dribble", "10000"]), "10000 arrived");
    // What was sent is on its way, though its socket is closed.
    assert_eq!(said(&["leave", "20"]), "200 arrived");
    // Names are in any script; that one of `.invalid` is not found is no mistake of who asks (RFC 6761, 6.4).
    let unknown = wharf.exits(1, &["wasm", "run", &net, "lookup", "b\u{fc}cher.invalid"]);
    assert!(unknown.stdout.contains("Name does not resolve"), "{unknown}");
}

/// Runs `dial` and expects it to fail without a connection; gives the container's log.
fn cannot_dial(wharf: &Wharf, flags: &[&str], to: &str) -> String {
    let mut args = vec!["run", "--rm"];
    args.extend(flags);
    args.extend(["net", "dial", to]);
    let ran = wharf.exits(1, &args);
    assert!(ran.stdout.starts_with("failed: ") && !ran.stdout.contains("connected"), "{ran}");
    ran.stdout + &ran.stderr
}

#[test]
fn forbidden_places_are_refused_and_the_log_says_what_would_allow_them() {
    let wharf = with_net();
    let host = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = host.local_addr().expect("an address").port();
    let log = cannot_dial(&wharf, &[], "169.254.169.254:80");
    assert!(log.contains("--allow-net 169.254.169.254:80 would allow it"), "{log}");
    // The host's loopback is not the guest's: its own has nobody listening.
    for to in [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("127.9.9.9:{port}")] {
        cannot_dial(&wharf, &[], &to);
    }
    for to in [format!("[::ffff:127.0.0.1]:{port}"), "[::ffff:169.254.169.254]:80".into(), format!("0.0.0.0:{port}")] {
        cannot_dial(&wharf, &[], &to);
        cannot_dial(&wharf, &["--network", "host"], &to);
    }
    cannot_dial(&wharf, &[], "[64:ff9b::169.254.169.254]:80");
    // On the host's network its loopback still has to be asked for.
    let local = format!("127.0.0.1:{port}");
    let log = cannot_dial(&wharf, &["--network", "host"], &local);
    assert!(log.contains(&format!("--allow-net {local} would allow it")), "{log}");
    let log = cannot_dial(&wharf, &[], &format!("host.docker.internal:{port}"));
    assert!(log.contains(&format!("--allow-net host.docker.internal:{port} would allow it")), "{log}");
    cannot_dial(&wharf, &["--network", "none"], "10.1.2.3:80");
    let log = cannot_dial(&wharf, &["--allow-net", "10.0.0.0/8"], "192.0.2.1:80");
    assert!(log.contains("no --allow-net lists it"), "{log}");
    let log = cannot_dial(&wharf, &["--deny-net", "192.0.2.0/24:80"], "192.0.2.1:80");
    assert!(log.contains("--deny-net forbids it"), "{log}");
    host.set_nonblocking(true).expect("non-blocking");
    assert_eq!(host.accept().expect_err("nobody has come").kind(), ErrorKind::WouldBlock);
    // What is asked for is there.
    for (flags, to) in [
        (vec!["--network", "host", "--allow-net", &local], local.clone()),
        (vec!["--allow-net", "host.docker.internal"], format!("host.docker.internal:{port}")),
    ] {
        host.set_nonblocking(false).expect("blocking");
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["net", "dial", &to]);
        let mut client = wharf.spawn(&args);
        host.accept().expect("a connection").0.write_all(b"welcome").expect("sent");
        assert_eq!(wharf::wait(&mut client, "dial"), 0);
    }
}

#[test]
fn an_unpublished_port_is_the_containers_own() {
    let wharf = with_net();
    serve(&wharf, "hidden", &[], &["echo", "0.0.0.0:17423"]);
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from([0, 0, 0, 0])] {
        let refused = TcpStream::connect((ip, 17423)).expect_err("not the host's");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    // The host may have it, and so may others.
    let _host = TcpListener::bind("0.0.0.0:17423").expect("free");
    serve(&wharf, "other", &[], &["echo", "0.0.0.0:17423"]);
    // What listens on a loopback is reached from there only.
    serve(&wharf, "private", &[], &["echo", "127.0.0.1:80"]);
    cannot_dial(&wharf, &[], "private:80");
    cannot_dial(&wharf, &[], "127.0.0.1:80");
    assert_eq!(wharf.ok(&["run", "--rm", "net", "twice", "0.0.0.0:80"]), "Err(AddrInUse)");
}

#[test]
fn names_that_lead_to_forbidden_places() {
    let wharf = with_net();
    let server = Dns::start();
    let dns = server.address.to_string();
    let lookup = |name: &str, flags: &[&str]| {
        let mut args = vec!["run", "--rm", "--dns", &dns];
        args.extend(flags);
        args.extend(["net", "lookup", name]);
        wharf.run(&args)
    };
    assert_eq!(lookup("good.test", &[]).stdout, "192.0.2.7\n");
    assert_eq!(lookup("missing.test", &[]).code, 1);
    // DNS rebinding: the name is a stranger's, the address is ours.
    for name in ["loopback.test", "metadata.test"] {
        let refused = lookup(name, &[]);
        assert!(refused.code == 1 && refused.stdout.starts_with("failed"), "{refused}");
        assert!(refused.stderr.contains("--allow-net") && refused.stderr.contains("would allow it"), "{refused}");
        // A grant for the name does not open the place.
        assert_eq!(lookup(name, &["--allow-net", name]).code, 1);
    }
    assert_eq!(lookup("metadata.test", &["--allow-net", "169.254.169.254", "--allow-net", "*.test"]).code, 0);
    assert_eq!(lookup("good.test", &["--deny-net", "*.test"]).code, 1);
    assert_eq!(lookup("good.test", &["--network", "none"]).code, 1);
}

/// A server that knows four names.
struct Dns {
    address: IpAddr,
    socket: UdpSocket,
}

impl Dns {
    fn start() -> Self {
        let address = IpAddr::from([127, 0, 0, 77]);
        let socket = UdpSocket::bind((address, 53)).expect("port 53 of a loopback address, as root");
        let serving = socket.try_clone().expect("dup");
        serving.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        std::thread::spawn(move || {
            let mut query = [0; 512];
            loop {
                match serving.recv_from(&mut query) {
                    // An empty one is the end.
                    Ok((0, _)) => return,
                    Ok((length, from)) => drop(serving.send_to(&Dns::answer(&query[..length]), from)),
                    Err(_) => {}
                }
            }
        });
        Dns { address, socket }
    }

    /// RFC 1035, 4.1: the header, the question again, and one address.
    fn answer(query: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(&query[12..]).into_owned();
        let ip: Option<[u8; 4]> = match () {
            () if text.contains("good") => Some([192, 0, 2, 7]),
            () if text.contains("loopback") => Some([127, 0, 0, 1]),
            () if text.contains("metadata") => Some([169, 254, 169, 254]),
            () => None,
        };
        let end = 12 + query[12..].iter().position(|b| *b == 0).expect("a name") + 5;
        let wants_v4 = query[end - 3] == 1;
        let count = u8::from(ip.is_some() && wants_v4);
        let code = if ip.is_some() { 0 } else { 3 };
        let mut answer = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0];
        answer.extend(&query[12..end]);
        if let (Some(ip), true) = (ip, wants_v4) {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(ip);
        }
        answer
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.socket.send_to(&[], (self.address, 53)).ok();
    }
}

#[test]
fn names_given_by_hand() {
    let wharf = with_net();
    let flags = ["--add-host", "db:192.0.2.5", "--add-host", "gate:host-gateway", "--add-host", "DB=2001:db8::5"];
    let lookup = |name| wharf.ok(&[&["run", "--rm"], &flags[..], &["net", "lookup", name]].concat());
    assert_eq!(lookup("db"), "192.0.2.5\n2001:db8::5");
    assert_eq!(lookup("gate"), lookup("host.docker.internal"));
    // A name is no grant: the host's loopback stays shut.
    let dial = |flags: &[&str]| wharf.run(&[&["run", "--rm"], flags, &["net", "dial", "own:80"]].concat()).stdout;
    let told = dial(&["--add-host", "own:169.254.169.254"]);
    assert!(!told.contains("connected"), "{told}");
}
