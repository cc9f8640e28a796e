//! Archives that try to be more than images. Each is refused, and nothing of it is recorded.

use serde_json::{Value, json};

use super::load;
use crate::digest::Digest;
use crate::error::{Class, Error};
use crate::image::document::media_type;
use crate::image::testing::{gzip, image_config, tar_of};
use crate::layer::testing::Archive;
use crate::reporter::NoReport;
use crate::store::testing::TestStore;

/// Loads into a fresh store, which must refuse and record nothing.
fn refused(archive: &[u8]) -> Error {
    let store = TestStore::new();
    let error = load(&store, &mut &archive[..], &NoReport).expect_err("the archive was loaded");
    assert!(store.records().unwrap().is_empty(), "something was recorded: {error}");
    assert!(crate::gc::check::check(&store).unwrap().is_empty(), "something stayed: {error}");
    error
}

/// A docker archive of one layer; each part can be replaced.
fn docker(tar: &[u8], diff_ids: &[&[u8]], tags: Value, config_name: Option<&str>, layer_name: &str) -> Vec<u8> {
    let config = image_config("linux", "amd64", json!({}), diff_ids).to_string();
    let id = Digest::of(config.as_bytes());
    let own = format!("{}.json", id.hex());
    let config_name = config_name.unwrap_or(&own);
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": [layer_name]}]).to_string();
    tar_of(&[("l/layer.tar", tar), (config_name, config.as_bytes()), ("manifest.json", manifest.as_bytes())])
}

#[test]
fn devices_and_links_that_lead_out_are_refused() {
    type Add = fn(&mut Archive);
    let adds: [(&str, Add); 6] = [
        ("symlink", |a| _ = a.symlink("manifest.json", "/etc/passwd")),
        ("symlinked directory", |a| _ = a.symlink("blobs", "/etc").file("blobs/sha256", 0o644, b"x")),
        ("symlink upwards", |a| _ = a.symlink("l/layer.tar", "../../../etc/shadow")),
        ("hard link upwards", |a| _ = a.hard_link("l/layer.tar", "../etc/shadow")),
        ("hard link", |a| _ = a.hard_link("l/layer.tar", "/etc/shadow")),
        ("device", |a| _ = a.device(tar::EntryType::Char, "l/layer.tar", 1, 5)),
    ];
    for (what, add) in adds {
        let mut archive = Archive::new();
        add(&mut archive);
        let error = refused(&archive.bytes());
        assert_eq!(error.class(), Class::Corrupt, "{what}: {error}");
    }
}

#[test]
fn links_within_an_archive_are_names_and_no_more() {
    let tar = tar_of(&[("a", b"a")]);
    let config = image_config("linux", "amd64", json!({}), &[&tar]).to_string();
    let build = |layer: &str| {
        let manifest = json!([{"Config": "config.json", "RepoTags": ["a:1"], "Layers": [layer]}]).to_string();
        let mut archive = Archive::new();
        archive.file("real.tar", 0o644, &tar).symlink("l/layer.tar", "../real.tar").symlink("chain", "l/layer.tar");
        archive.symlink("loop", "loop").file("config.json", 0o644, config.as_bytes());
        archive.file("manifest.json", 0o644, manifest.as_bytes());
        archive.bytes()
    };
    let store = TestStore::new();
    assert_eq!(load(&store, &mut &build("l/layer.tar")[..], &NoReport).unwrap().len(), 1);
    for layer in ["chain", "loop"] {
        assert_eq!(refused(&build(layer)).class(), Class::Corrupt, "{layer}");
    }
    // A document that is a link is no document.
    let mut archive = Archive::new();
    archive.file("other", 0o644, b"[]").symlink("manifest.json", "other");
    assert_eq!(refused(&archive.bytes()).class(), Class::InvalidInput);
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in ["../../etc/cron.d/x", "/etc/passwd", "blobs/../../x", "a/..", "blobs\\x"] {
        let mut archive = Archive::new();
        archive.file(name, 0o644, b"x");
        assert_eq!(refused(&archive.bytes()).class(), Class::Corrupt, "{name}");
    }
    let mut twice = Archive::new();
    twice.file("manifest.json", 0o644, b"[]").file("./manifest.json", 0o644, b"[]");
    assert!(refused(&twice.bytes()).to_string().contains("twice"));
}

