//! Transfers that are cut off: by the death of the program, and by the line. The registry's own log is the witness.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::support::proxy::Proxy;
use crate::support::registry::Registry;
use crate::support::{Wharf, eventually, images, skopeo, wharf};

/// Bytes that do not compress.
fn noise(mut state: u64, length: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    });
    words.flatten().take(length).collect()
}

/// Busybox and two large layers.
fn large() -> Vec<u8> {
    let mut layers = vec![images::busybox_layer()];
    for (name, seed, size) in [("first", 1, 24 << 20), ("second", 2, 9 << 20)] {
        let mut layer = images::Tar::default();
        layer.file(name, 0o644, &noise(seed, size));
        layers.push(layer.end());
    }
    images::linux("large:latest", &layers, &json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}))
}

/// A registry that has the large image, and a line to it.
fn served() -> (Registry, Proxy) {
    let registry = Registry::plain();
    let source = Wharf::new();
    let file = source.dir().join("large.tar");
    std::fs::write(&file, large()).expect("an archive");
    skopeo(&[
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &format!("docker-archive:{}", file.display()),
        &format!("docker://{}", registry.name("large:1")),
    ]);
    let proxy = Proxy::to(registry.port());
    (registry, proxy)
}

/// The bytes of unfinished downloads.
fn arrived(wharf: &Wharf) -> u64 {
    let entries = std::fs::read_dir(wharf.root().join("ingest")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}

/// The blobs that were fetched: for each the statuses of its GETs, in order.
fn fetched(registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let mut blobs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in registry.requests() {
        if let Some(request) = line.strip_prefix("GET ")
            && let Some((_, blob)) = request.split_once("/blobs/sha256:")
        {
            let mut words = blob.split(' ');
            let digest = words.next().expect("a digest").to_owned();
            blobs.entry(digest).or_default().push(words.next().expect("a status").to_owned());
        }
    }
    blobs
}

#[test]
fn a_pull_that_is_killed_leaves_a_clean_store_and_is_resumed() {
    let (registry, proxy) = served();
    let wharf = Wharf::new();
    let name = proxy.name("large:1");
    // Killed early, and again further on.
    for enough in [2 << 20, 8 << 20, 16 << 20] {
        proxy.throttle(6 << 20);
        let mut pull = wharf.spawn(&["pull", &name]);
        eventually("some of the layers arrives", Duration::from_secs(60), || {
            assert!(pull.try_wait().expect("a child").is_none(), "the pull must not end before it is killed");
            (arrived(&wharf) >= enough).then_some(())
        });
        pull.kill().expect("kill -9");
        pull.wait().expect("a child");
        assert_eq!(wharf.ok(&["images", "-q"]), "", "what is not whole has no name");
        wharf.ok(&["system", "check"]);
    }
    proxy.throttle(0);
    wharf.ok(&["pull", &name]);
    wharf.ok(&["system", "check"]);
    assert_eq!(arrived(&wharf), 0);
    assert_eq!(wharf.ok(&["run", "--rm", &name, "wc", "-c", "first"]).split(' ').next(), Some("25165824"));

    let fetched = fetched(&registry);
    let resumed = fetched.values().filter(|statuses| statuses.iter().any(|status| status == "206")).count();
    assert!(resumed >= 1, "by HTTP Range: {fetched:?}");
    for statuses in fetched.values() {
        let whole = statuses.iter().filter(|status| *status == "200").count();
        // The registry does not write down every answer that was cut off.
        assert!(whole <= 1, "nothing is asked for from its beginning twice: {fetched:?}");
    }
}

#[test]
fn processes_that_pull_the_same_image_share_one_download() {
    let (registry, proxy) = served();
    let wharf = Wharf::new();
    proxy.throttle(20 << 20);
    let name = proxy.name("large:1");
    let pulls: Vec<_> = (0..4).map(|_| wharf.spawn(&["pull", "-q", &name])).collect();
    for mut pull in pulls {
        assert_eq!(wharf::wait(&mut pull, "wharf pull"), 0);
    }
    let fetched = fetched(&registry);
    assert_eq!(fetched.len(), 4, "a config and three layers: {fetched:?}");
    assert!(fetched.values().all(|statuses| statuses == &["200"]), "each blob once: {fetched:?}");
    wharf.ok(&["system", "check"]);
    wharf.ok(&["run", "--rm", &name, "true"]);
}

#[test]
fn a_push_survives_a_line_that_breaks() {
    let registry = Registry::plain();
    let proxy = Proxy::to(registry.port());
    let wharf = Wharf::new();
    wharf.load(&large());
    let name = proxy.name("large:2");
    wharf.ok(&["tag", "large", &name]);
    // In the middle of the second part of the large layer, which goes in three; and elsewhere on the next push.
    proxy.break_after(13 << 20);
    wharf.ok(&["push", "-q", &name]);
    let other = proxy.name("other:1");
    wharf.ok(&["tag", "large", &other]);
    proxy.break_after(600);
    wharf.ok(&["push", "-q", &other]);
    for name in ["large:2", "other:1"] {
        let reader = Wharf::new();
        let name = registry.name(name);
        reader.ok(&["pull", "-q", &name]);
        assert_eq!(reader.ok(&["run", "--rm", &name, "wc", "-c", "first"]).split(' ').next(), Some("25165824"));
    }
}
