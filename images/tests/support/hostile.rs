//! A small HTTP server that misbehaves as told: what a real registry would not do for a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What was asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// `GET /v2/x?y`.
    pub line: String,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Request {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Default)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Headers beside the length.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The length that is claimed, where it is not the body's. The connection ends after the body.
    pub claimed: Option<usize>,
    /// The connection ends without an answer.
    pub broken: bool,
    /// After the body come more bytes, for ever, without a length.
    pub endless: bool,
}

impl Reply {
    /// A status and a body.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Reply { status, body: body.into(), ..Reply::default() }
    }

    /// The same with a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The server. It serves until the test ends.
pub struct Hostile {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Hostile {
    /// Answers every request by `answer`, which also gets the server's own address.
    pub fn new(answer: impl Fn(&Request, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (log, answer) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &log, &*answer, &format!("localhost:{port}")));
            }
        });
        Hostile { port, requests }
    }

    /// `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// How many requests began with this.
    pub fn count(&self, start: &str) -> usize {
        self.requests().iter().filter(|r| r.line.starts_with(start)).count()
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request, &str) -> Reply, host: &str) {
    let mut first = [0];
    // A TLS handshake begins with 22: this server is plain.
    if !matches!(stream.peek(&mut first), Ok(1)) || first[0] == 22 {
        return;
    }
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).map(|_| line.trim_end().to_owned()).unwrap_or_default()
    };
    let mut request = Request { line: line().trim_end_matches(" HTTP/1.1").to_owned(), ..Request::default() };
    loop {
        let line = line();
        let Some((name, value)) = line.split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    request.body = String::from_utf8_lossy(&body).into_owned();
    log.lock().unwrap().push(request.clone());
    let reply = answer(&request, host);
    if reply.broken {
        return;
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply.endless {
        head += &format!("Content-Length: {}\r\n", reply.claimed.unwrap_or(reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = reader.into_inner();
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if !request.line.starts_with("HEAD") {
        let _ = stream.write_all(&reply.body);
    }
    while reply.endless && stream.write_all(&[b'x'; 65536]).is_ok() {}
}
