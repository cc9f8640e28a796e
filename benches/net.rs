//! The way of bytes into containers by published ports, and between containers: WebAssembly and Linux, against the same
//! server run without a container, and against docker's and podman's.
//!
//! There is one server, `tests/guests/net.rs`, which sends back what comes: as a WebAssembly guest, and as a part of this
//! program for everything native. Each side has a network namespace of its own, where its firewall disturbs nobody, and
//! where it is called from. `cargo bench --bench net -- 1 small` tries every row with little. What is closer than a tenth
//! takes more rounds than ten to tell apart (`-- 40`).
//!
//! A host of WebAssembly containers has no firewall. `mixed` is one on a host that has Linux containers too, whose published
//! ports have the kernel follow every connection (conntrack), the loopback's as well.

mod support;

#[allow(dead_code, unsafe_code, reason = "a guest is a program of its own")]
#[path = "../tests/guests/net.rs"]
mod guest;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use support::fixtures::{Wharf, eventually, images, tool};
use support::peers::{self, Namespace, Podman};
use support::{Report, rounds};

/// This program, where it is a server or a client in a container.
const GUEST: &str = "guest";
/// Where it lies in the image.
const PROGRAM: &str = "/net";
/// No server is silent for so long.
const PATIENCE: Duration = Duration::from_secs(20);
const ECHO: [&str; 4] = [PROGRAM, GUEST, "echo", "0.0.0.0:80"];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = args.iter().position(|arg| arg == GUEST) {
        let args: Vec<&str> = args[at + 1..].iter().map(String::as_str).collect();
        return guest::run(&args).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    peers::without_hybrid_cgroups();
    peers::need("redis-benchmark");
    let n = rounds(10);
    let little = args.iter().any(|arg| arg == "small");
    // Bytes there and back, and requests, in each round.
    let (bytes, requests) = if little { (4 << 20, 100) } else { (256 << 20, 10_000) };
    let mut report = Report::default();

    let (wharf, other, both) = (Wharf::new(), Wharf::new(), Wharf::new());
    let dir = wharf.dir();
    let program = std::env::current_exe().expect("a path");
    let mut layer = images::Tar::default();
    // It is linked to nothing.
    layer.file(PROGRAM.trim_start_matches('/'), 0o755, &std::fs::read(program).expect("this program"));
    let image = images::linux("net:latest", &[layer.end()], &serde_json::json!({}));
    let [alone, ours, others, mixed] = ["bare", "wasm", "linux", "mixed"].map(Namespace::new);
    for (wharf, host) in [(&wharf, &ours), (&both, &mixed)] {
        wharf.ok(&["wasm", "pack", &images::guest("net-p2"), "-t", "guest"]);
        let run = ["run", "-d", "--name", "wasm", "-p", "127.0.0.1::80", "guest", "echo", "0.0.0.0:80"];
        within(host, || wharf.ok(&run));
    }
    for (wharf, host) in [(&other, &others), (&both, &mixed)] {
        wharf.load(&image);
        let run = ["run", "-d", "--name", "linux", "-p", "127.0.0.1::80", "net"];
        within(host, || wharf.ok(&[&run[..], &ECHO].concat()));
    }
    let bare = within(&alone, Bare::start);

    let apart = Namespace::new("docker");
    let docker = peers::docker_apart(dir, &apart, &[&image]);
    docker.ok(&["network", "create", "peers"]);
    docker
        .ok(&[&["run", "-d", "--name", "server", "--network", "peers", "-p", "127.0.0.1::80", "net"][..], &ECHO]
            .concat());
    let beside = Namespace::new("podman");
    let archive = dir.join("net.tar");
    std::fs::write(&archive, &image).expect("an archive");
    let podman = Podman::apart(dir, &archive, &beside);
    tool(
        podman
            .command(&["run", "-d", "--name", "server", "-p", "127.0.0.1:28080:80"])
            .args(peers::PODMAN_LIMITS)
            .arg("net")
            .args(ECHO),
    );

    let at = |text: String| text.lines().next().unwrap_or_default().parse().expect("an address");
    let servers = [
        Server { name: "bare", at: bare.at, namespace: &alone },
        Server { name: "docker", at: at(docker.ok(&["port", "server", "80"])), namespace: &apart },
        Server { name: "podman", at: at("127.0.0.1:28080".to_owned()), namespace: &beside },
        Server { name: "wasm", at: at(wharf.ok(&["port", "wasm", "80"])), namespace: &ours },
        Server { name: "linux", at: at(other.ok(&["port", "linux", "80"])), namespace: &others },
        Server { name: "mixed", at: at(both.ok(&["port", "wasm", "80"])), namespace: &mixed },
    ];
    servers.iter().for_each(Server::wait);

    // The goals are rates: at least podman's, and 0.95 of the bare server's.
    let flooded = compare("echo through a published port", n, &servers, |server| server.run(move |at| bulk(at, bytes)));
    // A server that answers one after the other is not all there is to measure; nor is one that always has more to do. The
    // kernel takes a tenth of a second to find each of many a place, which is not what is asked. Part of such a rate is the
    // client's own: eight threads that wait for an answer each displace one another whenever one comes. So there is also a
    // client that is not ours, and waits for all at once, as most do.
    let many = 10 * requests;
    let rounds: [(&str, usize, Asks<'_>); 3] = [
        ("small requests of a client with eight connections", many, &|at| redis_benchmark(at, many, 8)),
        ("small requests of eight threads", many, &|at| pings(at, many, 8)),
        ("requests one after the other", requests, &|at| pings(at, requests, 1)),
    ];
    let asked = rounds.map(|(what, requests, asks)| {
        let times = compare(&format!("{what} through a published port"), n, &servers, |server| server.run(asks));
        (what.to_owned(), times, rate(requests, 1.0, "requests/s"))
    });
    let flooded = (format!("echo of {} MB", bytes >> 20), flooded, rate(2 * bytes, 1e9, "GB/s"));
    for (what, times, show) in std::iter::once(flooded).chain(asked) {
        println!("{what} through a published port  (n = {n})");
        for (server, time) in servers.iter().zip(&times) {
            println!("  {:9} {}", server.name, show(*time));
        }
        for ours in [3, 4, 5] {
            for (theirs, bound, goal) in [(0, 1.5, 1.0 / 0.95), (1, 1.0, 0.6), (2, 1.0, 1.0)] {
                let what = format!("{what}, {} / {}", servers[ours].name, servers[theirs].name);
                report.judge(&what, times[ours] / times[theirs], bound, goal);
            }
        }
    }

    // Between containers of one network; each client tells how long it took, without its own start.
    let [bytes, requests] = [bytes, requests].map(|number| number.to_string());
    for (what, args) in [("echo", ["flood", "", &bytes]), ("small requests", ["pings", "", &requests])] {
        let asks = |to: &'static str| [args[0], to, args[2]];
        let clients: [(&str, &Namespace, Client<'_>); 3] = [
            ("wasm", &ours, Box::new(|| wharf.command(&[&["run", "--rm", "guest"][..], &asks("wasm:80")].concat()))),
            (
                "linux",
                &others,
                Box::new(|| other.command(&[&["run", "--rm", "net", PROGRAM, GUEST][..], &asks("linux:80")].concat())),
            ),
            (
                "docker",
                &apart,
                Box::new(|| {
                    let run = ["run", "--rm", "--network", "peers", "net", PROGRAM, GUEST];
                    docker.command(&[&run[..], &asks("server:80")].concat())
                }),
            ),
        ];
        let what = format!("{what} between two containers");
        let times = compare(&what, n, &clients, |(_, host, client)| {
            let nanoseconds = within(host, || tool(&mut client()).trim().parse().expect("a client's time"));
            Duration::from_nanos(nanoseconds)
        });
        println!("{what}  (n = {n})");
        for ((name, ..), time) in clients.iter().zip(&times) {
            println!("  {name:9} {:.2} ms", time * 1e3);
        }
        report.judge(&format!("{what}, wasm / docker"), times[0] / times[2], 1.0 / 1.5, 0.5);
        report.judge(&format!("{what}, linux / docker"), times[1] / times[2], 1.1, 1.0);
    }
    report.end()
}

/// How a server is asked.
type Asks<'a> = &'a (dyn Fn(SocketAddr) -> Duration + Sync);

/// How a client in a container is called.
type Client<'a> = Box<dyn Fn() -> Command + Sync + 'a>;

/// Does something in a network namespace; what it starts is there too.
fn within<T: Send>(namespace: &Namespace, call: impl FnOnce() -> T + Send) -> T {
    let file = File::open(namespace.path()).expect("a network namespace");
    let work = || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(file.as_fd(), kind).expect("setns");
        call()
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
}

/// The median times of some sides, in seconds, measured in turn.
fn compare<T>(what: &str, n: usize, sides: &[T], measure: impl Fn(&T) -> Duration) -> Vec<f64> {
    println!("measuring: {what}");
    let mut times = vec![Vec::new(); sides.len()];
    for round in 0..=n {
        for turn in 0..sides.len() {
            // No side always goes first, nor always after the same other: how deep the processors sleep and who runs where
            // is partly the work of who went before. (A row of a Williams square, for an even number.) The first round warms up.
            let step = if turn % 2 == 1 { turn.div_ceil(2) } else { sides.len() - turn / 2 };
            let side = (round + step) % sides.len();
            let time = measure(&sides[side]).as_secs_f64();
            if round > 0 {
                times[side].push(time);
            }
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    times.into_iter().map(median).collect()
}

/// How so many of something in a time are shown.
fn rate(count: usize, unit: f64, name: &'static str) -> impl Fn(f64) -> String {
    move |seconds| format!("{:10.2} {name}", count as f64 / seconds / unit)
}

/// A server somewhere.
struct Server<'a> {
    name: &'a str,
    at: SocketAddr,
    namespace: &'a Namespace,
}

impl Server<'_> {
    /// Calls it from where it is published.
    fn run(&self, call: impl FnOnce(SocketAddr) -> Duration + Send) -> Duration {
        let called = || within(self.namespace, || call(self.at));
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(called))
            .unwrap_or_else(|_| panic!("{} does not do what it should", self.name))
    }

    /// Waits until it answers.
    fn wait(&self) {
        let answers = |at| TcpStream::connect(at).is_ok_and(|mut stream| ping(&mut stream).is_ok());
        eventually(self.name, Duration::from_secs(30), || {
            (self.run(|at| Duration::from_secs(answers(at).into())) > Duration::ZERO).then_some(())
        });
    }
}

/// The server without a container.
struct Bare {
    child: Child,
    at: SocketAddr,
}

impl Bare {
    fn start() -> Self {
        let program = std::env::current_exe().expect("a path");
        let mut command = Command::new(program);
        let mut child =
            command.args([GUEST, "echo", "127.0.0.1:0"]).stdout(Stdio::piped()).spawn().expect("this program");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let at = line.trim().rsplit(' ').next().and_then(|at| at.parse().ok()).expect("an address");
        Bare { child, at }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

fn connected(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    // What was still to be made is made now.
    ping(&mut stream).expect("an answer");
    stream
}

fn ping(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(&[7; 64])?;
    stream.read_exact(&mut [0; 64])
}

fn bulk(to: SocketAddr, bytes: usize) -> Duration {
    let stream = connected(to);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let (mut writer, mut reader) = (&stream, &stream);
        scope.spawn(move || {
            let block = vec![42; 256 * 1024];
            for _ in 0..bytes / block.len() {
                writer.write_all(&block).expect("sent");
            }
        });
        let mut space = vec![0; 256 * 1024];
        let mut back = 0;
        while back < bytes {
            let length = reader.read(&mut space).expect("everything comes back");
            assert!(length > 0, "everything comes back");
            back += length;
        }
    });
    start.elapsed()
}

/// On so many connections at once, each with a thread.
fn pings(to: SocketAddr, requests: usize, connections: usize) -> Duration {
    let mut streams: Vec<TcpStream> = (0..connections).map(|_| connected(to)).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for stream in &mut streams {
            scope.spawn(move || (0..requests / connections).for_each(|_| ping(stream).expect("an answer")));
        }
    });
    start.elapsed()
}

/// The same by a client that is not ours: it takes its own words, sent back, for Redis's answer (an array of one string).
fn redis_benchmark(to: SocketAddr, requests: usize, connections: usize) -> Duration {
    let (ip, port) = (to.ip().to_string(), to.port().to_string());
    let [count, clients] = [requests, connections].map(|number| number.to_string());
    // It tries a server that is gone for ever.
    let mut command = Command::new("timeout");
    command.args(["60", "redis-benchmark", "-h", &ip, "-p", &port]);
    command.args(["-c", &clients, "-n", &count, "-t", "ping_mbulk", "--csv"]);
    let table = tool(&mut command);
    let rate = table.lines().find_map(|line| line.strip_prefix("\"PING_MBULK\",\"")?.split('"').next()?.parse().ok());
    let rate: f64 = rate.unwrap_or_else(|| panic!("no requests per second in {table}"));
    Duration::from_secs_f64(requests as f64 / rate)
}
