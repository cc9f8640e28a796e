//! Networks of Linux containers as a docker user knows them, and what must not get through: tried from network namespaces
//! that stand for other machines.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::docker::Docker;
use crate::support::{Wharf, eventually, skip, tool, wharf};

/// A web server that says this.
fn server(text: &str) -> String {
    format!("mkdir -p /www; echo {text} > /www/index.html; exec httpd -f -p 80 -h /www")
}

/// Asks a web server, from within a container or on the host; the last line of its answer.
fn ask(address: &str, port: u16) -> String {
    format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port} | tail -n 1")
}

fn sh(script: &str) -> String {
    let out = Command::new("timeout").args(["10", "busybox", "sh", "-c", script]).output().expect("a shell");
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn address(wharf: &Wharf, container: &str) -> String {
    let id = wharf.ok(&["inspect", "-f", "{{.Id}}", container]);
    for network in wharf.ok(&["network", "ls", "--format", "{{.Name}}"]).lines() {
        let object: Value = serde_json::from_str(&wharf.ok(&["network", "inspect", network])).expect("JSON");
        if let Some(address) = object[0]["Containers"][&id]["IPv4Address"].as_str() {
            return address.split('/').next().unwrap_or_default().to_owned();
        }
    }
    panic!("{container} is on no network");
}

/// The host's network devices and firewall tables of this instance.
fn traces() -> BTreeSet<String> {
    let links = tool(Command::new("ip").args(["-o", "link"]));
    let names = links.lines().filter_map(|line| line.split_whitespace().nth(1));
    names.map(|name| name.trim_end_matches(':').split('@').next().unwrap_or_default().to_owned()).collect()
}

/// Waits until a container's server answers.
fn answers(address: &str, port: u16, text: &str) {
    eventually(&format!("{address}:{port} answers {text}"), Duration::from_secs(30), || {
        (sh(&ask(address, port)) == text).then_some(())
    });
}

#[test]
fn containers_meet_by_name_and_address() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--name", "web", "--network-alias", "www", "busybox", "sh", "-c", &server("hello")]);
    let web = address(&wharf, "web");
    answers(&web, 80, "hello");
    let run = |script: &str| wharf.ok(&["run", "--rm", "busybox", "sh", "-c", script]);
    let id = wharf.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    for name in ["web", "www", &id[..12], &web] {
        assert_eq!(run(&ask(name, 80)), "hello", "{name}");
    }
    assert!(run("nslookup nothing.invalid; true").contains("NXDOMAIN"));
    assert!(run(&format!("nslookup {web}")).contains("name = web.bridge"), "backwards too");
    let files = run("cat /etc/hosts /etc/resolv.conf; hostname");
    assert!(files.contains("nameserver 127.0.0.11") && files.contains("localhost"), "{files}");
    let (hosts, hostname) = (files.lines().collect::<Vec<_>>(), files.lines().last().unwrap_or_default());
    assert!(hosts.iter().any(|line| line.ends_with(&format!("\t{hostname}"))), "{files}");
    // With its domain it stands there with and without.
    let full =
        wharf.ok(&["run", "--rm", "--hostname", "box", "--domainname", "some.test", "busybox", "cat", "/etc/hosts"]);
    assert!(full.ends_with("\tbox.some.test box"), "{full}");
    let dotted = wharf.ok(&["run", "--rm", "--hostname", "box.some.test", "busybox", "cat", "/etc/hosts"]);
    assert!(dotted.ends_with("\tbox.some.test box"), "{dotted}");
    // Its own network is its own: it has an address and a way out, and sees none of the host's devices.
    let links = run("ip -o addr; ip route");
    assert!(links.contains("eth0") && links.contains("default via"), "{links}");
    assert!(!links.contains("wv"), "{links}");
    // What was never connected is not.
    assert!(!wharf.ok(&["run", "--rm", "--network", "none", "busybox", "ip", "-o", "addr"]).contains("eth0"));
    // A container that starts again has a place again, and its name follows.
    wharf.ok(&["restart", "-t", "0", "web"]);
    answers(&address(&wharf, "web"), 80, "hello");
    assert_eq!(run(&ask("web", 80)), "hello");
}

#[test]
fn networks_are_made_listed_and_removed_in_dockers_words() {
    let wharf = Wharf::with_busybox();
    let create = ["network", "create", "--subnet", "10.222.0.0/24", "--label", "a=1", "--internal", "back"];
    let id = wharf.ok(&create);
    assert_eq!(id.len(), 64);
    let again = wharf.exits(1, &["network", "create", "back"]);
    assert!(again.stderr.contains("network with name back already exists"), "{again}");
    let overlap = wharf.exits(1, &["network", "create", "--subnet", "10.222.0.128/25", "other"]);
    assert!(overlap.stderr.contains("Pool overlaps with other one on this address space"), "{overlap}");
    assert_eq!(
        wharf.ok(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]),
        "back bridge\nbridge bridge\nhost host\nnone null"
    );
    assert_eq!(wharf.ok(&["network", "ls", "-q", "--no-trunc", "--filter", "label=a=1"]), id);
    let object: Value = serde_json::from_str(&wharf.ok(&["network", "inspect", &id[..10]])).expect("JSON");
    assert_eq!((&object[0]["Name"], &object[0]["Internal"]), (&"back".into(), &true.into()));
    assert_eq!(object[0]["IPAM"]["Config"][0]["Subnet"], "10.222.0.0/24");
    wharf.ok(&["run", "-d", "--name", "user", "--network", "back", "busybox", "sleep", "1000"]);
    let used = wharf.exits(1, &["network", "rm", "back"]);
    let endpoint =
        wharf.ok(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{slice .EndpointID 0 12}}{{end}}", "user"]);
    let by = format!("network back has active endpoints (name:\"user\" id:\"{endpoint}\")");
    assert!(used.stderr.contains(&by), "{used}");
    wharf.ok(&["network", "create", "idle"]);
    let dangling =
        |value: &str| wharf.ok(&["network", "ls", "--format", "{{.Name}}", "--filter", &format!("dangling={value}")]);
    assert_eq!((dangling("true"), dangling("0")), ("idle".to_owned(), "back\nbridge\nhost\nnone".to_owned()));
    wharf.ok(&["network", "rm", "idle"]);
    for (network, error) in [("host", "is not connected to network host"), ("none", "is not connected to network none")]
    {
        let apart = wharf.exits(1, &["network", "disconnect", network, "user"]);
        assert!(apart.stderr.contains(error), "{apart}");
    }
    wharf.ok(&["rm", "-f", "user"]);
    assert_eq!(wharf.ok(&["network", "prune", "-f"]), "Deleted Networks:\nback");
    for (args, error) in [
        (vec!["network", "rm", "back"], "network back not found"),
        (vec!["network", "rm", "bridge"], "bridge is a pre-defined network and cannot be removed"),
        (vec!["network", "inspect", "back"], "network back not found"),
        (vec!["network", "create", "-d", "overlay", "x"], "plugin \"overlay\" not found"),
        (vec!["network", "create", "host"], "predefined host network"),
        (vec!["network", "create", "--subnet", "10.0.0.1/24", "x"], "it should be 10.0.0.0/24"),
        (
            vec!["network", "create", "--subnet", "10.0.0.0/31", "x"],
            "10.0.0.0/31: its prefix must have from 1 to 30 bits",
        ),
        (vec!["network", "ls", "--filter", "type=x"], "invalid filter: 'type'='x'"),
        (vec!["network", "ls", "--filter", "dangling=x"], "invalid value for filter 'dangling', must be \"true\" (or"),
        (vec!["network", "create", "--subnet", "10.0.0.0/33", "x"], "invalid subnet 10.0.0.0/33: invalid CIDR block"),
        (vec!["network", "create", "--ipv6", "--subnet", "fd00::/129", "x"], "invalid subnet fd00::/129: invalid CIDR"),
        (vec!["network", "create", "a/b"], "invalid network name"),
    ] {
        let refused = wharf.exits(1, &args);
        assert!(refused.stderr.contains(error), "{refused}");
    }
    // Docker's files are there without a network too.
    let alone = ["run", "--rm", "--network", "none", "--dns", "192.0.2.1", "--dns-search", "a.example"];
    let lines = wharf.ok(&[&alone[..], &["busybox", "head", "-n2", "/etc/resolv.conf"]].concat());
    assert_eq!(lines, "nameserver 192.0.2.1\nsearch a.example");
    let missing = wharf.exits(125, &["run", "--rm", "--network", "nope", "busybox", "true"]);
    assert!(missing.stderr.contains("network nope not found"), "{missing}");
}

/// A machine of its own: a network namespace, connected to this host by a cable.
pub struct Machine(pub String);

impl Machine {
    /// With the host at 198.51.N.1, and itself at 198.51.N.2; everything else is asked of the host.
    pub fn new(n: u8) -> Self {
        let name = format!("wharf-test-{}-{n}", std::process::id());
        let run = |line: String| tool(Command::new("sh").args(["-ec", &line]));
        run(format!("ip netns add {name}; ip link add wt{n} type veth peer name eth0 netns {name}"));
        run(format!("ip addr add 198.51.{n}.1/24 dev wt{n}; ip link set wt{n} up"));
        run(format!("ip -n {name} addr add 198.51.{n}.2/24 dev eth0; ip -n {name} link set eth0 up"));
        run(format!("ip -n {name} link set lo up; ip -n {name} route add default via 198.51.{n}.1"));
        Machine(name)
    }

    /// What a shell on it says.
    pub fn run(&self, script: &str) -> String {
        let inside = ["netns", "exec", &self.0, "timeout", "10", "busybox", "sh", "-c", script];
        let out = Command::new("ip").args(inside).output().expect("ip");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        Command::new("ip").args(["netns", "del", &self.0]).output().ok();
    }
}

