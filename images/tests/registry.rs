//! Pull and push against a real registry.

#[path = "support/image.rs"]
mod image;
#[path = "support/reporter.rs"]
mod reporter;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{TestImage, noise, open_store};
use reporter::Heard;
use support::{PASSWORD, TestRegistry, USER, run};
use wharf_images::content::Ingest;
use wharf_images::registry::{Config, Credential, Registry, RegistryConfig};
use wharf_images::{Class, Digest, ImageStore, NoReport, Platform, Reference};

fn registry() -> Registry {
    Registry::new(Config::default())
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A new store beside the directory that keeps it alive.
fn store() -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    (dir, store)
}

fn sample() -> TestImage {
    // One layer is larger than a part of an upload.
    TestImage::new(&[("a", &noise(1, 20 << 20)), ("b", b"hello"), ("c", &noise(2, 300_000))])
}

/// A registry that serves the sample, and its name there.
fn served() -> (TestRegistry, TestImage, Reference) {
    let server = TestRegistry::plain();
    let (_dir, here) = store();
    let image = sample();
    let reference = name(&format!("{}/x", server.host()));
    image.record(&here, &reference);
    registry().push(&here, &reference, &NoReport).unwrap();
    (server, image, reference)
}

#[test]
fn what_was_pushed_is_pulled_unpacked() {
    let server = TestRegistry::plain();
    let (_dir, here) = store();
    let image = sample();
    let reference = name(&format!("{}/some/thing:v1", server.host()));
    image.record(&here, &reference);
    let heard = Heard::default();
    let (digest, size) = registry().push(&here, &reference, &heard).unwrap();
    assert_eq!((&digest, size), (&image.digest(), image.manifest.len() as u64));
    assert!(heard.has(&format!("The push refers to repository [{}/some/thing]", server.host())));
    assert!(heard.has(&format!("v1: digest: {digest} size: {size}")), "{:?}", heard.lines());
    assert!(heard.has(": Pushed"));

    let (_dir, there) = store();
    let heard = Heard::default();
    let pulled = registry().pull(&there, &reference, None, &heard).unwrap();
    assert_eq!(pulled.target, digest);
    assert!(there.snapshots.contains(&pulled.diff_ids()));
    let lines = heard.lines();
    assert_eq!(lines[0], "v1: Pulling from some/thing");
    for phase in ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"] {
        assert_eq!(lines.iter().filter(|l| l.ends_with(phase)).count(), 3, "{phase}: {lines:?}");
    }
    let end = [format!("Digest: {digest}"), format!("Status: Downloaded newer image for {}", reference.familiar())];
    assert!(lines.ends_with(&end), "{lines:?}");

    let heard = Heard::default();
    registry().pull(&there, &reference, None, &heard).unwrap();
    assert!(heard.has("Status: Image is up to date"), "{:?}", heard.lines());
    let by_digest = name(&format!("{}/some/thing@{digest}", server.host()));
    assert_eq!(registry().pull(&there, &by_digest, None, &NoReport).unwrap().target, digest);
}

#[test]
fn skopeo_reads_what_we_push_and_we_read_what_it_pushes() {
    let server = TestRegistry::plain();
    let (_dir, here) = store();
    let image = sample();
    image.record(&here, &name(&format!("{}/ours", server.host())));
    registry().push(&here, &name(&format!("{}/ours", server.host())), &NoReport).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:x", copy.path().display());
    let ours = format!("docker://{}/ours", server.address());
    run(Command::new("skopeo").args(["copy", "--src-tls-verify=false", &ours, &layout]));
    let theirs = format!("docker://{}/theirs:1", server.address());
    for format in ["oci", "v2s2"] {
        run(Command::new("skopeo").args(["copy", "--dest-tls-verify=false", "-f", format, &layout, &theirs]));
        let (_dir, there) = store();
        let pulled = registry().pull(&there, &name(&format!("{}/theirs:1", server.host())), None, &NoReport).unwrap();
        assert!(there.snapshots.contains(&pulled.diff_ids()), "{format}");
    }
}

