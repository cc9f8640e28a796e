use serde_json::json;

use super::testing::{TestStore, no_users};
use super::*;
use crate::image::Style;
use crate::image::testing::{MODULE, gzip, image_config, linux_image, manifest, put, tar_of};
use crate::lease::Lease;
use crate::reporter::NoReport;

fn names(store: &ImageStore) -> Vec<String> {
    let mut names: Vec<String> = store
        .records()
        .unwrap()
        .into_iter()
        .map(|r| r.reference.map_or("<none>".to_owned(), |r| r.familiar()))
        .collect();
    names.sort();
    names
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn an_image_is_found_by_every_way_of_naming_it() {
    let store = TestStore::new();
    let target = store.add("busybox", &[("bin/sh", b"sh")]);
    let image = store.resolve("busybox", None).unwrap();
    assert_eq!(image.target, target);
    let host = image.platform.clone();
    for name in [
        "busybox:latest",
        "docker.io/library/busybox",
        image.id.as_str(),
        image.id.hex(),
        image.id.short(),
        &image.id.hex()[..3],
        &format!("sha256:{}", image.id.short()),
        target.as_str(),
        &format!("busybox@{target}"),
    ] {
        assert_eq!(store.resolve(name, None).unwrap(), image, "{name}");
        assert_eq!(store.resolve(name, Some(&host)).unwrap().id, image.id, "{name}");
        let other = store.resolve(name, Some(&Platform::new("linux", "s390x"))).unwrap_err();
        assert_eq!(other.class(), Class::NotFound, "{name}");
        assert!(other.to_string().contains("does not provide the specified platform (linux/s390x)"), "{other}");
    }
    for (name, message) in [
        ("busybox:1", "No such image: busybox:1"),
        ("nothing", "No such image: nothing:latest"),
        (&format!("debian@{target}"), &format!("No such image: debian@{target}")),
    ] {
        let error = store.resolve(name, None).unwrap_err();
        assert_eq!((error.class(), error.to_string()), (Class::NotFound, message.to_owned()));
    }
    let message = "invalid reference format: repository name (library/UPPER) must be lowercase";
    assert_eq!(store.resolve("UPPER", None).unwrap_err().to_string(), message);
}

#[test]
fn an_ambiguous_short_id_is_refused() {
    let store = TestStore::new();
    // Sixteen first digits: of seventeen images two share one.
    for n in 0..17 {
        store.add(&format!("i{n}"), &[("n", format!("{n}").as_bytes())]);
    }
    let ids: Vec<String> =
        store.list(&Filters::default()).unwrap().iter().map(|s| s.image.id.hex().to_owned()).collect();
    let shared = ids.iter().find(|a| ids.iter().filter(|b| b[..1] == a[..1]).count() > 1).unwrap();
    let error = store.resolve(&shared[..1], None).unwrap_err();
    assert_eq!(error.class(), Class::InvalidInput);
    assert_eq!(error.to_string(), format!("multiple IDs found with provided prefix: {}", &shared[..1]));
}

#[test]
fn a_name_that_moves_leaves_its_image_dangling() {
    let store = TestStore::new();
    let old = store.add("app", &[("v", b"1")]);
    let new = store.add("app", &[("v", b"2")]);
    assert_eq!(names(&store), ["<none>", "app:latest"]);
    assert_eq!(store.resolve("app", None).unwrap().target, new);
    let dangling = store.list(&Filters::parse(&["dangling=true"]).unwrap()).unwrap();
    assert_eq!(dangling.iter().map(|s| s.image.target.clone()).collect::<Vec<_>>(), std::slice::from_ref(&old));
    store.set(&reference("app:old"), &old).unwrap();
    assert_eq!(names(&store), ["app:latest", "app:old"]);
}

#[test]
fn what_is_not_all_here_is_not_recorded() {
    let store = TestStore::new();
    let target = linux_image(&store.content, json!({}), &[&[("a", b"a")]]);
    let layer = Image::read(&store.content, &target, None).unwrap().layers[0].blob().digest.clone();
    let bytes = std::fs::read(store.content.path(&layer)).unwrap();
    std::fs::remove_file(store.content.path(&layer)).unwrap();
    assert_eq!(store.set(&reference("a"), &target).unwrap_err().class(), Class::NotFound);
    std::fs::write(store.content.path(&layer), &bytes[1..]).unwrap();
    assert_eq!(store.set(&reference("a"), &target).unwrap_err().class(), Class::Corrupt);
    assert!(names(&store).is_empty());
    assert_eq!(store.set(&reference("a"), &Digest::of(b"?")).unwrap_err().class(), Class::NotFound);
}

#[test]
fn removing_one_of_several_names_only_untags() {
    let store = TestStore::new();
    let target = store.add("busybox", &[("bin/sh", b"sh")]);
    let image = store.resolve("busybox", None).unwrap();
    store.tag("busybox", &reference("localhost:5000/bb:1")).unwrap();
    let user = |id: &Digest| if *id == image.id { vec!["web".to_owned()] } else { vec![] };
    let removed = store.remove("busybox", false, &user).unwrap();
    let untagged = |name: &str| Removed::Untagged(name.to_owned());
    assert_eq!(removed, [untagged("busybox:latest"), untagged(&format!("busybox@{target}"))]);
    assert!(store.content.contains(&target));

    let error = store.remove("localhost:5000/bb:1", false, &user).unwrap_err();
    assert_eq!(error.class(), Class::Conflict);
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to remove repository reference \"localhost:5000/bb:1\" (must force) - container web is \
             using its referenced image {}",
            image.id.short()
        )
    );
    // By force the name goes and the image stays for its container.
    let removed = store.remove("localhost:5000/bb:1", true, &user).unwrap();
    assert_eq!(removed, [untagged("localhost:5000/bb:1"), untagged(&format!("localhost:5000/bb@{target}"))]);
    assert_eq!(names(&store), ["<none>"]);
    assert!(store.remove(image.id.short(), false, &user).unwrap_err().to_string().contains("used by container web"));

    let removed = store.remove(image.id.short(), false, &no_users).unwrap();
    let layer = crate::snapshot::chain_id(&image.diff_ids()).unwrap();
    assert_eq!(removed, [Removed::Deleted(image.id.clone()), Removed::Deleted(layer)]);
    assert!(names(&store).is_empty());
    for blob in [&target, &image.id, &image.layers[0].blob().digest] {
        assert!(!store.content.contains(blob), "{blob}");
    }
    assert_eq!(store.remove("busybox", false, &no_users).unwrap_err().to_string(), "No such image: busybox:latest");
}

