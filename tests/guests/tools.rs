//! Small things a test wants a guest to do, by name: the first argument.

use std::fs;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["args", ..] => args.iter().for_each(|a| println!("{a}")),
        ["env"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["cat"] => {
            io::copy(&mut io::stdin(), &mut io::stdout()).expect("copy");
        }
        ["cat", paths @ ..] => {
            for path in paths {
                let mut file = fs::File::open(path).unwrap_or_else(|e| fail(path, &e));
                io::copy(&mut file, &mut io::stdout()).unwrap_or_else(|e| fail(path, &e));
            }
        }
        ["write", path, text] => fs::write(path, text).unwrap_or_else(|e| fail(path, &e)),
        ["append", path, text] => {
            let mut file = fs::File::options().append(true).open(path).unwrap_or_else(|e| fail(path, &e));
            file.write_all(text.as_bytes()).unwrap_or_else(|e| fail(path, &e));
        }
        ["mkdir", path] => fs::create_dir(path).unwrap_or_else(|e| fail(path, &e)),
        ["rm", path] => fs::remove_file(path).unwrap_or_else(|e| fail(path, &e)),
        ["mv", from, to] => fs::rename(from, to).unwrap_or_else(|e| fail(from, &e)),
        ["ln", from, to] => fs::hard_link(from, to).unwrap_or_else(|e| fail(from, &e)),
        ["ls", path] => {
            let entries = fs::read_dir(path).unwrap_or_else(|e| fail(path, &e));
            let mut names: Vec<_> = entries.map(|e| e.expect("entry").file_name().into_string().expect("name")).collect();
            names.sort();
            names.iter().for_each(|n| println!("{n}"));
        }
        ["both"] => {
            println!("to stdout");
            eprintln!("to stderr");
        }
        ["exit", code] => std::process::exit(code.parse().expect("a number")),
        ["panic"] => panic!("as asked"),
        ["trap"] => outer(),
        ["hog"] => hog(),
        ["spin"] => loop {
            std::hint::black_box(0);
        },
        ["recurse"] => println!("{}", recurse(0)),
        ["sleep", ms] => {
            let start = Instant::now();
            let time = Duration::from_millis(ms.parse().expect("a number"));
            std::thread::sleep(time);
            assert!(start.elapsed() >= time);
        }
        ["wait"] => {
            // Reads stdin to its end, as a server without requests would wait.
            let mut all = Vec::new();
            io::stdin().read_to_end(&mut all).expect("read");
        }
        ["connect", address] => match std::net::TcpStream::connect(address) {
            Ok(_) => println!("connected"),
            Err(e) => fail(address, &e),
        },
        other => {
            eprintln!("unknown: {other:?}");
            std::process::exit(2);
        }
    }
}

fn fail(what: &str, e: &io::Error) -> ! {
    eprintln!("{what}: {e}");
    std::process::exit(1);
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

/// Takes memory, a megabyte at a time, for ever.
fn hog() {
    let mut all = Vec::new();
    loop {
        all.push(vec![1_u8; 1 << 20]);
        if all.len() % 16 == 0 {
            println!("{} MB", all.len());
        }
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    std::hint::black_box(depth) + recurse(std::hint::black_box(depth + 1))
}
