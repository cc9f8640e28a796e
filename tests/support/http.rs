//! A plain HTTP/1.1 client over one connection: what a test asks of a server, and no more.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// No answer takes longer on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to a server on this host.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head's lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The body came to its proper end.
    pub complete: bool,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// One request on a connection of its own.
pub fn get(port: u16, path: &str) -> Answer {
    Client::connect(port).get(path)
}

impl Client {
    /// Connects.
    pub fn connect(port: u16) -> Self {
        Self::try_connect(port).unwrap_or_else(|e| panic!("connect to port {port}: {e}"))
    }

    /// Connects, if somebody listens.
    pub fn try_connect(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Asks for a path and reads the answer; the connection stays open.
    pub fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.answer()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).expect("send");
    }

    /// Posts a body of `length` bytes that `write` writes, on another thread, while the answer is read.
    pub fn post(&mut self, path: &str, length: u64, write: impl FnOnce(&mut TcpStream) + Send) -> Answer {
        self.send(&format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n"));
        let mut out = self.stream.get_ref().try_clone().expect("a second handle");
        std::thread::scope(|scope| {
            scope.spawn(move || write(&mut out));
            self.answer()
        })
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> Answer {
        let line = self.line();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new(), complete: true };
        match answer.header("content-length").map(|n| n.parse::<u64>().expect("a length")) {
            Some(length) => {
                let read = self.stream.by_ref().take(length).read_to_end(&mut answer.body);
                answer.complete = read.is_ok_and(|n| n as u64 == length);
            }
            None if answer.header("transfer-encoding") == Some("chunked") => {
                answer.complete = self.chunks(&mut answer.body)
            }
            None => answer.complete = self.stream.read_to_end(&mut answer.body).is_ok(),
        }
        answer
    }

    /// Reads chunks; false when they break off.
    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let line = self.line();
            let Ok(length) = u64::from_str_radix(&line, 16) else { return false };
            if self.stream.by_ref().take(length).read_to_end(body).is_err() {
                return false;
            }
            self.line();
            if length == 0 {
                return true;
            }
        }
    }

    /// A line without its end; empty at the end of the stream.
    fn line(&mut self) -> String {
        let mut line = String::new();
        // A connection that was reset has ended, too.
        let _ = self.stream.read_line(&mut line);
        line.trim_end().to_owned()
    }
}
