use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::*;
use crate::error::Class;
use crate::image::testing::{MODULE, gzip, manifest, put, tar_of};
use crate::image::{Image, Style, WASM_CONFIG, WASM_LAYER};
use crate::reporter::NoReport;
use crate::store::Filters;
use crate::store::testing::TestStore;

fn saved(store: &TestStore, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut bytes = Vec::new();
    save(store, &names, None, &mut bytes).unwrap();
    bytes
}

fn shown(loaded: &[Loaded]) -> Vec<String> {
    loaded.iter().map(|l| l.reference.as_ref().map_or(l.id.to_string(), |r| r.familiar())).collect()
}

fn add_wasm(store: &TestStore, name: &str) {
    let config = put(&store.content, WASM_CONFIG, br#"{"os":"wasip1","architecture":"wasm"}"#);
    let layer = put(&store.content, WASM_LAYER, MODULE);
    let target = manifest(&store.content, config, vec![layer], json!({}));
    store.set(&name.parse().unwrap(), &target).unwrap();
}

#[test]
fn what_is_saved_is_loaded() {
    let from = TestStore::new();
    from.add("busybox", &[("bin/sh", b"sh")]);
    from.add("localhost:5000/app:1", &[("app", b"app")]);
    from.tag("busybox", &"busybox:two".parse().unwrap()).unwrap();
    add_wasm(&from, "module");
    let id = from.resolve("busybox", None).unwrap().id;
    let archive = saved(&from, &["busybox", "busybox:two", "localhost:5000/app:1", "module"]);
    assert_eq!(
        archive,
        saved(&from, &["module", "localhost:5000/app:1", "busybox:two", "busybox"]),
        "not deterministic"
    );

    for bytes in [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap()] {
        let to = TestStore::new();
        let mut names = shown(&load(&to, &mut &bytes[..], &NoReport).unwrap());
        names.sort();
        assert_eq!(names, ["busybox:latest", "busybox:two", "localhost:5000/app:1", "module:latest"]);
        let image = to.resolve("busybox", None).unwrap();
        assert_eq!(image.id, id);
        assert!(to.snapshots.contains(&image.diff_ids()), "not unpacked");
        assert_eq!(to.resolve("module", None).unwrap().style, Style::WasmArtifact);
        assert!(crate::gc::check::check(&to).unwrap().is_empty());
    }
}

#[test]
fn saved_by_its_id_an_image_has_no_name() {
    let from = TestStore::new();
    from.add("busybox", &[("bin/sh", b"sh")]);
    let id = from.resolve("busybox", None).unwrap().id;
    let archive = saved(&from, &[id.short()]);
    let to = TestStore::new();
    let loaded = load(&to, &mut &archive[..], &NoReport).unwrap();
    assert_eq!(loaded, [Loaded { reference: None, id: id.clone() }]);
    assert_eq!(to.list(&Filters::parse(&["dangling=true"]).unwrap()).unwrap().len(), 1);
    assert_eq!(save(&from, &["nothing".into()], None, &mut Vec::new()).unwrap_err().class(), Class::NotFound);
}

/// The layout of `docker save` before version 25: `ID/layer.tar` and `CONFIG.json`.
#[test]
fn dockers_older_archives_are_loaded() {
    let tar = tar_of(&[("bin/sh", b"sh")]);
    let config =
        crate::image::testing::image_config("linux", "amd64", json!({"Cmd": ["/bin/sh"]}), &[&tar]).to_string();
    let id = crate::Digest::of(config.as_bytes());
    let manifest =
        json!([{"Config": format!("{}.json", id.hex()), "RepoTags": ["old:1"], "Layers": ["abc/layer.tar"]}]);
    let archive = tar_of(&[
        ("abc/VERSION", b"1.0"),
        ("abc/json", b"{}"),
        ("abc/layer.tar", &tar),
        (&format!("{}.json", id.hex()), config.as_bytes()),
        ("manifest.json", manifest.to_string().as_bytes()),
        ("repositories", br#"{"old":{"1":"abc"}}"#),
    ]);
    let store = TestStore::new();
    assert_eq!(shown(&load(&store, &mut &archive[..], &NoReport).unwrap()), ["old:1"]);
    let image = store.resolve("old:1", None).unwrap();
    assert_eq!((image.id, image.config.cmd), (id, vec!["/bin/sh".to_owned()]));
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program} is installed: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn skopeo_reads_what_is_saved_and_writes_what_is_loaded() {
    let from = TestStore::new();
    from.add("busybox", &[("bin/sh", b"sh"), ("etc/x", b"x")]);
    let id = from.resolve("busybox", None).unwrap().id;
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("a.tar");
    std::fs::write(&archive, saved(&from, &["busybox"])).unwrap();
    for (n, source) in ["docker-archive", "oci-archive"].iter().enumerate() {
        let source = format!("{source}:{}", text(&archive));
        let copy = dir.path().join(format!("copy{n}"));
        run("skopeo", &["--insecure-policy", "copy", &source, &format!("dir:{}", text(&copy))]);
        assert!(copy.join(id.hex()).exists(), "{source}: the config is another");
        for (format, name) in [("docker-archive", "back:1"), ("oci-archive", "back:1")] {
            let back = dir.path().join(format!("{n}-{format}.tar"));
            let target = format!("{format}:{}:{name}", text(&back));
            run("skopeo", &["--insecure-policy", "copy", &source, &target]);
            let to = TestStore::new();
            let loaded = load(&to, &mut std::fs::File::open(&back).unwrap(), &NoReport).unwrap();
            assert_eq!(shown(&loaded), ["back:1"], "{target}");
            // Skopeo writes the config anew when it changes the format.
            let diff_ids = to.resolve("back:1", None).unwrap().diff_ids();
            assert_eq!(diff_ids, from.resolve("busybox", None).unwrap().diff_ids(), "{target}");
            assert!(loaded[0].id == id || !source.starts_with(format), "{target}");
        }
    }
}

#[test]
fn a_root_filesystem_is_imported() {
    let tar = tar_of(&[("bin/sh", b"sh")]);
    for (stream, media_type) in
        [(tar.clone(), ".tar"), (gzip(&tar), "+gzip"), (zstd::encode_all(&tar[..], 1).unwrap(), "+zstd")]
    {
        let store = TestStore::new();
        let options = Import {
            reference: Some("mine:1".parse().unwrap()),
            changes: vec!["CMD [\"/bin/sh\"]".into(), "ENV A=b".into()],
            message: "made by hand".into(),
            platform: None,
        };
        let id = import(&store, &mut &stream[..], &options, &NoReport).unwrap();
        let image = store.resolve("mine:1", None).unwrap();
        assert_eq!(image.id, id);
        assert!(image.layers[0].blob().media_type.ends_with(media_type));
        assert_eq!(image.diff_ids(), [crate::Digest::of(&tar)]);
        assert_eq!((image.config.cmd.clone(), image.config.env.clone()), (vec!["/bin/sh".into()], vec!["A=b".into()]));
        assert_eq!(store.history(&image).unwrap()[0].comment, "made by hand");
        assert!(store.snapshots.contains(&image.diff_ids()));
        assert_eq!(Image::read(&store.content, &image.target, None).unwrap(), image);
    }
    let store = TestStore::new();
    let nameless = import(&store, &mut &tar[..], &Import::default(), &NoReport).unwrap();
    assert!(store.resolve(nameless.short(), None).is_ok());
    let garbage = import(&store, &mut &b"this is no tar archive"[..], &Import::default(), &NoReport).unwrap_err();
    assert_eq!(garbage.class(), Class::Corrupt);
    let builtin = Import { reference: Some("wharf/hello".parse().unwrap()), ..Import::default() };
    assert_eq!(import(&store, &mut &tar[..], &builtin, &NoReport).unwrap_err().class(), Class::Forbidden);
}
