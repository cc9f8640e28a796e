use serde_json::{Value, json};

use super::document::media_type;
use super::testing::{COMPONENT, MODULE, gzip, image_config, linux_image, manifest, put, tar_of};
use super::*;
use crate::content::ContentStore;

fn store() -> (tempfile::TempDir, ContentStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path()).unwrap();
    (dir, store)
}

/// An image with an image config, one tar layer, and these annotations.
fn with_rootfs(content: &ContentStore, os: &str, arch: &str, entrypoint: &[&str], annotations: Value) -> Digest {
    let tar = tar_of(&[("app.wasm", MODULE)]);
    let config = image_config(os, arch, json!({"Entrypoint": entrypoint, "Cmd": null}), &[&tar]);
    let config = put(content, media_type::DOCKER_CONFIG, config.to_string().as_bytes());
    let layer = put(content, "application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip(&tar));
    manifest(content, config, vec![layer], annotations)
}

/// An image of one blob layer.
fn artifact(content: &ContentStore, config_type: &str, config: &Value, layer_type: &str, wasm: &[u8]) -> Digest {
    let config = put(content, config_type, config.to_string().as_bytes());
    let layer = put(content, layer_type, wasm);
    manifest(content, config, vec![layer], json!({}))
}

#[test]
fn every_style_is_recognised() {
    let (_dir, content) = store();
    let c = &content;
    let oci = media_type::OCI_CONFIG;
    let module_layer = "application/vnd.module.wasm.content.layer.v1+wasm";
    let content_layer = "application/vnd.wasm.content.layer.v1+wasm";
    let runwasi_layer = "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm";
    let spin_config = "application/vnd.fermyon.spin.application.v1+config";
    let p1 = json!({"os": "wasip1", "architecture": "wasm", "layerDigests": [Digest::of(MODULE)]});
    let p2 = json!({"os": "wasip2", "architecture": "wasm", "layerDigests": [Digest::of(COMPONENT)]});
    let runwasi = json!({"os": "wasip1", "architecture": "wasm", "config": {"Entrypoint": ["app.wasm#greet"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(MODULE)]}});
    let spin = {
        let config = put(c, oci, br#"{"os":"Wasip1","architecture":"wasm"}"#);
        let layers = vec![put(c, spin_config, b"{}"), put(c, content_layer, COMPONENT)];
        manifest(c, config, layers, json!({}))
    };
    let spin_of_two = {
        let config = put(c, oci, br#"{"os":"Wasip1","architecture":"wasm"}"#);
        let layers = vec![put(c, spin_config, b"{}"), put(c, content_layer, COMPONENT), put(c, content_layer, MODULE)];
        manifest(c, config, layers, json!({}))
    };
    let module = Some(WasmEntry::Blob(Digest::of(MODULE)));
    let component = Some(WasmEntry::Blob(Digest::of(COMPONENT)));
    let file = Some(WasmEntry::File { path: "/app.wasm".into(), function: None });
    let plain = linux_image(c, json!({"Cmd": ["/bin/sh"]}), &[&[("bin/sh", b"\x7fELF")]]);
    let compat = |a: Value| with_rootfs(c, "linux", "amd64", &["/app.wasm"], a);
    for (target, style, platform, reason, wasm) in [
        (
            artifact(c, WASM_CONFIG, &p1, WASM_LAYER, MODULE),
            Style::WasmArtifact,
            "wasip1/wasm",
            "layer media type application/wasm",
            &module,
        ),
        (
            artifact(c, WASM_CONFIG, &p2, WASM_LAYER, COMPONENT),
            Style::WasmArtifact,
            "wasip2/wasm",
            "layer media type application/wasm",
            &component,
        ),
        (
            artifact(c, oci, &runwasi, runwasi_layer, COMPONENT),
            Style::Runwasi,
            "wasip1/wasm",
            "layer media type application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
            &component,
        ),
        (
            artifact(c, oci, &runwasi, WASM_LAYER, MODULE),
            Style::Runwasi,
            "wasip1/wasm",
            "layer media type application/wasm with an image config",
            &module,
        ),
        (
            with_rootfs(c, "wasi", "wasm", &["/app.wasm"], json!({})),
            Style::DockerScratch,
            "wasi/wasm",
            "architecture wasm",
            &file,
        ),
        (
            with_rootfs(c, "wasi", "wasm32", &["/app.wasm"], json!(null)),
            Style::DockerScratch,
            "wasi/wasm",
            "architecture wasm32",
            &file,
        ),
        (
            compat(json!({"module.wasm.image/variant": "compat"})),
            Style::Compat,
            "linux/amd64",
            "annotation module.wasm.image/variant=compat",
            &file,
        ),
        (
            compat(json!({"module.wasm.image/variant": "compat-smart"})),
            Style::Compat,
            "linux/amd64",
            "annotation module.wasm.image/variant=compat-smart",
            &file,
        ),
        (
            compat(json!({"run.oci.handler": "wasm"})),
            Style::Compat,
            "linux/amd64",
            "annotation run.oci.handler=wasm",
            &file,
        ),
        (
            with_rootfs(c, "linux", "amd64", &["/bin/sh"], json!({"run.oci.handler": "wasm-smart"})),
            Style::Linux,
            "linux/amd64",
            "no sign of WebAssembly; platform linux/amd64",
            &None,
        ),
        (spin, Style::Spin, "wasip1/wasm", &format!("layer media type {spin_config}"), &component),
        (
            spin_of_two,
            Style::Spin,
            "wasip1/wasm",
            &format!("layer media type {spin_config}; it has several components"),
            &None,
        ),
        (
            artifact(c, "application/vnd.module.wasm.config.v1+json", &json!({}), module_layer, MODULE),
            Style::ModuleLayer,
            "wasi/wasm",
            &format!("layer media type {module_layer}"),
            &module,
        ),
        (
            artifact(c, "application/vnd.wasm.config.v1+json", &json!({}), content_layer, MODULE),
            Style::WasmToOci,
            "wasi/wasm",
            &format!("layer media type {content_layer}"),
            &module,
        ),
        (
            plain,
            Style::Linux,
            &Platform::new("linux", std::env::consts::ARCH).to_string(),
            &format!("no sign of WebAssembly; platform {}", Platform::new("linux", std::env::consts::ARCH)),
            &None,
        ),
    ] {
        let image = Image::read(c, &target, None).unwrap_or_else(|e| panic!("{style:?}: {e}"));
        assert_eq!(image.style, style);
        assert_eq!(image.style_reason, reason);
        assert_eq!(image.platform.to_string(), platform, "{style:?}");
        assert_eq!(&image.wasm, wasm, "{style:?}");
        assert_eq!(image.is_wasm(), style != Style::Linux);
        assert_eq!(image.wasm_entry().is_ok(), wasm.is_some());
        let again: Image = serde_json::from_str(&serde_json::to_string(&image).unwrap()).unwrap();
        assert_eq!(again, image);
    }
}

#[test]
fn runwasi_names_a_function_in_its_entrypoint() {
    let (_dir, content) = store();
    let config = json!({"os": "wasip1", "architecture": "wasm", "config": {"Entrypoint": ["app.wasm#greet"]}});
    let target = artifact(&content, media_type::OCI_CONFIG, &config, WASM_LAYER, MODULE);
    assert_eq!(Image::read(&content, &target, None).unwrap().wasm_function(), Some("greet"));
}

#[test]
fn magic_bytes_decide_what_nothing_else_told() {
    let (_dir, content) = store();
    let target = linux_image(&content, json!({"Entrypoint": ["/app"], "Cmd": ["-x"]}), &[&[("app", MODULE)]]);
    let mut image = Image::read(&content, &target, None).unwrap();
    assert_eq!(image.undecided_program(), Some("/app"));
    for other in [&b"\x7fELF\x02\x01\x01\0"[..], b"#!/bin/sh", b"\0as", b""] {
        assert!(!image.decide_by_magic(other));
    }
    assert!(image.decide_by_magic(COMPONENT));
    assert_eq!(image.style, Style::Compat);
    assert_eq!(image.style_reason, "magic bytes of /app");
    assert_eq!(image.wasm, Some(WasmEntry::File { path: "/app".into(), function: None }));
    assert_eq!(image.undecided_program(), None);
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let (_dir, content) = store();
    let chart = artifact(&content, "application/vnd.cncf.helm.config.v1+json", &json!({}), "application/x", b"x");
    let error = Image::read(&content, &chart, None).unwrap_err();
    assert_eq!(error.class(), Class::Unsupported);
    assert!(error.to_string().contains("helm"), "{error}");

    let no_layer = {
        let config = put(&content, WASM_CONFIG, b"{}");
        manifest(&content, config, vec![], json!({}))
    };
    assert_eq!(Image::read(&content, &no_layer, None).unwrap_err().class(), Class::Unsupported);

    let two = {
        let config = put(&content, WASM_CONFIG, b"{}");
        manifest(
            &content,
            config,
            vec![put(&content, WASM_LAYER, MODULE), put(&content, WASM_LAYER, COMPONENT)],
            json!({}),
        )
    };
    assert!(Image::read(&content, &two, None).unwrap_err().to_string().contains("2 wasm layers"));

    let encrypted = {
        let config = image_config("linux", "amd64", json!({}), &[b"x"]);
        let config = put(&content, media_type::OCI_CONFIG, config.to_string().as_bytes());
        let layer = put(&content, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", b"x");
        manifest(&content, config, vec![layer], json!({}))
    };
    assert_eq!(Image::read(&content, &encrypted, None).unwrap_err().class(), Class::Unsupported);
}

#[test]
fn documents_that_contradict_each_other_are_corrupt() {
    let (_dir, content) = store();
    let tar = tar_of(&[("a", b"a")]);
    let layer = put(&content, media_type::OCI_LAYER, &tar);

    // Fewer diff_ids than layers.
    let config = image_config("linux", "amd64", json!({}), &[&tar]);
    let config = put(&content, media_type::OCI_CONFIG, config.to_string().as_bytes());
    let short = manifest(&content, config.clone(), vec![layer.clone(), layer.clone()], json!({}));
    assert_eq!(Image::read(&content, &short, None).unwrap_err().class(), Class::Corrupt);

    // A config that is no JSON.
    let bad = put(&content, media_type::OCI_CONFIG, b"[]x");
    let bad = manifest(&content, bad, vec![layer.clone()], json!({}));
    assert_eq!(Image::read(&content, &bad, None).unwrap_err().class(), Class::Corrupt);

    // A config whose bytes on disk are not those of its digest.
    let good = manifest(&content, config.clone(), vec![layer], json!({}));
    assert!(Image::read(&content, &good, None).is_ok());
    let digest: Digest = config["digest"].as_str().unwrap().parse().unwrap();
    std::fs::write(content.path(&digest), b"{}").unwrap();
    assert_eq!(Image::read(&content, &good, None).unwrap_err().class(), Class::Corrupt);

    // An index that calls a manifest an index.
    let entry = json!({"mediaType": media_type::OCI_INDEX, "digest": short, "size": 1});
    let index = content.put(json!({"manifests": [entry]}).to_string().as_bytes()).unwrap();
    assert_eq!(Image::read(&content, &index, None).unwrap_err().class(), Class::Corrupt);

    // Indexes all the way down.
    let mut inner = short;
    for _ in 0..6 {
        let entry = json!({"mediaType": media_type::OCI_INDEX, "digest": inner, "size": 1});
        inner = content.put(json!({"manifests": [entry]}).to_string().as_bytes()).unwrap();
    }
    assert_eq!(Image::read(&content, &inner, None).unwrap_err().class(), Class::Corrupt);
}

#[test]
fn an_index_is_read_for_the_platform_asked_for() {
    let (_dir, content) = store();
    let linux = linux_image(&content, json!({"Cmd": ["/bin/sh"]}), &[&[("bin/sh", b"x")]]);
    let wasm = with_rootfs(&content, "wasi", "wasm", &["/app.wasm"], json!({}));
    let host = Platform::new("linux", std::env::consts::ARCH);
    let entry = |digest: &Digest, platform: &Platform| json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 1, "platform": platform});
    let wasi = Platform::new("wasi", "wasm");
    let index = json!({"mediaType": media_type::OCI_INDEX, "manifests": [entry(&wasm, &wasi), entry(&linux, &host)]});
    let index = content.put(index.to_string().as_bytes()).unwrap();

    let read = |platform: Option<&Platform>| Image::read(&content, &index, platform);
    assert_eq!(read(None).unwrap().manifest, linux);
    assert_eq!(read(Some(&host)).unwrap().manifest, linux);
    let image = read(Some(&wasi)).unwrap();
    assert_eq!((image.manifest, image.target, image.style), (wasm, index.clone(), Style::DockerScratch));
    assert_eq!(read(Some(&Platform::new("linux", "s390x"))).unwrap_err().class(), Class::NotFound);

    // A single manifest must match too.
    let error = Image::read(&content, &linux, Some(&Platform::new("linux", "s390x"))).unwrap_err();
    assert_eq!(error.class(), Class::NotFound);
    assert!(error.to_string().contains("wanted linux/s390x"), "{error}");
}