#[test]
fn removing_by_id_takes_all_names_only_by_force() {
    let store = TestStore::new();
    store.add("a", &[("x", b"x")]);
    store.tag("a", &reference("b")).unwrap();
    let image = store.resolve("a", None).unwrap();
    let (id, target) = (image.id.clone(), &image.target);
    let error = store.remove(id.short(), false, &no_users).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
            id.short()
        )
    );
    let removed: Vec<String> =
        store.remove(id.short(), true, &no_users).unwrap().iter().map(Removed::to_string).collect();
    let layer = crate::snapshot::chain_id(&image.diff_ids()).unwrap();
    let expected = format!(
        "Untagged: a:latest|Untagged: a@{target}|Untagged: b:latest|Untagged: b@{target}|Deleted: {id}|Deleted: {layer}"
    );
    assert_eq!(removed, expected.split('|').collect::<Vec<_>>());
}

#[test]
fn shared_layers_outlive_one_of_their_images() {
    let store = TestStore::new();
    let base = tar_of(&[("base", b"base")]);
    let layer = put(&store.content, "application/vnd.oci.image.layer.v1.tar+gzip", &gzip(&base));
    for name in ["a", "b"] {
        let config = image_config("linux", "amd64", json!({"Labels": {"n": name}}), &[&base]);
        let config = put(&store.content, media_type::OCI_CONFIG, config.to_string().as_bytes());
        let target = manifest(&store.content, config, vec![layer.clone()], json!({}));
        store.set(&reference(name), &target).unwrap();
    }
    let image = store.resolve("b", None).unwrap();
    store.ensure_unpacked(&image, &NoReport).unwrap();
    store.remove("a", false, &no_users).unwrap();
    assert!(store.content.contains(&image.layers[0].blob().digest));
    assert!(store.snapshots.contains(&image.diff_ids()));
    store.remove("b", false, &no_users).unwrap();
    assert!(!store.content.contains(&image.layers[0].blob().digest));
    assert!(!store.snapshots.contains(&image.diff_ids()));
}

