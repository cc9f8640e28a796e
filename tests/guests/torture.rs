//! A program that is hard on its files, and notices when one is not as it should be: `torture DIRECTORY` works in a new
//! directory beneath that one and leaves nothing behind. Says what went wrong and exits with 1, or says `ok`.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::FromRawFd;
use std::os::raw::{c_char, c_int};
use std::time::{Duration, SystemTime};

// The standard library keeps symlinks on WASI to itself.
extern "C" {
    fn symlink(to: *const c_char, path: *const c_char) -> c_int;
}

fn link_symbolically(to: &str, path: &str) -> io::Result<()> {
    let (to, path) = (CString::new(to)?, CString::new(path)?);
    // SAFETY: both are C strings that outlive the call.
    if unsafe { symlink(to.as_ptr(), path.as_ptr()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn kind<T>(result: io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|e| e.kind())
}

fn names(path: &str) -> BTreeSet<String> {
    fs::read_dir(path).expect("list").map(|entry| entry.expect("entry").file_name().into_string().expect("name")).collect()
}

fn main() {
    let base = std::env::args().nth(1).expect("a directory");
    let home = format!("{base}/torture");
    fs::create_dir(&home).expect("make the directory");
    let at = |name: &str| format!("{home}/{name}");

    contents(&at);
    many(&at);
    names_and_links(&at);
    directories(&at);
    symlinks(&at);
    times(&at);

    fs::remove_dir_all(&home).expect("remove everything");
    assert_eq!(kind(fs::metadata(&home)), Some(ErrorKind::NotFound));
    println!("ok");
}

fn contents(at: &dyn Fn(&str) -> String) {
    let path = at("file");
    let block: Vec<u8> = (0..300_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    fs::write(&path, &block).expect("write");
    assert!(fs::read(&path).expect("read") == block, "what was written is read");
    assert_eq!(fs::metadata(&path).expect("stat").len(), block.len() as u64);

    let mut file = OpenOptions::new().read(true).write(true).open(&path).expect("open");
    file.seek(SeekFrom::Start(100_000)).expect("seek");
    file.write_all(b"patch").expect("patch");
    file.seek(SeekFrom::Current(-5)).expect("seek back");
    let mut five = [0; 5];
    file.read_exact(&mut five).expect("read the patch");
    assert_eq!(&five, b"patch");
    assert_eq!(file.seek(SeekFrom::End(0)).expect("seek to the end"), 300_000);
    assert_eq!(file.read(&mut five).expect("read at the end"), 0);

    let mut one = OpenOptions::new().append(true).open(&path).expect("append");
    let mut two = OpenOptions::new().append(true).open(&path).expect("append");
    one.write_all(b"one").expect("append");
    two.write_all(b"two").expect("append");
    one.write_all(b"one").expect("append");
    file.seek(SeekFrom::Start(300_000)).expect("seek");
    let mut tail = String::new();
    file.read_to_string(&mut tail).expect("read the tail");
    assert_eq!(tail, "onetwoone");

    // Nothing is no exception: neither to who may write, nor to what is a descriptor.
    let mut reader = File::open(&path).expect("open");
    assert!(reader.write(b"x").is_err() && reader.write(b"").is_err(), "a reader may not write");
    // SAFETY: it is nobody's, and is not closed.
    let mut nobodys = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(9999) });
    assert!(nobodys.write_vectored(&[]).is_err() && nobodys.read_vectored(&mut []).is_err(), "no descriptor");

    file.set_len(10).expect("cut");
    assert_eq!(fs::read(&path).expect("read").len(), 10);
    file.set_len(20).expect("extend");
    assert_eq!(&fs::read(&path).expect("read")[10..], &[0; 10]);
    file.seek(SeekFrom::Start(5 << 30)).expect("seek far");
    file.write_all(b"far").expect("write far");
    file.seek(SeekFrom::Start((5 << 30) - 2)).expect("seek far");
    let mut end = Vec::new();
    file.read_to_end(&mut end).expect("read far");
    assert_eq!(end, b"\0\0far");
    file.sync_all().expect("sync");

    assert_eq!(kind(OpenOptions::new().write(true).create_new(true).open(&path)), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(File::open(at("missing"))), Some(ErrorKind::NotFound));
    assert!(File::open(&path).expect("open").write(b"x").is_err(), "what is open for reading is not written");
    fs::remove_file(&path).expect("unlink");
    file.seek(SeekFrom::Start(5 << 30)).expect("seek");
    let mut kept = String::new();
    file.read_to_string(&mut kept).expect("read what has no name");
    assert_eq!(kept, "far");
}

fn many(at: &dyn Fn(&str) -> String) {
    let dir = at("many");
    fs::create_dir(&dir).expect("mkdir");
    for n in 0..400 {
        fs::write(format!("{dir}/file-{n:04}-with-a-name-that-fills-a-buffer"), n.to_string()).expect("write");
    }
    assert_eq!(names(&dir).len(), 400);
    let mut seen = 0;
    for entry in fs::read_dir(&dir).expect("list") {
        let entry = entry.expect("entry");
        assert!(entry.file_type().expect("type").is_file());
        fs::remove_file(entry.path()).expect("remove while listing");
        seen += 1;
    }
    assert!(seen <= 400, "a name comes once");
    for left in names(&dir) {
        fs::remove_file(format!("{dir}/{left}")).expect("remove");
    }
    fs::remove_dir(&dir).expect("rmdir");
}

fn names_and_links(at: &dyn Fn(&str) -> String) {
    fs::write(at("a"), "a").expect("write");
    fs::write(at("b"), "b").expect("write");
    fs::rename(at("a"), at("b")).expect("rename over");
    assert_eq!(fs::read_to_string(at("b")).expect("read"), "a");
    assert_eq!(kind(fs::rename(at("a"), at("c"))), Some(ErrorKind::NotFound));
    fs::hard_link(at("b"), at("c")).expect("link");
    OpenOptions::new().append(true).open(at("c")).expect("open").write_all(b"+").expect("append");
    assert_eq!(fs::read_to_string(at("b")).expect("read"), "a+");
    assert_eq!(kind(fs::hard_link(at("b"), at("c"))), Some(ErrorKind::AlreadyExists));
    fs::remove_file(at("b")).expect("unlink");
    assert_eq!(fs::read_to_string(at("c")).expect("read"), "a+");
    for odd in ["with space", "ünïcödé-日本", "-dash", "a.b.c", "...", "~"] {
        fs::write(at(odd), odd).expect("an odd name");
        assert_eq!(fs::read_to_string(at(odd)).expect("read"), odd);
        fs::remove_file(at(odd)).expect("unlink");
    }
    assert!(fs::write(at(&"n".repeat(256)), "").is_err(), "a name that is too long");
    fs::remove_file(at("c")).expect("unlink");
}

fn directories(at: &dyn Fn(&str) -> String) {
    fs::create_dir_all(at("d/e/f")).expect("mkdir -p");
    assert_eq!(kind(fs::create_dir(at("d"))), Some(ErrorKind::AlreadyExists));
    assert_eq!(kind(fs::create_dir(at("x/y"))), Some(ErrorKind::NotFound));
    fs::write(at("d/e/file"), "deep").expect("write");
    assert_eq!(kind(fs::remove_dir(at("d/e"))), Some(ErrorKind::DirectoryNotEmpty));
    assert_eq!(kind(fs::remove_dir(at("d/e/file"))), Some(ErrorKind::NotADirectory));
    assert!(fs::remove_file(at("d/e")).is_err(), "a directory is not unlinked");
    assert_eq!(kind(fs::read(at("d/e/file/x"))), Some(ErrorKind::NotADirectory));
    assert_eq!(fs::read_to_string(at("d/./e/../e//file")).expect("read"), "deep");
    fs::rename(at("d/e"), at("d/g")).expect("rename a directory");
    assert_eq!(fs::read_to_string(at("d/g/file")).expect("read"), "deep");
    assert!(fs::rename(at("d"), at("d/g/inside")).is_err(), "a directory is not moved into itself");
    fs::create_dir(at("full")).expect("mkdir");
    fs::write(at("full/x"), "").expect("write");
    assert_eq!(kind(fs::rename(at("d"), at("full"))), Some(ErrorKind::DirectoryNotEmpty));
    assert!(fs::metadata(at("d/")).expect("stat").is_dir());
    assert!(fs::metadata(at("full/x/")).is_err(), "a file with a slash");
    fs::remove_dir_all(at("full")).expect("rm -r");
    fs::remove_dir_all(at("d")).expect("rm -r");
}

fn symlinks(at: &dyn Fn(&str) -> String) {
    fs::create_dir(at("s")).expect("mkdir");
    fs::write(at("s/file"), "behind links").expect("write");
    link_symbolically("s/file", &at("one")).expect("symlink");
    link_symbolically("one", &at("two")).expect("symlink");
    link_symbolically("../one", &at("s/up")).expect("symlink");
    link_symbolically("s", &at("dir")).expect("symlink");
    for path in ["one", "two", "s/up", "dir/file", "dir/up"] {
        assert_eq!(fs::read_to_string(at(path)).expect(path), "behind links");
    }
    assert!(fs::symlink_metadata(at("two")).expect("lstat").file_type().is_symlink());
    assert!(fs::metadata(at("two")).expect("stat").is_file());
    assert_eq!(fs::read_link(at("s/up")).expect("readlink").to_str(), Some("../one"));
    link_symbolically("ring", &at("ring")).expect("symlink");
    assert!(File::open(at("ring")).is_err(), "a ring");
    link_symbolically("nowhere", &at("dangling")).expect("symlink");
    assert_eq!(kind(File::open(at("dangling"))), Some(ErrorKind::NotFound));
    fs::write(at("dangling"), "made").expect("write through a symlink");
    assert_eq!(fs::read_to_string(at("nowhere")).expect("read"), "made");
    assert_eq!(names(&at("dir")), names(&at("s")));
    for path in ["one", "two", "dir", "ring", "dangling", "nowhere", "s/up", "s/file"] {
        fs::remove_file(at(path)).expect(path);
    }
    fs::remove_dir(at("s")).expect("rmdir");
}

fn times(at: &dyn Fn(&str) -> String) {
    let start = SystemTime::now() - Duration::from_secs(5);
    fs::write(at("timed"), "").expect("write");
    assert!(fs::metadata(at("timed")).expect("stat").modified().expect("mtime") >= start);
    let then = SystemTime::UNIX_EPOCH + Duration::new(86_400, 123_456_789);
    File::options().write(true).open(at("timed")).expect("open").set_modified(then).expect("set the time");
    assert_eq!(fs::metadata(at("timed")).expect("stat").modified().expect("mtime"), then);
    fs::remove_file(at("timed")).expect("unlink");
}
