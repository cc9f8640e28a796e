//! What nobody uses goes, what somebody uses stays, and both are told.

use std::path::PathBuf;

use crate::support::{Wharf, images};

/// The compiled modules of an instance.
fn compiled(wharf: &Wharf) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(wharf.root().join("modules")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|kind| kind == "cwasm")).collect()
}

#[test]
fn compiled_modules_go_with_the_last_image_that_needs_them() {
    let wharf = Wharf::new();
    wharf.ok(&["wasm", "pack", &images::guest("tools-p1"), "-t", "tools"]);
    wharf.ok(&["wasm", "pack", &images::guest("exit-p1"), "-t", "exit"]);
    let module = std::fs::read(images::guest("tools-p1")).expect("a guest");
    wharf.load(&images::scratch_wasm("scratch:latest", &module));
    wharf.ok(&["run", "--rm", "scratch", "args"]);
    wharf.ok(&["run", "--rm", "tools", "args"]);
    let both = compiled(&wharf);
    assert_eq!(both.len(), 2, "{both:?}");
    // The same module in another image.
    wharf.ok(&["rmi", "tools"]);
    assert_eq!(compiled(&wharf), both);
    wharf.ok(&["rmi", "scratch"]);
    let left = compiled(&wharf);
    assert_eq!(left.len(), 1, "{left:?}");
    // A container holds what it needs, also by an image that has no name any more.
    let id = wharf.ok(&["create", "exit"]);
    wharf.ok(&["rmi", "-f", "exit"]);
    assert_eq!(compiled(&wharf), left);
    wharf.ok(&["start", &id]);
    wharf.ok(&["wait", &id]);
    let bytes = std::fs::metadata(&left[0]).expect("a file").len();
    let pruned = wharf.ok(&["system", "prune", "-a", "-f"]);
    let freed = wharf.ok(&["events", "--since", "1h", "--until", "0s", "--filter", "event=prune", "--format", "json"]);
    assert!(pruned.contains(&id) && compiled(&wharf).is_empty(), "{pruned}");
    let image = freed.lines().find(|line| line.contains(r#""Type":"image""#)).expect("an event of images");
    let image: serde_json::Value = serde_json::from_str(image).expect("JSON");
    let told = image["Actor"]["Attributes"]["reclaimed"].as_str().and_then(|n| n.parse::<u64>().ok());
    assert!(told.is_some_and(|told| told >= bytes), "{image}");
}

#[test]
fn system_prune_takes_networks_too() {
    let wharf = Wharf::with_busybox();
    for (name, label) in [("idle", "tier=back"), ("kept", "tier=front"), ("used", "tier=back")] {
        wharf.ok(&["network", "create", "--label", label, name]);
    }
    wharf.ok(&["volume", "create", "data"]);
    wharf.ok(&["run", "-d", "--network", "used", "--name", "user", "busybox", "sleep", "1000"]);
    let asked = wharf.run_with(&["system", "prune"], b"n\n");
    assert!(asked.stdout.ends_with("Are you sure you want to continue? [y/N] "), "{asked}");
    let pruned = wharf.ok(&["system", "prune", "-f", "--filter", "label!=tier=front"]);
    assert_eq!(pruned, "Deleted Networks:\nidle\n\nTotal reclaimed space: 0B");
    let names = || wharf.ok(&["network", "ls", "--filter", "type=custom", "--format", "{{.Name}}"]);
    assert_eq!(names(), "kept\nused");
    assert_eq!(wharf.ok(&["network", "prune", "-f", "--filter", "until=1h"]), "");
    assert_eq!(wharf.ok(&["network", "prune", "-f"]), "Deleted Networks:\nkept");
    assert!(wharf.exits(1, &["network", "prune", "-f", "--filter", "x=y"]).stderr.contains("invalid filter 'x'"));
    for verb in ["container", "image", "volume", "network"] {
        wharf.ok(&[verb, "prune", "-f"]);
        let asked = wharf.run_with(&[verb, "prune"], b"\n");
        assert!(asked.code == 0 && asked.stdout.starts_with("WARNING! This will remove a"), "{asked}");
        let line = ["events", "--since", "1h", "--until", "0s", "--filter", "event=prune", "--filter"];
        let told = wharf.ok(&[&line[..], &[&format!("type={verb}"), "--format", "{{.Type}} {{.Action}}"]].concat());
        assert_eq!(told.lines().last(), Some(format!("{verb} prune").as_str()));
    }
    assert_eq!(wharf.ok(&["volume", "ls", "-q"]), "data");
}