#[test]
fn a_lease_keeps_the_sweep_away_and_a_container_made_meanwhile_keeps_its_image() {
    let store = TestStore::new();
    let target = store.add("a", &[("x", b"x")]);
    let lease = Lease::take(&store.root).unwrap();
    store.remove("a", false, &no_users).unwrap();
    assert!(names(&store).is_empty());
    assert!(store.content.contains(&target), "swept under a lease");
    assert_eq!(store.resolve(target.as_str(), None).unwrap_err().class(), Class::NotFound);
    drop(lease);
    // The holder of the lease has recorded a container of it.
    let user = |_: &Digest| vec!["late".to_owned()];
    assert!(crate::gc::sweep(&store, &user).unwrap().is_some());
    assert_eq!(names(&store), ["<none>"]);
    assert!(store.resolve(target.as_str(), None).is_ok());
}

#[test]
fn prune_tells_of_a_shared_layer_with_the_last_image_that_had_it() {
    let store = TestStore::new();
    let base: &[(&str, &[u8])] = &[("base", b"b")];
    let made = ["kept", "one", "two", "three"].map(|name| {
        let own: &[(&str, &[u8])] = &[("own", name.as_bytes())];
        let layers: &[_] = if name == "kept" { &[own] } else { &[base, own] };
        let target = linux_image(&store.content, json!({"Labels": {"of": name}}), layers);
        store.set(&reference(name), &target).unwrap();
        store.resolve(name, None).unwrap()
    });
    let [kept, gone @ ..] = &made;
    let user = |id: &Digest| if *id == kept.id { vec!["c".to_owned()] } else { vec![] };
    let pruned = store.prune(true, &Filters::default(), &user).unwrap();
    let tree = |layers: &[Digest]| Removed::Deleted(crate::snapshot::chain_id(layers).unwrap());
    for image in gone {
        let own = pruned.removed.iter().filter(|removed| **removed == tree(&image.diff_ids())).count();
        assert_eq!(own, 1, "{pruned:?}");
    }
    assert_eq!(pruned.removed.last(), Some(&tree(&gone[0].diff_ids()[..1])), "{pruned:?}");
    assert_eq!(pruned.removed.len(), 3 * 4 + 1, "{pruned:?}");
}

#[test]
fn prune_takes_the_dangling_or_all_the_unused() {
    let store = TestStore::new();
    store.add("app", &[("v", b"1")]);
    store.add("app", &[("v", b"2")]);
    store.add("used", &[("v", b"3")]);
    let used = store.resolve("used", None).unwrap().id;
    let user = |id: &Digest| if *id == used { vec!["c".to_owned()] } else { vec![] };
    let pruned = store.prune(false, &Filters::default(), &user).unwrap();
    assert!(matches!(pruned.removed[..], [Removed::Deleted(_), Removed::Deleted(_)]), "{pruned:?}");
    assert!(pruned.reclaimed > 0);
    assert_eq!(names(&store), ["app:latest", "used:latest"]);

    let none = Filters::parse(&["label=of=nobody"]).unwrap();
    assert!(store.prune(true, &none, &user).unwrap().removed.is_empty());
    let pruned = store.prune(true, &Filters::default(), &user).unwrap();
    assert_eq!(pruned.removed.len(), 4, "{pruned:?}");
    assert_eq!(names(&store), ["used:latest"]);
}

