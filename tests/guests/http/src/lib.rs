//! A component that serves HTTP (`wasi:http/incoming-handler`): each path does one thing that a test wants of a guest.

use wasi::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasi::io::streams::StreamError;

struct Guest;

wasi::http::proxy::export!(Guest);

impl wasi::exports::http::incoming_handler::Guest for Guest {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path.as_str(), ""));
        match path {
            "/hello" => text(out, 200, "Hello, HTTP!\n"),
            "/host" => text(out, 200, &format!("{}\n", request.authority().unwrap_or_default())),
            "/env" => {
                let variables = wasi::cli::environment::get_environment();
                text(out, 200, &variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect::<String>());
            }
            "/log" => {
                println!("to stdout");
                eprintln!("to stderr");
                text(out, 200, "logged\n");
            }
            // One request sees nothing of another.
            "/count" => text(out, 200, &format!("{}\n", count())),
            "/echo" => echo(request, out),
            "/swallow" => text(out, 200, &format!("{}\n", swallow(request))),
            // So many bytes, as a stream of them.
            "/zeros" => zeros(out, query.parse().unwrap_or(0)),
            // Milliseconds before the answer.
            "/slow" => {
                wait(query.parse().unwrap_or(1000));
                text(out, 200, "slow\n");
            }
            // Milliseconds in the middle of the answer.
            "/pause" => {
                let stream = begin(out);
                stream.1.blocking_write_and_flush(b"before\n").expect("write");
                wait(query.parse().unwrap_or(1000));
                stream.1.blocking_write_and_flush(b"after\n").expect("write");
                end(stream);
            }
            "/trap" => outer(),
            // After the answer has begun.
            "/late-trap" => {
                let stream = begin(out);
                stream.1.blocking_write_and_flush(b"begun\n").expect("write");
                wait(100);
                outer();
            }
            "/spin" => loop {
                std::hint::black_box(0);
            },
            "/exit" => std::process::exit(3),
            "/silent" => {}
            // Megabytes.
            "/alloc" => {
                let megabytes: usize = query.parse().unwrap_or(1);
                let all: Vec<Vec<u8>> = (0..megabytes).map(|_| vec![1; 1 << 20]).collect();
                text(out, 200, &format!("{}\n", all.len()));
            }
            "/read" => match std::fs::read_to_string(query) {
                Ok(content) => text(out, 200, &content),
                Err(e) => text(out, 404, &format!("{e}\n")),
            },
            "/get" => get(out, query),
            _ => text(out, 404, "no such path\n"),
        }
    }
}

fn count() -> u32 {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1
}

type Stream = (OutgoingBody, wasi::io::streams::OutputStream);

/// Sends a head; the body follows.
fn begin(out: ResponseOutparam) -> Stream {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("stream");
    (body, stream)
}

fn end((body, stream): Stream) {
    drop(stream);
    OutgoingBody::finish(body, None).expect("finish");
}

fn text(out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::from_list(&[("content-type".to_owned(), b"text/plain".to_vec())]).expect("headers");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("status");
    let body = response.body().expect("body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("stream");
    for part in text.as_bytes().chunks(4096) {
        stream.blocking_write_and_flush(part).expect("write");
    }
    end((body, stream));
}

fn read(body: &IncomingBody, mut each: impl FnMut(&[u8])) {
    let stream = body.stream().expect("stream");
    loop {
        match stream.blocking_read(1 << 16) {
            Ok(bytes) => each(&bytes),
            Err(StreamError::Closed) => return,
            Err(e) => panic!("{e:?}"),
        }
    }
}

fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().expect("body");
    let stream = begin(out);
    read(&body, |bytes| {
        for part in bytes.chunks(4096) {
            stream.1.blocking_write_and_flush(part).expect("write");
        }
    });
    end(stream);
}

/// The number of bytes, and their sum.
fn swallow(request: IncomingRequest) -> String {
    let body = request.consume().expect("body");
    let (mut count, mut sum) = (0_u64, 0_u64);
    read(&body, |bytes| {
        count += bytes.len() as u64;
        sum = bytes.iter().fold(sum, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(*b)));
    });
    format!("{count} {sum}")
}

fn zeros(out: ResponseOutparam, count: u64) {
    let stream = begin(out);
    let mut left = count;
    while left > 0 {
        stream.1.subscribe().block();
        let room = stream.1.check_write().expect("room");
        let part = left.min(room).min(1 << 16);
        stream.1.write(&vec![0; part as usize]).expect("write");
        left -= part;
    }
    stream.1.blocking_flush().expect("flush");
    end(stream);
}

fn wait(ms: u64) {
    std::thread::sleep(std::time::Duration::from_millis(ms));
}

/// Asks another server, `http://HOST[:PORT]/PATH`, and passes its answer on.
fn get(out: ResponseOutparam, url: &str) {
    use wasi::http::outgoing_handler::handle;
    use wasi::http::types::{OutgoingRequest, Scheme};
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&if scheme == "https" { Scheme::Https } else { Scheme::Http })).expect("scheme");
    request.set_authority(Some(authority)).expect("authority");
    request.set_path_with_query(Some(&format!("/{path}"))).expect("path");
    let answer = match handle(request, None) {
        Ok(answer) => answer,
        Err(e) => return text(out, 502, &format!("{e:?}\n")),
    };
    answer.subscribe().block();
    match answer.get().expect("an answer").expect("once") {
        Ok(response) => {
            let mut all = Vec::new();
            let body = response.consume().expect("body");
            read(&body, |bytes| all.extend_from_slice(bytes));
            text(out, response.status(), &String::from_utf8_lossy(&all));
        }
        Err(e) => text(out, 502, &format!("{e:?}\n")),
    }
}

#[inline(never)]
fn outer() {
    inner();
    println!("unreached");
}

#[inline(never)]
fn inner() {
    core::arch::wasm32::unreachable()
}
