//! Containers of people who are not root, with subordinate ids (user_namespaces(7), subuid(5)) and without.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use super::bridge::within;
use crate::support::images::Tar;
use crate::support::wharf::run;
use crate::support::{Wharf, eventually, images, skip, tool};

/// Nobody's: no account, so no subordinate ids either.
const STRANGER: &str = "54321";
/// The account that `.ci/packages` makes; useradd gives it subordinate ids.
const PERSON: &str = "wharf-test";

/// Some systems keep user namespaces from ordinary people; then there are no rootless Linux containers to test.
fn namespaces_are_for_all(name: &str) -> bool {
    let allowed = |path: &str| std::fs::read_to_string(path).map_or(true, |value| value.trim() != "0");
    let yes = allowed("/proc/sys/kernel/unprivileged_userns_clone") && allowed("/proc/sys/user/max_user_namespaces");
    if !yes {
        skip(name, "this machine keeps user namespaces from ordinary users");
    }
    yes
}

#[test]
fn anybody_runs_hello() {
    for user in [STRANGER, PERSON] {
        let wharf = Wharf::of(user);
        let hello = wharf.ok(&["run", "--rm", "wharf/hello"]);
        assert!(hello.contains("Hello from Wharf"), "{hello}");
    }
}

#[test]
fn a_stranger_has_one_id() {
    if !namespaces_are_for_all("rootless::a_stranger_has_one_id") {
        return;
    }
    let wharf = Wharf::of(STRANGER);
    wharf.load(&images::busybox());
    assert_eq!(wharf.ok(&["run", "--rm", "busybox", "id", "-u"]), "0", "root inside");
    assert_eq!(wharf.ok(&["run", "--rm", "busybox", "sh", "-c", "echo x >/file && cat /file"]), "x");
    wharf.exits(3, &["run", "--rm", "busybox", "sh", "-c", "exit 3"]);
    let id = wharf.ok(&["run", "-d", "busybox", "sleep", "1000"]);
    assert_eq!(wharf.ok(&["exec", &id, "echo", "beside"]), "beside");
    wharf.ok(&["kill", &id]);
    assert_eq!(wharf.ok(&["wait", &id]), "137");
}

#[test]
fn a_person_has_many_ids() {
    if !namespaces_are_for_all("rootless::a_person_has_many_ids") {
        return;
    }
    let ranges = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    assert!(ranges.contains(&format!("{PERSON}:")), "{PERSON} has no range in /etc/subuid; .ci/packages makes it");
    let wharf = Wharf::of(PERSON);
    wharf.load(&images::busybox());
    assert_eq!(wharf.ok(&["run", "--rm", "-u", "anna", "busybox", "id", "-u"]), "1000");
    let script = "touch /tmp/file && chown 1000:2000 /tmp/file && stat -c %u:%g /tmp/file";
    assert_eq!(wharf.ok(&["run", "--rm", "busybox", "sh", "-c", script]), "1000:2000");
}

#[test]
fn a_person_without_a_root_directory_has_the_xdg_ones() {
    use std::os::unix::fs::PermissionsExt;
    let wharf = Wharf::of(STRANGER);
    let home = wharf.dir().join("home");
    let runtime = home.join("runtime");
    for (runtime_dir, run_dir) in [(Some(&runtime), runtime.join("wharf")), (None, home.join(".local/share/wharf/run"))]
    {
        let command = |args: &[&str]| {
            let mut command = wharf.command(args);
            command.env_remove("WHARF_ROOT").current_dir(&home);
            if let Some(dir) = runtime_dir {
                command.env("XDG_RUNTIME_DIR", dir);
            }
            let ran = run(command, &[]);
            assert_eq!(ran.code, 0, "{ran}");
            ran.stdout
        };
        command(&["create", "--name", "one", "wharf/hello"]);
        assert!(command(&["start", "-a", "one"]).contains("Hello"));
        let state = home.join(".local/share/wharf");
        assert!(state.join("wharf.db").exists() || state.read_dir().is_ok_and(|mut d| d.next().is_some()));
        assert!(run_dir.join("containers").is_dir(), "{}", run_dir.display());
        for dir in [&state, &run_dir] {
            let mode = std::fs::metadata(dir).expect("a directory").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is the person's alone", dir.display());
        }
        command(&["rm", "one"]);
    }
    assert!(!wharf.root().join("containers").exists());
}