#[test]
fn the_list_is_filtered() {
    let store = TestStore::new();
    store.add("busybox:1", &[("v", b"1")]);
    store.tag("busybox:1", &reference("busybox:2")).unwrap();
    store.add("localhost:5000/app", &[("v", b"2")]);
    let shown = |filters: &[&str]| -> Vec<String> {
        let mut shown: Vec<String> = store
            .list(&Filters::parse(filters).unwrap())
            .unwrap()
            .iter()
            .flat_map(|s| s.names.iter().map(Reference::familiar))
            .collect();
        shown.sort();
        shown
    };
    assert_eq!(shown(&[]), ["busybox:1", "busybox:2", "localhost:5000/app:latest"]);
    assert_eq!(shown(&["reference=busybox"]), ["busybox:1", "busybox:2"]);
    assert_eq!(shown(&["reference=busy*:2"]), ["busybox:2"]);
    assert_eq!(shown(&["reference=*/app"]), ["localhost:5000/app:latest"]);
    assert_eq!(shown(&["label=of=busybox:1"]), ["busybox:1", "busybox:2"]);
    assert_eq!(shown(&["label=other"]), [""; 0]);
    assert_eq!(shown(&["dangling=true"]), [""; 0]);
    assert_eq!(shown(&["before=busybox:1"]), [""; 0]);
    assert_eq!(shown(&["until=2020-01-01"]), [""; 0]);
    assert_eq!(shown(&["until=1h"]).len(), 3);
    let missing = store.list(&Filters::parse(&["since=nothing"]).unwrap()).unwrap_err();
    assert_eq!(missing.class(), Class::NotFound);
}

#[test]
fn history_tells_each_layer() {
    let store = TestStore::new();
    store.add("a", &[("x", b"x")]);
    let image = store.resolve("a", None).unwrap();
    let history = store.history(&image).unwrap();
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].id.as_ref(), Some(&image.id));
    assert_eq!(history[0].created_by, "COPY . /");
    assert_eq!(history[0].size, image.size, "before it is unpacked, as it is stored");
    assert_eq!(history[0].tags, ["a:latest"]);

    let config = put(&store.content, crate::image::WASM_CONFIG, br#"{"os":"wasip1","architecture":"wasm"}"#);
    let layer = put(&store.content, crate::image::WASM_LAYER, MODULE);
    let target = manifest(&store.content, config, vec![layer], json!({}));
    store.set(&reference("w"), &target).unwrap();
    let history = store.history(&store.resolve("w", None).unwrap()).unwrap();
    assert_eq!(history[0].created_by, "application/wasm");
    assert_eq!(history[0].comment, "CNCF wasm artifact");
}

#[test]
fn layers_are_unpacked_in_parallel_and_checked() {
    let store = TestStore::new();
    let files: Vec<(String, Vec<u8>)> = (0..6).map(|n| (format!("f{n}"), vec![n; 1000])).collect();
    let layers: Vec<[(&str, &[u8]); 1]> = files.iter().map(|(n, b)| [(n.as_str(), b.as_slice())]).collect();
    let slices: Vec<&[(&str, &[u8])]> = layers.iter().map(|l| &l[..]).collect();
    let target = linux_image(&store.content, json!({}), &slices);
    let image = Image::read(&store.content, &target, None).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| store.ensure_unpacked(&image, &NoReport).unwrap());
        }
    });
    assert!(store.snapshots.contains(&image.diff_ids()));

    // A config that promises other diff_ids.
    let tar = tar_of(&[("x", b"x")]);
    let config = image_config("linux", "amd64", json!({}), &[b"something else"]);
    let config = put(&store.content, media_type::OCI_CONFIG, config.to_string().as_bytes());
    let layer = put(&store.content, media_type::OCI_LAYER, &tar);
    let target = manifest(&store.content, config, vec![layer], json!({}));
    let image = Image::read(&store.content, &target, None).unwrap();
    let error = store.ensure_unpacked(&image, &NoReport).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert!(!store.snapshots.contains(&image.diff_ids()));
}

