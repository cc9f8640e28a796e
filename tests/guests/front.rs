//! The front of a stack: a web server that keeps its data in a Redis server on its network and in a directory. Only `std`.
//!
//! `front LISTEN REDIS DIRECTORY`, with a name or an address for REDIS. It answers
//!
//! - `GET /count`: how often that was asked, by Redis;
//! - `GET /KEY`: what Redis has under it; `POST /KEY`: puts the body there;
//! - `GET /files/NAME` and `POST /files/NAME`: the same with a file of the directory.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Sends one command and reads its answer (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).
fn redis(at: &str, command: &[&[u8]]) -> io::Result<Option<Vec<u8>>> {
    let stream = TcpStream::connect(at)?;
    let mut request = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        request.extend(format!("${}\r\n", part.len()).into_bytes());
        request.extend(*part);
        request.extend(b"\r\n");
    }
    (&stream).write_all(&request)?;
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let line = line.trim_end();
    let wrong = |text: &str| io::Error::other(format!("redis says {text:?}"));
    match line.split_at_checked(1).ok_or_else(|| wrong(line))? {
        ("+" | ":", text) => Ok(Some(text.as_bytes().to_vec())),
        ("$", "-1") => Ok(None),
        ("$", length) => {
            let mut value = vec![0; length.parse().map_err(|_| wrong(line))?];
            answer.read_exact(&mut value)?;
            Ok(Some(value))
        }
        _ => Err(wrong(line)),
    }
}

struct Front<'a> {
    redis: &'a str,
    directory: &'a str,
}

impl Front<'_> {
    fn answer(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let name = path.trim_start_matches('/');
        match (method, name.strip_prefix("files/")) {
            ("GET", None) if name == "count" => redis(self.redis, &[b"INCR", b"count"]),
            ("GET", None) => redis(self.redis, &[b"GET", name.as_bytes()]),
            (_, None) => redis(self.redis, &[b"SET", name.as_bytes(), body]),
            ("GET", Some(name)) => std::fs::read(format!("{}/{name}", self.directory)).map(Some),
            (_, Some(name)) => std::fs::write(format!("{}/{name}", self.directory), body).map(|()| Some(b"OK".to_vec())),
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut request = BufReader::new(&stream);
        let (mut first, mut length) = (String::new(), 0);
        request.read_line(&mut first)?;
        loop {
            let mut line = String::new();
            request.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap_or(0),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        request.read_exact(&mut body)?;
        let mut words = first.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, text) = match self.answer(method, path, &body) {
            Ok(Some(text)) => ("200 OK", text),
            Ok(None) => ("404 Not Found", b"nothing there\n".to_vec()),
            Err(e) => ("502 Bad Gateway", format!("{:?}: {e}\n", e.kind()).into_bytes()),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
        (&stream).write_all(&[head.as_bytes(), &text].concat())
    }
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [listen, redis, directory] = &args[..] else { panic!("front LISTEN REDIS DIRECTORY") };
    let listener = TcpListener::bind(listen)?;
    println!("listening on {}", listener.local_addr()?);
    let front = Front { redis, directory };
    for stream in listener.incoming() {
        if let Err(e) = stream.and_then(|stream| front.serve(stream)) {
            println!("a request: {e}");
        }
    }
    Ok(())
}