#[test]
fn other_machines_reach_what_is_published_and_nothing_else() {
    let wharf = Wharf::with_busybox();
    let (near, far) = (Machine::new(101), Machine::new(102));
    let publish = ["-p", "28080:80", "-p", "198.51.101.1:28081:80", "-p", "127.0.0.1:28082:80", "-p", "28083:53/udp"];
    let script = server("published");
    let run = [&["run", "-d", "--name", "web"][..], &publish, &["busybox", "sh", "-c", &script]].concat();
    wharf.ok(&run);
    let web = address(&wharf, "web");
    answers(&web, 80, "published");
    for (machine, host, port, expected) in [
        (&near, "198.51.101.1", 28080, "published"),
        (&far, "198.51.102.1", 28080, "published"),
        (&near, "198.51.101.1", 28081, "published"),
        (&far, "198.51.102.1", 28081, ""),
        (&near, "198.51.101.1", 28082, ""),
        (&near, "198.51.101.1", 80, ""),
        // By the container's own address, with a route to it.
        (&near, web.as_str(), 80, ""),
        (&near, web.as_str(), 28080, ""),
    ] {
        assert_eq!(machine.run(&ask(host, port)), expected, "{host}:{port}");
    }
    for (host, port) in [("127.0.0.1", 28080), ("127.0.0.1", 28082), ("198.51.101.1", 28081)] {
        assert_eq!(sh(&ask(host, port)), "published", "the host itself at {host}:{port}");
    }
    // Itself by the host's address; and another container.
    let exec = |name: &str, script: &str| wharf.run(&["exec", name, "sh", "-c", script]).stdout.trim().to_owned();
    assert_eq!(exec("web", &ask("198.51.101.1", 28080)), "published");
    wharf.ok(&["run", "-d", "--name", "other", "busybox", "sleep", "1000"]);
    assert_eq!(exec("other", &ask("198.51.102.1", 28080)), "published");
    // The host's loopback stays the host's, although answers to its connections come through the bridge.
    assert_eq!(
        exec("other", "ip route add 127.0.0.0/8 via $(ip route | grep default | cut -d' ' -f3) 2>&1; true")
            .lines()
            .count(),
        1
    );
    // Datagrams.
    let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
    let listener = std::thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the container's network");
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).expect("setns");
        let socket = std::net::UdpSocket::bind("0.0.0.0:53").expect("a socket in the container's network");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        let mut bytes = [0; 16];
        let (length, from) = socket.recv_from(&mut bytes).expect("a datagram");
        (String::from_utf8_lossy(&bytes[..length]).into_owned(), from.ip().to_string())
    });
    eventually("a datagram comes", Duration::from_secs(30), || {
        let send = "echo dgram > /dev/udp/198.51.101.1/28083";
        Command::new("ip").args(["netns", "exec", &near.0, "bash", "-c", send]).output().expect("ip");
        listener.is_finished().then_some(())
    });
    let got = listener.join().expect("a listener");
    assert_eq!(got, ("dgram\n".to_owned(), "198.51.101.2".to_owned()), "the sender's address is kept");
    // Containers reach other machines, under the host's address.
    let listener = std::thread::spawn(move || {
        far.run("nc -l -p 9000 -e sh -c 'echo from outside' 2>/dev/null; ip -o addr show eth0")
    });
    eventually("the way out", Duration::from_secs(30), || {
        (exec("other", "nc -w 2 198.51.102.2 9000 </dev/null") == "from outside").then_some(())
    });
    listener.join().expect("a listener");
    // The port is free with the end of the container.
    let taken = wharf.exits(125, &["run", "--rm", "-p", "28080:80", "busybox", "true"]);
    assert!(taken.stderr.contains("Bind for 0.0.0.0:28080 failed: port is already allocated"), "{taken}");
    wharf.ok(&["rm", "-f", "web"]);
    wharf.ok(&["run", "--rm", "-p", "28080:80", "busybox", "true"]);
    assert_eq!(near.run(&ask("198.51.101.1", 28080)), "");
}

#[test]
fn networks_are_apart_and_internal_ones_closed() {
    let wharf = Wharf::with_busybox();
    let outside = Machine::new(103);
    wharf.ok(&["network", "create", "one"]);
    wharf.ok(&["network", "create", "--internal", "two"]);
    let start = |name: &str, network: &str| {
        let script = server(name);
        wharf.ok(&["run", "-d", "--name", name, "--network", network, "busybox", "sh", "-c", &script]);
        let address = address(&wharf, name);
        answers(&address, 80, name);
        address
    };
    let (first, second, third) = (start("aa", "one"), start("bb", "two"), start("cc", "two"));
    let exec = |name: &str, script: &str| wharf.run(&["exec", name, "sh", "-c", script]).stdout.trim().to_owned();
    assert_eq!(exec("bb", &ask("cc", 80)), "cc", "within a network");
    assert_eq!(exec("bb", &ask(&third, 80)), "cc");
    // Neither by name nor by address, in no direction, not even by packets sent to the other's bridge.
    assert_eq!(exec("aa", &ask(&second, 80)), "");
    assert_eq!(exec("bb", &ask(&first, 80)), "");
    assert!(exec("aa", "nslookup bb; true").contains("NXDOMAIN"));
    let gateway = wharf.ok(&["network", "inspect", "two", "-f", "{{(index .IPAM.Config 0).Gateway}}"]);
    exec("bb", &format!("ip route add default via {gateway}"));
    let served = std::thread::spawn(move || outside.run("nc -l -p 9001 -e echo open & sleep 8; kill %1"));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(exec("bb", "nc -w 2 198.51.103.2 9001 </dev/null"), "", "no way out of an internal network");
    assert_eq!(exec("aa", "nc -w 2 198.51.103.2 9001 </dev/null"), "open", "the other one has one");
    served.join().expect("a server");
}

/// Of a container: its interfaces with their addresses, and its way out.
fn places(wharf: &Wharf, name: &str) -> String {
    let script =
        "ip -o -4 addr | grep eth | while read a b c d e; do echo $b $d; done; ip route | grep default || true";
    wharf.ok(&["exec", name, "sh", "-c", script]).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Tells a container's name to whoever sends a datagram to its port 53, as a process of the container would.
struct Teller(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Teller {
    fn start(wharf: &Wharf, name: &str) -> Self {
        let (is_over, name_told) = (Arc::new(AtomicBool::new(false)), name.to_owned());
        let over = Arc::clone(&is_over);
        let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the container's network");
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).expect("setns");
            let socket = std::net::UdpSocket::bind("0.0.0.0:53").expect("a port");
            socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a time limit");
            ready.send(()).expect("heard");
            while !over.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut [0; 10]) {
                    socket.send_to(name_told.as_bytes(), from).expect("told");
                }
            }
        });
        is_ready.recv().expect("a server");
        Teller(is_over, Some(thread))
    }
}

impl Drop for Teller {
    /// The container's network is not held any longer than this.
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

#[test]
fn what_somebody_took_from_running_containers_is_found_and_given_back() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "front"]);
    let run = |name: &str, flags: &[&str]| {
        let flags = [&["run", "-d", "--name", name, "--network", "front"][..], flags].concat();
        wharf.ok(&[&flags[..], &["busybox", "sh", "-c", &server(name)]].concat())
    };
    let web = run("web", &["-p", "8080:80"]);
    run("other", &[]);
    let device = format!("/sys/class/net/wv{}0/master", &web[..12]);
    let bridge = std::fs::read_link(&device).expect("the bridge that it is connected to");
    let bridge = bridge.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let table = format!("wharf{}", bridge.trim_start_matches("wh").split('-').next().expect("the instance's part"));
    let meets = || wharf.run(&["exec", "other", "sh", "-c", &ask("web", 80)]).stdout.trim() == "web";
    let itself =
        || wharf.run(&["exec", "web", "sh", "-c", &ask(&address(&wharf, "other"), 80)]).stdout.trim() == "other";
    let has_rules = || tool(Command::new("nft").args(["list", "table", "ip", &table])).contains("masquerade");
    eventually("they meet", Duration::from_secs(30), || (meets() && itself() && has_rules()).then_some(()));
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");

    let take = [&["nft", "flush", "table", "ip", &table][..], &["nft", "delete", "table", "ip", &table]];
    for taken in take {
        tool(Command::new(taken[0]).args(&taken[1..]));
        let check = wharf.exits(1, &["system", "check"]);
        assert!(
            check.stdout.contains(&format!("the rules of nf_tables table {table}: somebody has removed it")),
            "{check}"
        );
        let said = wharf.ok(&["system", "check", "--repair"]);
        assert!(said.contains("Gave 1 network interfaces and tables back"), "{said}");
        assert!(has_rules());
    }
    tool(Command::new("ip").args(["link", "del", &bridge]));
    assert!(!meets());
    let check = wharf.exits(1, &["system", "check"]);
    assert_eq!(check.stdout.matches("on the bridge of front: somebody has removed it").count(), 2, "{check}");
    wharf.ok(&["system", "check", "--repair"]);
    eventually("they meet again", Duration::from_secs(30), || (meets() && itself()).then_some(()));
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

#[test]
fn thousands_of_ports_come_and_go_at_once() {
    let wharf = Wharf::with_busybox();
    // None of those that the kernel gives to whoever asks for any.
    let ports = ["-p", "127.0.0.1:21000-24999:1000-4999", "-p", "127.0.0.1:21000-24999:1000-4999/udp"];
    let begun = Instant::now();
    let web = server("many").replace("-p 80", "-p 4321");
    wharf.ok(&[&["run", "-d", "--name", "many"], &ports[..], &["busybox", "sh", "-c", &web]].concat());
    answers("127.0.0.1", 24321, "many");
    wharf.ok(&["rm", "-f", "many"]);
    // A question to the kernel for each port would take more than a minute.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    wharf.ok(&[&["run", "--rm"], &ports[..], &["busybox", "true"]].concat());
}

