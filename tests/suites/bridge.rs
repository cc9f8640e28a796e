//! WebAssembly and Linux containers on one network: they find and reach each other as if they were of one kind.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use super::networks::Machine;
use crate::support::{Wharf, eventually, images, tool};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn with_both() -> Wharf {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["wasm", "pack", &images::guest("net-p2"), "-t", "net"]);
    wharf
}

/// Makes a network that nobody else on this machine has, so that a wasm container may come to it first. Its prefix.
fn own_network(wharf: &Wharf, name: &str, n: u8) -> String {
    let prefix = format!("10.{}.{n}", 128 + std::process::id() % 120);
    wharf.ok(&["network", "create", "--subnet", &format!("{prefix}.0/24"), name]);
    prefix
}

/// Starts a wasm server in the background and waits until it listens.
pub fn serve(wharf: &Wharf, name: &str, flags: &[&str], args: &[&str]) {
    wharf.ok(&[&["run", "-d", "--name", name][..], flags, &["net"], args].concat());
    eventually("the server listens", PATIENCE, || {
        let logs = wharf.ok(&["logs", name]);
        assert!(!logs.contains("failed"), "{logs}");
        (logs.contains("listening on") || logs.contains("answering on")).then_some(())
    });
}

pub fn idle(wharf: &Wharf, name: &str, flags: &[&str]) {
    wharf.ok(&[&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "1000"]].concat());
}

pub fn exec(wharf: &Wharf, name: &str, script: &str) -> String {
    wharf.run(&["exec", name, "sh", "-c", script]).stdout.trim().to_owned()
}

fn address(wharf: &Wharf, name: &str) -> String {
    wharf.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name])
}

/// Does something on a thread in the network namespace of a Linux container.
pub fn within<T: Send + 'static>(wharf: &Wharf, name: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    let thread = std::thread::spawn(move || {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the container's network");
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("setns");
        act()
    });
    thread.join().expect("a thread in the container's network")
}

/// What a guest that runs `peer` tells a Linux container: both addresses.
pub fn told(wharf: &Wharf, from: &str, host: &str, port: u16) -> String {
    exec(wharf, from, &format!("nc -w 5 {host} {port} </dev/null | head -c 120")).replace('!', "")
}

/// What a datagram from a socket of this Linux container, bound to `own`, is answered.
pub fn answered(wharf: &Wharf, from: &str, own: &'static str, to: String) -> String {
    within(wharf, from, move || {
        let socket = UdpSocket::bind(own).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        socket.send_to(b"hello", &to).expect("sent");
        let mut space = [0; 100];
        let (length, from) = socket.recv_from(&mut space).expect("an answer");
        assert_eq!(from.to_string(), to);
        String::from_utf8_lossy(&space[..length]).into_owned()
    })
}

/// True when a Linux container gets no word from there.
pub fn is_silent(wharf: &Wharf, from: &str, host: &str, port: u16) -> bool {
    exec(wharf, from, &format!("nc -w 1 {host} {port} </dev/null | head -c 1")).is_empty()
}

#[test]
fn linux_containers_call_wasm_ones_by_name() {
    let wharf = with_both();
    own_network(&wharf, "front", 1);
    let on = ["--network", "front"];
    // One before there is a bridge, one after.
    serve(&wharf, "early", &["--network", "front", "--network-alias", "first"], &["peer", "0.0.0.0:80"]);
    idle(&wharf, "linux", &on);
    serve(&wharf, "late", &on, &["peer", "0.0.0.0:80"]);
    let linux = address(&wharf, "linux");
    for name in ["early", "late"] {
        let own = address(&wharf, name);
        for host in [name, &own] {
            let said = told(&wharf, "linux", host, 80);
            assert!(said.starts_with(&format!("you are {linux}:")), "{host}: {said}");
            assert!(said.ends_with(&format!("I am {own}:80")), "{host}: {said}");
        }
    }
    assert!(told(&wharf, "linux", "first", 80).starts_with("you are"), "by its alias");
    let backwards = exec(&wharf, "linux", &format!("nslookup {}", address(&wharf, "late")));
    assert!(backwards.contains("name = late.front"), "{backwards}");
    // Not on other ports; and not what listens on a loopback.
    assert!(is_silent(&wharf, "linux", "late", 81));
    serve(&wharf, "private", &on, &["peer", "127.0.0.1:80"]);
    assert!(is_silent(&wharf, "linux", "private", 80));
    // It starts again and is there again.
    wharf.ok(&["restart", "-t", "0", "late"]);
    eventually("it is there again", PATIENCE, || {
        told(&wharf, "linux", "late", 80).starts_with("you are").then_some(())
    });
}