/// One of the host's addresses that is no loopback.
fn address() -> String {
    let all = tool(Command::new("ip").args(["-o", "-4", "addr", "show", "scope", "global"]));
    let first = all.split_whitespace().skip_while(|word| *word != "inet").nth(1).expect("an address");
    first.split('/').next().expect("an address").to_owned()
}

/// The processes that connect the container with this first process.
fn connecting(pid: &str) -> usize {
    let pattern = format!("^[^ ]*(pasta .*/proc/{pid}/ns/net|slirp4netns .* {pid} eth0)$");
    let found = Command::new("pgrep").args(["-f", &pattern]).output().expect("pgrep");
    String::from_utf8_lossy(&found.stdout).lines().count()
}

/// A name server that says the same of every name.
fn name_server(at: &str, address: [u8; 4]) {
    let socket = UdpSocket::bind((at, 53)).expect("port 53");
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let question = &bytes[..length];
            // RFC 1035: its number, an answer without error, one question and one answer; the type is before the class.
            let is_four = question[length - 4..] == [0, 1, 0, 1];
            let header = [&question[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_four), 0, 0, 0, 0]].concat();
            let record = [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &address].concat();
            let answer = if is_four { &record[..] } else { &[] };
            socket.send_to(&[&header, &question[12..], answer].concat(), from).ok();
        }
    });
}

fn get(at: SocketAddr) -> String {
    let asked = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    asked().map(|text| text.lines().last().unwrap_or_default().to_owned()).unwrap_or_default()
}