#[test]
fn paths_in_the_manifest_are_names_in_the_archive_and_nothing_else() {
    let tar = tar_of(&[("a", b"a")]);
    for path in ["/etc/passwd", "../../../../etc/passwd", "l/other.tar", ""] {
        let error = refused(&docker(&tar, &[&tar], json!(["a:1"]), None, path));
        assert_eq!(error.class(), Class::Corrupt, "{path}: {error}");
    }
}

#[test]
fn bytes_that_are_not_what_they_are_called_are_refused() {
    let tar = tar_of(&[("a", b"a")]);
    // The layer is not the config's, plain and compressed; there are more layers than the config lists; the config's
    // name is another's digest.
    for archive in [
        docker(&tar, &[b"else"], json!(["a:1"]), None, "l/layer.tar"),
        docker(&gzip(&tar), &[b"else"], json!(["a:1"]), None, "l/layer.tar"),
        docker(&tar, &[], json!(["a:1"]), None, "l/layer.tar"),
        docker(&tar, &[&tar], json!(["a:1"]), Some(&format!("{}.json", Digest::of(b"?").hex())), "l/layer.tar"),
    ] {
        assert_eq!(refused(&archive).class(), Class::Corrupt);
    }
    // A blob of an OCI archive under another's digest.
    let blob = format!("blobs/sha256/{}", Digest::of(b"promised").hex());
    let index =
        json!({"manifests": [{"mediaType": media_type::OCI_MANIFEST, "size": 8, "digest": Digest::of(b"promised")}]});
    let index = index.to_string();
    for files in [
        &[(blob.as_str(), &b"brought!"[..]), ("index.json", index.as_bytes())][..],
        &[("index.json", index.as_bytes())],
    ] {
        let error = refused(&tar_of(files));
        assert!(matches!(error.class(), Class::Corrupt | Class::NotFound), "{error}");
    }
}

#[test]
fn a_size_that_the_index_has_wrong_is_refused() {
    let index = json!({"manifests": [{"mediaType": media_type::OCI_MANIFEST, "size": 5, "digest": Digest::of(b"{}")}]});
    let blob = format!("blobs/sha256/{}", Digest::of(b"{}").hex());
    let archive = tar_of(&[(&blob, b"{}"), ("index.json", index.to_string().as_bytes())]);
    assert_eq!(refused(&archive).class(), Class::Corrupt);
}

#[test]
fn poisoned_names_are_refused() {
    let tar = tar_of(&[("a", b"a")]);
    for tag in ["../x", "a\u{1b}[2J:1", "UPPER:1", "a b", "", "x:y:z", &format!("a@{}", Digest::of(b"x"))] {
        let error = refused(&docker(&tar, &[&tar], json!(["good:1", tag]), None, "l/layer.tar"));
        assert_eq!(error.class(), Class::InvalidInput, "{tag:?}: {error}");
        assert!(!error.to_string().contains('\u{1b}'), "the message carries an escape");
    }
    let error = refused(&docker(&tar, &[&tar], json!(["wharf/hello:latest"]), None, "l/layer.tar"));
    assert_eq!(error.class(), Class::Forbidden);
}

#[test]
fn damaged_and_foreign_streams_are_refused() {
    let tar = tar_of(&[("a", b"a")]);
    let good = docker(&tar, &[&tar], json!(["a:1"]), None, "l/layer.tar");
    for archive in [&b""[..], b"no archive at all", &good[..700], &gzip(&good)[..200], b"BZh91AY"] {
        let error = refused(archive);
        assert!(!matches!(error.class(), Class::Internal), "{error:?}");
    }
    assert_eq!(refused(&tar_of(&[("repositories", b"{}")])).class(), Class::Unsupported);
    assert_eq!(refused(&tar_of(&[("bin/sh", b"sh")])).class(), Class::InvalidInput);
    assert_eq!(refused(&tar_of(&[("manifest.json", b"{}")])).class(), Class::Corrupt);
    let huge = vec![b' '; 5 << 20];
    assert_eq!(refused(&tar_of(&[("index.json", &huge)])).class(), Class::LimitExceeded);
}
