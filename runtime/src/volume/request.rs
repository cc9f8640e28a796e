//! From what was asked of a container to its final list of mounts, and the volumes made for it.
//!
//! Docker's order: the request's own mounts, then those of `--volumes-from`, then volumes without a name: those of `-v` and
//! the image's `VOLUME`s, each only where nothing stands yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use wharf_images::snapshot::Rootfs;
use wharf_images::{Class, Image};

use super::{ANONYMOUS, Storage, VolumeSpec, Volumes, Work, area};
use crate::config::{ContainerConfig, Mount, MountKind, Origin, VolumeMount, check_tmpfs, clean_path};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::mode::Mode;
use crate::names;

/// The final list of mounts: targets cleaned, every volume named. Makes nothing yet.
///
/// # Errors
/// Docker's words: a target twice, a bind source that is missing, a container that is not there.
pub(crate) fn resolve(engine: &Engine, config: &ContainerConfig, image: &Image) -> Result<Vec<Mount>> {
    let asked = config.mounts.iter().map(checked).collect::<Result<_>>()?;
    let (mut mounts, unnamed) = settled(asked)?;
    let own = mounts.len();
    for from in &config.volumes_from {
        if from.is_empty() {
            return Err(invalid("volumes-from specification cannot be an empty string"));
        }
        let (container, words) = from.split_once(':').unwrap_or((from, ""));
        let mode: Mode = words.parse()?;
        if mode.no_copy || mode.propagation.is_some() {
            return Err(invalid(format!("invalid mode: {words}")));
        }
        for mount in engine.container(container)?.config.mounts {
            if matches!(mount.kind, MountKind::Tmpfs(_)) || mounts[..own].iter().any(|m| m.target == mount.target) {
                continue;
            }
            // Of two containers that both have it, the later one counts.
            mounts.retain(|known| known.target != mount.target);
            let read_only = mount.read_only || mode.read_only;
            let mut mount = Mount { read_only, origin: Origin::Container, ..mount };
            if let MountKind::Volume(volume) = &mut mount.kind {
                volume.no_copy = true;
            }
            mounts.push(mount);
        }
    }
    let of_image = image.config.volumes.iter().filter_map(|target| {
        let target = clean_path(target).filter(|target| target != "/")?;
        let kind = MountKind::Volume(VolumeMount::default());
        Some(Mount { kind, target, read_only: false, origin: Origin::Image })
    });
    for mount in unnamed.into_iter().chain(of_image) {
        if mounts.iter().all(|known| known.target != mount.target) {
            mounts.push(mount);
        }
    }
    for mount in &mut mounts {
        if let MountKind::Volume(volume) = &mut mount.kind {
            name(volume)?;
        }
    }
    Ok(mounts)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Class::InvalidInput, message)
}

/// One that was asked for, which must be possible by itself.
fn checked(mount: &Mount) -> Result<Mount> {
    let mut mount = mount.clone();
    mount.target = clean_path(&mount.target)
        .ok_or_else(|| invalid(format!("invalid mount path: '{}' mount path must be absolute", mount.target)))?;
    match &mount.kind {
        MountKind::Bind(bind) if !bind.create_source && !Path::new(&bind.source).exists() => {
            let why = "invalid mount config for type \"bind\": bind source path does not exist";
            return Err(invalid(format!("{why}: {}", bind.source))
                .with_hint("make it, or use -v, which makes a directory where nothing is"));
        }
        MountKind::Tmpfs(options) => check_tmpfs(options)?,
        MountKind::Bind(_) | MountKind::Volume(_) => {}
    }
    Ok(mount)
}

/// Of what was asked for: what stands, at one place each, and the volumes of `-v` without a name, which docker mounts only
/// where nothing else is.
fn settled(asked: Vec<Mount>) -> Result<(Vec<Mount>, Vec<Mount>)> {
    let (mut mounts, mut unnamed, mut tmpfs): (Vec<Mount>, _, _) = (Vec::new(), Vec::new(), Vec::new());
    for mount in asked {
        match (&mount.origin, mount.volume()) {
            (Origin::Tmpfs, _) => tmpfs.push(mount),
            (Origin::Volume(_), Some(volume)) if volume.name.is_empty() => unnamed.push(mount),
            _ if mounts.iter().any(|known| known.target == mount.target) => return Err(duplicate(&mount)),
            _ => mounts.push(mount),
        }
    }
    for mount in tmpfs {
        match mounts.iter_mut().find(|known| known.target == mount.target) {
            None => mounts.push(mount),
            Some(known) => match (&known.origin, &known.kind) {
                (Origin::Volume(_), _) => return Err(duplicate(&mount)),
                // Docker mounts this one above it.
                (Origin::Mount(_), MountKind::Tmpfs(_)) => {}
                _ => *known = mount,
            },
        }
    }
    Ok((mounts, unnamed))
}