#[test]
fn who_goes_on_sending_to_a_port_reaches_whoever_publishes_it_now() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "--subnet", "10.222.77.0/24", "front"]);
    let run = |name: &str, flags: &[&str]| {
        let all = [&["run", "-d", "--name", name, "--network", "front"][..], flags, &["busybox", "sleep", "1000"]];
        wharf.ok(&all.concat());
        Teller::start(&wharf, name)
    };
    let sender = || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
        socket
    };
    let ask = |socket: &std::net::UdpSocket, port: u16| {
        let mut space = [0; 100];
        // Nobody there is an error of the socket's, told at one of the next calls.
        let _ = socket.send_to(b"?", ("127.0.0.1", port));
        let length = socket.recv(&mut space).unwrap_or(0);
        String::from_utf8_lossy(&space[..length]).trim().to_owned()
    };
    let until = |socket: &std::net::UdpSocket, port: u16, name: &str| {
        eventually(name, Duration::from_secs(20), || (ask(socket, port) == name).then_some(()));
    };
    let _other = run("other", &["-p", "28581:53/udp"]);
    let one = run("one", &["-p", "28580:53/udp"]);
    let first = address(&wharf, "one");
    // Always from the same port, as an exchange that never ends.
    let (stubborn, elsewhere) = (sender(), sender());
    until(&stubborn, 28580, "one");
    until(&elsewhere, 28581, "other");
    drop(one);
    wharf.ok(&["rm", "-f", "one"]);
    // Another container has the address now, and has published nothing.
    let _heir = run("heir", &[]);
    assert_eq!(address(&wharf, "heir"), first);
    for _ in 0..3 {
        assert_eq!(ask(&stubborn, 28580), "", "the port is nobody's");
    }
    let known = || std::fs::read_to_string("/proc/net/nf_conntrack").expect("what the kernel remembers");
    assert!(known().contains(" dport=28581 "), "others' exchanges go on");
    let _two = run("two", &["-p", "28580:53/udp"]);
    assert_ne!(address(&wharf, "two"), first);
    until(&stubborn, 28580, "two");
    until(&elsewhere, 28581, "other");
}

#[test]
fn a_container_names_its_networks_by_their_ids() {
    let wharf = Wharf::with_busybox();
    let mut ids = vec![wharf.ok(&["network", "inspect", "-f", "{{.Id}}", "bridge"])];
    ids.push(wharf.ok(&["network", "create", "own"]));
    assert!(ids.iter().all(|id| id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit())), "{ids:?}");
    assert_eq!(wharf.ok(&["network", "inspect", "-f", "{{.Id}}", "own"]), ids[1]);
    wharf.ok(&["create", "--name", "web", "--network", "bridge", "--network", "own", "busybox", "sleep", "1000"]);
    let told = |field: &str| {
        let template = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}} {{{{end}}}}");
        wharf.ok(&["inspect", "-f", &template, "web"]).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((told("NetworkID"), told("EndpointID")), (vec![], vec![]), "before it has run, as in docker");
    wharf.ok(&["start", "web"]);
    assert_eq!(told("NetworkID"), ids);
    let endpoint = "{{range .Containers}}{{.EndpointID}}{{end}}";
    let endpoints = ["bridge", "own"].map(|network| wharf.ok(&["network", "inspect", "-f", endpoint, network]));
    assert_eq!(told("EndpointID"), endpoints);
    wharf.ok(&["run", "-d", "--name", "bare", "--network", "none", "busybox", "true"]);
    let none = wharf.ok(&["network", "inspect", "-f", "{{.Id}}", "none"]);
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.NetworkSettings.Networks.none.NetworkID}}", "bare"]), none);
}

#[test]
fn a_network_is_asked_for_by_its_id_too() {
    let wharf = Wharf::with_busybox();
    let id = wharf.ok(&["network", "create", "own"]);
    let long = format!("name={id},alias=www");
    for (name, network) in [("whole", id.as_str()), ("short", &id[..12]), ("long", &long)] {
        wharf.ok(&["create", "--name", name, "--network", network, "busybox", "true"]);
        let networks = "{{.HostConfig.NetworkMode}} {{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}";
        assert_eq!(wharf.ok(&["inspect", "-f", networks, name]), "own own", "{name}");
        assert!(wharf.ok(&["run", "--rm", "--network", network, "busybox", "ip", "addr"]).contains("eth0"), "{name}");
    }
    assert!(wharf.ok(&["run", "--rm", "--network", &id, "wharf/hello"]).contains("Hello"));
    for twice in [["own", &id], [&id, &id[..12]]] {
        let twice = ["run", "--rm", "--network", twice[0], "--network", twice[1], "busybox"];
        let error = wharf.exits(125, &twice);
        assert!(error.stderr.contains("network \"own\" is specified multiple times"), "{error}");
    }
    wharf.ok(&["create", "--name", "elsewhere", "busybox", "true"]);
    let filtered =
        |network: &str| wharf.ok(&["ps", "-a", "--format", "{{.Names}}", "--filter", &format!("network={network}")]);
    for network in ["own", &id, &id[..12], &id[..3]] {
        assert_eq!(filtered(network), "long\nshort\nwhole", "{network}");
    }
    assert_eq!((filtered(&id[1..]), filtered("ow")), (String::new(), String::new()));
    assert_eq!(filtered("bridge"), "elsewhere");
}

#[test]
fn hosts_are_added_where_there_is_no_network_of_its_own() {
    let wharf = Wharf::with_busybox();
    let added = ["--add-host", "a:192.0.2.1", "--add-host", "way:host-gateway"];
    let lines = |network: &str| {
        let run = [&["run", "--rm", "--network", network], &added[..], &["busybox", "cat", "/etc/hosts"]].concat();
        wharf.ok(&run)
    };
    let gateway = wharf.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge"]);
    let alone = lines("none");
    assert!(alone.starts_with("127.0.0.1\tlocalhost\n"), "{alone}");
    assert!(alone.ends_with(&format!("\n192.0.2.1\ta\n{gateway}\tway")), "{alone}");
    let host = std::fs::read_to_string("/etc/hosts").expect("the host's");
    let expected = format!("{}\n192.0.2.1\ta\n127.0.0.1\tway", host.trim_end());
    assert_eq!(lines("host"), expected, "after the host's own");
    assert_eq!(lines("bridge").matches("\ta\n").count(), 1);
}

#[test]
fn nothing_is_published_on_a_network_that_leads_nowhere() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "--internal", "shut"]);
    wharf.ok(&["network", "create", "open"]);
    let publish = ["--network", "shut", "-p", "28990:80", "--expose", "99"];
    let web = server("moved");
    wharf.ok(&[&["run", "-d", "--name", "web"], &publish[..], &["busybox", "sh", "-c", &web]].concat());
    let ports = || {
        let inspected = wharf.ok(&["inspect", "-f", "{{json .NetworkSettings.Ports}}", "web"]);
        (wharf.ok(&["port", "web"]), wharf.ok(&["ps", "--format", "{{.Ports}}"]), inspected)
    };
    let nothing = || (String::new(), String::new(), "{}".to_owned());
    assert_eq!(ports(), nothing());
    // It is published when it comes to a network that leads out.
    wharf.ok(&["network", "connect", "open", "web"]);
    let (port, listed, inspected) = ports();
    assert!(port.contains("80/tcp -> 0.0.0.0:28990"), "{port}");
    assert!(listed.contains("0.0.0.0:28990->80/tcp") && listed.contains("99/tcp"), "{listed}");
    assert!(inspected.contains("28990") && inspected.contains("99/tcp"), "{inspected}");
    answers("127.0.0.1", 28990, "moved");
    wharf.ok(&["network", "disconnect", "open", "web"]);
    assert_eq!(ports(), nothing());
}

#[test]
fn who_is_to_start_again_is_on_no_network_until_then() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "own"]);
    let run = ["run", "-d", "--name", "again", "--restart", "always", "--network", "own", "-p", "127.0.0.1:28991:80"];
    wharf.ok(&[&run[..], &["busybox", "sh", "-c", "sleep 0.1; false"]].concat());
    let while_restarting = |what: &str, look: &dyn Fn() -> String| {
        eventually(what, Duration::from_secs(30), || {
            let state = || wharf.ok(&["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again"]);
            let (before, seen) = (state(), look());
            (before == state() && before.starts_with("restarting ")).then_some(seen)
        })
    };
    let shown = "{{json .NetworkSettings.Ports}} [{{.NetworkSettings.Networks.own.IPAddress}}]";
    assert_eq!(while_restarting("inspect", &|| wharf.ok(&["inspect", "-f", shown, "again"])), "{} []");
    assert_eq!(while_restarting("ps", &|| wharf.ok(&["ps", "--format", "[{{.Ports}}]"])), "[]");
    assert_eq!(while_restarting("port", &|| wharf.ok(&["port", "again"])), "");
    let count = ["network", "inspect", "-f", "{{len .Containers}}", "own"];
    assert_eq!(while_restarting("network inspect", &|| wharf.ok(&count)), "0");
}

