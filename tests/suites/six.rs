//! IPv6 addresses of WebAssembly containers, on networks that are made with them.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use super::bridge::{
    PATIENCE, answered, exec, heard_by_wasm, idle, is_silent, load_program, serve, told, with_both, with_program,
    within,
};
use super::networks::Machine;
use crate::support::{Wharf, eventually, images, tool, wharf};

/// Makes a network of both families that nobody else on this machine has. How its IPv6 addresses begin.
fn network(wharf: &Wharf, name: &str, n: u8, more: &[&str]) -> String {
    let process = std::process::id();
    let four = format!("10.{}.{}.0/24", 128 + process % 120, 40 + n);
    let six = format!("fd00:224:{process:x}:{n}:");
    let subnet6 = format!("{six}:/64");
    wharf.ok(&[&["network", "create", "--ipv6", "--subnet", &four, "--subnet", &subnet6][..], more, &[name]].concat());
    six
}

fn shown(wharf: &Wharf, name: &str, field: &str) -> String {
    wharf.ok(&["inspect", "-f", &format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}"), name])
}

fn six_of(wharf: &Wharf, name: &str) -> String {
    shown(wharf, name, "GlobalIPv6Address")
}

/// What a guest hears that is run on a network for it.
fn run(wharf: &Wharf, network: &str, words: &[&str]) -> String {
    wharf.run(&[&["run", "--rm", "--network", network, "net"], words].concat()).stdout.replace('!', "")
}

#[test]
fn wasm_containers_meet_by_ipv6() {
    meet(&with_program(), 1);
}

#[test]
fn wasm_containers_of_anybody_meet_by_ipv6() {
    let wharf = Wharf::of("54321");
    load_program(&wharf);
    meet(&wharf, 8);
}

fn meet(wharf: &Wharf, number: u8) {
    let prefix = network(wharf, "six", number, &[]);
    let wanted = format!("{prefix}:77");
    let on = ["--network", "six"];
    serve(wharf, "both", &on, &["peer", "[::]:80"]);
    serve(wharf, "four", &on, &["peer", "0.0.0.0:80"]);
    serve(wharf, "own", &["--network", &format!("name=six,ip6={wanted}")], &["peer", &format!("[{wanted}]:80")]);
    serve(wharf, "oracle", &on, &["answer", "[::]:53"]);
    let place = |name: &str| {
        let fields = ["GlobalIPv6PrefixLen", "IPv6Gateway", "GlobalIPv6Address"];
        fields.map(|field| shown(wharf, name, field))
    };
    let free = wharf.ok(&["network", "inspect", "six", "-f", "{{(index .IPAM.Config 1).Gateway}}"]);
    assert_eq!(place("own"), ["64".to_owned(), free.clone(), wanted.clone()]);
    let there = wharf.ok(&["network", "inspect", "six", "-f", "{{range .Containers}}{{.IPv6Address}} {{end}}"]);
    assert!(there.split(' ').any(|one| one == format!("{wanted}/64")), "{there}");
    let mut all = ["both", "four", "own", "oracle"].map(|name| six_of(wharf, name));
    assert!(all.iter().all(|six| six.starts_with(&prefix) && *six != free), "{all:?}");
    all.sort();
    assert!(all.windows(2).all(|two| two[0] != two[1]), "{all:?}");

    // By address: the caller is known by his, and what listens on IPv4 only is not there.
    let at = |name: &str| format!("[{}]:80", six_of(wharf, name));
    for name in ["both", "own"] {
        let said = run(wharf, "six", &["dial", &at(name)]);
        assert!(said.contains(&format!("connected to {} from [{prefix}", at(name))), "{said}");
        assert!(said.contains(&format!("you are [{prefix}")), "{said}");
    }
    assert!(run(wharf, "six", &["dial", &at("four")]).starts_with("failed: ConnectionRefused"));
    // By name: both families, IPv4 first, and whichever listens.
    let found = run(wharf, "six", &["lookup", "both"]);
    assert_eq!(found.lines().collect::<Vec<_>>(), [shown(wharf, "both", "IPAddress"), six_of(wharf, "both")]);
    assert_eq!(run(wharf, "six", &["lookup", "both.six"]), found);
    assert!(run(wharf, "six", &["dial", "own:80"]).contains(&format!("connected to {} ", at("own"))));
    assert!(run(wharf, "six", &["dial", "both:80"]).contains("you are [::ffff:10."), "by IPv4, as the kernel has it");
    // Datagrams.
    let oracle = format!("[{}]:53", six_of(wharf, "oracle"));
    let said = run(wharf, "six", &["ask", &oracle, "who"]);
    assert!(said.starts_with(&format!("{oracle} answered: who from [{prefix}")), "{said}");
    assert!(run(wharf, "six", &["own", &oracle]).starts_with(&prefix));
    let said = run(wharf, "six", &["ask", "oracle:53", "who"]);
    assert!(said.contains(":53 answered: who from [::ffff:10."), "by name it is IPv4 first: {said}");

    // Addresses that cannot be had.
    for (address, words) in [
        (wanted.as_str(), "Address already in use"),
        (&free, "Address already in use"),
        ("fd00:225::5", "no configured subnet contains IP address fd00:225::5"),
    ] {
        let refused = wharf.exits(125, &["run", "--rm", "--network", "six", "--ip6", address, "net", "lookup", "x"]);
        assert!(refused.stderr.contains(words), "{refused}");
    }
    // Started again it has the address again; ended, others can have it.
    wharf.ok(&["restart", "-t", "0", "own"]);
    eventually("it is there again", PATIENCE, || {
        run(wharf, "six", &["dial", &at("own")]).contains("you are").then_some(())
    });
    wharf.ok(&["rm", "-f", "own"]);
    let fixed = ["run", "--rm", "--network", "six", "--ip6", &wanted, "net", "dial", &at("both")];
    assert!(wharf.ok(&fixed).contains(&format!("you are [{wanted}]:")));
    wharf.ok(&["rm", "-f", "both", "four", "oracle"]);
    wharf.ok(&["network", "rm", "six"]);
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn grants_and_walls_between_networks_hold_for_ipv6() {
    let wharf = with_both();
    network(&wharf, "one", 2, &[]);
    let two = network(&wharf, "two", 3, &[]);
    network(&wharf, "shut", 4, &["--internal"]);
    for name in ["one", "two", "shut"] {
        serve(&wharf, name, &["--network", name], &["peer", "[::]:80"]);
        serve(&wharf, &format!("{name}-oracle"), &["--network", name], &["answer", "[::]:53"]);
    }
    let at = |name: &str| format!("[{}]:80", six_of(&wharf, name));
    for (from, to) in [("one", "two"), ("two", "one"), ("shut", "one"), ("one", "shut")] {
        let said = run(&wharf, from, &["dial", &at(to)]);
        assert!(said.starts_with("failed: ") && !said.contains("connected"), "{from} to {to}: {said}");
        assert!(run(&wharf, from, &["dial", &format!("{to}:80")]).starts_with("failed: "));
        let oracle = format!("[{}]:53", six_of(&wharf, &format!("{to}-oracle")));
        assert_eq!(run(&wharf, from, &["ask", &oracle, "who"]).trim(), "no answer", "{from} to {to}");
        assert!(run(&wharf, to, &["ask", &oracle, "who"]).contains("answered"));
    }
    assert!(run(&wharf, "shut", &["dial", &at("shut")]).contains("you are"), "among themselves");
    // What is denied, by address, by prefix and by the name that led there.
    let denied = |flags: &[&str], words: &[&str]| {
        let ran = wharf.run(&[&["run", "--rm", "--network", "two"], flags, &["net"], words].concat());
        (ran.stdout.clone(), ran.stderr)
    };
    let (six, oracle) = (six_of(&wharf, "two"), six_of(&wharf, "two-oracle"));
    let net = format!("{two}:/64");
    for deny in [&six, &net, &format!("[{six}]:80"), "*"] {
        let (said, log) = denied(&["--deny-net", deny], &["dial", &at("two")]);
        assert!(said.starts_with("failed: PermissionDenied"), "{deny}: {said}");
        assert!(log.contains(&format!("--deny-net would have to leave [{six}]:80 out")), "{log}");
    }
    let (said, _) = denied(&["--deny-net", "two:80"], &["dial", "two:80"]);
    assert!(said.starts_with("failed: PermissionDenied"), "{said}");
    let (said, log) = denied(&["--deny-net", &net], &["ask", &format!("[{oracle}]:53"), "who"]);
    assert!(said.starts_with("no answer") && log.contains("denied"), "{said} {log}");
    // A list does not bind neighbours; another port, or another neighbour, is not meant.
    for flags in [["--allow-net", "example.org"], ["--deny-net", &format!("[{six}]:81")], ["--deny-net", &oracle]] {
        assert!(denied(&flags, &["dial", &at("two")]).0.contains("you are"), "{flags:?}");
    }
    // The host and its loopback, and addresses of links.
    let host = wharf.ok(&["network", "inspect", "two", "-f", "{{(index .IPAM.Config 1).Gateway}}"]);
    for (to, words) in [
        (format!("[{host}]:80"), "--allow-net host.docker.internal:80 would allow it"),
        ("[fe80::1]:80".to_owned(), "--allow-net [fe80::1]:80 would allow it"),
        ("[fd00:ec2::254]:80".to_owned(), "--allow-net [fd00:ec2::254]:80 would allow it"),
    ] {
        let (said, log) = denied(&[], &["dial", &to]);
        assert!(said.starts_with("failed: PermissionDenied") && log.contains(words), "{to}: {said} {log}");
    }
    // The guest's loopback is its own; the host's is reached when it is asked for by name.
    let listener = TcpListener::bind("[::1]:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    assert!(run(&wharf, "two", &["dial", &format!("[::1]:{port}")]).starts_with("failed: ConnectionRefused"));
    let answered = std::thread::spawn(move || {
        listener.accept().and_then(|(mut stream, _)| stream.write_all(b"the host")).expect("a caller");
    });
    let (said, log) =
        denied(&["--allow-net", &format!("host.docker.internal:{port}")], &["dial", &format!("[{host}]:{port}")]);
    assert!(said.contains("the host"), "{said} {log}");
    answered.join().expect("a host");
}

#[test]
fn wasm_and_linux_containers_meet_by_ipv6() {
    let wharf = with_program();
    let prefix = network(&wharf, "six", 5, &[]);
    let two = network(&wharf, "two", 6, &[]);
    let on = ["--network", "six"];
    // One before there is a bridge, one after.
    serve(&wharf, "early", &[&on[..], &["-p", "80"]].concat(), &["peer", "[::]:80"]);
    let script = "while :; do nc -l -p 82 -e sh -c 'echo from linux'; done";
    for (name, network) in [("linux", "six"), ("linux-two", "two")] {
        wharf.ok(&["run", "-d", "--name", name, "--network", network, "busybox", "sh", "-c", script]);
    }
    serve(&wharf, "late", &on, &["peer", "[::]:80"]);
    serve(&wharf, "four", &on, &["peer", "0.0.0.0:80"]);
    let wanted = format!("{prefix}:77");
    let own = ["--network", &format!("name=six,ip6={wanted}")];
    serve(&wharf, "own", &own, &["peer", &format!("[{wanted}]:80")]);
    serve(&wharf, "oracle", &on, &["answer", "[::]:53"]);
    let linux = six_of(&wharf, "linux");
    for name in ["early", "late", "own"] {
        let six = six_of(&wharf, name);
        let said = told(&wharf, "linux", &six, 80);
        assert_eq!(said.split("]:").next(), Some(format!("you are [{linux}").as_str()), "{name}");
        assert!(said.ends_with(&format!("I am [{six}]:80")), "{said}");
    }
    let found = exec(&wharf, "linux", "nslookup -type=aaaa late; nslookup -type=aaaa late.six");
    assert_eq!(found.matches(&format!("Address: {}", six_of(&wharf, "late"))).count(), 2, "{found}");
    let backwards = exec(&wharf, "linux", &format!("nslookup {}", six_of(&wharf, "late")));
    assert!(backwards.contains("name = late.six"), "{backwards}");
    // By IPv4 too, but for the one that is bound to its IPv6 address; and the other way round.
    let said = told(&wharf, "linux", &shown(&wharf, "late", "IPAddress"), 80);
    assert!(said.contains("you are [::ffff:10."), "{said}");
    assert!(told(&wharf, "linux", "late", 80).starts_with("you are"), "by name");
    assert!(told(&wharf, "linux", &shown(&wharf, "four", "IPAddress"), 80).starts_with("you are 10."));
    assert!(is_silent(&wharf, "linux", &six_of(&wharf, "four"), 80));
    assert!(is_silent(&wharf, "linux", &shown(&wharf, "own", "IPAddress"), 80));
    let said = heard_by_wasm(&wharf, "late", &format!("[{linux}]:82"));
    assert!(said.contains("from linux") && said.contains(&format!("from [{}]:", six_of(&wharf, "late"))), "{said}");
    // Another process of the container may have the other family.
    wharf.ok(&["exec", "-d", "four", "/net.wasm", "peer", "[::]:80"]);
    let (by_four, by_six) = (shown(&wharf, "four", "IPAddress"), six_of(&wharf, "four"));
    eventually("it listens", PATIENCE, || told(&wharf, "linux", &by_six, 80).starts_with("you are [fd").then_some(()));
    assert!(told(&wharf, "linux", &by_four, 80).starts_with("you are 10."));
    assert!(heard_by_wasm(&wharf, "late", &format!("{by_four}:80")).contains("you are 10."));
    assert!(heard_by_wasm(&wharf, "late", &format!("[{by_six}]:80")).contains("you are [fd"));
    // Datagrams, both ways.
    let said = answered(&wharf, "linux", "[::]:0", format!("[{}]:53", six_of(&wharf, "oracle")));
    assert!(said.starts_with(&format!("hello from [{linux}]:")), "{said}");
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            within(&wharf, "linux", move || {
                let socket = UdpSocket::bind("[::]:7").expect("a port");
                ready.send(()).expect("heard");
                let (length, from) = socket.recv_from(&mut [0; 100]).expect("a datagram");
                socket.send_to(format!("{length} bytes of {}", from.ip()).as_bytes(), from).expect("sent");
            });
        });
        is_ready.recv().expect("a server");
        let said = wharf.ok(&["exec", "own", "/net.wasm", "ask", &format!("[{linux}]:7"), "you there"]);
        assert_eq!(said, format!("[{linux}]:7 answered: 9 bytes of {wanted}"));
        server.join().expect("a server");
    });
    // Itself, as its neighbours do.
    for host in ["127.0.0.1", "[::1]", &format!("[{}]", six_of(&wharf, "late"))] {
        assert!(heard_by_wasm(&wharf, "late", &format!("{host}:80")).contains("you are ["), "{host}");
    }
    // Networks are apart, and other machines have no way to its address.
    let outside = Machine::new(107);
    let ip = |line: String| tool(Command::new("ip").args(line.split(' ')));
    ip(format!("-n {} addr add fd00:222:107::2/64 dev eth0 nodad", outside.0));
    ip(format!("-n {} route add default via fd00:222:107::1", outside.0));
    ip("addr add fd00:222:107::1/64 dev wt107 nodad".to_owned());
    let port = wharf.ok(&["port", "early", "80"]).lines().next().unwrap_or_default().replace("0.0.0.0:", "");
    let knock = |host: &str, port: &str| outside.run(&format!("nc -w 2 {host} {port} </dev/null | head -c 60"));
    assert!(knock("fd00:222:107::1", &port).starts_with("you are [fd00:222:107::2]:"));
    for name in ["early", "late"] {
        assert_eq!(knock(&six_of(&wharf, name), "80"), "", "{name}");
    }
    assert!(is_silent(&wharf, "linux-two", &six_of(&wharf, "late"), 80));
    let far = six_of(&wharf, "linux-two");
    assert!(heard_by_wasm(&wharf, "late", &format!("[{far}]:82")).starts_with("failed: "));
    // What is published is reached as before, by both families.
    for host in ["127.0.0.1", "::1"] {
        let said = tool(Command::new("busybox").args(["nc", "-w", "2", host, &port]));
        assert!(said.starts_with("you are ["), "{host}: {said}");
    }
    // Networks that come and go.
    for _ in 0..2 {
        let there = format!("{two}:99");
        wharf.ok(&["network", "connect", "--ip6", &there, "two", "late"]);
        wharf.ok(&["network", "connect", "two", "oracle"]);
        let taken = wharf.exits(1, &["network", "connect", "--ip6", &there, "two", "early"]);
        assert!(taken.stderr.contains("Address already in use"), "{taken}");
        assert!(told(&wharf, "linux-two", &there, 80).ends_with(&format!("I am [{there}]:80")));
        assert!(told(&wharf, "linux", &six_of(&wharf, "early"), 80).starts_with("you are"));
        let said = heard_by_wasm(&wharf, "late", &format!("[{far}]:82"));
        assert!(said.contains("from linux") && said.contains(&format!("from [{there}]:")), "{said}");
        let said = run(&wharf, "two", &["dial", &format!("[{there}]:80")]);
        assert!(said.contains(&format!("you are [{two}")), "{said}");
        for container in ["late", "oracle"] {
            wharf.ok(&["network", "disconnect", "two", container]);
        }
        assert!(is_silent(&wharf, "linux-two", &there, 80));
        assert!(run(&wharf, "two", &["dial", &format!("[{there}]:80")]).starts_with("failed: "));
        assert!(heard_by_wasm(&wharf, "late", &format!("[{far}]:82")).starts_with("failed: "));
        let six = six_of(&wharf, "late");
        assert!(six.starts_with(&prefix) && told(&wharf, "linux", &six, 80).starts_with("you are"), "{six}");
    }
    // Nothing stays.
    wharf.ok(&["restart", "-t", "0", "own"]);
    eventually("it is there again", PATIENCE, || {
        told(&wharf, "linux", &wanted, 80).starts_with("you are").then_some(())
    });
    for name in ["late", "four"] {
        let log = wharf.run(&["logs", name]);
        assert!(!log.stderr.contains("cannot reach"), "{log}");
    }
    wharf.ok(&["rm", "-f", "early", "late", "four", "own", "oracle", "linux", "linux-two"]);
    wharf.ok(&["network", "rm", "six", "two"]);
    eventually("the host has none of its addresses", PATIENCE, || {
        let addresses = tool(Command::new("ip").args(["-o", "-6", "addr"]));
        (!addresses.contains(&prefix) && !addresses.contains(&two)).then_some(())
    });
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn a_server_for_http_is_reached_by_ipv6() {
    let wharf = with_both();
    wharf.ok(&["wasm", "pack", &images::guest("http"), "-t", "web"]);
    network(&wharf, "six", 7, &[]);
    idle(&wharf, "linux", &["--network", "six"]);
    wharf.ok(&["run", "-d", "--name", "web", "--network", "six", "web"]);
    eventually("it has its place", PATIENCE, || (!six_of(&wharf, "web").is_empty()).then_some(()));
    for address in [six_of(&wharf, "web"), shown(&wharf, "web", "IPAddress")] {
        let said = within(&wharf, "linux", move || {
            let at = if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") };
            eventually("it answers", PATIENCE, || {
                let mut stream = std::net::TcpStream::connect(&at).ok()?;
                stream.write_all(b"GET / HTTP/1.0\r\nHost: web\r\n\r\n").ok()?;
                let mut said = String::new();
                stream.read_to_string(&mut said).ok()?;
                Some(said)
            })
        });
        assert!(said.starts_with("HTTP/1."), "{said}");
    }
}