#[test]
fn blobs_the_registry_has_are_not_sent_again() {
    let server = TestRegistry::plain();
    let (_dir, here) = store();
    let image = sample();
    let first = name(&format!("{}/first", server.host()));
    image.record(&here, &first);
    registry().push(&here, &first, &NoReport).unwrap();
    let heard = Heard::default();
    registry().push(&here, &first, &heard).unwrap();
    assert!(heard.has("Layer already exists") && !heard.has("Pushed"), "{:?}", heard.lines());
    let second = name(&format!("{}/second", server.host()));
    image.record(&here, &second);
    let heard = Heard::default();
    registry().push(&here, &second, &heard).unwrap();
    assert!(heard.has("Mounted from first"), "{:?}", heard.lines());
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let (server, image, reference) = served();
    let layer = &image.blobs[1];
    let digest = Digest::of(layer);
    let (_dir, there) = store();
    let begin = |bytes: &[u8]| match there.content.writer(&digest, Some(layer.len() as u64)).unwrap() {
        Ingest::Write(mut writer) => writer.write(bytes).unwrap(),
        Ingest::Present => panic!("it is not here"),
    };
    begin(&layer[..10 << 20]);
    // The first half is missing at the registry: only what is asked for by Range comes right.
    let blob = server.blob(digest.as_str());
    let mut damaged = layer.clone();
    damaged[..9 << 20].fill(0);
    fs::write(&blob, damaged).unwrap();
    registry().pull(&there, &reference, None, &NoReport).unwrap();
    assert!(there.content.contains(&digest));
}

#[test]
fn bad_leftovers_are_fetched_anew() {
    let (_server, image, reference) = served();
    let digest = Digest::of(&image.blobs[1]);
    let (_dir, there) = store();
    match there.content.writer(&digest, Some(image.blobs[1].len() as u64)).unwrap() {
        Ingest::Write(mut writer) => writer.write(&[7; 1 << 20]).unwrap(),
        Ingest::Present => panic!("it is not here"),
    }
    let pulled = registry().pull(&there, &reference, None, &NoReport).unwrap();
    assert!(there.snapshots.contains(&pulled.diff_ids()));
}

#[test]
fn what_is_not_there_is_named_in_dockers_words() {
    let server = TestRegistry::plain();
    let (_dir, here) = store();
    let reference = format!("{}/nothing:here", server.host());
    let error = registry().pull(&here, &name(&reference), None, &NoReport).unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert_eq!(error.to_string(), format!("manifest for {reference} not found: manifest unknown: manifest unknown"));
    let nobody = format!("localhost:{}/x", support::free_port());
    let error = registry().pull(&here, &name(&nobody), None, &NoReport).unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(error.hint().unwrap().contains(nobody.trim_end_matches("/x")), "{error}");
}

#[test]
fn an_index_of_several_platforms_goes_round() {
    let server = TestRegistry::plain();
    let (_dir, here) = store();
    let platforms = ["amd64", "arm64", "riscv64"];
    let images = platforms.map(|architecture| {
        TestImage::made(
            architecture,
            &|bytes| Digest::of(bytes),
            &[("shared", &noise(3, 50_000)), ("own", architecture.as_bytes())],
        )
    });
    let entries: Vec<_> = images.iter().zip(platforms).map(|(image, architecture)| serde_json::json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.digest(), "size": image.manifest.len(),
        "platform": {"os": "linux", "architecture": architecture},
    })).collect();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
    });
    let index = serde_json::to_vec(&index).unwrap();
    let reference = name(&format!("{}/many:1", server.host()));
    for image in &images {
        image.record(&here, &reference);
    }
    here.content.put(&index).unwrap();
    here.set(&reference, &Digest::of(&index)).unwrap();
    let (digest, size) = registry().push(&here, &reference, &NoReport).unwrap();
    assert_eq!((digest, size), (Digest::of(&index), index.len() as u64), "the index itself");

    let theirs = format!("docker://{}/many:1", server.address());
    assert_eq!(run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &theirs])), index);
    let copy = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:x", copy.path().display());
    run(Command::new("skopeo").args(["copy", "--all", "--src-tls-verify=false", &theirs, &layout]));

    // One platform after the other, and then all of it goes on whole.
    let (_dir, there) = store();
    for architecture in platforms {
        let platform: Platform = format!("linux/{architecture}").parse().unwrap();
        let pulled = registry().pull(&there, &reference, Some(&platform), &NoReport).unwrap();
        assert_eq!(pulled.platform.architecture, architecture);
    }
    let again = name(&format!("{}/again:1", server.host()));
    there.tag(&reference.to_string(), &again).unwrap();
    assert_eq!(registry().push(&there, &again, &NoReport).unwrap().0, Digest::of(&index));
    // Of an index of which one platform is here, that one goes.
    let (_dir, partly) = store();
    let platform: Platform = "linux/arm64".parse().unwrap();
    let pulled = registry().pull(&partly, &reference, Some(&platform), &NoReport).unwrap();
    let part = name(&format!("{}/part:1", server.host()));
    partly.tag(&reference.to_string(), &part).unwrap();
    let heard = Heard::default();
    match registry().push(&partly, &part, &heard) {
        Ok((pushed, _)) => {
            assert_eq!(pushed, pulled.manifest);
            assert!(heard.has("not all platforms of the image are here"), "{:?}", heard.lines());
        }
        Err(error) => panic!("{error} {:?}", heard.lines()),
    }
}