fn duplicate(mount: &Mount) -> Error {
    invalid(format!("Duplicate mount point: {}", mount.target))
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
    // Everybody in one order, so that no two wait for one another.
    let mut wanted: BTreeMap<&str, (&VolumeMount, Vec<&str>)> = BTreeMap::new();
    for (volume, target) in mounts.iter().filter_map(|mount| Some((mount.volume()?, mount.target.as_str()))) {
        let (_, targets) = wanted.entry(&volume.name).or_insert((volume, Vec::new()));
        if !volume.no_copy && volume.subpath.is_none() {
            targets.push(target);
        }
    }
    wanted.into_values().map(|(volume, targets)| hold_one(engine.volumes(), volume, &targets, rootfs)).collect()
}

/// The volume is filled with what is first found at one of `targets`.
fn hold_one(volumes: Volumes<'_>, mount: &VolumeMount, targets: &[&str], rootfs: &Rootfs) -> Result<Held> {
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
    let mut filled = targets.is_empty();
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
        let left = if filled { &[] } else { targets };
        for target in left {
            match volume.storage() {
                Storage::Own => area.fill(rootfs, target)?,
                Storage::Bind(device) if device.is_dir() && area::is_empty(device)? => {
                    // Another disk than ours, perhaps: copied in place.
                    let (path, dir) = ((*target).to_owned(), device.to_owned());
                    Work::Fill { rootfs: rootfs.clone(), path, dir }.carry_out(&mut io::sink())?;
                }
                // What others keep there is theirs to fill.
                Storage::Bind(_) | Storage::Mounted(_) => {}
            }
        }
        filled = true;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(origin: Origin, kind: MountKind) -> Mount {
        Mount { kind, target: "/t".to_owned(), read_only: false, origin }
    }

    fn flag(source: &str) -> Mount {
        mount(Origin::Volume(String::new()), MountKind::volume(source))
    }

    fn long(kind: MountKind) -> Mount {
        mount(Origin::default(), kind)
    }

    fn tmpfs(options: &str) -> Mount {
        mount(Origin::Tmpfs, MountKind::Tmpfs(options.to_owned()))
    }

    #[test]
    fn what_is_asked_for_one_place_is_settled_as_docker_does() {
        let memory = || MountKind::Tmpfs("size=1m".to_owned());
        let outcome = |asked: &[&Mount]| match settled(asked.iter().map(|&mount| mount.clone()).collect()) {
            Ok((mounts, unnamed)) => Ok((mounts, unnamed.len())),
            Err(e) => Err(e.to_string()),
        };
        let one = |mount: &Mount| Ok((vec![mount.clone()], 0));
        // Volumes without a name stand back.
        assert_eq!(outcome(&[&flag(""), &flag("aa")]), Ok((vec![flag("aa")], 1)));
        assert_eq!(outcome(&[&flag(""), &flag("")]), Ok((Vec::new(), 2)));
        assert_eq!(outcome(&[&flag(""), &tmpfs("")]), Ok((vec![tmpfs("")], 1)));
        assert_eq!(outcome(&[&long(MountKind::volume(""))]), one(&long(MountKind::volume(""))));
        // The last `--tmpfs`, which is above all of `--mount` but a tmpfs.
        assert_eq!(outcome(&[&tmpfs("size=1m"), &tmpfs("size=2m")]), one(&tmpfs("size=2m")));
        assert_eq!(outcome(&[&long(memory()), &tmpfs("size=2m")]), one(&long(memory())));
        assert_eq!(outcome(&[&long(MountKind::volume("aa")), &tmpfs("")]), one(&tmpfs("")));
        let twice = Err("Duplicate mount point: /t".to_owned());
        for (a, b) in [
            (flag("aa"), flag("bb")),
            (flag("aa"), tmpfs("")),
            (flag("aa"), long(memory())),
            (long(memory()), long(memory())),
            (long(MountKind::volume("")), long(MountKind::volume(""))),
            (long(MountKind::bind("/x")), flag("aa")),
        ] {
            assert_eq!(outcome(&[&a, &b]), twice, "{a:?} {b:?}");
        }
    }
}
