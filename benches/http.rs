//! Requests per second, and the slowest hundredth of them, of a component that answers HTTP requests: through a published
//! port of Wharf, against `wasmtime serve` of the same file. Both make a fresh instance for each request.
//!
//! The clients are threads of this program with a connection each. They take their share of the processors, the same from
//! both sides.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::fixtures::{Wharf, images};
use support::{Report, peers, rounds};

/// Connections at one time.
const CONNECTIONS: usize = 32;
/// How long one side is asked in one round.
const ROUND: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let n = rounds(5);
    let mut report = Report::default();
    let wharf = Wharf::new();
    let file = images::guest("http");
    wharf.ok(&["wasm", "pack", &file, "-t", "web"]);
    // wasmtime writes no access log.
    wharf.ok(&["run", "-d", "--name", "web", "--log-driver", "none", "-p", "127.0.0.1::80", "web"]);
    let shown = wharf.ok(&["port", "web", "80"]);
    let ours = shown.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let server = peers::wasmtime_serve(&file);

    let sides = [("wharf", ours), ("wasmtime", server.port)];
    let (mut rates, mut slowest) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..=n {
        for turn in 0..2 {
            let side = (round + turn) % 2;
            let times = load(sides[side].1);
            // The first round warms up.
            if round > 0 {
                rates[side].push(times.len() as f64 / ROUND.as_secs_f64());
                slowest[side].push(times[times.len() * 99 / 100].as_secs_f64() * 1e3);
            }
        }
    }
    println!("GET /hello on {CONNECTIONS} connections  (n = {n})");
    let [ours, theirs] = [0, 1].map(|side| {
        let (rate, late) = (median(&mut rates[side]), median(&mut slowest[side]));
        println!("  {:9} {rate:9.0} requests/s   99 of 100 within {late:.2} ms", sides[side].0);
        (rate, late)
    });
    // As times are elsewhere: less is better.
    report.judge("time per request / wasmtime serve's", theirs.0 / ours.0, 1.0 / 1.5, 1.0 / 3.0);
    report.judge("99th percentile / wasmtime serve's", ours.1 / theirs.1, 1.0, 0.5);
    report.end()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Asks a server as fast as it answers; gives how long each answer took, sorted.
fn load(port: u16) -> Vec<Duration> {
    let over = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| client(port, &over))).collect();
        std::thread::sleep(ROUND);
        over.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect::<Vec<_>>()
    });
    times.sort_unstable();
    times
}

fn client(port: u16, over: &AtomicBool) -> Vec<Duration> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
    stream.set_nodelay(true).expect("an option");
    let mut times = Vec::with_capacity(16 * 1024);
    let mut buffer = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: bench\r\n\r\n").expect("a request");
        let mut read = 0;
        while !complete(&buffer[..read]) {
            let n = stream.read(&mut buffer[read..]).expect("an answer");
            assert!(n > 0, "the server has gone: {}", String::from_utf8_lossy(&buffer[..read]));
            read += n;
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&buffer[..read]));
        times.push(began.elapsed());
    }
    times
}

/// A whole answer: its body, or the chunk that it is sent as, and after that the last chunk.
fn complete(answer: &[u8]) -> bool {
    const BODY: &[u8] = b"Hello, HTTP!\n";
    let chunked = answer.windows(7).any(|part| part.eq_ignore_ascii_case(b"chunked"));
    answer.ends_with(if chunked { b"\r\n0\r\n\r\n" } else { BODY })
}
