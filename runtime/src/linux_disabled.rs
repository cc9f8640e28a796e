//! What [`crate::linux`] offers on systems that have no Linux backend: the same names, all `Unsupported`.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Nobody is root here.
pub fn is_root() -> bool {
    false
}

/// Makes a directory.
///
/// # Errors
/// The disk's.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)
}

/// Makes a directory.
///
/// # Errors
/// The disk's.
pub fn create_open_dir(path: &Path) -> io::Result<()> {
    std::fs::create_dir(path)
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

/// There are no limits to check.
pub(crate) fn check_limits(_: &crate::task::Limits) -> crate::error::Result<Vec<String>> {
    Ok(Vec::new())
}

/// Not known here: no log is written either.
pub(crate) fn file_id(_: &std::fs::File) -> Option<(u64, u64)> {
    None
}

pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    getrandom::fill(bytes).map_err(io::Error::other)
}

pub mod network {
    //! See `linux/network/mod.rs`.

    use crate::container::Container;
    use crate::engine::Engine;
    use crate::error::Result;
    use crate::network::networks::Network;

    /// None: Linux containers run on Linux only.
    pub fn wanted(_: &Container) -> Option<std::borrow::Cow<'_, [crate::config::EndpointConfig]>> {
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

    /// The host's addresses are not known.
    pub fn is_free(_: std::net::Ipv4Addr, _: u8) -> bool {
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

    use crate::container::Container;
    use crate::engine::Engine;
    use crate::error::{Error, Result};
    use crate::plan::PlannedFile;
    use crate::task::LinuxTask;

    pub(crate) fn linux_task(_: &Engine, _: &Container, _: &mut Vec<PlannedFile>) -> Result<LinuxTask> {
        Err(Error::new(Class::Unsupported, "Linux images run on Linux only"))
    }
}

pub mod monitor {
    //! See `linux/monitor.rs`.

    use std::ffi::OsString;

    use wharf_images::{Class, Reporter};

    use crate::config::ContainerConfig;
    use crate::engine::{Attach, Engine, PullPolicy, Started};
    use crate::error::{Error, Result};
    use crate::linux::session::Session;
    use crate::monitor::protocol::{Reply, Request};

    /// Never used here.
    pub const REEXEC: &str = "wharf-monitor";

    fn unsupported<T>() -> Result<T> {
        Err(Error::new(Class::Unsupported, "containers cannot be run on this system yet"))
    }

    pub(crate) fn main(_: &[OsString]) -> i32 {
        125
    }

    pub(crate) fn can_fork(_: &Engine) -> bool {
        false
    }

    pub(crate) fn fork_run(
        _: &Engine,
        _: &ContainerConfig,
        _: PullPolicy,
        _: Option<Attach>,
        _: &dyn Reporter,
    ) -> Result<Started> {
        unsupported()
    }

    pub(crate) fn fork_start(_: &Engine, _: &str, _: Option<Attach>) -> Result<Started> {
        unsupported()
    }

    pub(crate) fn spawn_start(_: &Engine, _: &str, _: Option<Attach>) -> Result<Started> {
        unsupported()
    }

    pub(crate) fn ask(_: &Engine, _: &str, _: &Request) -> Result<Reply> {
        unsupported()
    }

    pub(crate) fn ask_all(_: &Engine, ids: &[&str], _: &Request) -> Vec<Result<Reply>> {
        ids.iter().map(|_| unsupported()).collect()
    }

    pub(crate) fn open_session(_: &Engine, _: &str, _: &Request) -> Result<(u32, Session)> {
        unsupported()
    }

    pub(crate) fn clean(_: &str, _: Option<&str>) -> Result<()> {
        Ok(())
    }
}

pub(crate) mod archives {
    //! See `linux/archives.rs`.

    use std::ffi::OsString;
    use std::io::{Read, Write};

    use wharf_images::tree::PathStat;

    use crate::engine::Engine;
    use crate::error::{Class, Error, Result};
    use crate::files::Request;

    /// Never used here.
    pub const REEXEC: &str = "wharf-archives";

    pub(crate) enum Outcome {
        Done,
        Stat(PathStat),
        Notes(Vec<String>),
    }

    pub(crate) fn main(_: &[OsString]) -> i32 {
        125
    }

    pub(crate) fn ask(_: &Engine, _: &str, _: &Request, _: &mut dyn Read, _: &mut dyn Write) -> Result<Outcome> {
        Err(Error::new(Class::Unsupported, "the files of containers cannot be reached on this system yet"))
    }
}

pub(crate) mod top {
    //! See `linux/top.rs`.

