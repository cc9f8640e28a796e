//! What the bench of files runs: `files small DIRECTORY` or `files large DIRECTORY`.

use std::fs::{self, File};
use std::io::{Read, Write};

const SMALL_FILES: usize = 10_000;
const LARGE_BYTES: usize = 1 << 30;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args[1..].iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["small", dir] => small(dir),
        ["large", dir] => large(dir),
        other => panic!("unknown: {other:?}"),
    }
}

/// Makes, looks at, reads, writes and removes many files.
fn small(dir: &str) {
    let home = format!("{dir}/small");
    fs::create_dir(&home).expect("mkdir");
    let path = |n: usize| format!("{home}/{n}");
    for n in 0..SMALL_FILES {
        File::create_new(path(n)).expect("create");
    }
    for n in 0..SMALL_FILES {
        assert_eq!(fs::metadata(path(n)).expect("stat").len(), 0);
    }
    let text = [b'x'; 1000];
    for n in 0..SMALL_FILES {
        File::options().write(true).open(path(n)).expect("open").write_all(&text).expect("write");
    }
    let mut read = Vec::with_capacity(2 * text.len());
    for n in 0..SMALL_FILES {
        read.clear();
        File::open(path(n)).expect("open").read_to_end(&mut read).expect("read");
        assert_eq!(read.len(), text.len());
    }
    assert_eq!(fs::read_dir(&home).expect("list").count(), SMALL_FILES);
    for n in 0..SMALL_FILES {
        fs::remove_file(path(n)).expect("unlink");
    }
    fs::remove_dir(&home).expect("rmdir");
}

/// Writes and reads one file from its beginning to its end.
fn large(dir: &str) {
    let path = format!("{dir}/large");
    let mut block = vec![7; 1 << 16];
    let mut file = File::create(&path).expect("create");
    for _ in 0..LARGE_BYTES / block.len() {
        file.write_all(&block).expect("write");
    }
    drop(file);
    let mut file = File::open(&path).expect("open");
    let mut bytes = 0;
    loop {
        match file.read(&mut block).expect("read") {
            0 => break,
            n => bytes += n,
        }
    }
    assert_eq!(bytes, LARGE_BYTES);
    fs::remove_file(&path).expect("unlink");
}