#[test]
fn linux_containers_have_a_way_out_and_published_ports() {
    if !namespaces_are_for_all("rootless::linux_containers_have_a_way_out_and_published_ports") {
        return;
    }
    for (user, program) in [(PERSON, "pasta"), (STRANGER, "pasta"), (PERSON, "slirp4netns"), (STRANGER, "slirp4netns")]
    {
        let slirp = program == "slirp4netns";
        let mut wharf = Wharf::of(user);
        if slirp {
            wharf.cover("/usr/bin/pasta", "/dev/null");
            let server = format!("127.0.53.{}", 1 + u8::from(user == PERSON));
            name_server(&server, [192, 0, 2, 77]);
            let resolv_conf = wharf.dir().join("resolv.conf");
            std::fs::write(&resolv_conf, format!("nameserver {server}\n")).expect("a file");
            wharf.cover("/etc/resolv.conf", resolv_conf.to_str().expect("a path"));
        }
        wharf.load(&images::busybox());
        let script = "mkdir /www; echo without root > /www/index.html; exec httpd -f -p 80 -h /www";
        let ports = ["-p", "127.0.0.1::80", "-p", "127.0.0.1::53/udp"];
        wharf.ok(&[&["run", "-d", "--name", "web"][..], &ports, &["busybox", "sh", "-c", script]].concat());
        let at: SocketAddr = wharf.ok(&["port", "web", "80/tcp"]).parse().expect("an address");
        eventually("it answers", Duration::from_secs(30), || (get(at) == "without root").then_some(()));
        // Its own place, with names; the way out, and no way to the host's loopback.
        let exec = |script: &str| wharf.run(&["exec", "web", "sh", "-c", script]).stdout.trim().to_owned();
        let own = wharf.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web"]);
        assert!(exec("ip -o addr show eth0").contains(&format!("{own}/16")), "{}", exec("ip -o addr"));
        let server = if slirp { "127.0.0.11" } else { "172.30.0.1" };
        let resolv_conf = exec("cat /etc/resolv.conf");
        assert!(exec("cat /etc/hosts").contains(&own) && resolv_conf.contains(&format!("nameserver {server}")));
        if slirp {
            let found = exec("busybox nslookup elsewhere.example");
            assert!(found.contains("192.0.2.77"), "{found}");
        }
        let host = address();
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let peer = stream.peer_addr().expect("a caller").ip();
                write!(stream, "you are {peer}").ok();
            }
        });
        // With its end open for a while: Debian's pasta may lose a connection that is shut down as it begins.
        let call = format!("sleep 1 | busybox timeout 5 nc {host} {port}");
        eventually("the way out", Duration::from_secs(60), || (exec(&call) == format!("you are {host}")).then_some(()));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        let port = listener.local_addr().expect("an address").port();
        exec(&format!("for host in 172.30.0.1 127.0.0.1; do busybox timeout 3 nc $host {port} </dev/null; done"));
        assert!(listener.accept().is_err(), "the host's loopback is not the container's");
        // Nor by a socket that is bound to the device, which takes no right.
        let datagrams = UdpSocket::bind(("127.0.0.1", port)).expect("a port");
        datagrams.set_nonblocking(true).expect("non-blocking");
        let bound = "import socket, sys\nfor kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:\n \
                     s = socket.socket(socket.AF_INET, kind)\n s.settimeout(2)\n \
                     s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0')\n \
                     try: s.connect(('127.0.0.1', int(sys.argv[1]))); s.send(b'forged')\n \
                     except OSError: pass";
        let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
        tool(Command::new("nsenter").args(["-t", &pid, "-n", "python3", "-c", bound, &port.to_string()]));
        std::thread::sleep(Duration::from_millis(300));
        let heard = (listener.accept().is_ok(), datagrams.recv(&mut [0; 8]).is_ok());
        assert_eq!(heard, (false, false), "the host's loopback is not the container's");
        // Nor by packets that no kernel would send: it may not make its own, unless that is asked for.
        let own_packets = |caps: String| {
            let bits = caps.split_whitespace().last().and_then(|bits| u64::from_str_radix(bits, 16).ok());
            bits.expect("capabilities") & 1 << 13 != 0
        };
        let caps = "grep CapBnd /proc/self/status";
        assert!(!own_packets(exec(caps)));
        assert!(own_packets(wharf.ok(&["run", "--rm", "--cap-add", "NET_RAW", "busybox", "sh", "-c", caps])));
        assert!(own_packets(wharf.ok(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", caps])));
        // Datagrams come in by a published port.
        let udp: SocketAddr = wharf.ok(&["port", "web", "53/udp"]).parse().expect("an address");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let got = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                within(&wharf, "web", || {
                    let socket = UdpSocket::bind("0.0.0.0:53").expect("a port");
                    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
                    let mut bytes = [0; 8];
                    let (length, _) = socket.recv_from(&mut bytes).expect("a datagram");
                    bytes[..length].to_vec()
                })
            });
            eventually("it comes", Duration::from_secs(30), || {
                socket.send_to(b"here", udp).expect("the port is there");
                receiver.is_finished().then_some(())
            });
            receiver.join().expect("a receiver")
        });
        assert_eq!(got, b"here");
        // A port that is taken, in docker's words, and a container that starts again.
        let taken = wharf.exits(125, &["run", "--rm", "-p", &format!("{at}:80"), "busybox", "true"]);
        assert!(taken.stderr.contains(&format!("Bind for {at} failed: port is already allocated")), "{taken}");
        wharf.ok(&["restart", "-t", "0", "web"]);
        let at: SocketAddr = wharf.ok(&["port", "web", "80/tcp"]).parse().expect("an address");
        eventually("it answers again", Duration::from_secs(30), || (get(at) == "without root").then_some(()));
        let pid = wharf.ok(&["inspect", "-f", "{{.State.Pid}}", "web"]);
        // It goes with the container, however that goes.
        assert_eq!(connecting(&pid), 1);
        let monitor = *wharf.monitors().keys().next().expect("a monitor");
        tool(Command::new("kill").args(["-9", &monitor.to_string()]));
        eventually("it ends", Duration::from_secs(30), || (connecting(&pid) == 0).then_some(()));
        wharf.ok(&["rm", "-f", "web"]);
        // A killed process has no command line any more before its sockets are closed.
        eventually("its port is free", Duration::from_secs(30), || TcpListener::bind(at).ok().map(drop));
        wharf.ok(&["run", "--rm", "-p", &format!("{at}:80"), "busybox", "true"]);
        assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
    }
}

