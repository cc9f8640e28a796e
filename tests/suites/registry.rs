//! Pushes and pulls against Debian's docker-registry, with skopeo and podman as the other side.

use std::path::Path;
use std::process::Command;

use crate::support::registry::{PASSWORD, Registry, USER};
use crate::support::{Wharf, images, skopeo, tool};

/// Gives skopeo an archive to push under this name.
fn push_by_skopeo(dir: &Path, archive: &[u8], name: &str) {
    let file = dir.join("archive.tar");
    std::fs::write(&file, archive).expect("an archive");
    skopeo(&[
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &format!("docker-archive:{}", file.display()),
        &format!("docker://{name}"),
    ]);
}

#[test]
fn what_wharf_pushes_skopeo_and_podman_pull() {
    let registry = Registry::plain();
    let wharf = Wharf::with_busybox();
    let name = registry.name("ours/busybox:1");
    wharf.ok(&["tag", "busybox", &name]);
    let pushed = wharf.ok(&["push", &name]);
    let digest = skopeo(&["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &format!("docker://{name}")]);
    assert!(pushed.contains(digest.trim()), "push says the digest that the registry knows, {digest}: {pushed}");

    let layout = wharf.dir().join("layout");
    skopeo(&[
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &format!("docker://{name}"),
        &format!("oci:{}:busybox", layout.display()),
    ]);
    assert!(layout.join("index.json").exists());

    let podman = |args: &[&str]| {
        let place = ["root", "runroot"].map(|d| format!("--{d}={}", wharf.dir().join("podman").join(d).display()));
        tool(Command::new("podman").args(place).arg("--storage-driver=vfs").args(args))
    };
    podman(&["pull", "--quiet", "--tls-verify=false", &name]);
    assert!(podman(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).contains(&name));
    podman(&["rmi", "--all", "--force"]);
}

#[test]
fn what_skopeo_pushes_wharf_pulls_and_runs() {
    let registry = Registry::plain();
    let wharf = Wharf::new();
    let name = |rest: &str| registry.name(rest);

    push_by_skopeo(wharf.dir(), &images::busybox(), &name("theirs/busybox"));
    let pulled = wharf.ok(&["pull", &name("theirs/busybox")]);
    assert!(pulled.contains("Digest: sha256:"), "{pulled}");
    assert_eq!(wharf.ok(&["run", "--rm", &name("theirs/busybox"), "echo", "hello"]), "hello");
    let again = wharf.ok(&["pull", &name("theirs/busybox")]);
    assert!(again.contains("Image is up to date"), "{again}");

    push_by_skopeo(wharf.dir(), &images::debian(), &name("theirs/debian:12"));
    // Not pulled before: `run` brings it.
    let release = wharf.ok(&["run", "--rm", &name("theirs/debian:12"), "cat", "/etc/os-release"]);
    assert!(release.contains("ID=debian"), "{release}");

    push_by_skopeo(
        wharf.dir(),
        &images::scratch_wasm("style-c", &images::read(&images::guest("tools-p1"))),
        &name("theirs/style-c"),
    );
    wharf.exits(42, &["run", "--rm", &name("theirs/style-c"), "exit", "42"]);
}

#[test]
fn all_tags_of_a_repository_are_pulled() {
    let registry = Registry::plain();
    let (here, there) = (Wharf::with_busybox(), Wharf::new());
    let name = registry.name("ours/many");
    for tag in ["1", "2", "latest"] {
        let tagged = format!("{name}:{tag}");
        here.ok(&["tag", "busybox", &tagged]);
        here.ok(&["push", &tagged]);
    }
    let pulled = there.ok(&["pull", "-a", &name]);
    assert_eq!(pulled.lines().last(), Some(&*name), "{pulled}");
    assert!(pulled.contains("2: Pulling from ours/many") && !pulled.contains("default tag"), "{pulled}");
    assert_eq!(there.ok(&["images", "--format", "{{.Tag}}", &name]), "1\n2\nlatest");
    let tagged = there.exits(1, &["pull", "--all-tags", &format!("{name}:1")]);
    assert_eq!(tagged.stderr, "tag can't be used with --all-tags/-a\n");
    there.exits(1, &["pull", "-a", &registry.name("ours/none")]);
}

#[test]
fn a_wasm_artifact_goes_round() {
    let registry = Registry::plain();
    let (here, there) = (Wharf::new(), Wharf::new());
    let (first, second) = (registry.name("wasm/tools:1"), registry.name("copied/tools:1"));
    here.ok(&["wasm", "pack", &images::guest("tools-p2"), "-t", &first]);
    here.ok(&["push", &first]);
    let manifest = skopeo(&["inspect", "--raw", "--tls-verify=false", &format!("docker://{first}")]);
    assert!(manifest.contains("application/vnd.wasm.config.v0+json"), "style A: {manifest}");
    skopeo(&[
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &format!("docker://{first}"),
        &format!("docker://{second}"),
    ]);
    there.exits(7, &["run", "--rm", &second, "exit", "7"]);
}

#[test]
fn a_protected_registry_wants_the_right_password() {
    let registry = Registry::protected();
    let wharf = Wharf::with_busybox();
    wharf.trust(&registry);
    let name = registry.name("secret/busybox");
    wharf.ok(&["tag", "busybox", &name]);
    let login = |password: &str| {
        wharf.run_with(&["login", "-u", USER, "--password-stdin", &registry.host()], format!("{password}\n").as_bytes())
    };

    let refused = wharf.exits(1, &["push", &name]);
    assert!(refused.stderr.contains("denied") || refused.stderr.contains("unauthorized"), "{refused}");
    let wrong = login("wrong horse");
    assert_eq!(wrong.code, 1, "{wrong}");
    assert!(wrong.stderr.contains("401 Unauthorized"), "{wrong}");
    assert!(!format!("{wrong}").contains("wrong horse"), "the password is never told: {wrong}");

    let right = login(PASSWORD);
    assert_eq!(right.code, 0, "{right}");
    assert!(right.stdout.contains("Login Succeeded"), "{right}");
    wharf.ok(&["push", &name]);
    wharf.ok(&["rmi", &name]);
    wharf.ok(&["pull", &name]);
    // The other side reads it with the same password.
    let credentials = format!("{USER}:{PASSWORD}");
    skopeo(&[
        "inspect",
        "--cert-dir",
        &registry.authority().display().to_string(),
        "--creds",
        &credentials,
        &format!("docker://{name}"),
    ]);

    wharf.ok(&["logout", &registry.host()]);
    wharf.ok(&["rmi", &name]);
    wharf.exits(1, &["pull", &name]);
}

#[test]
fn the_store_is_a_layout_that_skopeo_reads() {
    let wharf = Wharf::with_busybox();
    let archive = wharf.dir().join("saved.tar");
    wharf.ok(&["save", "-o", archive.to_str().expect("plain"), "busybox"]);
    let inspected = skopeo(&["inspect", &format!("docker-archive:{}", archive.display())]);
    assert!(inspected.contains("\"Layers\""), "{inspected}");
    let other = Wharf::new();
    other.ok(&["load", "-i", archive.to_str().expect("plain")]);
    assert_eq!(other.ok(&["run", "--rm", "busybox", "echo", "there"]), "there");
}