#[test]
fn a_container_without_a_network_is_given_one() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "own"]);
    wharf.ok(&["create", "--name", "alone", "--network", "none", "busybox", "sleep", "1000"]);
    let refused = wharf.exits(1, &["network", "connect", "own", "alone"]);
    assert!(refused.stderr.contains("one of the networks in private (none) mode"), "{refused}");
    wharf.ok(&["network", "disconnect", "none", "alone"]);
    let shown = || {
        let networks = "{{.HostConfig.NetworkMode}}{{range $name, $_ := .NetworkSettings.Networks}} {{$name}}{{end}}";
        wharf.ok(&["inspect", "-f", networks, "alone"])
    };
    assert_eq!(shown(), "none");
    wharf.ok(&["start", "alone"]);
    assert_eq!(places(&wharf, "alone"), "");
    wharf.ok(&["network", "connect", "own", "alone"]);
    assert_eq!(shown(), "none own");
    assert!(places(&wharf, "alone").starts_with("eth0 "), "{}", places(&wharf, "alone"));
    wharf.ok(&["restart", "-t", "0", "alone"]);
    assert!(places(&wharf, "alone").starts_with("eth0 "), "{}", places(&wharf, "alone"));
    // One that runs so must be stopped first.
    wharf.ok(&["run", "-d", "--name", "runs", "--network", "none", "busybox", "sleep", "1000"]);
    let runs = wharf.exits(1, &["network", "disconnect", "none", "runs"]);
    assert!(
        runs.stderr.contains("cannot be given one while it runs") && runs.stderr.contains("stop it first"),
        "{runs}"
    );
}

#[test]
fn who_does_not_run_may_be_connected_again() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "own"]);
    wharf.ok(&["create", "--name", "made", "--network", "name=own,alias=first", "busybox", "sleep", "1000"]);
    wharf.ok(&["network", "connect", "--alias", "second", "own", "made"]);
    let aliases = ["inspect", "-f", "{{.NetworkSettings.Networks.own.Aliases}}", "made"];
    assert_eq!(wharf.ok(&aliases), "[first]", "it stays as it was asked for");
    wharf.ok(&["start", "made"]);
    let again = wharf.exits(1, &["network", "connect", "own", "made"]);
    assert!(again.stderr.contains("already exists in network own"), "{again}");
    wharf.ok(&["kill", "made"]);
    wharf.ok(&["wait", "made"]);
    wharf.ok(&["network", "connect", "own", "made"]);
}

#[test]
fn networks_are_made_as_asked() {
    let wharf = Wharf::with_busybox();
    let told = |name: &str, format: &str| wharf.ok(&["network", "inspect", "-f", format, name]);
    let plain = ["--attachable", "--scope", "local", "--ipam-driver", "default", "--ipv4"];
    let options =
        ["-o", "com.docker.network.bridge.host_binding_ipv4=0.0.0.0", "-o", "com.docker.network.driver.mtu=1400"];
    wharf.ok(&[&["network", "create"], &plain[..], &options, &["own"]].concat());
    assert_eq!(told("own", "{{.Attachable}} {{len .Options}} {{.EnableIPv6}}"), "true 2 false");
    assert_eq!(told("bridge", "{{.Attachable}}"), "false");
    for (flags, error) in [
        (["--scope", "swarm"], "cannot create a swarm scoped network"),
        (["--ipam-driver", "foo"], "plugin \"foo\" not found"),
        (["-o", "foo=bar"], "com.docker.network.driver.mtu, and what is so anyway: com.docker"),
        (["-o", "com.docker.network.bridge.enable_icc=false"], "enable_icc=false is not supported"),
        (["--ingress", "--internal"], "--ingress"),
        (["--ipv4=false", "--internal"], "networks without IPv4 addresses"),
    ] {
        let refused = wharf.run(&[&["network", "create"], &flags[..], &["x"]].concat());
        assert!(refused.stderr.contains(error), "{refused}");
    }
    // A range is where it lies, whatever else its address says.
    wharf.ok(&["network", "create", "--subnet", "10.222.60.0/24", "--ip-range", "10.222.60.200/25", "upper"]);
    assert_eq!(told("upper", "{{(index .IPAM.Config 0).IPRange}}"), "10.222.60.128/25");
    let addresses = |network: &str| wharf.ok(&["run", "--rm", "--network", network, "busybox", "ip", "-o", "addr"]);
    assert!(addresses("upper").contains("10.222.60.128/24"));
    // Who names addresses of a family wants them.
    wharf.ok(&["network", "create", "--subnet", "fd00:222:61::/64", "six"]);
    assert_eq!(told("six", "{{.EnableIPv6}}"), "true");
    assert!(addresses("six").contains("fd00:222:61::2/64"));
    let neither = ["network", "create", "--ipv6=false", "--subnet", "fd00:222:62::/64", "x"];
    assert!(wharf.exits(1, &neither).stderr.contains("only with --ipv6"));
}

#[test]
fn reserved_addresses_are_nobodys() {
    let wharf = Wharf::with_busybox();
    let subnets = ["--subnet", "10.222.63.0/24", "--subnet", "fd00:222:63::/64"];
    let reserved = ["a=10.222.63.2", "b=10.222.63.4", "c=fd00:222:63::2"].map(|one| format!("--aux-address={one}"));
    let reserved: Vec<&str> = reserved.iter().map(String::as_str).collect();
    wharf.ok(&[&["network", "create"], &subnets[..], &reserved, &["own"]].concat());
    let pools = "{{range .IPAM.Config}}{{.AuxiliaryAddresses}}{{end}}";
    let shown = wharf.ok(&["network", "inspect", "-f", pools, "own"]);
    assert_eq!(shown, "map[a:10.222.63.2 b:10.222.63.4]map[c:fd00:222:63::2]");
    let mut given = Vec::new();
    for name in ["one", "two"] {
        wharf.ok(&["run", "-d", "--name", name, "--network", "own", "busybox", "sleep", "1000"]);
        let place = "{{with .NetworkSettings.Networks.own}}{{.IPAddress}} {{.GlobalIPv6Address}}{{end}}";
        given.push(wharf.ok(&["inspect", "-f", place, name]));
    }
    assert_eq!(given, ["10.222.63.3 fd00:222:63::3", "10.222.63.5 fd00:222:63::4"]);
    for wanted in ["--ip=10.222.63.4", "--ip6=fd00:222:63::2"] {
        let taken = wharf.exits(125, &["run", "--rm", "--network", "own", wanted, "busybox", "true"]);
        assert!(taken.stderr.contains("Address already in use"), "{taken}");
    }
    for (reserved, error) in [
        (vec!["a=10.9.9.9"], "no matching subnet for aux-address 10.9.9.9"),
        (vec!["a=zz"], "no matching subnet for aux-address zz"),
        (vec!["a"], "no matching subnet for aux-address"),
        (vec!["a=10.222.64.1"], "failed to allocate secondary ip address (a:10.222.64.1): Address already in use"),
        (vec!["a=10.222.64.0"], "failed to allocate secondary ip address (a:10.222.64.0): Address already in use"),
        (vec!["a=10.222.64.255"], "failed to allocate secondary ip address (a:10.222.64.255)"),
        (vec!["a=10.222.64.9", "b=10.222.64.9"], "failed to allocate secondary ip address (b:10.222.64.9)"),
    ] {
        let reserved: Vec<String> = reserved.iter().map(|one| format!("--aux-address={one}")).collect();
        let reserved: Vec<&str> = reserved.iter().map(String::as_str).collect();
        let create = [&["network", "create", "--subnet", "10.222.64.0/24"], &reserved[..], &["x"]].concat();
        let refused = wharf.exits(1, &create);
        assert!(refused.stderr.contains(error), "{refused}");
    }
}

#[test]
fn networks_are_found_by_any_part_of_their_ids_and_not_by_nothing() {
    let wharf = Wharf::new();
    let id = wharf.ok(&["network", "create", "own"]);
    let listed = |filter: &str| wharf.ok(&["network", "ls", "--format", "{{.Name}}", "-f", filter]);
    assert_eq!(listed(&format!("id={}", &id[9..])), "own");
    assert_eq!(
        (listed(""), listed("id=")),
        ("bridge\nhost\nnone\nown".to_owned(), "bridge\nhost\nnone\nown".to_owned())
    );
    wharf.ok(&["ps", "-f", ""]);
    wharf.ok(&["images", "-f", ""]);
    let named = "invalid network name or ID: value is empty";
    for args in [&["network", "rm", ""][..], &["network", "inspect", " "], &["network", "connect", "", "x"]] {
        let refused = wharf.exits(1, args);
        assert!(refused.stderr.contains(named), "{refused}");
    }
    let refused = wharf.exits(1, &["network", "disconnect", "own", ""]);
    assert!(refused.stderr.contains("invalid container name or ID: value is empty"), "{refused}");
}

#[test]
fn names_of_several_lead_to_any_of_them() {
    let wharf = Wharf::with_busybox();
    for name in ["one", "two"] {
        wharf.ok(&["run", "-d", "--name", name, "--network-alias", "both", "busybox", "sleep", "1000"]);
    }
    let script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do ping -c 1 -W 1 both | head -n 1; done";
    let found = wharf.ok(&["run", "--rm", "busybox", "sh", "-c", script]);
    for name in ["one", "two"] {
        assert!(found.contains(&format!("({})", address(&wharf, name))), "{found}");
    }
}