#[test]
fn a_policy_starts_connected_containers_again() {
    if !namespaces_are_for_all("rootless::a_policy_starts_connected_containers_again") {
        return;
    }
    let wharf = Wharf::of(PERSON);
    wharf.load(&images::busybox());
    wharf.ok(&["run", "-d", "--name", "again", "--restart", "on-failure:2", "-p", "127.0.0.1::80", "busybox", "false"]);
    let state = || wharf.ok(&["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again"]);
    eventually("two more attempts", Duration::from_secs(30), || (state() == "exited 2").then_some(()));
}

#[test]
fn no_network_is_another_by_a_detour() {
    if !namespaces_are_for_all("rootless::no_network_is_another_by_a_detour") {
        return;
    }
    let wharf = Wharf::of(PERSON);
    wharf.load(&images::busybox());
    let devices = wharf.ok(&["run", "--rm", "--network", "bridge", "busybox", "ls", "/sys/class/net"]);
    assert_eq!(devices, "eth0\nlo", "the default network is the default network by name too");
    wharf.ok(&["network", "create", "--internal", "shut"]);
    wharf.ok(&["create", "--name", "box", "busybox", "ls", "/sys/class/net"]);
    wharf.ok(&["network", "connect", "shut", "box"]);
    let refused = |why: &str| {
        let ran = wharf.run(&["start", "-a", "box"]);
        let message = "network shut: only root can connect Linux containers to a bridge";
        assert!(ran.code == 1 && ran.stderr.contains(message), "{why}: {ran}");
    };
    refused("it is on both");
    wharf.ok(&["network", "disconnect", "bridge", "box"]);
    refused("it is on the other alone");
    wharf.ok(&["network", "disconnect", "shut", "box"]);
    assert_eq!(wharf.ok(&["start", "-a", "box"]), "lo", "it is on none");
    wharf.ok(&["network", "connect", "bridge", "box"]);
    assert_eq!(wharf.ok(&["start", "-a", "box"]), "eth0\nlo");
}