#[test]
fn wasm_containers_call_linux_ones_by_name() {
    let wharf = with_both();
    let prefix = own_network(&wharf, "front", 3);
    wharf.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "front",
        "busybox",
        "sh",
        "-c",
        "while :; do nc -l -p 80 -e sh -c 'echo from linux'; done",
    ]);
    let web = address(&wharf, "web");
    let dial = |to: &str| wharf.run(&["run", "--rm", "--network", "front", "net", "dial", to]);
    eventually("it is served", PATIENCE, || dial("web:80").stdout.contains("from linux").then_some(()));
    let said = dial(&format!("{web}:80"));
    let from = said.stdout.lines().next().and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    assert!(from.starts_with(&prefix) && !from.starts_with(&format!("{prefix}.1:")), "{said}");
    // Its address is what the other side sees.
    let seen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let other = std::sync::Arc::clone(&seen);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let server = std::thread::spawn(move || {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the container's network");
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("setns");
        let listener = std::net::TcpListener::bind("0.0.0.0:81").expect("a port");
        ready.send(()).expect("heard");
        let (_, peer) = listener.accept().expect("a caller");
        *other.lock().expect("lock") = peer.to_string();
    });
    is_ready.recv().expect("a server");
    let said = dial("web:81");
    server.join().expect("a server");
    let seen = seen.lock().expect("lock").clone();
    assert!(said.stdout.starts_with(&format!("connected to {web}:81 from {seen}")), "{seen}, {said}");
    // Nobody listens; and nobody is there.
    assert!(dial("web:9").stdout.contains("ConnectionRefused"), "{}", dial("web:9"));
    assert!(dial(&format!("{prefix}.99:80")).stdout.contains("ConnectionRefused"));
    // Grants hold.
    let denied = wharf.exits(1, &["run", "--rm", "--network", "front", "--deny-net", &web, "net", "dial", "web:80"]);
    assert!(denied.stderr.contains("--deny-net forbids it"), "{denied}");
}

#[test]
fn datagrams_go_both_ways() {
    let wharf = with_both();
    let prefix = own_network(&wharf, "front", 2);
    let on = ["--network", "front"];
    serve(&wharf, "early", &on, &["answer", "0.0.0.0:53"]);
    idle(&wharf, "linux", &on);
    serve(&wharf, "late", &on, &["answer", "0.0.0.0:53"]);
    let linux = address(&wharf, "linux");
    for name in ["early", "late"] {
        let said = answered(&wharf, "linux", "0.0.0.0:0", format!("{}:53", address(&wharf, name)));
        assert!(said.starts_with(&format!("hello from {linux}:")), "{said}");
    }
    // The other way: by name, from the guest's own address.
    let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", "linux"]);
    let (ready, is_ready) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the container's network");
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("setns");
        let socket = UdpSocket::bind("0.0.0.0:7").expect("a port");
        ready.send(()).expect("heard");
        let (length, from) = socket.recv_from(&mut [0; 100]).expect("a datagram");
        socket.send_to(format!("{length} bytes of {}", from.ip()).as_bytes(), from).expect("sent");
        from.ip().to_string()
    });
    is_ready.recv().expect("a server");
    let said = wharf.ok(&["run", "--rm", "--network", "front", "net", "ask", "linux:7", "you there"]);
    let from = server.join().expect("a server");
    assert_eq!(said, format!("{linux}:7 answered: 9 bytes of {from}"));
    assert!(from.starts_with(&prefix) && from != format!("{prefix}.1"), "{from}");
}