#[test]
fn a_storm_of_both_kinds_gives_no_ipv6_address_twice() {
    let wharf = with_program();
    let prefix = network(&wharf, "six", 9, &[]);
    let kept: Vec<String> = (0..16).map(|n| format!("kept{n}")).collect();
    let kind = |n: usize| match n % 2 {
        0 => ["busybox", "sleep", "1000"],
        _ => ["net", "peer", "[::]:80"],
    };
    let start = |(n, name): (usize, &String)| {
        wharf.spawn(&[&["run", "-d", "--name", name, "--network", "six"][..], &kind(n)].concat())
    };
    let mut children: Vec<_> = kept.iter().enumerate().map(start).collect();
    children.iter_mut().for_each(|child| assert_eq!(wharf::wait(child, "a container in a storm"), 0));
    let addresses: std::collections::BTreeSet<_> = kept.iter().map(|name| six_of(&wharf, name)).collect();
    assert!(addresses.len() == kept.len() && addresses.iter().all(|six| six.starts_with(&prefix)), "{addresses:?}");
    for name in &kept[1..4] {
        let (from, to) = (if name == "kept2" { "kept1" } else { name }, six_of(&wharf, "kept5"));
        eventually("it is reached", PATIENCE, || {
            heard_by_wasm(&wharf, from, &format!("[{to}]:80")).contains("you are").then_some(())
        });
    }
    // Some end with their monitors.
    for pid in wharf.monitors().keys().take(6) {
        tool(Command::new("kill").args(["-9", &pid.to_string()]));
    }
    eventually("the killed are seen", PATIENCE, || {
        (wharf.ok(&["ps", "-q"]).lines().count() == kept.len() - 6).then_some(())
    });
    let mut children: Vec<_> = kept.iter().map(|name| wharf.spawn(&["rm", "-f", name])).collect();
    children.iter_mut().for_each(|child| assert_eq!(wharf::wait(child, "rm -f"), 0));
    assert_eq!(wharf.ok(&["network", "inspect", "six", "-f", "{{len .Containers}}"]), "0");
    eventually("nothing is left", PATIENCE, || {
        (!tool(Command::new("ip").args(["-o", "-6", "addr"])).contains(&prefix)).then_some(())
    });
    wharf.ok(&["network", "rm", "six"]);
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}
