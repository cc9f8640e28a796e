use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

fn begin(store: &ContentStore, digest: &Digest, size: Option<u64>) -> Writer {
    match store.writer(digest, size).unwrap() {
        Ingest::Write(writer) => writer,
        Ingest::Present => panic!("already present"),
    }
}

#[test]
fn a_new_store_is_an_oci_layout() {
    let (_dir, store) = store();
    let marker = fs::read_to_string(store.layout_dir().join("oci-layout")).unwrap();
    assert_eq!(marker, r#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(store.layout_dir().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["schemaVersion"], 2);
    ContentStore::open(&store.root).unwrap();
}

#[test]
fn what_is_put_is_read_back_and_is_put_once() {
    let (_dir, store) = store();
    let digest = store.put(b"hello").unwrap();
    assert_eq!(store.put(b"hello").unwrap(), digest);
    assert_eq!(store.read(&digest, 5).unwrap(), b"hello");
    assert_eq!(store.size(&digest).unwrap(), 5);
    assert_eq!(store.read(&digest, 4).unwrap_err().class(), Class::LimitExceeded);
    let other = Digest::of(b"other");
    assert_eq!(store.read(&other, 9).unwrap_err().class(), Class::NotFound);
    assert_eq!(store.open_blob(&other).unwrap_err().class(), Class::NotFound);
}

#[test]
fn a_damaged_blob_is_not_believed() {
    let (_dir, store) = store();
    let digest = store.put(b"hello").unwrap();
    fs::write(store.path(&digest), b"jello").unwrap();
    assert_eq!(store.read(&digest, 100).unwrap_err().class(), Class::Corrupt);
}

#[test]
fn sha512_blobs_have_their_own_directory() {
    let (_dir, store) = store();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(b"abc");
    let digest = hasher.finish();
    let mut writer = begin(&store, &digest, None);
    writer.write(b"abc").unwrap();
    assert_eq!(writer.commit().unwrap(), digest);
    assert!(store.layout_dir().join("blobs/sha512").join(digest.hex()).exists());
}

#[test]
fn an_interrupted_ingest_goes_on_where_it_was() {
    let (_dir, store) = store();
    let digest = Digest::of(b"one two");
    let mut writer = begin(&store, &digest, Some(7));
    assert_eq!(writer.offset(), 0);
    writer.write(b"one ").unwrap();
    drop(writer);
    assert!(!store.contains(&digest));
    let mut writer = begin(&store, &digest, Some(7));
    assert_eq!(writer.offset(), 4);
    writer.write(b"two").unwrap();
    writer.commit().unwrap();
    assert_eq!(store.read(&digest, 7).unwrap(), b"one two");
    assert!(matches!(store.writer(&digest, Some(7)).unwrap(), Ingest::Present));
}

#[test]
fn a_source_that_cannot_resume_starts_again() {
    let (_dir, store) = store();
    let digest = Digest::of(b"one two");
    let mut writer = begin(&store, &digest, None);
    writer.write(b"one ").unwrap();
    drop(writer);
    let mut writer = begin(&store, &digest, None);
    writer.restart().unwrap();
    assert_eq!(writer.offset(), 0);
    writer.write(b"one two").unwrap();
    writer.commit().unwrap();
}

#[test]
fn wrong_bytes_get_no_name_and_are_not_resumed() {
    let (_dir, store) = store();
    let digest = Digest::of(b"right");
    for (size, bytes) in [(Some(5), &b"wrong"[..]), (None, b"wrong"), (Some(5), b"righ")] {
        let mut writer = begin(&store, &digest, size);
        assert_eq!(writer.offset(), 0);
        writer.write(bytes).unwrap();
        assert_eq!(writer.commit().unwrap_err().class(), Class::Corrupt);
        assert!(!store.contains(&digest));
    }
    let mut writer = begin(&store, &digest, Some(5));
    assert_eq!(writer.write(b"right and more").unwrap_err().class(), Class::Corrupt);
    drop(writer);
    let mut writer = begin(&store, &digest, Some(5));
    assert_eq!(writer.offset(), 0);
    writer.write(b"right").unwrap();
    writer.commit().unwrap();
}

#[test]
fn leftovers_longer_than_the_blob_are_thrown_away() {
    let (_dir, store) = store();
    let digest = Digest::of(b"right");
    let mut writer = begin(&store, &digest, None);
    writer.write(b"something much longer").unwrap();
    drop(writer);
    assert_eq!(begin(&store, &digest, Some(5)).offset(), 0);
}

#[test]
fn an_anonymous_ingest_learns_its_name_at_the_end() {
    let (_dir, store) = store();
    for _ in 0..2 {
        let mut writer = store.anonymous_writer().unwrap();
        writer.write(b"layer").unwrap();
        assert_eq!(writer.commit().unwrap(), Digest::of(b"layer"));
    }
    store.anonymous_writer().unwrap().write(b"dropped").unwrap();
    let left: Vec<_> = fs::read_dir(store.ingest_dir())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("anonymous"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn of_many_writers_one_brings_the_blob() {
    let (_dir, store) = store();
    let bytes = vec![7u8; 300_000];
    let digest = Digest::of(&bytes);
    let wrote = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                if let Ingest::Write(mut writer) = store.writer(&digest, Some(bytes.len() as u64)).unwrap() {
                    std::thread::sleep(Duration::from_millis(20));
                    writer.write(&bytes).unwrap();
                    writer.commit().unwrap();
                    wrote.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(wrote.into_inner(), 1);
    assert_eq!(store.read(&digest, 1 << 20).unwrap(), bytes);
}

const CHILD_ROOT: &str = "WHARF_TEST_INGEST_ROOT";

fn child_bytes() -> Vec<u8> {
    (0..4_000_000u32).map(|n| (n % 251) as u8).collect()
}

/// Not a test by itself: the body of the child that the next test kills.
#[test]
fn child_ingests_slowly() {
    let Some(root) = std::env::var_os(CHILD_ROOT) else { return };
    let store = ContentStore::open(Path::new(&root)).unwrap();
    let bytes = child_bytes();
    let digest = Digest::of(&bytes);
    if let Ingest::Write(mut writer) = store.writer(&digest, Some(bytes.len() as u64)).unwrap() {
        let done = writer.offset() as usize;
        for chunk in bytes[done..].chunks(40_000) {
            writer.write(chunk).unwrap();
            std::io::stderr().write_all(b".").unwrap();
        }
        writer.commit().unwrap();
    }
    std::io::stderr().write_all(b"!").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_process_leaves_a_store_that_the_next_one_continues() {
    let (dir, store) = store();
    let bytes = child_bytes();
    let digest = Digest::of(&bytes);
    let mut before = 0;
    // Killed ever later: in the first chunk, in the middle, around the commit, after it.
    for dots in [1usize, 20, 50, 90, 200] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "content::tests::child_ingests_slowly", "--nocapture"])
            .env(CHILD_ROOT, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = before / 40_000;
        let mut stderr = child.stderr.take().unwrap();
        let mut byte = [0u8];
        while seen < dots && stderr.read(&mut byte).unwrap() == 1 && byte[0] != b'!' {
            seen += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if store.contains(&digest) {
            assert_eq!(store.read(&digest, 1 << 23).unwrap(), bytes);
            continue;
        }
        let writer = begin(&store, &digest, Some(bytes.len() as u64));
        assert!(writer.offset() as usize >= before, "resumed at {} after {before}", writer.offset());
        before = writer.offset() as usize;
    }
    assert!(before > 0);
    if !store.contains(&digest) {
        let mut writer = begin(&store, &digest, Some(bytes.len() as u64));
        let done = writer.offset() as usize;
        writer.write(&bytes[done..]).unwrap();
        writer.commit().unwrap();
    }
    assert_eq!(store.read(&digest, 1 << 23).unwrap(), bytes);
}

fn ingests(store: &ContentStore) -> usize {
    let names = fs::read_dir(store.ingest_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("sha256-")).count()
}

#[test]
fn a_blob_that_came_by_another_way_ends_its_ingest() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello");
    let mut writer = begin(&store, &digest, Some(5));
    let mut other = store.anonymous_writer().unwrap();
    other.write(b"hello").unwrap();
    other.commit().unwrap();
    writer.write(b"hello").unwrap();
    writer.commit().unwrap();
    assert_eq!(ingests(&store), 0);
}

#[test]
fn whoever_waited_for_an_ingest_leaves_none() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello");
    let first = begin(&store, &digest, Some(5));
    std::thread::scope(|scope| {
        let second = scope.spawn(|| store.writer(&digest, Some(5)).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        let mut other = store.anonymous_writer().unwrap();
        other.write(b"hello").unwrap();
        other.commit().unwrap();
        drop(first);
        assert!(matches!(second.join().unwrap(), Ingest::Present));
    });
    assert_eq!(ingests(&store), 0);
}
