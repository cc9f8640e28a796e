//! The way of bytes through a published port, against the same server run natively on the host: throughput, and the
//! latency of small requests.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use support::fixtures::{Wharf, images};
use support::{Report, Side, rounds};

/// Bytes there and back in each round.
const BULK: usize = 256 << 20;
/// Requests in each round.
const REQUESTS: usize = 2000;

fn main() -> ExitCode {
    let n = rounds(10);
    let mut report = Report::default();
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("net-p2"), "-t", "net"]);
    wharf.ok(&["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "net", "echo", "0.0.0.0:80"]);
    let guest: SocketAddr = wharf.ok(&["port", "web", "80"]).parse().expect("an address");
    let native = native_echo();
    // The goals are rates: 0.8 of the native one is 1.25 times its time.
    report.race(
        "echo of 256 MB through -p / native",
        n,
        Side::around("wharf", || bulk(guest)),
        Side::around("native", || bulk(native)),
        1.25,
        1.1,
    );
    report.race(
        "2000 small requests through -p / native",
        n,
        Side::around("wharf", || requests(guest)),
        Side::around("native", || requests(native)),
        1.5,
        1.25,
    );
    report.end()
}

/// A server of threads that does what the guest does.
fn native_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                stream.set_nodelay(true).ok();
                let mut space = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = stream.read(&mut space) {
                    if stream.write_all(&space[..length]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    at
}

fn connected(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    // What was still to be made is made now.
    ping(&mut stream);
    stream
}

fn ping(stream: &mut TcpStream) {
    let mut answer = [0; 64];
    stream.write_all(&[7; 64]).expect("sent");
    stream.read_exact(&mut answer).expect("an answer");
}

fn bulk(to: SocketAddr) -> Duration {
    let stream = connected(to);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let (mut writer, mut reader) = (&stream, &stream);
        scope.spawn(move || {
            let block = vec![42; 256 * 1024];
            for _ in 0..BULK / block.len() {
                writer.write_all(&block).expect("sent");
            }
            writer.shutdown(Shutdown::Write).expect("half closed");
        });
        let mut space = vec![0; 256 * 1024];
        let mut back = 0;
        while let Ok(length @ 1..) = reader.read(&mut space) {
            back += length;
        }
        assert_eq!(back, BULK, "everything comes back");
    });
    start.elapsed()
}

fn requests(to: SocketAddr) -> Duration {
    let mut stream = connected(to);
    let start = Instant::now();
    (0..REQUESTS).for_each(|_| ping(&mut stream));
    start.elapsed()
}
