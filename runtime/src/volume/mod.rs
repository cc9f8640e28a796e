//! Volumes: directories with a name, which outlive the containers that use them.
//!
//! A volume is a record (`store/volumes.rs`) and a directory ([`area`]). A container's request for volumes becomes its
//! final list of mounts in [`request`], when the container is made; [`transfer`] carries a volume's content in and out as
//! a tar archive. Words, options and behaviour are those of docker's `local` driver
//! (<https://docs.docker.com/reference/cli/docker/volume/create/#driver-specific-options>).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use wharf_images::Class;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::store::volumes::VolumeUser;
use crate::{linux, names};

mod area;
mod request;
mod transfer;
mod work;

pub(crate) use request::{Held, hold, resolve};
pub(crate) use work::{Done, Work};

use area::Area;

/// The label that docker puts on a volume whose name was made up.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The one driver there is.
pub const DRIVER: &str = "local";

/// A volume's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// [`DRIVER`].
    pub driver: String,
    /// The driver's options: `type`, `o` and `device`, as for mount(8).
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
}

/// A request for a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its name; made up when empty.
    pub name: String,
    /// The driver. Empty: [`DRIVER`].
    pub driver: String,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Where a volume's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSource {
    /// The directory, on the host.
    pub path: PathBuf,
    /// The volume's own options forbid writing.
    pub read_only: bool,
}

impl Volume {
    /// True when its name was made up.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }

    fn option(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    /// The words of the option `o`.
    fn mount_options(&self) -> impl Iterator<Item = &str> {
        self.option("o").split(',').map(str::trim).filter(|word| !word.is_empty())
    }

    /// What its content is kept in.
    fn storage(&self) -> Storage<'_> {
        let device = self.option("device");
        if device.is_empty() {
            return Storage::Own;
        }
        let bind = matches!(self.option("type"), "none" | "bind" | "")
            && self.mount_options().any(|word| matches!(word, "bind" | "rbind"));
        if bind { Storage::Bind(Path::new(device)) } else { Storage::Mounted(device) }
    }
}

/// What a volume's content is kept in.
enum Storage<'a> {
    /// A directory of ours.
    Own,
    /// A directory of the host's: nothing needs to be mounted for it.
    Bind(&'a Path),
    /// A file system that must be mounted.
    Mounted(&'a str),
}

/// The volumes of an instance.
#[derive(Debug, Clone, Copy)]
pub struct Volumes<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Its volumes.
    pub fn volumes(&self) -> Volumes<'_> {
        Volumes { engine: self }
    }
}

impl<'a> Volumes<'a> {
    fn area(self, name: &str) -> Area {
        Area::new(&self.engine.paths().volumes(), name)
    }

