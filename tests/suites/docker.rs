//! Images that go between Wharf and a real docker daemon as archives. skopeo reads along.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use crate::support::docker::Docker;
use crate::support::registry::Registry;
use crate::support::{Wharf, images, skopeo};

/// Two layers, of which the second comes twice: archives may hold it once.
fn twice() -> Vec<u8> {
    let mut extra = images::Tar::default();
    extra.file("etc/motd", 0o644, b"ahoy\n");
    let extra = extra.end();
    images::linux(
        "twice:latest",
        &[images::busybox_layer(), extra.clone(), extra],
        &json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}),
    )
}

/// `NAME ID` of every image, as both programs print it.
const NAMES: &str = "{{.Repository}}:{{.Tag}} {{.ID}}";

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn docker_and_skopeo_read_what_wharf_saves() {
    let wharf = Wharf::with_busybox();
    let Some(docker) = Docker::for_test("docker::docker_and_skopeo_read_what_wharf_saves", wharf.dir()) else { return };
    wharf.load(&twice());
    wharf.ok(&["tag", "busybox", "busybox:second"]);
    wharf.ok(&["tag", "busybox", "registry.example:5000/ours/tools:3"]);
    let file = wharf.dir().join("saved.tar");
    let names = ["busybox:latest", "busybox:second", "registry.example:5000/ours/tools:3", "twice:latest"];
    wharf.ok(&[&["save", "-o", text(&file)], &names[..]].concat());

    let loaded = docker.ok(&["load", "-i", text(&file)]);
    let expected: BTreeSet<String> = names.iter().map(|name| format!("Loaded image: {name}")).collect();
    assert_eq!(lines(&loaded), expected.iter().map(String::as_str).collect());
    let (ours, theirs) = (wharf.ok(&["images", "--format", NAMES]), docker.ok(&["images", "--format", NAMES]));
    assert_eq!(lines(&ours), lines(&theirs), "the same names and ids on both sides");
    assert_eq!(docker.ok(&["run", "--rm", "--network", "none", "twice", "cat", "/etc/motd"]), "ahoy");
    for name in names {
        skopeo(&["inspect", &format!("docker-archive:{}:{name}", file.display())]);
    }
    let tags = skopeo(&["list-tags", &format!("docker-archive:{}", file.display())]);
    assert!(names.iter().all(|name| tags.contains(name)), "{tags}");

    // By its id an image goes without its names.
    docker.ok(&["rmi", "-f", "busybox:latest", "busybox:second", names[2]]);
    let id = wharf.ok(&["inspect", "-f", "{{.Id}}", "busybox"]);
    let nameless = wharf.dir().join("nameless.tar");
    wharf.ok(&["save", "-o", text(&nameless), &id]);
    assert_eq!(docker.ok(&["load", "-i", text(&nameless)]), format!("Loaded image ID: {id}"));
    assert!(skopeo(&["inspect", &format!("docker-archive:{}", nameless.display())]).contains("\"Layers\""));
}

#[test]
fn docker_and_skopeo_read_what_wharf_pulled_compressed_and_saves() {
    let registry = Registry::plain();
    let wharf = Wharf::new();
    let name = "docker::docker_and_skopeo_read_what_wharf_pulled_compressed_and_saves";
    let Some(docker) = Docker::for_test(name, wharf.dir()) else { return };
    let archive = wharf.dir().join("made.tar");
    std::fs::write(&archive, twice()).expect("an archive");
    let archive = format!("docker-archive:{}", archive.display());
    for (compression, format) in [("gzip", "oci"), ("gzip", "v2s2"), ("zstd", "oci")] {
        let name = registry.name(&format!("{compression}-{format}:1"));
        let layout = wharf.dir().join(format!("{compression}-{format}"));
        // Through a directory, for what a registry has already skopeo does not compress anew.
        skopeo(&[
            "copy",
            "--quiet",
            "--dest-compress-format",
            compression,
            &archive,
            &format!("dir:{}", text(&layout)),
        ]);
        skopeo(&[
            "copy",
            "--quiet",
            "-f",
            format,
            "--dest-tls-verify=false",
            &format!("dir:{}", text(&layout)),
            &format!("docker://{name}"),
        ]);
        wharf.ok(&["pull", "-q", &name]);
        let file = wharf.dir().join("saved.tar");
        wharf.ok(&["save", "-o", text(&file), &name]);
        assert_eq!(docker.ok(&["load", "-i", text(&file)]), format!("Loaded image: {name}"));
        assert_eq!(docker.ok(&["run", "--rm", "--network", "none", &name, "cat", "/etc/motd"]), "ahoy");
        for kind in ["docker-archive", "oci-archive"] {
            assert!(skopeo(&["inspect", &format!("{kind}:{}", file.display())]).contains("\"Layers\""), "{kind}");
        }
        docker.ok(&["rmi", "-f", &name]);
        wharf.ok(&["rmi", &name]);
    }
}

#[test]
fn wharf_reads_what_docker_saves() {
    let (wharf, other) = (Wharf::with_busybox(), Wharf::new());
    let Some(docker) = Docker::for_test("docker::wharf_reads_what_docker_saves", wharf.dir()) else { return };
    docker.load(&images::busybox());
    docker.load(&twice());
    docker.ok(&["tag", "busybox", "registry.example:5000/ours/tools:3"]);
    let file = wharf.dir().join("docker.tar");
    docker.ok(&["save", "-o", text(&file), "busybox", "twice", "registry.example:5000/ours/tools:3"]);
    let loaded = other.ok(&["load", "-i", text(&file)]);
    let names = ["busybox:latest", "registry.example:5000/ours/tools:3", "twice:latest"];
    let expected: BTreeSet<String> = names.iter().map(|name| format!("Loaded image: {name}")).collect();
    assert_eq!(lines(&loaded), expected.iter().map(String::as_str).collect());
    let (ours, theirs) = (other.ok(&["images", "--format", NAMES]), docker.ok(&["images", "--format", NAMES]));
    assert_eq!(lines(&ours), lines(&theirs));
    assert_eq!(other.ok(&["run", "--rm", "twice", "cat", "/etc/motd"]), "ahoy");
    // A container's root file system too.
    docker.ok(&["create", "--name", "box", "--network", "none", "twice"]);
    let exported = wharf.dir().join("exported.tar");
    docker.ok(&["export", "-o", text(&exported), "box"]);
    other.ok(&["import", text(&exported), "imported"]);
    assert_eq!(other.ok(&["run", "--rm", "imported", "/bin/cat", "/etc/motd"]), "ahoy");
}
