//! What [`crate::linux`] offers, for systems that have no Linux: the same names. WebAssembly containers run here, by
//! what every system's standard library has; what is left of a name that means something to Linux only says so.
//!
//! The feature `portable` puts it in the place of `linux` on Linux too, so that it can be tested there.

pub(crate) mod archives;
#[cfg(feature = "wasm")]
pub(crate) mod files;
mod hosted;
mod hub;
pub(crate) mod journal;
mod link;
pub mod monitor;
mod registry;
pub mod session;
#[cfg(feature = "wasm")]
mod sockets;
mod supervisor;
#[cfg_attr(unix, path = "system_unix.rs")]
#[cfg_attr(not(unix), path = "system_windows.rs")]
mod system;
#[cfg(feature = "wasm")]
mod task;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use cap_fs_ext::MetadataExt;
use cap_std::fs::Metadata;

pub use self::system::{NATIVE_UNWIND_INFO, create_open_dir, create_private_dir};
use crate::config::ContainerConfig;
use crate::error::{Class, Error, Result};
use crate::task::Limits;

/// What one of our helpers does, if this program was executed for that. Gives the exit code.
pub(crate) fn helper_main(args: &[OsString]) -> Option<i32> {
    match args {
        [_, word, rest @ ..] if word == monitor::REEXEC => Some(monitor::main(rest)),
        #[cfg(feature = "wasm")]
        [_, word] if word == hosted::REEXEC => Some(task::main()),
        _ => None,
    }
}

/// There are no Linux containers here from which paths could be hidden.
pub fn hidden_paths(_: &ContainerConfig) -> (Vec<String>, Vec<String>) {
    (Vec::new(), Vec::new())
}

/// Nobody is root here.
pub fn is_root() -> bool {
    false
}

/// Opens what the lock of a directory is taken on: a file in it, for not every system locks directories. Who only looks
/// makes none: the directory may be about to be removed.
///
/// # Errors
/// `NotFound` without the directory, or to a look without the file; the disk's.
pub fn open_lock(dir: &Path, make: bool) -> io::Result<File> {
    File::options().create(make).truncate(false).write(true).open(dir.join("lock"))
}

/// Returns after so long at the latest.
pub fn wait_for_change(_: &Path, longest: Duration) {
    std::thread::sleep(longest.min(Duration::from_millis(50)));
}

/// Would watch a file for changes.
#[derive(Debug)]
pub struct Watch(());

impl Watch {
    /// Watches nothing: changes are looked for often.
    pub fn new(_: &Path) -> Self {
        Watch(())
    }

    /// Returns after so long at the latest.
    pub fn wait(&self, longest: Duration) {
        std::thread::sleep(longest.min(Duration::from_millis(50)));
    }
}

/// Refuses what no container of this system can have.
///
/// # Errors
/// `Unsupported`, naming the flag.
pub(crate) fn check(config: &ContainerConfig) -> Result<Vec<String>> {
    let checked = config.health.as_ref().is_some_and(|health| health.question().is_some());
    let flags = [("--tty", config.tty), ("--dns", !config.dns.is_empty()), ("--health-http and --health-tcp", checked)];
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Error::new(Class::Unsupported, format!("{flag}: not supported on this system yet"))),
        None => check_limits(&config.limits),
    }
}

/// Refuses the limits that nobody here would enforce. The guest's memory is counted by its host.
///
/// # Errors
/// `Unsupported`, naming the flag.
pub(crate) fn check_limits(limits: &Limits) -> Result<Vec<String>> {
    let flags = [
        ("--memory-swap", limits.memory_swap.is_some()),
        ("--memory-reservation", limits.memory_reservation.is_some()),
        ("--cpus", limits.nano_cpus.is_some()),
        ("--cpu-period", limits.cpu_period.is_some()),
        ("--cpu-quota", limits.cpu_quota.is_some()),
        ("--cpu-shares", limits.cpu_shares.is_some()),
        ("--cpuset-cpus", limits.cpuset_cpus.is_some()),
        ("--cpuset-mems", limits.cpuset_mems.is_some()),
        ("--pids-limit", limits.pids.is_some()),
        ("--blkio-weight", limits.blkio_weight.is_some()),
    ];
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Error::new(Class::Unsupported, format!("{flag} cannot be enforced on this system"))
            .with_hint("of the limits --memory and --timeout work here")),
        None => Ok(Vec::new()),
    }
}

/// What tells an open file from all others.
pub(crate) fn file_id(file: &File) -> Option<(u64, u64)> {
    let metadata = Metadata::from_file(file).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Where memory is short these systems take back by themselves what is only mapped.
pub(crate) fn give_back_memory() {}

/// The kernel is not asked about sockets here: see the Linux module's.
pub struct Question;

impl Question {
    pub(crate) fn with_capacity(_: usize) -> Self {
        Question
    }

    pub(crate) fn is_empty(&self) -> bool {
        true
    }

    pub(crate) fn ask(&mut self) -> Vec<u32> {
        Vec::new()
    }
}

pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

pub mod network {
    //! See `linux/network/mod.rs`.

    use std::borrow::Cow;

    use crate::config::EndpointConfig;
    use crate::container::Container;
    use crate::engine::Engine;
    use crate::error::Result;
    use crate::network::networks::Network;
    use crate::paths::Paths;

    /// None: Linux containers run on Linux only.
    pub fn wanted(_: &Container) -> Option<Cow<'_, [EndpointConfig]>> {
        None
    }

    /// Nothing was made.
    ///
    /// # Errors
    /// Never.
    pub fn leave(_: &Engine, _: &Container) -> Result<()> {
        Ok(())
    }

    /// Nothing was made.
    ///
    /// # Errors
    /// Never.
    pub fn remove_unused(_: &Engine) -> Result<()> {
        Ok(())
    }

    /// None: the networks are this program's own.
    pub fn device(_: &Paths, _: &Network) -> Option<String> {
        None
    }

    /// Nothing was made.
    ///
    /// # Errors
    /// Never.
    pub fn forget(_: &Engine, _: &Network) -> Result<()> {
        Ok(())
    }

    /// Nothing was made.
    ///
    /// # Errors
    /// Never.
    pub fn strays(_: &Engine) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Nothing was made.
    ///
    /// # Errors
    /// Never.
    pub fn sweep(_: &Engine) -> Result<usize> {
        Ok(0)
    }

    /// Nothing was made.
    ///
    /// # Errors
    /// Never.
    pub fn lost(_: &Engine) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Nothing was made.
    ///
    /// # Errors
    /// Never.
    pub fn restore(_: &Engine) -> Result<usize> {
        Ok(0)
    }

    /// The host's addresses are not known.
    pub fn is_free(_: std::net::Ipv4Addr, _: u8) -> bool {
        true
    }

    /// The host's addresses are not known.
    pub fn is_free6(_: std::net::Ipv6Addr, _: u8) -> bool {
        true
    }
}