#[test]
fn networks_are_apart_for_both_kinds() {
    let wharf = with_both();
    own_network(&wharf, "one", 4);
    own_network(&wharf, "two", 5);
    wharf.ok(&["network", "create", "--internal", "shut"]);
    let echo = ["busybox", "sh", "-c", "while :; do nc -l -p 80 -e echo open; done"];
    for network in ["one", "two", "shut"] {
        let name = format!("linux-{network}");
        wharf.ok(&[&["run", "-d", "--name", &name, "--network", network][..], &echo].concat());
        let name = format!("wasm-{network}");
        let publish = if network == "shut" { "28992:80" } else { "80" };
        serve(&wharf, &name, &["--network", network, "-p", publish], &["peer", "0.0.0.0:80"]);
    }
    let dial = |network: &str, to: &str| wharf.run(&["run", "--rm", "--network", network, "net", "dial", to]).stdout;
    for network in ["one", "two", "shut"] {
        let to = format!("linux-{network}:80");
        eventually("it is served", PATIENCE, || dial(network, &to).contains("open").then_some(()));
        assert!(told(&wharf, &format!("linux-{network}"), &format!("wasm-{network}"), 80).starts_with("you are"));
    }
    for (from, to) in [("one", "two"), ("two", "one"), ("one", "shut"), ("shut", "one")] {
        for kind in ["linux", "wasm"] {
            let there = address(&wharf, &format!("{kind}-{to}"));
            // Neither by address nor by name, of neither kind.
            let said = dial(from, &format!("{there}:80"));
            assert!(said.starts_with("failed: ") && !said.contains("connected"), "{from} to {kind}-{to}: {said}");
            assert!(dial(from, &format!("{kind}-{to}:80")).starts_with("failed: "));
            assert!(is_silent(&wharf, &format!("linux-{from}"), &there, 80), "{from} to {kind}-{to}");
        }
        // Datagrams neither.
        let there = address(&wharf, &format!("linux-{to}"));
        let asked = wharf.ok(&["run", "--rm", "--network", from, "net", "ask", &format!("{there}:9"), "anybody"]);
        assert_eq!(asked, "no answer");
    }
    // Out of an internal network, and into it by a published port, leads no way.
    let outside = Machine::new(104);
    let served = std::thread::spawn(move || outside.run("nc -ll -p 9001 -e echo open & sleep 8; kill %1"));
    eventually("a network with a way out", PATIENCE, || {
        dial("one", "198.51.104.2:9001").contains("open").then_some(())
    });
    assert!(dial("shut", "198.51.104.2:9001").starts_with("failed: "));
    served.join().expect("a server");
    let published = |name: &str| wharf.ok(&["port", name, "80"]).lines().next().unwrap_or_default().to_owned();
    let get = |at: &str| {
        let (host, port) = at.rsplit_once(':').expect("a port");
        let script = format!("nc -w 2 {} {port} </dev/null | head -c 7", host.replace("0.0.0.0", "127.0.0.1"));
        let out = Command::new("busybox").args(["sh", "-c", &script]).output().expect("busybox");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(get(&published("wasm-one")), "you are");
    assert_eq!((get("127.0.0.1:28992"), wharf.ok(&["port", "wasm-shut"])), (String::new(), String::new()));
}

#[test]
fn a_wasm_containers_address_is_not_the_hosts() {
    let wharf = with_both();
    let prefix = own_network(&wharf, "front", 6);
    let on = ["--network", "front"];
    idle(&wharf, "linux", &on);
    // The host has the port already, on all of its addresses; and another one, which the guest has not.
    let _host = std::net::TcpListener::bind("0.0.0.0:17424").expect("a port");
    let _other = std::net::TcpListener::bind("0.0.0.0:17425").expect("a port");
    serve(&wharf, "wasm", &on, &["peer", "0.0.0.0:17424"]);
    let own = address(&wharf, "wasm");
    assert!(own.starts_with(&prefix));
    assert!(told(&wharf, "linux", "wasm", 17424).ends_with(&format!("I am {own}:17424")));
    assert_eq!(exec(&wharf, "linux", "nc -w 3 wasm 17425 </dev/null; echo $?"), "1", "nobody is there");
    let addresses = tool(Command::new("ip").args(["-o", "-4", "addr"]));
    assert!(!addresses.contains(&format!("{own}/")), "{addresses}");
}

#[test]
fn nothing_of_it_stays_on_the_host() {
    let wharf = with_both();
    own_network(&wharf, "front", 7);
    let on = ["--network", "front"];
    let links = || tool(Command::new("ip").args(["-o", "link"]));
    idle(&wharf, "linux", &on);
    for name in ["ends", "dies"] {
        serve(&wharf, name, &on, &["peer", "0.0.0.0:80"]);
    }
    let devices = ["ends", "dies"].map(|name| format!("wv{}0", &wharf.ok(&["inspect", "-f", "{{.Id}}", name])[..12]));
    assert!(devices.iter().all(|device| links().contains(device)), "{}", links());
    let gone = |n: usize| eventually("it goes", PATIENCE, || (!links().contains(&devices[n])).then_some(()));
    wharf.ok(&["rm", "-f", "ends"]);
    gone(0);
    let id = wharf.ok(&["inspect", "-f", "{{.Id}}", "dies"]);
    let monitor = wharf.monitors().into_iter().find(|(_, of)| *of == id).expect("a monitor").0;
    tool(Command::new("kill").args(["-9", &monitor.to_string()]));
    gone(1);
    // A wasm container may be the last on a bridge that Linux containers have left.
    serve(&wharf, "last", &on, &["peer", "0.0.0.0:80"]);
    wharf.ok(&["rm", "-f", "linux", "dies"]);
    wharf.ok(&["rm", "-f", "last"]);
    eventually("the bridge goes", PATIENCE, || {
        let gateway = wharf.ok(&["network", "inspect", "front", "-f", "{{(index .IPAM.Config 0).Gateway}}"]);
        let addresses = tool(Command::new("ip").args(["-o", "-4", "addr"]));
        (!addresses.contains(&format!("{gateway}/"))).then_some(())
    });
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn a_wasm_server_for_http_is_reached_by_linux_containers() {
    let wharf = with_both();
    wharf.ok(&["wasm", "pack", &images::guest("http"), "-t", "web"]);
    own_network(&wharf, "front", 8);
    wharf.ok(&["run", "-d", "--name", "web", "--network", "front", "web"]);
    idle(&wharf, "linux", &["--network", "front"]);
    let script = "printf 'GET / HTTP/1.0\\r\\nHost: web\\r\\n\\r\\n' | nc -w 5 web 80 | head -n 1";
    eventually("it answers", PATIENCE, || exec(&wharf, "linux", script).starts_with("HTTP/1.").then_some(()));
}

/// What another machine hears on a port, within a second or two.
fn heard(machine: &Machine, host: &str, port: u16) -> String {
    machine.run(&format!("nc -w 2 {host} {port} </dev/null | head -c 40")).replace('!', "")
}

#[test]
fn other_machines_reach_what_a_wasm_guest_publishes_and_nothing_else() {
    let wharf = with_both();
    own_network(&wharf, "front", 9);
    let (near, far) = (Machine::new(108), Machine::new(109));
    let on = ["--network", "front"];
    let ports = ["-p", "28090:80", "-p", "198.51.108.1:28091:80", "-p", "127.0.0.1:28092:80"];
    // One without a bridge; then the same with Linux containers beside it, so that it has an address which the host can
    // reach and these machines have a route to.
    for bridged in [false, true] {
        if bridged {
            idle(&wharf, "linux", &on);
        }
        serve(&wharf, "open", &[&on[..], &ports].concat(), &["peer", "0.0.0.0:80"]);
        serve(&wharf, "shut", &on, &["peer", "0.0.0.0:28093"]);
        if bridged {
            assert!(told(&wharf, "linux", "shut", 28093).starts_with("you are"), "it listens");
        }
        for (machine, ip, own) in [(&near, "198.51.108.1", "198.51.108.2"), (&far, "198.51.109.1", "198.51.109.2")] {
            let expected = format!("you are {own}:");
            assert!(heard(machine, ip, 28090).starts_with(&expected), "the sender's address is kept");
            let near_only = heard(machine, ip, 28091);
            assert_eq!(near_only.starts_with(&expected), own == "198.51.108.2", "{near_only}");
            for port in [28092, 28093, 80] {
                assert_eq!(heard(machine, ip, port), "", "{ip}:{port}, bridged: {bridged}");
            }
            for (name, port) in [("open", 80), ("open", 28090), ("shut", 28093)] {
                assert_eq!(heard(machine, &address(&wharf, name), port), "", "{name}:{port}, bridged: {bridged}");
            }
        }
        wharf.ok(&["rm", "-f", "open", "shut"]);
        assert_eq!(heard(&near, "198.51.108.1", 28090), "");
    }
}

/// As [`with_both`], but the program is a file of its image, by which another process of the container can run it.
pub fn with_program() -> Wharf {
    let wharf = Wharf::with_busybox();
    load_program(&wharf);
    wharf
}

pub fn load_program(wharf: &Wharf) {
    let config = serde_json::json!({"Entrypoint": ["/net.wasm"]});
    wharf.load(&images::wasm_files("net", &[("net.wasm", &images::read(&images::guest("net-p2")))], &config));
}

/// The address on a network of a container.
fn address_on(wharf: &Wharf, name: &str, network: &str) -> String {
    wharf.ok(&["inspect", "-f", &format!("{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}"), name])
}

/// What a wasm container hears of another's `peer`, called by another process of its own.
pub fn heard_by_wasm(wharf: &Wharf, name: &str, to: &str) -> String {
    wharf.run(&["exec", name, "/net.wasm", "dial", to]).stdout.replace('!', "")
}

#[test]
fn a_wasm_container_is_on_several_networks() {
    let wharf = with_program();
    let (one, two) = (own_network(&wharf, "one", 11), own_network(&wharf, "two", 12));
    let both = ["--network", "name=one,alias=hub-one", "--network", "two", "-p", "80"];
    serve(&wharf, "hub", &both, &["peer", "0.0.0.0:80"]);
    for (network, prefix) in [("one", &one), ("two", &two)] {
        let own = address_on(&wharf, "hub", network);
        assert!(own.starts_with(prefix), "{own}");
        let there =
            wharf.ok(&["network", "inspect", network, "-f", "{{range .Containers}}{{.Name}}@{{.IPv4Address}}{{end}}"]);
        assert_eq!(there, format!("hub@{own}/24"));
        // A neighbour of its kind and one of the other call it, by its name and by its address there; and it calls them.
        let (wasm, linux) = (format!("wasm-{network}"), format!("linux-{network}"));
        serve(&wharf, &wasm, &["--network", network], &["peer", "0.0.0.0:81"]);
        let script = "while :; do nc -l -p 82 -e sh -c 'echo from linux'; done";
        wharf.ok(&["run", "-d", "--name", &linux, "--network", network, "busybox", "sh", "-c", script]);
        for to in ["hub", &own] {
            let said = heard_by_wasm(&wharf, &wasm, &format!("{to}:80"));
            assert!(said.contains(&format!("you are {}:", address(&wharf, &wasm))), "{network}: {said}");
            assert!(said.contains(&format!("connected to {own}:80 ")), "{network}: {said}");
            let said = told(&wharf, &linux, to, 80);
            assert!(said.starts_with(&format!("you are {}:", address(&wharf, &linux))), "{network}: {said}");
            assert!(said.ends_with(&format!("I am {own}:80")), "{network}: {said}");
        }
        assert!(heard_by_wasm(&wharf, "hub", &format!("{wasm}:81")).contains(&format!("you are {own}:")));
        eventually("it is served", PATIENCE, || {
            heard_by_wasm(&wharf, "hub", &format!("{linux}:82")).contains("from linux").then_some(())
        });
    }
    // An alias is one on its network, and networks are apart.
    assert!(told(&wharf, "linux-one", "hub-one", 80).starts_with("you are"));
    assert_eq!(told(&wharf, "linux-two", "hub-one", 80), "");
    assert!(heard_by_wasm(&wharf, "wasm-one", "wasm-two:81").starts_with("failed: "));
    let far = format!("{}:80", address_on(&wharf, "hub", "two"));
    assert!(heard_by_wasm(&wharf, "wasm-one", &far).starts_with("failed: "));
    // Its own name is its address where it leads out, which is where the published port leads in: the first by name.
    let found = wharf.ok(&["exec", "hub", "/net.wasm", "lookup", "hub"]);
    assert_eq!(found.lines().next(), Some(address_on(&wharf, "hub", "one").as_str()));
    let port = wharf.ok(&["port", "hub", "80"]).lines().next().unwrap_or_default().replace("0.0.0.0:", "");
    let host = |port: &str| tool(Command::new("busybox").args(["nc", "-w", "2", "127.0.0.1", port]));
    assert!(host(&port).contains("I am 0.0.0.0:80"), "{}", host(&port));
}

#[test]
fn a_wasm_container_comes_to_networks_and_leaves_them_while_it_runs() {
    let wharf = with_program();
    own_network(&wharf, "one", 13);
    let two = own_network(&wharf, "two", 14);
    wharf.ok(&["network", "create", "--internal", "shut"]);
    serve(&wharf, "hub", &["--network", "one", "-p", "80"], &["peer", "0.0.0.0:80"]);
    serve(&wharf, "names", &["--network", "one"], &["answer", "0.0.0.0:53"]);
    for network in ["one", "two", "shut"] {
        idle(&wharf, &format!("linux-{network}"), &["--network", network]);
        serve(&wharf, &format!("wasm-{network}"), &["--network", network], &["peer", "0.0.0.0:81"]);
    }
    let ask = |from: &str, to: &str| wharf.ok(&["exec", from, "/net.wasm", "ask", to, "anybody"]);
    let networks =
        || wharf.ok(&["inspect", "-f", "{{range $name, $n := .NetworkSettings.Networks}}{{$name}} {{end}}", "hub"]);
    assert!(heard_by_wasm(&wharf, "wasm-two", "hub:80").starts_with("failed: "));
    assert_eq!(told(&wharf, "linux-two", "hub", 80), "");
    for _ in 0..2 {
        let wanted = format!("{two}.77");
        wharf.ok(&["network", "connect", "--ip", &wanted, "--alias", "guest", "two", "hub"]);
        wharf.ok(&["network", "connect", "two", "names"]);
        assert_eq!((networks().trim(), address_on(&wharf, "hub", "two")), ("one two", wanted.clone()));
        let again = wharf.exits(1, &["network", "connect", "two", "hub"]);
        assert!(again.stderr.contains("already exists in network two"), "{again}");
        for to in ["hub", "guest", &wanted] {
            let said = heard_by_wasm(&wharf, "wasm-two", &format!("{to}:80"));
            assert!(said.contains(&format!("connected to {wanted}:80 ")), "{to}: {said}");
            assert!(told(&wharf, "linux-two", to, 80).ends_with(&format!("I am {wanted}:80")), "{to}");
        }
        assert!(heard_by_wasm(&wharf, "hub", "wasm-two:81").contains(&format!("you are {wanted}:")));
        assert!(heard_by_wasm(&wharf, "wasm-one", "hub:80").contains("you are"), "where it was it is still");
        assert!(told(&wharf, "linux-one", "hub", 80).starts_with("you are"));
        // Datagrams of both kinds.
        let (names, wasm) = (address_on(&wharf, "names", "two"), address(&wharf, "wasm-two"));
        assert!(ask("wasm-two", "names:53").starts_with(&format!("{names}:53 answered: anybody from {wasm}:")));
        let to = format!("{names}:53");
        let said = within(&wharf, "linux-two", move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            socket.set_read_timeout(Some(PATIENCE)).expect("a time limit");
            socket.send_to(b"hello", to).expect("sent");
            let mut space = [0; 100];
            let (length, from) = socket.recv_from(&mut space).expect("an answer");
            format!("{} from {from}", String::from_utf8_lossy(&space[..length]))
        });
        assert!(said.starts_with("hello from ") && said.ends_with(&format!("from {names}:53")), "{said}");
        for (container, gone) in [("hub", &wanted), ("names", &names)] {
            wharf.ok(&["network", "disconnect", "two", container]);
            let there = wharf.ok(&["network", "inspect", "two", "-f", "{{json .Containers}}"]);
            assert!(!there.contains(&format!("\"{container}\"")) && !there.contains(&format!("{gone}/")), "{there}");
        }
        assert_eq!(networks().trim(), "one");
        for to in ["hub:80", &format!("{wanted}:80")] {
            assert!(heard_by_wasm(&wharf, "wasm-two", to).starts_with("failed: "), "{to}");
        }
        assert!(is_silent(&wharf, "linux-two", &wanted, 80));
        assert_eq!(ask("wasm-two", &format!("{names}:53")), "no answer");
        assert!(heard_by_wasm(&wharf, "hub", "wasm-two:81").starts_with("failed: "));
        assert!(told(&wharf, "linux-one", "hub", 80).starts_with("you are"));
    }
    // The published port goes with the way out.
    let port = wharf.ok(&["port", "hub", "80"]).lines().next().unwrap_or_default().replace("0.0.0.0:", "");
    let host = || {
        let script = format!("nc -w 2 127.0.0.1 {port} </dev/null | head -c 7");
        let out = Command::new("busybox").args(["sh", "-c", &script]).output().expect("busybox");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert_eq!(host(), "you are");
    wharf.ok(&["network", "connect", "shut", "hub"]);
    wharf.ok(&["network", "disconnect", "one", "hub"]);
    assert_eq!(
        (host().as_str(), wharf.ok(&["port", "hub"])),
        ("", String::new()),
        "an internal network leads nowhere, nor in"
    );
    assert!(heard_by_wasm(&wharf, "wasm-shut", "hub:80").contains("you are"));
    assert!(heard_by_wasm(&wharf, "wasm-one", "hub:80").starts_with("failed: "));
    wharf.ok(&["network", "connect", "one", "hub"]);
    eventually("it is published again", PATIENCE, || (host() == "you are").then_some(()));
    assert!(wharf.ok(&["port", "hub"]).contains(&port));
    serve(&wharf, "closed", &["--network", "shut", "-p", "80"], &["peer", "0.0.0.0:80"]);
    assert_eq!(wharf.ok(&["port", "closed"]), "");
    // Of no network at all, and back; what it has is written down.
    wharf.ok(&["network", "disconnect", "one", "hub"]);
    wharf.ok(&["network", "disconnect", "shut", "hub"]);
    assert_eq!(networks(), "");
    assert!(heard_by_wasm(&wharf, "hub", "127.0.0.1:80").contains("you are 127.0.0.1:"), "it has itself");
    wharf.ok(&["network", "connect", "two", "hub"]);
    assert!(told(&wharf, "linux-two", "hub", 80).starts_with("you are"));
    wharf.ok(&["restart", "-t", "0", "hub"]);
    eventually("it is there again", PATIENCE, || {
        told(&wharf, "linux-two", "hub", 80).starts_with("you are").then_some(())
    });
    // One that was made without a network comes to one.
    serve(&wharf, "alone", &["--network", "none"], &["peer", "0.0.0.0:80"]);
    wharf.ok(&["network", "disconnect", "none", "alone"]);
    wharf.ok(&["network", "connect", "two", "alone"]);
    assert!(told(&wharf, "linux-two", "alone", 80).starts_with("you are"));
    assert!(heard_by_wasm(&wharf, "alone", "wasm-two:81").contains("you are"));
    // Nothing of a place that it has left stays on the host.
    let id = wharf.ok(&["inspect", "-f", "{{.Id}}", "hub"]);
    wharf.ok(&["network", "connect", "one", "hub"]);
    let devices = || tool(Command::new("ip").args(["-o", "link"])).matches(&format!("wv{}", &id[..12])).count();
    assert!(told(&wharf, "linux-one", "hub", 80).starts_with("you are"));
    assert_eq!(devices(), 2);
    wharf.ok(&["network", "disconnect", "one", "hub"]);
    assert_eq!(devices(), 1);
}
