//! A container's mounts as docker's API describes them: in `HostConfig` as they were asked for (`Binds`, `Mounts`,
//! `Tmpfs`), and as `Mounts` what came of it.

use serde_json::{Map, Value, json};
use wharf_runtime::ContainerConfig;
use wharf_runtime::config::{BindMount, Mount, MountKind, Origin, Propagation, Recursion, VolumeMount};
use wharf_runtime::volume::DRIVER;

/// What was asked for: `HostConfig`'s fields, of which docker leaves out some that are empty.
pub fn asked(config: &ContainerConfig) -> Map<String, Value> {
    let mut fields = Map::new();
    let binds: Vec<&String> = config.volume_flags.iter().filter(|flag| has_source(flag)).collect();
    fields.insert("Binds".to_owned(), json!(Some(binds).filter(|binds| !binds.is_empty())));
    let mounts: Vec<Value> = config.mounts.iter().filter_map(mount).collect();
    if !mounts.is_empty() {
        fields.insert("Mounts".to_owned(), mounts.into());
    }
    let tmpfs: Map<String, Value> = config.mounts.iter().filter_map(tmpfs).collect();
    if !tmpfs.is_empty() {
        fields.insert("Tmpfs".to_owned(), tmpfs.into());
    }
    let drivers = config.mounts.iter().filter(|mount| matches!(mount.origin, Origin::Volume(_)));
    let driver = drivers.filter_map(Mount::volume).map(|volume| volume.driver.as_str()).find(|name| !name.is_empty());
    fields.insert("VolumeDriver".to_owned(), driver.unwrap_or_default().into());
    fields
}

/// The places of the volumes without a name that the container asked for: docker has them in `Config.Volumes`.
pub fn anonymous(config: &ContainerConfig) -> impl Iterator<Item = &String> {
    config.volume_flags.iter().filter(|flag| !has_source(flag))
}

/// Whether this `-v` is `SOURCE:TARGET[:MODE]`.
fn has_source(flag: &str) -> bool {
    flag.contains(':')
}

fn tmpfs(mount: &Mount) -> Option<(String, Value)> {
    match &mount.kind {
        MountKind::Tmpfs(options) if mount.origin == Origin::Tmpfs => {
            Some((mount.target.clone(), options.as_str().into()))
        }
        _ => None,
    }
}

/// What `--mount` said.
fn mount(mount: &Mount) -> Option<Value> {
    let Origin::Mount(written) = &mount.origin else { return None };
    let mut object = Map::new();
    let (kind, source, options) = match &mount.kind {
        MountKind::Bind(bind) => ("bind", bind.source.as_str(), ("BindOptions", bind_options(bind))),
        MountKind::Volume(volume) => {
            let source = if volume.anonymous { "" } else { &volume.name };
            ("volume", source, ("VolumeOptions", volume_options(volume)))
        }
        MountKind::Tmpfs(options) => ("tmpfs", "", ("TmpfsOptions", tmpfs_options(options))),
    };
    object.insert("Type".to_owned(), kind.into());
    let or = |written: &str, is: &str| if written.is_empty() { is.to_owned() } else { written.to_owned() };
    if !source.is_empty() {
        object.insert("Source".to_owned(), or(&written.source, source).into());
    }
    object.insert("Target".to_owned(), or(&written.target, &mount.target).into());
    if mount.read_only {
        object.insert("ReadOnly".to_owned(), true.into());
    }
    if !written.consistency.is_empty() {
        object.insert("Consistency".to_owned(), written.consistency.as_str().into());
    }
    if !options.1.is_empty() {
        object.insert(options.0.to_owned(), options.1.into());
    }
    Some(object.into())
}

fn bind_options(bind: &BindMount) -> Map<String, Value> {
    let mut options = Map::new();
    if bind.propagation != Propagation::default() {
        options.insert("Propagation".to_owned(), bind.propagation.name().into());
    }
    if bind.create_source {
        options.insert("CreateMountpoint".to_owned(), true.into());
    }
    match bind.recursion {
        Recursion::Enabled => {}
        Recursion::Disabled => drop(options.insert("NonRecursive".to_owned(), true.into())),
        Recursion::Writable => drop(options.insert("ReadOnlyNonRecursive".to_owned(), true.into())),
        Recursion::ReadOnly => drop(options.insert("ReadOnlyForceRecursive".to_owned(), true.into())),
    }
    options
}

fn volume_options(volume: &VolumeMount) -> Map<String, Value> {
    let mut options = Map::new();
    if volume.no_copy {
        options.insert("NoCopy".to_owned(), true.into());
    }
    if !volume.labels.is_empty() {
        options.insert("Labels".to_owned(), json!(volume.labels));
    }
    if let Some(subpath) = &volume.subpath {
        options.insert("Subpath".to_owned(), subpath.as_str().into());
    }
    let mut driver = Map::new();
    if !volume.driver.is_empty() {
        driver.insert("Name".to_owned(), volume.driver.as_str().into());
    }
    if !volume.options.is_empty() {
        driver.insert("Options".to_owned(), json!(volume.options));
    }
    if !driver.is_empty() {
        options.insert("DriverConfig".to_owned(), driver.into());
    }
    options
}

/// Of mount(8)'s words, which are what is kept of `tmpfs-size` and `tmpfs-mode`.
fn tmpfs_options(words: &str) -> Map<String, Value> {
    let mut options = Map::new();
    for (name, value) in words.split(',').filter_map(|word| word.split_once('=')) {
        match name {
            "size" => drop(value.parse::<u64>().map(|size| options.insert("SizeBytes".to_owned(), size.into()))),
            "mode" => {
                drop(u32::from_str_radix(value, 8).map(|mode| options.insert("Mode".to_owned(), mode.into())));
            }
            _ => {}
        }
    }
    options
}

/// The mounts that the container has; docker leaves those of `--tmpfs` out.
pub fn points(config: &ContainerConfig, volume_dir: &dyn Fn(&str) -> String) -> Vec<Value> {
    let shown = config.mounts.iter().filter(|mount| mount.origin != Origin::Tmpfs);
    shown.map(|mount| point(mount, volume_dir)).collect()
}

fn point(mount: &Mount, volume_dir: &dyn Fn(&str) -> String) -> Value {
    let named = mount.volume().is_some_and(|volume| !volume.anonymous);
    let mode = match &mount.origin {
        // Docker's word for a volume of which nothing was said.
        Origin::Volume(mode) if mode.is_empty() && named => "z",
        Origin::Volume(mode) => mode,
        Origin::Mount(_) if mount.volume().is_some() => "z",
        Origin::Mount(_) | Origin::Tmpfs | Origin::Image | Origin::Container => "",
    };
    let (kind, source, propagation) = match &mount.kind {
        MountKind::Bind(bind) => ("bind", bind.source.clone(), bind.propagation.name()),
        MountKind::Volume(volume) => ("volume", volume_dir(&volume.name), ""),
        MountKind::Tmpfs(_) => ("tmpfs", String::new(), ""),
    };
    let mut point = json!({
        "Type": kind,
        "Source": source,
        "Destination": mount.target,
        "Mode": mode,
        "RW": !mount.read_only,
        "Propagation": propagation,
    });
    if let MountKind::Volume(volume) = &mount.kind {
        point["Name"] = volume.name.as_str().into();
        point["Driver"] = DRIVER.into();
    }
    point
}
