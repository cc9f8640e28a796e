//! Images that are here: listed, named, saved, loaded, removed, in docker's words.

use crate::support::{Wharf, images};

#[test]
fn an_image_is_named_saved_removed_and_loaded() {
    let wharf = Wharf::with_busybox();
    let name = wharf.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let id = wharf.ok(&["images", "-q", "--no-trunc"]);
    wharf.ok(&["tag", &name, "localhost:5000/copy:2"]);
    assert_eq!(wharf.ok(&["images", "-q", "localhost:5000/copy"]), id[7..19]);

    let path = wharf.dir().join("saved.tar");
    let path = path.to_str().expect("a plain path");
    wharf.ok(&["save", "-o", path, &name]);
    let digest = wharf.ok(&["inspect", "-f", "{{.Descriptor.digest}}", &name]);
    let layer = wharf.ok(&["inspect", "-f", "{{index .RootFS.Layers 0}}", &name]);
    wharf.ok(&["tag", &name, "localhost:5000/copy:3"]);
    assert_eq!(wharf.ok(&["rmi", "localhost:5000/copy:3"]), "Untagged: localhost:5000/copy:3");
    let untagged = |name: &str| {
        let (repository, _) = name.rsplit_once(':').expect("a tag");
        format!("Untagged: {name}\nUntagged: {repository}@{digest}")
    };
    assert_eq!(wharf.ok(&["rmi", "localhost:5000/copy:2"]), untagged("localhost:5000/copy:2"));
    assert_eq!(wharf.ok(&["rmi", &name]), format!("{}\nDeleted: {id}\nDeleted: {layer}", untagged(&name)));
    assert_eq!(wharf.ok(&["images", "-q"]), "");
    assert_eq!(wharf.exits(1, &["rmi", &name]).stderr, format!("Error: No such image: {name}\n"));
    assert_eq!(wharf.ok(&["load", "-i", path]), format!("Loaded image: {name}"));
    assert_eq!(wharf.ok(&["image", "inspect", "-f", "{{.Id}}", &name]), id);
    assert!(wharf.ok(&["image", "prune", "-a", "-f"]).starts_with(&format!("Deleted Images:\nuntagged: {name}\n")));
}

#[test]
fn an_image_in_use_is_not_removed() {
    let wharf = Wharf::with_busybox();
    let name = wharf.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let user = wharf.ok(&["create", "--name", "user", &name, "true"]);
    let ran = wharf.exits(1, &["rmi", &name]);
    let expected = format!(
        "Error: conflict: unable to remove repository reference {name:?} (must force) - container {} is using",
        &user[..12]
    );
    assert!(ran.stderr.starts_with(&expected), "{ran}");
    assert_eq!(wharf.ok(&["image", "prune", "-a", "-f"]), "Total reclaimed space: 0B");
    wharf.ok(&["rm", "user"]);
    wharf.ok(&["rmi", &name]);
}

#[test]
fn what_is_no_archive_is_refused() {
    let wharf = Wharf::new();
    let ran = wharf.run_with(&["load"], b"this is no archive");
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stderr.starts_with("Error: archive: "), "{ran}");
    let busybox = images::busybox();
    let ran = wharf.run_with(&["load"], &busybox[..busybox.len() / 2]);
    assert_eq!(ran.code, 1, "{ran}");
    assert_eq!(wharf.ok(&["images", "-q"]), "");
}