    use crate::container::Container;
    use crate::error::{Class, Error, Result};
    use crate::look::Processes;
    use std::collections::BTreeMap;

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

pub mod session {
    //! See `linux/session.rs`.

    use crate::error::Result;

    /// A connection over which streams flow. None can be made here.
    #[derive(Debug)]
    pub enum Session {}

    /// What the relay does besides copying.
    #[derive(Debug, Clone, Default)]
    pub struct Relay {
        /// Our stdin is copied to the container's.
        pub stdin: bool,
        /// The container has a terminal.
        pub tty: bool,
        /// Signals sent to us go to the container.
        pub signals: bool,
        /// The bytes that detach.
        pub detach_keys: Vec<u8>,
    }

    /// How a relay ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Outcome {
        /// It ended with this exit code.
        Exited(i32),
        /// The person typed the detach keys.
        Detached,
    }

    impl Session {
        /// Copies until the end.
        ///
        /// # Errors
        /// None: there is no session to call it on.
        pub fn relay(self, _options: &Relay) -> Result<Outcome> {
            match self {}
        }
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

#[cfg(feature = "wasm")]
pub(crate) mod files {
    //! See `linux/files.rs`. Here layers are copied into one directory before a guest sees them, so there is no union
    //! whose marks would have to be read or made.

    use std::fs::File;
    use std::io::{self, Read, Seek, SeekFrom, Write};
    use std::time::SystemTime;

    use cap_fs_ext::DirExt;
    use cap_std::fs::{Dir, Metadata};

    fn unsupported<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens the directory `name`, which must not be a symlink.
    pub(crate) fn open_dir(dir: &Dir, name: &str) -> io::Result<Dir> {
        dir.open_dir_nofollow(name)
    }

    /// There are none.
    pub(crate) fn is_whiteout(_: &Metadata) -> bool {
        false
    }

    /// Refuses.
    pub(crate) fn make_whiteout(_: &Dir, _: &str) -> io::Result<()> {
        unsupported()
    }

    /// There are none.
    pub(crate) fn is_opaque(_: &Dir) -> io::Result<bool> {
        Ok(false)
    }

    /// Refuses.
    pub(crate) fn set_opaque(_: &Dir) -> io::Result<()> {
        unsupported()
    }

    /// Makes a symlink.
    pub(crate) fn symlink(dir: &Dir, to: &str, name: &str) -> io::Result<()> {
        dir.symlink(to, name)
    }

    /// Refuses.
    pub(crate) fn rename_leaving_whiteout(_: &Dir, _: &str, _: &Dir, _: &str) -> io::Result<()> {
        unsupported()
    }

    /// Refuses.
    pub(crate) fn exchange(_: &Dir, _: &str, _: &Dir, _: &str) -> io::Result<()> {
        unsupported()
    }

    /// Gives an open file the rights of another.
    pub(crate) fn copy_attributes(from: &File, to: &File) -> io::Result<()> {
        to.set_permissions(from.metadata()?.permissions())
    }

    /// Leaves them as they are.
    pub(crate) fn copy_symlink_attributes(_: &Metadata, _: &Dir, _: &str) {}

    /// The standard library does not know.
    pub(crate) fn status_change(metadata: &Metadata) -> Option<SystemTime> {
        metadata.modified().ok().map(cap_std::time::SystemTime::into_std)
    }

    /// Reads at most `most` bytes at `offset` behind those that `into` has. None is the end of the file. A guest has one
    /// thread, so nobody else moves the file's position.
    pub(crate) fn read_at(mut file: &File, into: &mut Vec<u8>, most: usize, offset: u64) -> io::Result<usize> {
        file.seek(SeekFrom::Start(offset))?;
        file.take(most as u64).read_to_end(into)
    }

    /// Writes at `offset`; says how much of it.
    pub(crate) fn write_at(mut file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.seek(SeekFrom::Start(offset))?;
        file.write(bytes)
    }

    /// Writes at the end; says how much of it.
    pub(crate) fn append(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
        file.seek(SeekFrom::End(0))?;
        file.write(bytes)
    }

    /// How a program says it will use a file.
    #[derive(Debug, Clone, Copy)]
    #[expect(missing_docs, reason = "posix_fadvise's words")]
    pub(crate) enum Advice {
        Normal,
        Sequential,
        Random,
        WillNeed,
        DontNeed,
        NoReuse,
    }

    /// Nobody wants to know.
    pub(crate) fn advise(_: &File, _: u64, _: u64, _: Advice) -> io::Result<()> {
        Ok(())
    }
}