#[test]
fn ipv6_addresses_come_from_the_range_that_was_asked_for() {
    let wharf = Wharf::with_busybox();
    let range = ["--ipv6", "--subnet", "fd00:222:9::/64", "--ip-range", "fd00:222:9::100/127"];
    wharf.ok(&[&["network", "create"][..], &range, &["ranged"]].concat());
    let shown = wharf.ok(&["network", "inspect", "-f", "{{(index .IPAM.Config 1).IPRange}}", "ranged"]);
    assert_eq!(shown, "fd00:222:9::100/127");
    let run = |name: &str, network: &str| {
        wharf.run(&["run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000"])
    };
    let template = "{{.NetworkSettings.Networks.ranged.GlobalIPv6Address}}";
    for (name, network, address) in [
        ("one", "ranged", "fd00:222:9::100"),
        ("two", "name=ranged,ip6=fd00:222:9::7", "fd00:222:9::7"),
        ("three", "ranged", "fd00:222:9::101"),
    ] {
        assert_eq!(run(name, network).code, 0);
        assert_eq!(wharf.ok(&["inspect", "-f", template, name]), address);
    }
    let full = run("four", "ranged");
    assert!(full.stderr.contains("no available IPv6 addresses"), "{full}");
    assert!(wharf.ok(&["exec", "one", "ip", "-6", "addr"]).contains("fd00:222:9::100/64"));
    let args = ["network", "create", "--ipv6", "--subnet", "fd00:222:8::/64", "--ip-range", "fd00:222:9::/120", "x"];
    let refused = wharf.exits(1, &args);
    assert!(refused.stderr.contains("no matching subnet for range fd00:222:9::/120"), "{refused}");
}

#[test]
fn containers_come_to_networks_and_leave_them_while_they_run() {
    let wharf = Wharf::with_busybox();
    for (name, third) in [("front", 71), ("back", 72)] {
        let subnet = format!("10.222.{third}.0/24");
        wharf.ok(&["network", "create", "--subnet", &subnet, "--ip-range", &format!("10.222.{third}.64/26"), name]);
    }
    wharf.ok(&["network", "create", "--internal", "--subnet", "10.222.73.0/24", "closed"]);
    let run = |name: &str, networks: &[&str]| {
        let script = server(name);
        let end = ["busybox", "sh", "-c", &script];
        wharf.ok(&[&["run", "-d", "--name", name][..], networks, &end].concat());
    };
    run("web", &["--network", "name=front,alias=www,ip=10.222.71.7", "--network", "back", "-p", "28180:80"]);
    run("db", &["--network", "back", "--mac-address", "02:42:00:00:00:09", "--network-alias", "sql"]);
    assert_eq!(places(&wharf, "web"), "eth0 10.222.71.7/24 eth1 10.222.72.64/24 default via 10.222.72.1 dev eth1");
    let exec = |name: &str, script: &str| wharf.run(&["exec", name, "sh", "-c", script]).stdout.trim().to_owned();
    assert!(exec("db", "ip link show eth0").contains("02:42:00:00:00:09"));
    answers("10.222.72.64", 80, "web");
    answers("127.0.0.1", 28180, "web");
    assert_eq!(exec("web", &ask("sql", 80)), "db");
    assert_eq!(exec("db", &ask("web", 80)), "web");
    assert!(exec("db", "nslookup www; true").contains("NXDOMAIN"), "an alias is one on its network");
    assert_eq!(
        wharf.ok(&["ps", "--filter", "network=back", "--format", "{{.Names}} {{.Networks}}"]),
        "db back\nweb front,back"
    );

    // The published port and the way out follow the places.
    wharf.ok(&["network", "disconnect", "back", "web"]);
    assert_eq!(places(&wharf, "web"), "eth0 10.222.71.7/24 default via 10.222.71.1 dev eth0");
    assert_eq!(sh(&ask("127.0.0.1", 28180)), "web");
    assert_eq!(exec("db", &ask("web", 80)), "");
    assert_eq!(wharf.ok(&["network", "inspect", "back", "-f", "{{len .Containers}}"]), "1");
    wharf.ok(&["network", "connect", "--ip", "10.222.73.9", "--alias", "inner", "--link", "db:store", "closed", "web"]);
    wharf.ok(&["network", "connect", "closed", "db"]);
    assert_eq!(places(&wharf, "web"), "eth0 10.222.71.7/24 eth1 10.222.73.9/24 default via 10.222.71.1 dev eth0");
    assert_eq!(exec("db", &ask("inner", 80)), "web");
    assert_eq!(exec("web", &ask("store", 80)), "db", "a link is the container's own name for a neighbour");
    assert!(exec("db", "nslookup store; true").contains("NXDOMAIN"));
    let hosts = exec("web", "grep -v local /etc/hosts");
    assert!(
        hosts.contains("10.222.71.7\t") && hosts.contains("10.222.73.9\t") && !hosts.contains("10.222.72"),
        "{hosts}"
    );

    // It is so again when it starts again.
    wharf.ok(&["restart", "-t", "0", "web"]);
    answers("127.0.0.1", 28180, "web");
    assert_eq!(places(&wharf, "web"), "eth0 10.222.71.7/24 eth1 10.222.73.9/24 default via 10.222.71.1 dev eth0");
    // On one that has stopped, it is so from its next start on.
    wharf.ok(&["stop", "-t", "0", "web"]);
    wharf.ok(&["network", "disconnect", "-f", "front", "web"]);
    wharf.ok(&["start", "web"]);
    assert_eq!(places(&wharf, "web"), "eth0 10.222.73.9/24");
    assert_eq!(exec("web", "nslookup example.org >/dev/null 2>&1 && echo told"), "", "no way out by names either");
    wharf.ok(&["network", "disconnect", "closed", "web"]);
    assert_eq!(places(&wharf, "web"), "");
    wharf.ok(&["network", "connect", "front", "web"]);
    assert_eq!(places(&wharf, "web"), "eth0 10.222.71.64/24 default via 10.222.71.1 dev eth0");
    assert_eq!(sh(&ask("127.0.0.1", 28180)), "web");

    let told =
        wharf.ok(&["events", "--since", "1h", "--until", "0s", "--filter", "network=front", "--format", "{{.Action}}"]);
    let expected = "create connect disconnect connect disconnect connect";
    assert_eq!(told.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    wharf.ok(&["run", "-d", "--name", "alone", "--network", "none", "busybox", "sleep", "1000"]);
    for (args, error) in [
        (vec!["network", "connect", "front", "web"], "endpoint with name web already exists in network front"),
        (vec!["network", "connect", "nope", "web"], "network nope not found"),
        (vec!["network", "connect", "front", "nope"], "No such container: nope"),
        (vec!["network", "disconnect", "back", "web"], "is not connected to network back"),
        (vec!["network", "connect", "front", "alone"], "in private (none) mode"),
        (vec!["network", "connect", "--ip", "10.222.72.1", "back", "web"], "Address already in use"),
        (
            vec!["network", "connect", "--ip", "10.9.9.9", "back", "web"],
            "no configured subnet contains IP address 10.9.9.9",
        ),
    ] {
        let refused = wharf.exits(1, &args);
        assert!(refused.stderr.contains(error), "{refused}");
    }
    // What was refused has left nothing.
    assert_eq!(places(&wharf, "web"), "eth0 10.222.71.64/24 default via 10.222.71.1 dev eth0");
}

#[test]
fn a_storm_leaves_no_address_twice_and_nothing_behind() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "one"]);
    wharf.ok(&["network", "create", "two"]);
    let before = traces();
    let networks = ["bridge", "one", "two"];
    let kept: Vec<String> = (0..9).map(|n| format!("kept{n}")).collect();
    let mut children = Vec::new();
    for (n, name) in kept.iter().enumerate() {
        let port = format!("{}:80", 29100 + n);
        children.push(wharf.spawn(&[
            "run",
            "-d",
            "--name",
            name,
            "--network",
            networks[n % 3],
            "-p",
            &port,
            "busybox",
            "sleep",
            "1000",
        ]));
    }
    for n in 0..40 {
        let port = format!("{}:80", 29200 + n);
        children.push(wharf.spawn(&[
            "run",
            "--rm",
            "--network",
            networks[n % 3],
            "-p",
            &port,
            "busybox",
            "ip",
            "-o",
            "addr",
        ]));
    }
    for child in &mut children {
        assert_eq!(wharf::wait(child, "a container in a storm"), 0);
    }
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for name in &kept {
        if let Some(other) = seen.insert(address(&wharf, name), name.clone()) {
            panic!("{name} and {other} have one address");
        }
    }
    // Some end with their monitors.
    let monitors = wharf.monitors();
    for pid in monitors.keys().take(3) {
        tool(Command::new("kill").args(["-9", &pid.to_string()]));
    }
    eventually("the killed are seen", Duration::from_secs(30), || {
        (wharf.ok(&["ps", "-q"]).lines().count() == kept.len() - 3).then_some(())
    });
    let mut removers: Vec<_> = kept.iter().map(|name| wharf.spawn(&["rm", "-f", name])).collect();
    removers.iter_mut().for_each(|child| assert_eq!(wharf::wait(child, "rm -f"), 0));
    // The kernel takes namespaces apart in its own time.
    let ours = |name: &String| name.starts_with("wh") && name.contains('-') || name.starts_with("wv");
    eventually("nothing is left", Duration::from_secs(60), || {
        let mine: Vec<_> = traces().difference(&before).filter(|name| ours(name)).cloned().collect();
        let prefix = prefix(&wharf);
        (!mine.iter().any(|name| name.starts_with(&prefix))).then_some(())
    });
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

/// How the bridges of this instance are called: by the digest of its root.
fn prefix(wharf: &Wharf) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(wharf.root().as_os_str().as_encoded_bytes());
    format!("wh{:02x}{:02x}{:02x}-", digest[0], digest[1], digest[2])
}

