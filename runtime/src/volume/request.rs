//! From what was asked of a container to its final list of mounts, and the volumes made for it.
//!
//! Docker's order: the request's own mounts, then those of `--volumes-from`, then the image's `VOLUME`s, each only where
//! nothing stands yet.

use std::fs::File;
use std::path::Path;

use wharf_images::snapshot::Rootfs;
use wharf_images::{Class, Image};

use super::{ANONYMOUS, Storage, VolumeSpec, Volumes, area};
use crate::config::{ContainerConfig, Mount, MountKind, Origin, VolumeMount, check_tmpfs, clean_path};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names;

/// The final list of mounts: targets cleaned, every volume named. Makes nothing yet.
///
/// # Errors
/// Docker's words: a target twice, a bind source that is missing, a container that is not there.
pub(crate) fn resolve(engine: &Engine, config: &ContainerConfig, image: &Image) -> Result<Vec<Mount>> {
    let mut mounts: Vec<Mount> = Vec::with_capacity(config.mounts.len());
    let invalid = |message: String| Error::new(Class::InvalidInput, message);
    for mount in &config.mounts {
        let mut mount = mount.clone();
        mount.target = clean_path(&mount.target)
            .ok_or_else(|| invalid(format!("invalid mount path: '{}' mount path must be absolute", mount.target)))?;
        if mounts.iter().any(|known| known.target == mount.target) {
            return Err(invalid(format!("Duplicate mount point: {}", mount.target)));
        }
        if let MountKind::Bind(bind) = &mount.kind
            && !bind.create_source
            && !Path::new(&bind.source).exists()
        {
            let source = &bind.source;
            let why = "invalid mount config for type \"bind\": bind source path does not exist";
            return Err(invalid(format!("{why}: {source}"))
                .with_hint("make it, or use -v, which makes a directory where nothing is"));
        }
        match &mut mount.kind {
            MountKind::Volume(volume) => name(volume)?,
            MountKind::Tmpfs(options) => check_tmpfs(options)?,
            MountKind::Bind(_) => {}
        }
        mounts.push(mount);
    }
    let own = mounts.len();
    for from in &config.volumes_from {
        if from.is_empty() {
            return Err(invalid("volumes-from specification cannot be an empty string".to_owned()));
        }
        let (container, mode) = from.split_once(':').unwrap_or((from, "rw"));
        if !matches!(mode, "ro" | "rw" | "z" | "Z") {
            return Err(invalid(format!("invalid mode: {mode}")));
        }
        for mount in engine.container(container)?.config.mounts {
            if matches!(mount.kind, MountKind::Tmpfs(_)) || mounts[..own].iter().any(|m| m.target == mount.target) {
                continue;
            }
            // Of two containers that both have it, the later one counts.
            mounts.retain(|known| known.target != mount.target);
            let read_only = mount.read_only || mode == "ro";
            let mut mount = Mount { read_only, origin: Origin::Container, ..mount };
            if let MountKind::Volume(volume) = &mut mount.kind {
                volume.no_copy = true;
            }
            mounts.push(mount);
        }
    }
    for target in &image.config.volumes {
        let Some(target) = clean_path(target).filter(|target| target != "/") else { continue };
        if mounts.iter().all(|known| known.target != target) {
            let mut volume = VolumeMount::default();
            name(&mut volume)?;
            mounts.push(Mount { kind: MountKind::Volume(volume), target, read_only: false, origin: Origin::Image });
        }
    }
    Ok(mounts)
}

fn name(volume: &mut VolumeMount) -> Result<()> {
    if volume.name.is_empty() {
        volume.name = names::new_id()?;
        volume.anonymous = true;
    }
    Ok(())
}

/// A volume that nobody can remove while this is held: until a record refers to it.
#[derive(Debug)]
pub(crate) struct Held(#[allow(dead_code, reason = "held for its lock")] File);

/// Makes the volumes among `mounts` that are not there, fills the empty ones from the image (unless told not to), and
/// holds them all.
///
/// # Errors
/// As [`Volumes::create`]; the disk's.
pub(crate) fn hold(engine: &Engine, mounts: &[Mount], rootfs: &Rootfs) -> Result<Vec<Held>> {
    let mut wanted: Vec<(&VolumeMount, &str)> =
        mounts.iter().filter_map(|mount| Some((mount.volume()?, mount.target.as_str()))).collect();
    // Everybody in one order, so that no two wait for one another.
    wanted.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    wanted.dedup_by(|b, a| a.0.name == b.0.name);
    wanted.into_iter().map(|(volume, target)| hold_one(engine.volumes(), volume, target, rootfs)).collect()
}

fn hold_one(volumes: Volumes<'_>, mount: &VolumeMount, target: &str, rootfs: &Rootfs) -> Result<Held> {
    let mut spec = VolumeSpec {
        name: mount.name.clone(),
        driver: mount.driver.clone(),
        options: mount.options.clone(),
        labels: mount.labels.clone(),
    };
    if mount.anonymous {
        spec.labels.insert(ANONYMOUS.to_owned(), String::new());
    }
    super::check(&spec)?;
    let area = volumes.area(&spec.name);
    let mut filled = mount.no_copy || mount.subpath.is_some();
    loop {
        {
            let shared = area.share()?;
            let known = volumes.engine.containers()?.volume(&spec.name)?;
            let own = known.as_ref().is_none_or(|volume| matches!(volume.storage(), Storage::Own));
            let empty = !own || area.is_half_full() || area::is_empty(&area.data())?;
            if known.is_some() && (filled || !empty) {
                return Ok(Held(shared));
            }
        }
        let _exclusive = area.make()?;
        let volume = volumes.record(&spec)?;
        if !filled {
            match volume.storage() {
                Storage::Own => area.fill(rootfs, target)?,
                Storage::Bind(device) if device.is_dir() && area::is_empty(device)? => {
                    // Another disk than ours, perhaps: copied in place.
                    wharf_images::snapshot::extract(rootfs, target, device)?;
                }
                // What others keep there is theirs to fill.
                Storage::Bind(_) | Storage::Mounted(_) => {}
            }
            filled = true;
        }
    }
}

impl Volumes<'_> {
    /// Removes the volumes that were made for a container alone, when its record is gone. One that another container has
    /// taken over by `--volumes-from` stays.
    ///
    /// # Errors
    /// The database's and the disk's.
    pub(crate) fn remove_anonymous(self, mounts: &[Mount]) -> Result<()> {
        for volume in mounts.iter().filter_map(Mount::volume).filter(|volume| volume.anonymous) {
            match self.remove(&volume.name, true) {
                Err(e) if e.class() != Class::Conflict => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}
