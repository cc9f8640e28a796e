//! A pull of 200 MB in several layers from a registry on loopback, unpacked and ready to run, against docker.

mod support;

use std::process::{Command, ExitCode};

use support::fixtures::registry::Registry;
use support::fixtures::{Wharf, images, tool};
use support::peers;
use support::{Report, Side, rounds, settle, time};

const LAYERS: usize = 5;

fn main() -> ExitCode {
    let n = rounds(7);
    let mut report = Report::default();
    let wharf = Wharf::new();
    let docker = peers::docker(wharf.dir(), &[]);
    let registry = Registry::plain();
    let name = registry.name("bench/layers:1");

    let layers = split(&images::debian_layer(), LAYERS);
    let bytes: usize = layers.iter().map(Vec::len).sum();
    println!("the image: Debian in {LAYERS} layers, {} MB unpacked, gzip", bytes / 1_000_000);
    let archive = wharf.dir().join("layers.tar");
    std::fs::write(&archive, images::linux("layers", &layers, &serde_json::json!({"Cmd": ["bash"]})))
        .expect("an archive");
    let from = format!("docker-archive:{}", archive.display());
    let to = format!("docker://{name}");
    tool(Command::new("skopeo").args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", &from, &to]));

    let ours = || {
        settle();
        let fresh = Wharf::new();
        let time = time(&mut fresh.command(&["pull", &name]));
        assert_eq!(fresh.ok(&["images", "-q"]).lines().count(), 1);
        time
    };
    let theirs = || {
        settle();
        let time = time(&mut docker.command(&["pull", &name]));
        docker.ok(&["rmi", &name]);
        time
    };
    report.race("pull / docker pull", n, Side::around("wharf", ours), Side::around("docker", theirs), 0.6, 0.5);
    report.end()
}

/// The same files in several layers of about the same size.
fn split(layer: &[u8], parts: usize) -> Vec<Vec<u8>> {
    let mut all: Vec<_> = (0..parts).map(|_| tar::Builder::new(Vec::new())).collect();
    let mut archive = tar::Archive::new(layer);
    let mut done = 0;
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        // In order, so that a hard link comes after its file.
        let part = &mut all[(done * parts / layer.len()).min(parts - 1)];
        done += 1024 + usize::try_from(entry.size()).expect("a size");
        let mut header = entry.header().clone();
        let (path, link) = (entry.path().expect("a path").into_owned(), entry.link_name().expect("a name"));
        match link.map(|link| link.into_owned()) {
            Some(link) => part.append_link(&mut header, path, link),
            None => part.append_data(&mut header, path, &mut entry),
        }
        .expect("memory");
    }
    all.into_iter().map(|part| part.into_inner().expect("memory")).collect()
}