#[test]
fn bridges_that_no_network_has_are_found_and_swept() {
    let wharf = Wharf::with_busybox();
    let stray = format!("{}77", prefix(&wharf));
    tool(Command::new("ip").args(["link", "add", &stray, "type", "bridge"]));
    let found = wharf.exits(1, &["system", "check"]);
    assert!(found.stdout.contains(&format!("network interface {stray}: left over")), "{found}");
    wharf.ok(&["system", "check", "--repair"]);
    assert!(!traces().contains(&stray));
    // The packet filter's table goes with the last bridge, whoever took that away.
    wharf.ok(&["network", "create", "some"]);
    wharf.ok(&["run", "--rm", "--network", "some", "busybox", "true"]);
    let bridge = traces().into_iter().find(|name| name.starts_with(&prefix(&wharf))).expect("a bridge");
    tool(Command::new("ip").args(["link", "del", &bridge]));
    let table = prefix(&wharf).replace("wh", "wharf").replace('-', "");
    let found = wharf.exits(1, &["system", "check"]);
    assert!(found.stdout.contains(&format!("nf_tables table {table}: left over")), "{found}");
    wharf.ok(&["system", "check", "--repair"]);
    wharf.ok(&["system", "check"]);
}

#[test]
fn bridges_outlast_a_pause_and_nothing_outlasts_the_instance() {
    let wharf = Wharf::with_busybox();
    let bridges = || traces().into_iter().filter(|name| name.starts_with(&prefix(&wharf))).count();
    let run = ["run", "--rm", "busybox", "true"];
    wharf.ok(&run);
    let index = || tool(Command::new("ip").args(["-o", "link", "show", &format!("{}0", prefix(&wharf))]));
    let before = index();
    wharf.ok(&run);
    assert_eq!(index().split(':').next(), before.split(':').next(), "the next container finds the same bridge");
    eventually("the bridge goes", Duration::from_secs(30), || (bridges() == 0).then_some(()));
    // Who waits is killed: whoever comes next waits in his place, and a check finds what nobody waits for.
    wharf.ok(&run);
    let waits = || {
        let lock = wharf.root().join("run/network-linger.lock");
        let holds = |pid: &u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|target| target == lock)
        };
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        all.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).find(holds)
    };
    let waiting = eventually("somebody waits", Duration::from_secs(10), waits);
    tool(Command::new("kill").args(["-9", &waiting.to_string()]));
    eventually("he is gone", Duration::from_secs(10), || waits().is_none().then_some(()));
    assert_eq!(bridges(), 1);
    let found = eventually("the stray is found", Duration::from_secs(60), || {
        let found = wharf.run(&["system", "check"]);
        (found.code == 1).then_some(found)
    });
    assert!(found.stdout.contains(&format!("network interface {}0: left over", prefix(&wharf))), "{found}");
    wharf.ok(&["system", "check", "--repair"]);
    assert_eq!(bridges(), 0);
    // The directory goes while somebody waits.
    wharf.ok(&run);
    std::fs::remove_dir_all(wharf.root()).expect("the instance's directory");
    eventually("the bridge goes", Duration::from_secs(30), || (bridges() == 0).then_some(()));
    assert!(!wharf.root().exists());
}

#[test]
fn one_container_has_the_network_of_another() {
    let wharf = Wharf::with_busybox();
    let script = server("owner");
    let publish = ["--hostname", "owner-host", "-p", "127.0.0.1:28290:8080"];
    wharf.ok(&[&["run", "-d", "--name", "owner"][..], &publish, &["busybox", "sh", "-c", &script]].concat());
    let owner = address(&wharf, "owner");
    answers(&owner, 80, "owner");
    let join = ["--network", "container:owner", "busybox", "sh", "-c"];
    let run = |script: &str| wharf.ok(&[&["run", "--rm"][..], &join, &[script]].concat());
    assert_eq!(run(&ask("127.0.0.1", 80)), "owner", "they have one loopback");
    let seen = run("hostname; ip -o -4 addr; cat /etc/hosts /etc/resolv.conf; busybox readlink /proc/self/ns/net");
    let namespace = wharf.ok(&["exec", "owner", "busybox", "readlink", "/proc/self/ns/net"]);
    for part in ["owner-host", &owner, "nameserver 127.0.0.11", &namespace] {
        assert!(seen.contains(part), "{part}: {seen}");
    }
    assert!(run("nslookup owner").contains(&owner), "it asks the owner's answerer");
    // What listens in it is published by the owner; exec and disconnecting see the same network.
    let listen = "mkdir -p /www; echo joined > /www/index.html; exec httpd -f -p 8080 -h /www";
    wharf.ok(&[&["run", "-d", "--name", "joined"][..], &join, &[listen]].concat());
    answers("127.0.0.1", 28290, "joined");
    assert_eq!(wharf.ok(&["exec", "joined", "busybox", "readlink", "/proc/self/ns/net"]), namespace);
    let id = wharf.ok(&["inspect", "-f", "{{.Id}}", "owner"]);
    let mode = wharf.ok(&["inspect", "-f", "{{.HostConfig.NetworkMode}}", "joined"]);
    assert_eq!(mode, format!("container:{id}"));
    wharf.ok(&["network", "create", "extra"]);
    let refused = wharf.exits(1, &["network", "connect", "extra", "joined"]);
    assert!(refused.stderr.contains("cannot be connected to any other network"), "{refused}");
    // A network that the owner comes to is there too, with its names.
    wharf.ok(&["network", "connect", "extra", "owner"]);
    assert!(wharf.ok(&["exec", "joined", "ip", "-o", "-4", "addr"]).contains("eth1"));
    assert!(wharf.ok(&["exec", "joined", "cat", "/etc/hosts"]).matches("owner-host").count() >= 2);

    for (flag, error) in [
        ("--hostname=x", "conflicting options: hostname and the network mode"),
        ("--dns=1.1.1.1", "conflicting options: dns and the network mode"),
        ("--add-host=x:1.1.1.1", "conflicting options: custom host-to-IP mapping and the network mode"),
        ("-p=80", "conflicting options: port publishing and the container type network mode"),
        ("--expose=80", "conflicting options: port exposing and the container type network mode"),
        ("--mac-address=02:42:00:00:00:01", "conflicting options: mac-address and the network mode"),
        ("--link=owner:x", "container type network can't be used with links"),
        ("--network=extra", "cannot attach both user-defined and non-user-defined network-modes"),
        ("--sysctl=net.core.somaxconn=5", "not allowed in container network namespace"),
    ] {
        let refused = wharf.exits(125, &["run", "--rm", flag, "--network", "container:owner", "busybox", "true"]);
        assert!(refused.stderr.contains(error), "{refused}");
    }
    // The owner must run. One that joined an end of it keeps what it has, and cannot start in it again.
    wharf.ok(&["stop", "-t", "0", "owner"]);
    let refused = wharf.exits(125, &["run", "--rm", "--network", "container:owner", "busybox", "true"]);
    assert!(refused.stderr.contains("cannot join network namespace") && refused.stderr.contains("is not running"));
    assert_eq!(wharf.ok(&["exec", "joined", "sh", "-c", &ask("127.0.0.1", 8080)]), "joined");
    // But for the address, which is free.
    eventually("the device goes", Duration::from_secs(10), || {
        (!wharf.ok(&["exec", "joined", "ip", "-o", "-4", "addr"]).contains("eth0")).then_some(())
    });
    wharf.ok(&["stop", "-t", "0", "joined"]);
    assert!(wharf.exits(1, &["start", "joined"]).stderr.contains("cannot join network namespace"));
    wharf.ok(&["start", "owner"]);
    wharf.ok(&["start", "joined"]);
    answers("127.0.0.1", 28290, "joined");
    let unknown = wharf.exits(125, &["run", "--rm", "--network", "container:nobody", "busybox", "true"]);
    assert!(unknown.stderr.contains("No such container: nobody"), "{unknown}");
}

/// Eight clients make and remove a hundred containers on three networks: no address and no port is ever two containers'.
#[test]
fn a_hundred_by_eight_clients_share_nothing() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "one"]);
    wharf.ok(&["network", "create", "two"]);
    let taken = std::sync::Mutex::new(BTreeMap::<String, String>::new());
    let take = |what: String, name: &str| {
        if let Some(other) = taken.lock().expect("a lock").insert(what.clone(), name.to_owned()) {
            panic!("{what} is both {other}'s and {name}'s");
        }
    };
    let remove = |(name, what): (String, Vec<String>)| {
        // From here on others may have it.
        what.iter().for_each(|what| drop(taken.lock().expect("a lock").remove(what)));
        wharf.ok(&["rm", "-f", &name]);
    };
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (wharf, take, remove) = (&wharf, &take, &remove);
            scope.spawn(move || {
                let mut kept: Vec<(String, Vec<String>)> = Vec::new();
                for n in (client..100).step_by(8) {
                    let name = format!("c{n}");
                    let networks = [["bridge", "one"], ["one", "two"], ["two", "bridge"]][n % 3];
                    let on = ["-p", "80", "-p", "53/udp", "--network", networks[0], "--network", networks[1]];
                    wharf.ok(&[&["run", "-d", "--name", &name][..], &on, &["busybox", "sleep", "1000"]].concat());
                    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}\
                                  {{range $p, $b := .NetworkSettings.Ports}}{{$p}}@{{(index $b 0).HostPort}} {{end}}";
                    let mine = wharf.ok(&["inspect", "-f", format, &name]);
                    let mine: Vec<String> = mine.split_whitespace().map(str::to_owned).collect();
                    assert_eq!(mine.len(), 4, "two addresses and two ports: {mine:?}");
                    mine.iter().for_each(|what| take(what.clone(), &name));
                    kept.push((name, mine));
                    // Most of them go while the others come.
                    if n % 2 == 0 || kept.len() > 4 {
                        remove(kept.remove(0));
                    }
                }
                kept.into_iter().for_each(remove);
            });
        }
    });
    for network in ["bridge", "one", "two"] {
        assert_eq!(wharf.ok(&["network", "inspect", network, "-f", "{{len .Containers}}"]), "0");
    }
    eventually("nothing is left", Duration::from_secs(60), || {
        let mine = prefix(&wharf);
        (!traces().iter().any(|name| name.starts_with(&mine))).then_some(())
    });
    wharf.ok(&["network", "rm", "one", "two"]);
    assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
}

