//! The facade: everything that the command line, the API server and embedders ask for.

use std::path::PathBuf;

use wharf_images::{ImageStore, Reporter};

use crate::config::ContainerConfig;
use crate::container::Container;
use crate::error::Result;
pub use crate::linux::session::Session;
use crate::monitor::log::{LogLine, LogOptions};
use crate::task::{ExecSpec, Usage};

/// Where an instance lives. Two instances with other directories never meet.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--root`/`WHARF_ROOT`: all state, and the run directory beneath it. `None`: `/var/lib/wharf` and `/run/wharf` as root,
    /// else the XDG data and runtime directories.
    pub root: Option<PathBuf>,
}

/// When `create` asks the registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always.
    Always,
    /// When the image is not here.
    #[default]
    Missing,
    /// Never.
    Never,
}

/// What `create` made.
#[derive(Debug, Clone)]
pub struct Created {
    /// The container's id.
    pub id: String,
    /// What the person should know ("Your kernel does not support swap limit capabilities ...").
    pub warnings: Vec<String>,
}

/// Which streams a client wants. Nothing attached is `--detach`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attach {
    /// Send our stdin.
    pub stdin: bool,
    /// Receive its stdout (of a terminal: everything).
    pub stdout: bool,
    /// Receive its stderr.
    pub stderr: bool,
    /// The terminal's size as rows and columns, if there is one.
    pub size: Option<(u16, u16)>,
}

/// A container (or an exec) that runs.
#[derive(Debug)]
pub struct Started {
    /// The container's id.
    pub id: String,
    /// Warnings of `create`.
    pub warnings: Vec<String>,
    /// The connection to its monitor; `None` when nothing was to be attached.
    pub session: Option<Session>,
}

/// Which containers `list` gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Also those that do not run.
    pub all: bool,
}

/// An instance of Wharf. Opening one does nearly nothing; what a call needs is opened by the call.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// Opens an instance. Directories are made when something is first written.
    ///
    /// # Errors
    /// Fails when the environment names no place for it.
    pub fn open(_options: Options) -> Result<Self> {
        Ok(Engine {})
    }

    /// Names, content and snapshots of images.
    ///
    /// # Errors
    /// Fails when the root directory or the database cannot be opened.
    pub fn images(&self) -> Result<&ImageStore> {
        todo!()
    }

    /// The container that `name` (a name, an id or an unambiguous part of an id) means, its state repaired if its monitor died.
    ///
    /// # Errors
    /// `NotFound` ("No such container: x"), `InvalidInput` when several fit.
    pub fn container(&self, _name: &str) -> Result<Container> {
        todo!()
    }

    /// The containers, newest first, states repaired.
    ///
    /// # Errors
    /// The database's.
    pub fn list(&self, _options: ListOptions) -> Result<Vec<Container>> {
        todo!()
    }

    /// The names of the containers that need the image with this id: `rmi` asks.
    ///
    /// # Errors
    /// The database's.
    pub fn users_of_image(&self, _image: &wharf_images::Digest) -> Result<Vec<String>> {
        todo!()
    }

    /// Brings the image (pulling as `pull` says), makes the container's bytes, then its record.
    ///
    /// # Errors
    /// `Conflict` when the name is taken; the registry's; `InvalidInput` for a config that cannot be.
    pub fn create(&self, _config: &ContainerConfig, _pull: PullPolicy, _reporter: &dyn Reporter) -> Result<Created> {
        todo!()
    }

    /// `create` and `start` in one, the fast way. In a single-threaded process the work is done by a forked child, which
    /// becomes the monitor.
    ///
    /// # Errors
    /// As [`Engine::create`] and [`Engine::start`].
    pub fn run(
        &self,
        _config: &ContainerConfig,
        _pull: PullPolicy,
        _attach: Option<Attach>,
        _reporter: &dyn Reporter,
    ) -> Result<Started> {
        todo!()
    }

    /// Starts a created or exited container.
    ///
    /// # Errors
    /// [`crate::Error::Exec`] when its program cannot be executed. Starting what runs is no error and does nothing.
    pub fn start(&self, _name: &str, _attach: Option<Attach>) -> Result<Started> {
        todo!()
    }

    /// Connects to a running container.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub fn attach(&self, _name: &str, _attach: Attach) -> Result<Session> {
        todo!()
    }

    /// Starts another process in a running container. Without `attach` it runs detached.
    ///
    /// # Errors
    /// `Conflict` when the container does not run; [`crate::Error::Exec`].
    pub fn exec(&self, _name: &str, _spec: &ExecSpec, _tty: bool, _attach: Option<Attach>) -> Result<Started> {
        todo!()
    }

    /// Sends a signal, by name or number.
    ///
    /// # Errors
    /// `Conflict` ("... is not running"), `InvalidInput` for an unknown signal.
    pub fn kill(&self, _name: &str, _signal: &str) -> Result<()> {
        todo!()
    }

    /// Asks it to stop, and kills it after `timeout` seconds (`None`: the container's own, else 10; negative: never). Waits for its end.
    /// Stopping what does not run is no error.
    ///
    /// # Errors
    /// The monitor's.
    pub fn stop(&self, _name: &str, _signal: Option<&str>, _timeout: Option<i32>) -> Result<()> {
        todo!()
    }

    /// Waits for its end and returns its exit code.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn wait(&self, _name: &str) -> Result<i32> {
        todo!()
    }

    /// Freezes or thaws it.
    ///
    /// # Errors
    /// `Conflict` when it does not run, or is in that state already.
    pub fn set_paused(&self, _name: &str, _paused: bool) -> Result<()> {
        todo!()
    }

    /// Removes it. `force` kills a running one first.
    ///
    /// # Errors
    /// `Conflict`, in docker's words, for a running one.
    pub fn remove(&self, _name: &str, _force: bool) -> Result<()> {
        todo!()
    }

    /// Gives it another name.
    ///
    /// # Errors
    /// `Conflict` when the name is taken, `InvalidInput` when it is no name.
    pub fn rename(&self, _name: &str, _new: &str) -> Result<()> {
        todo!()
    }

    /// Reads its log; with `follow`, until the container ends. `f` returns false to stop.
    ///
    /// # Errors
    /// `Unsupported` for a log driver that cannot be read; what `f` needs is its own affair.
    pub fn logs(&self, _name: &str, _options: &LogOptions, _f: &mut dyn FnMut(&LogLine) -> bool) -> Result<()> {
        todo!()
    }

    /// What it uses now.
    ///
    /// # Errors
    /// `Conflict` when it does not run.
    pub fn usage(&self, _name: &str) -> Result<Usage> {
        todo!()
    }

    /// Bytes of its writable layer.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn size(&self, _name: &str) -> Result<u64> {
        todo!()
    }
}