pub(crate) mod usernet {
    //! See `linux/usernet.rs`.

    use crate::container::Container;

    /// What to do without it.
    pub const ADVICE: &str = "Linux containers run on Linux only";

    /// Linux containers run on Linux only.
    pub fn is_wanted(_: &Container) -> bool {
        false
    }
}

pub mod volume {
    //! See `linux/volume.rs`.

    use std::path::Path;

    use wharf_images::Class;

    use crate::error::{Error, Result};

    /// Nothing can be mounted here.
    ///
    /// # Errors
    /// Always.
    pub fn mount(_: &str, _: &Path, _: &str, _: &[&str]) -> Result<()> {
        Err(Error::new(Class::Unsupported, "file systems can be mounted on Linux only"))
    }

    /// Nothing is mounted here.
    ///
    /// # Errors
    /// Never.
    pub fn unmount(_: &Path) -> Result<()> {
        Ok(())
    }
}

pub(crate) mod plan {
    //! See `linux/plan.rs`.

    use wharf_images::Class;
    use wharf_images::snapshot::Rootfs;

    use crate::container::Container;
    use crate::engine::Engine;
    use crate::error::{Error, Result};
    use crate::plan::PlannedFile;
    use crate::task::LinuxTask;

    pub(crate) fn linux_task(_: &Engine, _: &Container, _: &mut Vec<PlannedFile>, _: &mut Rootfs) -> Result<LinuxTask> {
        Err(Error::new(Class::Unsupported, "Linux images run on Linux only"))
    }
}

pub(crate) mod top {
    //! See `linux/top.rs`.

    use std::collections::BTreeMap;

    use crate::container::Container;
    use crate::error::{Class, Error, Result};
    use crate::look::Processes;

    pub(crate) fn processes(_: &Container, _: &[u32], _: &BTreeMap<u32, String>, _: &[String]) -> Result<Processes> {
        Err(Error::new(Class::Unsupported, "processes cannot be listed on this system yet"))
    }
}

#[cfg(all(test, feature = "wasm"))]
pub(crate) mod escape {
    //! See `linux/escape.rs`: there is no second wall to be tested.

    pub(crate) fn add_to_linker<T>(_: &mut wasmtime::component::Linker<T>) -> wasmtime::Result<()> {
        Ok(())
    }
}

pub mod jail {
    //! See `linux/jail.rs`.

    use crate::walls::Walls;

    /// None of the walls is there.
    pub fn offered() -> Walls {
        let missing = vec!["Wharf has no second wall on this system yet".to_owned()];
        Walls { missing, ..Walls::default() }
    }
}

pub mod terminal {
    //! See `linux/terminal.rs`.

    use crate::error::{Class, Error, Result};

    /// Not known here.
    pub fn stdout_size() -> Option<(u16, u16)> {
        None
    }

    /// Raw mode; not to be had here.
    #[derive(Debug)]
    pub enum RawMode {}

    impl Drop for RawMode {
        /// As elsewhere, leaving raw mode is its end.
        fn drop(&mut self) {
            match *self {}
        }
    }

    impl RawMode {
        /// Refuses.
        ///
        /// # Errors
        /// `Unsupported`.
        pub fn enter() -> Result<Self> {
            Err(Error::new(Class::Unsupported, "attaching to a terminal is not supported on this system yet"))
        }
    }
}

#[cfg(feature = "wasm")]
pub mod compiler {
    //! See `linux/compiler.rs`. Here the compiler's child has its time limit only.

    use std::process::ExitStatus;

    use crate::backend::wasm::compile::Limits;
    use crate::error::Result;

    /// Puts no limit on this process.
    ///
    /// # Errors
    /// None.
    pub fn confine(_limits: &Limits) -> Result<()> {
        Ok(())
    }

    /// There is no such limit.
    pub fn ended_by_cpu_limit(_status: ExitStatus) -> bool {
        false
    }
}

pub mod private {
    //! See `linux/private.rs`. Here a directory is as private as the one it lies in.

    use std::fs::File;
    use std::path::{Path, PathBuf};

    use crate::error::{Error, Result};

    /// Makes a directory.
    ///
    /// # Errors
    /// The disk's.
    pub fn create_dir(path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(|e| Error::io("create", path, e))
    }

    /// Opens a file in it.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(path: &Path) -> Result<File> {
        File::open(path).map_err(|e| Error::io("open", path, e))
    }

    /// The file's path.
    pub fn reopen(_file: &File, path: &Path) -> PathBuf {
        path.to_owned()
    }
}