#[test]
fn without_a_program_ports_are_refused_by_name() {
    if !namespaces_are_for_all("rootless::without_a_program_ports_are_refused_by_name") {
        return;
    }
    let mut wharf = Wharf::of(STRANGER);
    wharf.cover("/usr/bin/pasta", "/dev/null");
    wharf.cover("/usr/bin/slirp4netns", "/dev/null");
    wharf.load(&images::busybox());
    let refused = wharf.run(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    assert!(
        refused.code == 125 && refused.stderr.contains("passt") && refused.stderr.contains("slirp4netns"),
        "{refused}"
    );
    // Without ports it does without a network.
    let alone = wharf.run(&["run", "--rm", "busybox", "ip", "-o", "addr"]);
    assert!(alone.code == 0 && alone.stdout.contains("lo") && !alone.stdout.contains("eth0"), "{alone}");
}

#[test]
fn a_person_copies_and_commits() {
    let wharf = Wharf::of("wharf-test");
    wharf.load(&images::busybox());
    wharf.ok(&["run", "-d", "--network", "none", "--name", "box", "busybox", "sleep", "1000"]);
    let (from, to) = (wharf.dir().join("note"), wharf.dir().join("home/back"));
    std::fs::write(&from, "a line").expect("a file");
    wharf.ok(&["cp", from.to_str().expect("a path"), "box:/tmp/note"]);
    assert_eq!(wharf.ok(&["exec", "box", "cat", "/tmp/note"]), "a line");
    wharf.ok(&["cp", "box:/tmp/note", to.to_str().expect("a path")]);
    assert_eq!(std::fs::read_to_string(&to).expect("a copy"), "a line");
    wharf.ok(&["commit", "-m", "with a note", "box", "noted"]);
    assert_eq!(wharf.ok(&["inspect", "-f", "{{.State.Status}}", "box"]), "running");
    assert_eq!(wharf.ok(&["run", "--rm", "--network", "none", "noted", "cat", "/tmp/note"]), "a line");
    assert!(wharf.ok(&["diff", "box"]).contains("A /tmp/note"));
}

/// Files that their owner may not touch: a directory that nobody may write to, and a file that nobody may read.
fn closed() -> Vec<u8> {
    let mut layer = Tar::default();
    layer.directory("closed");
    layer.directory_of_mode("closed/dir", 0o555);
    layer.file("closed/dir/file", 0o000, b"of the image");
    layer.end()
}

/// What lies in the directory of all volumes.
fn volume_dirs(wharf: &Wharf) -> Vec<String> {
    let entries = std::fs::read_dir(wharf.root().join("volumes")).expect("volumes");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn volumes_hold_what_their_owner_may_not_touch() {
    if !namespaces_are_for_all("rootless::volumes_hold_what_their_owner_may_not_touch") {
        return;
    }
    for user in [STRANGER, PERSON] {
        let wharf = Wharf::of(user);
        let config = serde_json::json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]});
        wharf.load(&images::linux("closed:latest", &[images::busybox_layer(), closed()], &config));
        let in_volume = |volume: &str, script: &str| {
            wharf.ok(&["run", "--rm", "--network", "none", "-v", volume, "closed", "sh", "-c", script])
        };
        let look = "cd /closed; cat dir/file; stat -c %a dir dir/file";
        assert_eq!(in_volume("filled:/closed", look), "of the image555\n0");
        let archive = wharf.dir().join("home/volume.tar");
        let archive = archive.to_str().expect("a path");
        wharf.ok(&["volume", "export", "filled", "-o", archive]);
        wharf.ok(&["volume", "import", "imported", archive]);
        assert_eq!(in_volume("imported:/closed", look), "of the image555\n0");
        assert_eq!(in_volume("/closed", look), "of the image555\n0");
        wharf.ok(&["volume", "rm", "filled"]);
        assert_eq!(wharf.ok(&["volume", "prune", "-af"]).lines().nth(1), Some("imported"));
        eventually("the nameless one is gone", Duration::from_secs(10), || {
            volume_dirs(&wharf).is_empty().then_some(())
        });
        assert_eq!(wharf.ok(&["system", "check"]), "No problems found.");
    }
}

#[test]
fn what_subordinate_ids_own_is_removed() {
    if !namespaces_are_for_all("rootless::what_subordinate_ids_own_is_removed") {
        return;
    }
    let wharf = Wharf::of(PERSON);
    wharf.load(&images::busybox());
    let script = "mkdir -p /own/dir /data/dir; echo x > /own/dir/file; echo x > /data/dir/file;
                  chown -R 5:5 /own /data; chmod 700 /own /own/dir /data /data/dir";
    for name in ["one", "two"] {
        // The second time the volume is closed to us already.
        wharf.ok(&["run", "--name", name, "--network", "none", "-v", "data:/data", "busybox", "sh", "-c", script]);
        wharf.ok(&["rm", name]);
    }
    assert_eq!(std::fs::read_dir(wharf.root().join("snapshots/overlay/tmp")).expect("tmp").count(), 0);
    assert_eq!(wharf.ok(&["volume", "prune", "-af"]), "Deleted Volumes:\ndata\n\nTotal reclaimed space: 2B");
    assert_eq!(volume_dirs(&wharf), [""; 0]);
}