/// A configuration for a registry with TLS and a password.
fn secured(server: &TestRegistry, docker_config: &Path) -> Config {
    let table = RegistryConfig { ca: Some(server.authority()), ..RegistryConfig::default() };
    Config {
        registries: [(server.host(), table)].into(),
        docker_config: Some(docker_config.to_owned()),
        ..Config::default()
    }
}

#[test]
fn a_registry_with_tls_and_passwords() {
    let server = TestRegistry::with_tls_and_password();
    let (dir, here) = store();
    let file = dir.path().join("docker/config.json");
    let registry = Registry::new(secured(&server, &file));
    let reference = name(&format!("{}/x", server.host()));
    let image = sample();
    image.record(&here, &reference);

    let error = registry.push(&here, &reference, &NoReport).unwrap_err();
    assert_eq!(error.class(), Class::Unauthorized, "{error}");
    assert!(error.hint().unwrap().contains(&format!("wharf login {}", server.host())));
    let password = |text: &str| Credential::Password { username: USER.to_owned(), password: text.to_owned() };
    let error = registry.login(&server.host(), &password("wrong")).unwrap_err();
    assert_eq!(error.class(), Class::Unauthorized, "{error}");
    assert!(!file.exists(), "a wrong password is not kept");
    registry.login(&server.host(), &password(PASSWORD)).unwrap();
    let (digest, _) = registry.push(&here, &reference, &NoReport).unwrap();
    let (_dir, there) = store();
    assert_eq!(registry.pull(&there, &reference, None, &NoReport).unwrap().target, digest);
    assert!(registry.logout(&server.host()).unwrap());
    assert!(!registry.logout(&server.host()).unwrap());
    let (_dir, there) = store();
    let error = registry.pull(&there, &reference, None, &NoReport).unwrap_err();
    assert_eq!(error.class(), Class::Unauthorized, "{error}");

    // Without the authority nobody can be who he says he is.
    let mut config = secured(&server, &file);
    config.registries.clear();
    config.certs_dirs = vec![dir.path().join("certs.d")];
    let host = dir.path().join("certs.d").join(server.host());
    fs::create_dir_all(&host).unwrap();
    run(Command::new("openssl").current_dir(&host).args(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout k -out ca.crt -subj /CN=other"
            .split(' '),
    ));
    let error = Registry::new(config).login(&server.host(), &password(PASSWORD)).unwrap_err();
    assert!(error.to_string().contains("failed to verify certificate"), "{error}");
}

#[test]
fn mirrors_are_asked_first_and_may_fail() {
    let origin = TestRegistry::plain();
    let mirror = TestRegistry::plain();
    let (_dir, here) = store();
    let image = sample();
    let reference = name(&format!("{}/x", origin.host()));
    image.record(&here, &reference);
    let mirrors = vec![format!("localhost:{}", support::free_port()), format!("http://{}", mirror.host())];
    let table = RegistryConfig { mirrors, ..RegistryConfig::default() };
    let config = Config { registries: [(origin.host(), table)].into(), ..Config::default() };
    let registry = Registry::new(config);
    // A push goes to the registry itself.
    registry.push(&here, &reference, &NoReport).unwrap();
    assert!(origin.blob(Digest::of(&image.blobs[1]).as_str()).exists());
    let heard = Heard::default();
    let (_dir, there) = store();
    registry.pull(&there, &reference, None, &heard).unwrap();
    assert_eq!(heard.lines().iter().filter(|l| l.contains("cannot help")).count(), 2, "{:?}", heard.lines());
    // Once the mirror has it, the origin is not needed.
    let at_mirror = name(&format!("{}/x", mirror.host()));
    image.record(&here, &at_mirror);
    self::registry().push(&here, &at_mirror, &NoReport).unwrap();
    drop(origin);
    let (_dir, there) = store();
    registry.pull(&there, &reference, None, &NoReport).unwrap();
}

#[test]
fn two_stores_of_one_root_share_a_download() {
    let (_server, _, reference) = served();
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let store = open_store(dir.path());
                    registry().pull(&store, &reference, None, &NoReport).unwrap().id
                })
            })
            .collect();
        let ids: Vec<Digest> = pulls.into_iter().map(|pull| pull.join().unwrap()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    });
    assert_eq!(
        fs::read_dir(dir.path().join("ingest"))
            .unwrap()
            .filter(|e| { e.as_ref().unwrap().file_name().to_string_lossy().starts_with("sha256-") })
            .count(),
        0,
        "no ingest is left"
    );
}