#[test]
fn a_program_that_is_wasm_by_its_first_bytes_is_noticed() {
    let store = TestStore::new();
    let run = json!({"Entrypoint": ["./app"], "WorkingDir": "/opt"});
    let target = linux_image(&store.content, run, &[&[("opt/app", MODULE)], &[("other", b"x")]]);
    // Recorded before it is unpacked, the record is corrected; unpacked before, it is right at once.
    store.set(&reference("first"), &target).unwrap();
    assert_eq!(store.resolve("first", None).unwrap().style, Style::Linux);
    store.ensure_unpacked(&store.resolve("first", None).unwrap(), &NoReport).unwrap();
    store.set(&reference("second"), &target).unwrap();
    for name in ["first", "second"] {
        let image = store.resolve(name, None).unwrap();
        assert_eq!((image.style, image.style_reason.as_str()), (Style::Compat, "magic bytes of ./app"), "{name}");
    }
    assert!(store.snapshots.keys().unwrap().is_empty());
}

#[test]
fn the_layouts_index_names_what_the_database_names() {
    let store = TestStore::new();
    let target = store.add("busybox", &[("x", b"x")]);
    store.tag("busybox", &reference("localhost:5000/b:1")).unwrap();
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(store.content.layout_dir().join("index.json")).unwrap()).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0]["annotations"][layout::REF_NAME], "docker.io/library/busybox:latest");
    assert_eq!(entries[0]["digest"], target.as_str());
    assert_eq!(entries[0]["size"], store.content.size(&target).unwrap());
    assert_eq!(entries[0]["mediaType"], media_type::OCI_MANIFEST);
}

/// The judge is the real tool. It is part of what the tests need (`.ci/run` installs it).
#[test]
fn skopeo_reads_the_store_as_it_is() {
    let store = TestStore::new();
    store.add("busybox", &[("bin/sh", b"sh")]);
    let image = store.resolve("busybox", None).unwrap();
    let copy = store.dir.path().join("copy");
    let output = std::process::Command::new("skopeo")
        .args(["--insecure-policy", "copy"])
        .arg(format!("oci:{}:docker.io/library/busybox:latest", store.content.layout_dir().display()))
        .arg(format!("dir:{}", copy.display()))
        .output()
        .expect("skopeo is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(copy.join(image.id.hex()).exists());
    assert!(copy.join(image.layers[0].blob().digest.hex()).exists());
}

#[test]
fn many_processes_worth_of_changes_leave_one_truth() {
    let store = TestStore::new();
    let target = store.add("app", &[("v", b"1")]);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let store = &store;
            scope.spawn(move || {
                // Each with a connection of its own, as a process has.
                let db = Arc::new(Db::open(&store.root, &[SCHEMA]).unwrap());
                let mine = ImageStore::open(&store.root, db).unwrap();
                for m in 0..4 {
                    mine.tag("app", &reference(&format!("t{n}:{m}"))).unwrap();
                    if m % 2 == 1 {
                        mine.remove(&format!("t{n}:{m}"), false, &no_users).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(names(&store).len(), 17);
    assert_eq!(store.resolve("t7:2", None).unwrap().target, target);
    let index = std::fs::read_to_string(store.content.layout_dir().join("index.json")).unwrap();
    assert_eq!(index.matches(layout::REF_NAME).count(), 17);
}

#[test]
fn sizes_are_those_of_the_files() {
    let store = TestStore::new();
    store.add("a", &[("x", b"0123456789"), ("y", b"01234")]);
    let image = store.resolve("a", None).unwrap();
    let shown = || (store.list(&Filters::default()).unwrap()[0].size, store.history(&image).unwrap()[0].size);
    assert_eq!(shown(), (image.size, image.size), "as stored, before it is unpacked");
    store.ensure_unpacked(&image, &NoReport).unwrap();
    assert_eq!(shown(), (15, 15));
    assert_eq!(store.layer_sizes().unwrap().image(&image), 15);
    // What is gone is forgotten, and what is there is not.
    crate::gc::sweep(&store, &no_users).unwrap();
    assert_eq!(shown(), (15, 15));
    store.remove("a", false, &no_users).unwrap();
    crate::gc::sweep(&store, &no_users).unwrap();
    assert_eq!(store.layer_sizes().unwrap().image(&image), image.size);
}