    /// Makes a volume. If there is one of this name, that one is given back as it is.
    ///
    /// # Errors
    /// `InvalidInput` for a name or an option that cannot be; `NotFound` for a driver that is not there; the disk's.
    pub fn create(self, spec: &VolumeSpec) -> Result<Volume> {
        let anonymous = spec.name.is_empty();
        let mut spec = spec.clone();
        if anonymous {
            spec.name = names::new_id()?;
            spec.labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        check(&spec)?;
        let area = self.area(&spec.name);
        let _lock = area.make()?;
        self.record(&spec)
    }

    /// Writes the record of a volume whose bytes are made and held.
    fn record(self, spec: &VolumeSpec) -> Result<Volume> {
        let store = self.engine.containers()?;
        if let Some(there) = store.volume(&spec.name)? {
            return Ok(there);
        }
        let volume = Volume {
            name: spec.name.clone(),
            driver: DRIVER.to_owned(),
            options: spec.options.clone(),
            labels: spec.labels.clone(),
            created: Timestamp::now(),
        };
        store.insert_volume(&volume)?;
        Ok(volume)
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(self, name: &str) -> Result<Volume> {
        self.engine
            .containers()?
            .volume(name)?
            .ok_or_else(|| Error::new(Class::NotFound, format!("get {name}: no such volume")))
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// The database's.
    pub fn list(self) -> Result<Vec<Volume>> {
        self.engine.containers()?.volumes()
    }

    /// The containers that refer to each volume that is referred to.
    ///
    /// # Errors
    /// The database's.
    pub fn users(self) -> Result<BTreeMap<String, Vec<VolumeUser>>> {
        self.engine.containers()?.volume_users()
    }

    /// Where docker says a volume is: what is there is only told by [`Volumes::open`].
    pub fn mountpoint(self, name: &str) -> PathBuf {
        self.area(name).data()
    }

    /// Bytes that the volume's own directory takes.
    ///
    /// # Errors
    /// The disk's.
    pub fn size(self, name: &str) -> Result<u64> {
        match (Work::Size { dir: self.mountpoint(name) }).carry_out(&mut io::sink()) {
            Ok(Done::Bytes(bytes)) => Ok(bytes),
            Ok(Done::All | Done::Nothing) => Err(Error::new(Class::Internal, "a volume's bytes were not counted")),
            // Somebody has taken it away.
            Err(e) if e.class() == Class::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Removes a volume and its content. With `force`, one that is not there is no error.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when a container refers to it.
    pub fn remove(self, name: &str, force: bool) -> Result<()> {
        let store = self.engine.containers()?;
        match store.volume(name)? {
            None if force => return Ok(()),
            None => return Err(Error::new(Class::NotFound, format!("get {name}: no such volume"))),
            Some(_) => {}
        }
        let area = self.area(name);
        // Whoever fills it, or makes a container that will refer to it, is waited for.
        let lock = area.make()?;
        let removed = store.remove_volume(name);
        if removed.as_ref().is_err_and(|e| e.class() != Class::NotFound) {
            return removed;
        }
        // Also when another was faster: the lock has then made the directory anew.
        linux::volume::unmount(&area.data())?;
        area.remove(lock)?;
        if force { Ok(()) } else { removed }
    }

    /// Where the volume's content is. What has to be mounted for it is mounted.
    ///
    /// # Errors
    /// `NotFound`; docker's words when it cannot be mounted.
    pub fn open(self, name: &str) -> Result<VolumeSource> {
        let volume = self.get(name)?;
        let area = self.area(name);
        let read_only = volume.mount_options().any(|word| word == "ro");
        let failed = |why: String| {
            let data = area.data();
            let message = format!("error while mounting volume '{}': {why}", data.display());
            Error::new(Class::InvalidInput, message)
        };
        let path = match volume.storage() {
            Storage::Own => area.data(),
            Storage::Bind(device) if device.is_dir() => device.to_owned(),
            Storage::Bind(device) => {
                let why = if device.exists() { "not a directory" } else { "no such file or directory" };
                let place = format!("{}:{}", device.display(), area.data().display());
                let why = format!("failed to mount local volume: mount {place}, flags: 0x1000: {why}");
                return Err(failed(why).with_hint("make the directory, or make the volume anew with another device"));
            }
            Storage::Mounted(device) => {
                let _lock = area.lock_mount()?;
                let options: Vec<_> = volume.mount_options().collect();
                linux::volume::mount(device, &area.data(), volume.option("type"), &options).map_err(|e| {
                    let mounted = failed(e.to_string());
                    match e.hint() {
                        Some(hint) => mounted.with_hint(hint),
                        None => mounted,
                    }
                })?;
                area.data()
            }
        };
        if !path.is_dir() {
            return Err(failed(format!("{} is missing", path.display())));
        }
        Ok(VolumeSource { path, read_only })
    }

    /// Unmounts what was mounted for these volumes and no running container uses any more.
    ///
    /// # Errors
    /// The database's, the kernel's.
    pub(crate) fn release<'n>(self, names: impl Iterator<Item = &'n str>, but: &str) -> Result<()> {
        for name in names {
            let store = self.engine.containers()?;
            let Some(volume) = store.volume(name)? else { continue };
            if !matches!(volume.storage(), Storage::Mounted(_)) {
                continue;
            }
            let area = self.area(name);
            let _lock = area.lock_mount()?;
            let mut busy = false;
            for user in store.users_of_volume(name)?.iter().filter(|user| user.id != but) {
                busy |= store.get(&user.id)?.is_some_and(|container| container.state.state.is_live());
            }
            // Who holds it will be its next user.
            if !busy && area.try_lock()?.is_some() {
                linux::volume::unmount(&area.data())?;
            }
        }
        Ok(())
    }

    /// Directories that no record knows: what a crash at the wrong moment leaves.
    ///
    /// # Errors
    /// The disk's and the database's.
    pub fn strays(self) -> Result<Vec<String>> {
        let mut strays = self.unrecorded()?;
        strays.retain(|name| !self.is_precious(name));
        Ok(strays)
    }

    /// Volumes with a name and content, and without a record: the database was lost, or put back from an older copy. Nobody
    /// sweeps them. Who creates a volume of that name has it again.
    ///
    /// # Errors
    /// The disk's and the database's.
    pub fn orphans(self) -> Result<Vec<String>> {
        let mut orphans = self.unrecorded()?;
        orphans.retain(|name| self.is_precious(name));
        Ok(orphans)
    }

    fn unrecorded(self) -> Result<Vec<String>> {
        let mut unrecorded = Vec::new();
        for name in area::names(&self.engine.paths().volumes())? {
            let known = !area::was_removed(&name) && self.engine.containers()?.volume(&name)?.is_some();
            if !known && self.area(&name).is_idle()? {
                unrecorded.push(name);
            }
        }
        Ok(unrecorded)
    }

    fn is_precious(self, name: &str) -> bool {
        !area::was_removed(name) && !names::is_id(name) && self.area(name).holds_something()
    }

    /// Removes what [`Volumes::strays`] finds. Returns how many there were.
    ///
    /// # Errors
    /// As [`Volumes::strays`]; one that cannot be removed does not keep the others.
    pub fn sweep(self) -> Result<usize> {
        let (mut swept, mut failed) = (0, Ok(()));
        for name in self.strays()? {
            match self.sweep_one(&name) {
                Ok(gone) => swept += usize::from(gone),
                Err(e) => failed = failed.and(Err(e)),
            }
        }
        failed.map(|()| swept)
    }

    fn sweep_one(self, name: &str) -> Result<bool> {
        let area = self.area(name);
        if area::was_removed(name) {
            return area.discard().map(|()| true);
        }
        let Some(lock) = area.try_lock()? else { return Ok(false) };
        // Between the look and the lock it may have been recorded, and filled.
        if self.engine.containers()?.volume(name)?.is_some() || self.is_precious(name) {
            return Ok(false);
        }
        linux::volume::unmount(&area.data())?;
        area.remove(lock).map(|()| true)
    }

    /// The volumes whose own directory somebody else has taken away.
    ///
    /// # Errors
    /// The disk's and the database's.
    pub fn lost(self) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        for volume in self.list()? {
            // One that was being removed when it was listed is no longer there.
            if self.area(&volume.name).is_lost()? && self.engine.containers()?.volume(&volume.name)?.is_some() {
                lost.push(volume.name);
            }
        }
        Ok(lost)
    }

    /// Makes the directories that [`Volumes::lost`] finds anew: the containers that refer to them can be started again, and
    /// what the record says of them is kept. Returns how many there were.
    ///
    /// # Errors
    /// As [`Volumes::lost`].
    pub fn restore(self) -> Result<usize> {
        let lost = self.lost()?;
        for name in &lost {
            let area = self.area(name);
            let lock = area.make()?;
            // Between the look and the lock it may have been removed.
            if self.engine.containers()?.volume(name)?.is_none() {
                area.remove(lock)?;
            }
        }
        Ok(lost.len())
    }
}

/// A subpath of a volume has a link in it that leads elsewhere.
pub(crate) fn leads_out(subpath: &str) -> Error {
    Error::new(Class::Forbidden, format!("subpath {subpath} leads out of the volume"))
}

/// The volume whose content is `source` has no such subpath.
pub(crate) fn no_such_subpath(source: &Path, subpath: &str) -> Error {
    let path = source.join(subpath);
    let message = format!("cannot access path {}: no such file or directory", path.display());
    Error::new(Class::InvalidInput, message).with_hint("a subpath must be in the volume before it is mounted")
}

/// No volume is called so.
pub(crate) fn no_such(name: &str) -> Error {
    Error::new(Class::NotFound, format!("get {name}: no such volume"))
}

/// Looks whether a volume can be made as asked.
fn check(spec: &VolumeSpec) -> Result<()> {
    let name = &spec.name;
    let invalid = |why: String| Error::new(Class::InvalidInput, format!("create {name}: {why}"));
    if !matches!(spec.driver.as_str(), "" | DRIVER) {
        let driver = &spec.driver;
        let message = format!("create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found");
        return Err(Error::new(Class::NotFound, message).with_hint("the one driver here is local"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if !name.chars().all(plain) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        let why = format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
             If you intended to pass a host directory, use absolute path"
        );
        return Err(invalid(why));
    }
    if name.len() < 2 {
        return Err(invalid(
            "volume name is too short, names should be at least two alphanumeric characters".to_owned(),
        ));
    }
    if name.len() > 255 {
        return Err(invalid("volume name is too long, names are file names of at most 255 characters".to_owned()));
    }
    for (option, value) in &spec.options {
        match option.as_str() {
            "type" | "o" | "device" => {}
            "size" if value.is_empty() => {}
            "size" => return Err(invalid("quota size requested but no quota support".to_owned())),
            _ => return Err(invalid(format!("invalid option: {option:?}"))),
        }
    }
    let needs = ["type", "o", "device"].into_iter().any(|option| spec.options.contains_key(option));
    match ["device", "type"].into_iter().find(|option| !spec.options.contains_key(*option)) {
        Some(missing) if needs => Err(invalid(format!("missing required option: {missing:?}"))),
        _ => Ok(()),
    }
}
