use std::fs::{File, FileTimes};
use std::process::{Command, Stdio};

use super::check::{Problem, check, reclaimable, repair};
use super::*;
use crate::content::Ingest;
use crate::image::testing::linux_image;
use crate::store::testing::{TestStore, no_users};

#[test]
fn what_nothing_reaches_is_swept() {
    let store = TestStore::new();
    let kept = store.add("kept", &[("a", b"a")]);
    let stray = store.content.put(b"nobody's").unwrap();
    assert_eq!(reclaimable(&store).unwrap(), 8);
    assert_eq!(sweep(&store, &no_users).unwrap(), Some(8));
    assert!(!store.content.contains(&stray));
    assert!(store.content.contains(&kept));
    assert!(check(&store).unwrap().is_empty());
}

#[test]
fn an_index_keeps_all_that_it_names() {
    let store = TestStore::new();
    let manifest = linux_image(&store.content, serde_json::json!({}), &[&[("a", b"a")]]);
    let host = crate::Platform::host_preference()[0].clone();
    let index = serde_json::json!({"manifests": [
        {"mediaType": media_type::OCI_MANIFEST, "digest": manifest, "size": 1, "platform": host},
        {"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(b"not here"), "size": 1,
         "platform": {"os": "linux", "architecture": "s390x"}},
    ]});
    let index = store.content.put(index.to_string().as_bytes()).unwrap();
    store.set(&"x".parse().unwrap(), &index).unwrap();
    assert_eq!(sweep(&store, &no_users).unwrap(), Some(0));
    let image = store.resolve("x", None).unwrap();
    assert_eq!((&image.target, &image.manifest), (&index, &manifest));
    assert!(check(&store).unwrap().is_empty());
}

#[test]
fn only_abandoned_ingests_are_swept() {
    let store = TestStore::new();
    let [young, old] = [b"young", b"old!!"].map(|bytes| {
        let digest = Digest::of(bytes);
        let Ingest::Write(mut writer) = store.content.writer(&digest, None).unwrap() else { panic!() };
        writer.write(&bytes[..2]).unwrap();
        store.content.ingest_dir().join(format!("sha256-{}", digest.hex()))
    });
    let two_days_ago = SystemTime::now() - 2 * ABANDONED;
    File::options().write(true).open(&old).unwrap().set_times(FileTimes::new().set_modified(two_days_ago)).unwrap();
    assert_eq!(check(&store).unwrap(), [Problem::Abandoned(old.clone())]);
    assert_eq!(sweep(&store, &no_users).unwrap(), Some(2));
    assert!(young.exists() && !old.exists());
}

#[test]
fn damage_is_found_and_what_can_be_repaired_is() {
    let store = TestStore::new();
    let target = store.add("a", &[("x", b"x")]);
    let other = store.add("b", &[("y", b"y")]);
    let layer = store.resolve("a", None).unwrap().layers[0].blob().digest.clone();
    fs::write(store.content.path(&layer), b"rotten").unwrap();
    let stray = store.content.blob_dir(Algorithm::Sha256).join("x.partial");
    fs::write(&stray, b"").unwrap();
    let problems = check(&store).unwrap();
    assert!(
        problems.contains(&Problem::Damaged { digest: layer.clone(), found: Digest::of(b"rotten") }),
        "{problems:?}"
    );
    assert!(problems.contains(&Problem::Stray(stray.clone())), "{problems:?}");
    assert_eq!(problems.len(), 2);

    let left = repair(&store, &no_users).unwrap();
    assert_eq!(left, [Problem::Missing { digest: layer, image: "a:latest".into() }]);
    assert!(!stray.exists());

    fs::remove_file(store.content.path(&other)).unwrap();
    let problems = check(&store).unwrap();
    assert!(
        problems.iter().any(|p| matches!(p, Problem::Unreadable { image, .. } if image == "b:latest")),
        "{problems:?}"
    );
    assert!(store.content.contains(&target));
}

#[test]
fn a_repair_waits_for_nobody() {
    let store = TestStore::new();
    let _lease = crate::lease::Lease::take(&store.root).unwrap();
    assert_eq!(repair(&store, &no_users).unwrap_err().class(), Class::Unavailable);
}

const CHILD_ROOT: &str = "WHARF_TEST_STORE_ROOT";

/// Not a test by itself: the body of the child that the next test kills. It brings images, moves and removes names.
#[test]
fn child_changes_the_store_for_ever() {
    let Some(root) = std::env::var_os(CHILD_ROOT) else { return };
    let root = Path::new(&root);
    let db = std::sync::Arc::new(crate::db::Db::open(root, &[crate::store::SCHEMA]).unwrap());
    let store = ImageStore::open(root, db).unwrap();
    for n in 0u32.. {
        let lease = crate::lease::Lease::take(root).unwrap();
        let bytes = n.to_le_bytes();
        let target =
            linux_image(&store.content, serde_json::json!({}), &[&[("same", b"same")], &[("n", &bytes), ("m", b"m")]]);
        let image = Image::read(&store.content, &target, None).unwrap();
        store.ensure_unpacked(&image, &crate::NoReport).unwrap();
        store.set(&format!("app:{}", n % 3).parse().unwrap(), &target).unwrap();
        drop(lease);
        if n % 4 == 3 {
            store.remove(&format!("app:{}", n % 3), false, &no_users).unwrap();
            store.prune(false, &crate::store::Filters::default(), &no_users).unwrap();
        }
    }
}

#[test]
fn a_store_whose_users_are_killed_stays_clean() {
    let store = TestStore::new();
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "gc::tests::child_changes_the_store_for_ever", "--nocapture"])
            .env(CHILD_ROOT, &store.root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(30 + 37 * round));
        assert!(child.try_wait().unwrap().is_none(), "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(check(&store).unwrap(), [], "round {round}");
        for record in store.records().unwrap() {
            let image = store.resolve(record.target.as_str(), None).unwrap();
            store.ensure_unpacked(&image, &crate::NoReport).unwrap();
        }
    }
    store.prune(true, &crate::store::Filters::default(), &no_users).unwrap();
    assert_eq!(check(&store).unwrap(), []);
    assert_eq!(reclaimable(&store).unwrap(), 0);
    assert!(blobs(&store).unwrap().is_empty());
}