/// What a container may try that may do all to its own network.
#[test]
fn nobody_gets_by_a_forged_address_where_he_has_no_way() {
    let wharf = Wharf::with_busybox();
    let outside = Machine::new(105);
    // Stands for a cloud's metadata service: an address of this link, beyond the host.
    outside.run("ip addr add 169.254.169.253/32 dev lo");
    let beyond = ["route", "replace", "169.254.169.253", "via", "198.51.105.2"];
    tool(Command::new("ip").args(beyond));
    wharf.ok(&["network", "create", "--subnet", "10.222.81.0/24", "mine"]);
    wharf.ok(&["network", "create", "--subnet", "10.222.82.0/24", "yours"]);
    wharf.ok(&["network", "create", "--internal", "--subnet", "10.222.83.0/24", "shut"]);
    let start = |name: &str, network: &str| {
        let script = server(name);
        let rights = ["--cap-add", "NET_ADMIN", "--network", network];
        wharf.ok(&[&["run", "-d", "--name", name][..], &rights, &["busybox", "sh", "-c", &script]].concat());
    };
    start("thief", "mine");
    start("owner", "yours");
    start("prisoner", "shut");
    answers("10.222.82.2", 80, "owner");
    let exec = |name: &str, script: &str| wharf.run(&["exec", name, "sh", "-c", script]).stdout.trim().to_owned();
    let knock = |to: &str, port: u16| format!("nc -w 2 {to} {port} </dev/null");
    // By the host, by its neighbour's gateway, and in the name of an address of the other network.
    assert_eq!(exec("thief", &ask("10.222.82.2", 80)), "");
    exec(
        "thief",
        "ip addr add 10.222.82.77/32 dev eth0; ip route replace 10.222.82.2 via 10.222.81.1 src 10.222.82.77",
    );
    assert_eq!(exec("thief", &ask("10.222.82.2", 80)), "");
    exec("thief", "ip addr add 10.222.82.2/24 dev eth0");
    assert_eq!(exec("owner", &ask("10.222.82.2", 80)), "owner", "an address is what its own network says");
    answers("10.222.82.2", 80, "owner");
    let listener = "nc -ll -p 9005 -e echo open & sleep 12; kill %1";
    let served = std::thread::spawn(move || (outside.run(listener), outside));
    eventually("the machine beyond answers", Duration::from_secs(10), || {
        (sh(&knock("169.254.169.253", 9005)) == "open").then_some(())
    });
    exec("prisoner", "ip route add default via 10.222.83.1");
    for to in ["169.254.169.253", "198.51.105.2"] {
        assert_eq!(exec("prisoner", &knock(to, 9005)), "", "{to}");
    }
    exec("prisoner", "ip addr add 10.222.82.78/24 dev eth0; ip route replace default via 10.222.83.1 src 10.222.82.78");
    assert_eq!(exec("prisoner", &knock("169.254.169.253", 9005)), "");
    assert_eq!(exec("owner", &knock("169.254.169.253", 9005)), "open", "as in docker, if nothing forbids it");
    drop(served.join());
    tool(Command::new("ip").args(["route", "flush", "169.254.169.253"]));
}

#[test]
fn networks_have_ipv6_too() {
    let wharf = Wharf::with_busybox();
    let outside = Machine::new(106);
    let ip = |line: String| tool(Command::new("ip").args(line.split(' ')));
    ip(format!("-n {} addr add fd00:222:106::2/64 dev eth0 nodad", outside.0));
    ip(format!("-n {} route add default via fd00:222:106::1", outside.0));
    ip("addr add fd00:222:106::1/64 dev wt106 nodad".to_owned());
    let create = |name: &str, subnet: &str, more: &[&str]| {
        wharf.ok(&[&["network", "create", "--ipv6", "--subnet", subnet][..], more, &[name]].concat());
    };
    create("six", "fd00:222:1::/64", &["--subnet", "10.222.91.0/24", "--gateway", "fd00:222:1::9"]);
    create("other", "fd00:222:2::/64", &[]);
    create("shut", "fd00:222:3::/64", &["--internal"]);
    wharf.ok(&["network", "create", "--ipv6", "chosen"]);
    let shown = wharf.ok(&["network", "inspect", "six", "-f", "{{.EnableIPv6}} {{json .IPAM.Config}}"]);
    assert!(
        shown.starts_with("true") && shown.contains("fd00:222:1::/64") && shown.contains("fd00:222:1::9"),
        "{shown}"
    );
    let subnets = wharf.ok(&["network", "inspect", "chosen", "-f", "{{json .IPAM.Config}}"]);
    assert!(subnets.contains("\"Subnet\":\"fd"), "{subnets}");
    let start = |name: &str, more: &[&str]| {
        let script = server(name);
        wharf.ok(&[&["run", "-d", "--name", name][..], more, &["busybox", "sh", "-c", &script]].concat());
    };
    start("web", &["--network", "six", "-p", "28380:80", "-p", "[fd00:222:106::1]:28381:80"]);
    start("fix", &["--network", "name=six,ip6=fd00:222:1::7"]);
    start("far", &["--network", "other"]);
    start("held", &["--network", "shut"]);
    let own = |name: &str| {
        let template = "{{range .NetworkSettings.Networks}}{{.GlobalIPv6Address}}{{end}}";
        wharf.ok(&["inspect", "-f", template, name])
    };
    assert_eq!((own("web").as_str(), own("fix").as_str()), ("fd00:222:1::1", "fd00:222:1::7"));
    answers("fd00:222:1::1", 80, "web");
    answers("fd00:222:1::7", 80, "fix");
    let exec = |name: &str, script: &str| wharf.run(&["exec", name, "sh", "-c", script]).stdout.trim().to_owned();
    // By name and by address; backwards too.
    assert_eq!(exec("fix", &ask("fd00:222:1::1", 80)), "web");
    let looked_up = exec("fix", "nslookup -type=aaaa web; nslookup fd00:222:1::1");
    assert!(looked_up.contains("fd00:222:1::1") && looked_up.contains("web.six"), "{looked_up}");
    assert!(exec("fix", "cat /etc/hosts").contains("fd00:222:1::7\t"));
    // Published on all addresses of both families, and on one.
    for (host, port) in [("198.51.106.1", 28380), ("fd00:222:106::1", 28380), ("fd00:222:106::1", 28381)] {
        assert_eq!(outside.run(&ask(host, port)), "web", "{host}:{port}");
    }
    assert_eq!(outside.run(&ask("fd00:222:1::1", 80)), "", "not by its own address");
    assert_eq!(outside.run(&ask("198.51.106.1", 28381)), "");
    for host in ["127.0.0.1", "fd00:222:106::1", "::1"] {
        assert_eq!(sh(&ask(host, 28380)), "web", "the host itself at {host}");
    }
    assert_eq!(exec("web", &ask("fd00:222:106::1", 28380)), "web", "itself by the host's address");
    assert_eq!(exec("far", &ask("fd00:222:106::1", 28380)), "web", "another by the host's address");
    // Networks are apart, and internal ones closed.
    assert_eq!(exec("far", &ask("fd00:222:1::1", 80)), "");
    assert_eq!(exec("held", &ask("fd00:222:1::1", 80)), "");
    let served = std::thread::spawn(move || (outside.run("nc -ll -p 9006 -e echo open & sleep 9; kill %1"), outside));
    let knock = "nc -w 2 fd00:222:106::2 9006 </dev/null";
    eventually("the machine beyond answers", Duration::from_secs(8), || (sh(knock) == "open").then_some(()));
    assert_eq!(exec("far", knock), "open", "the way out");
    assert_eq!(exec("held", knock), "");
    // A network that comes and goes.
    wharf.ok(&["network", "connect", "--ip6", "fd00:222:2::77", "other", "web"]);
    assert_eq!(exec("far", &ask("fd00:222:2::77", 80)), "web");
    wharf.ok(&["network", "disconnect", "other", "web"]);
    assert_eq!(exec("far", &ask("fd00:222:2::77", 80)), "");
    assert_eq!(exec("web", "ip -6 route | grep default").split(" dev").next(), Some("default via fd00:222:1::9"));
    // Where there are none, the host has none either: nothing of it is reached by addresses of the link.
    wharf.ok(&["network", "create", "four"]);
    wharf.ok(&["run", "-d", "--name", "plain", "--network", "four", "busybox", "sleep", "1000"]);
    for (network, own) in [("four", "1"), ("six", "0")] {
        let number = wharf.ok(&["network", "ls", "--format", "{{.Name}}"]);
        let bridges: Vec<_> = traces().into_iter().filter(|name| name.starts_with(&prefix(&wharf))).collect();
        let gateway = wharf.ok(&["network", "inspect", network, "-f", "{{(index .IPAM.Config 0).Gateway}}"]);
        let bridge = bridges.iter().find(|bridge| {
            tool(Command::new("ip").args(["-o", "addr", "show", "dev", bridge])).contains(&format!(" {gateway}/"))
        });
        let bridge = bridge.unwrap_or_else(|| panic!("no bridge of {network}: {bridges:?} {number}"));
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{bridge}/{name}")).expect(name);
        assert_eq!((read("disable_ipv6").trim(), read("accept_ra").trim()), (own, "0"), "{network}");
    }
    for (args, error) in [
        (
            vec!["run", "--rm", "--network", "four", "--ip6", "fd00::5", "busybox", "true"],
            "no configured subnet contains",
        ),
        (
            vec!["run", "--rm", "--network", "six", "--ip6", "fd00:222:1::9", "busybox", "true"],
            "Address already in use",
        ),
    ] {
        let refused = wharf.exits(125, &args);
        assert!(refused.stderr.contains(error), "{refused}");
    }
    // Of another network's addresses, and of the host's.
    for subnet in ["fd00:222::/32", "fd00:222:106::/48"] {
        let overlap = wharf.exits(1, &["network", "create", "--ipv6", "--subnet", subnet, "wide"]);
        assert!(overlap.stderr.contains("Pool overlaps with other one on this address space"), "{overlap}");
    }
    drop(served.join());
}

/// Does something on a thread in a container's network.
pub fn inside<T: Send + 'static>(wharf: &Wharf, container: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    let thread = std::thread::spawn(move || {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/net")).expect("the container's network");
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind).expect("setns");
        act()
    });
    thread.join().expect("a thread in the container's network")
}

/// One question about addresses, as a message of its own (RFC 1035, 4).
fn question(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(labels.chain([0, 0, 1, 0, 1]));
    message
}

#[test]
fn names_are_answered_over_tcp() {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    fn hear(stream: &mut TcpStream) -> Vec<u8> {
        let mut length = [0; 2];
        stream.read_exact(&mut length).expect("a length");
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut message).expect("a message");
        message
    }
    fn say(stream: &mut TcpStream, message: &[u8]) {
        stream.write_all(&[&(message.len() as u16).to_be_bytes()[..], message].concat()).expect("sent");
    }
    let wharf = Wharf::with_busybox();
    // A server that gives each question back as its answer.
    let server = TcpListener::bind("127.0.0.53:53").expect("a name server");
    let served = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().expect("a caller");
        let mut message = hear(&mut stream);
        message[2] |= 0x80;
        say(&mut stream, &message);
    });
    wharf.ok(&["run", "-d", "--name", "asks", "--dns", "127.0.0.53", "busybox", "sleep", "1000"]);
    let address: std::net::Ipv4Addr = address(&wharf, "asks").parse().expect("an address");
    let ask = |names: &'static [&'static str]| {
        inside(&wharf, "asks", move || {
            let mut stream = TcpStream::connect("127.0.0.11:53").expect("an answerer");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
            let one = |name: &&str| {
                say(&mut stream, &question(name));
                hear(&mut stream)
            };
            names.iter().map(one).collect::<Vec<_>>()
        })
    };
    // Several on one connection: a container's, and others', which are passed on.
    let told = ask(&["asks", "asks", "elsewhere.example"]);
    for own in &told[..2] {
        assert!(own.starts_with(&[0x12, 0x34]) && own.ends_with(&address.octets()), "{own:?}");
    }
    let mut expected = question("elsewhere.example");
    expected[2] |= 0x80;
    assert_eq!(told[2], expected);
    served.join().expect("the name server");
    // Who says nothing holds up nobody, and leaves nothing.
    let silent = inside(&wharf, "asks", || (0..20).map(|_| TcpStream::connect("127.0.0.11:53")).collect::<Vec<_>>());
    assert!(wharf.ok(&["exec", "asks", "nslookup", "asks"]).contains(&address.to_string()));
    drop(silent);
    assert!(ask(&["asks"])[0].ends_with(&address.octets()));
}

#[test]
fn the_answerer_takes_no_port_and_has_no_connection_tracked() {
    use std::net::{TcpListener, UdpSocket};
    let wharf = Wharf::with_busybox();
    wharf.ok(&["run", "-d", "--name", "asks", "busybox", "sleep", "1000"]);
    let address = address(&wharf, "asks");
    // A name server of the container's own.
    let own = inside(&wharf, "asks", || (UdpSocket::bind("0.0.0.0:53"), TcpListener::bind("0.0.0.0:53")));
    let own = (own.0.expect("datagrams"), own.1.expect("streams"));
    let found = wharf.ok(&["exec", "asks", "nslookup", "asks"]);
    assert!(found.contains("127.0.0.11:53") && found.contains(&address), "{found}");
    wharf.ok(&["exec", "asks", "nc", "-w", "1", "127.0.0.11", "53"]);
    drop(own);
    // To keep account of connections costs every packet of the container.
    let tracked = inside(&wharf, "asks", || std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"));
    assert_eq!(tracked.map_or(0, |count| count.trim().parse().expect("a number")), 0, "connections are tracked");
}

#[test]
fn who_is_started_again_by_its_policy_has_its_places_again() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "--subnet", "10.222.95.0/24", "back"]);
    let script = server("again");
    let on = ["--restart", "always", "--network", "bridge", "--network", "back", "-p", "127.0.0.1:28480:80"];
    wharf.ok(&[&["run", "-d", "--name", "again"][..], &on, &["busybox", "sh", "-c", &script]].concat());
    answers("127.0.0.1", 28480, "again");
    // What came while it ran is there again too.
    wharf.ok(&["network", "create", "--subnet", "10.222.96.0/24", "extra"]);
    wharf.ok(&["network", "connect", "--ip", "10.222.96.9", "extra", "again"]);
    let before = places(&wharf, "again");
    assert!(before.contains("eth2 10.222.96.9/24"), "{before}");
    let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", "again"]);
    tool(Command::new("kill").args(["-9", &pid]));
    eventually("it runs again", Duration::from_secs(30), || {
        (wharf.ok(&["inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "again"]) == "1 true").then_some(())
    });
    answers("127.0.0.1", 28480, "again");
    assert_eq!(places(&wharf, "again"), before);
    assert!(wharf.ok(&["exec", "again", "nslookup", "again"]).contains("Name:\tagain"));
}

/// What containers on several networks find by names: whose address each of them leads to.
fn names_found(run: &dyn Fn(&[&str]) -> String) -> Vec<String> {
    let networks = [("zz", "10.222.97", ""), ("mm", "10.222.98", ""), ("cc", "10.222.99", "--internal")];
    for (name, prefix, internal) in networks {
        let subnet = format!("{prefix}.0/24");
        let create = ["network", "create", "--subnet", &subnet, internal, name];
        run(&create.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>());
    }
    for (name, host, last) in [("me", "host-me", "10"), ("other", "host-other", "20")] {
        // The order in which they come is not the one in which they are looked at.
        let at = |prefix: &str| format!("{prefix}.{last}");
        let first = at("10.222.97");
        let words = ["run", "-d", "--name", name, "--hostname", host, "--network", "zz", "--ip", &first];
        run(&[&words[..], &["--network-alias", "al", "busybox", "sleep", "1000"]].concat());
        for (network, prefix, _) in [networks[2], networks[1]] {
            run(&["network", "connect", "--ip", &at(prefix), network, name]);
        }
    }
    let names =
        ["me", "other", "host-me", "host-other", "other.cc", "other.zz", "host-other.cc", "al.zz", "me.nowhere"];
    let found = names.map(|name| {
        let script = format!("nslookup {name} 2>&1 | grep ^Address | grep -v 127.0.0.11 | sort");
        format!("{name}: {}", run(&["exec", "me", "sh", "-c", &script]).replace('\n', " "))
    });
    let hosts = run(&["exec", "me", "sh", "-c", "grep host-me /etc/hosts | sort"]);
    found.into_iter().chain([hosts]).collect()
}

#[test]
fn names_lead_where_dockers_do() {
    let wharf = Wharf::with_busybox();
    let found = names_found(&|words| wharf.ok(words));
    let expected = [
        "me: Address: 10.222.98.10",
        "other: Address: 10.222.98.20",
        "host-me: Address: 10.222.98.10",
        "host-other: Address: 10.222.98.20",
        "other.cc: Address: 10.222.99.20",
        "other.zz: Address: 10.222.97.20",
        "host-other.cc: Address: 10.222.99.20",
        "al.zz: Address: 10.222.97.10 Address: 10.222.97.20",
        "me.nowhere: ",
        "10.222.97.10\thost-me\n10.222.98.10\thost-me\n10.222.99.10\thost-me",
    ];
    assert_eq!(found, expected);
    // A real daemon.
    let home = tempfile::Builder::new().prefix("wharf-").tempdir().expect("a directory");
    let docker = match Docker::start_with_networks(home.path()) {
        Ok(docker) => docker,
        Err(why) => return skip("networks::names_lead_where_dockers_do", &why),
    };
    let archive = wharf.dir().join("busybox.tar");
    let path = archive.to_str().expect("a plain path");
    wharf.ok(&["save", "busybox", "-o", path]);
    docker.ok(&["load", "-i", path]);
    assert_eq!(names_found(&|words| docker.ok(words)), expected);
}

#[test]
fn of_many_who_connect_a_container_at_once_one_does_and_the_others_are_told() {
    let wharf = Wharf::with_busybox();
    wharf.ok(&["network", "create", "two"]);
    wharf.ok(&["run", "-d", "--name", "web", "busybox", "sleep", "1000"]);
    let connect = || wharf.run(&["network", "connect", "two", "web"]);
    let answers = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(connect)).collect();
        all.into_iter().map(|one| one.join().expect("an answer")).collect::<Vec<_>>()
    });
    assert_eq!(answers.iter().filter(|ran| ran.code == 0).count(), 1);
    for ran in answers.iter().filter(|ran| ran.code != 0) {
        assert!(ran.stderr.contains("endpoint with name web already exists in network two"), "{ran}");
    }
    assert_eq!(wharf.ok(&["exec", "web", "ls", "/sys/class/net"]), "eth0\neth1\nlo");
}
