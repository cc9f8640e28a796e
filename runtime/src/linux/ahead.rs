//! A guess at what a `run` will need, acted upon before the database can say.
//!
//! To read the image's record takes the monitor as long as it takes a guest's process to load engine and module. So each
//! `run` of a wasm command leaves a note beside the compiled modules of which one its image's name meant, and the next
//! begins with that process. A note is never believed: the plan that the process is given names the module, and it
//! loads that one if its guess was wrong. Notes are swept with the modules.

use std::fs;
use std::path::{Path, PathBuf};

use super::monitor::backend;
use super::streams::{self, Ends};
use crate::config::ContainerConfig;
use crate::container::BackendKind;
use crate::engine::{Attach, Engine, PullPolicy};
use crate::error::Result;
use crate::task::{Anticipated, TaskSpec, Workload};
use crate::{names, plan};

/// A process that loads what it is probably to run. Dropped, it ends.
pub(crate) struct Ahead {
    task: Box<dyn Anticipated>,
    ends: Ends,
}

impl Ahead {
    /// Begins, if there is a note. The caller holds the container's lock.
    pub fn begin(
        engine: &Engine,
        config: &ContainerConfig,
        id: &str,
        module: &Path,
        attach: Option<Attach>,
    ) -> Result<Self> {
        let (stdio, ends) = streams::make(config.tty, config.interactive, attach.and_then(|a| a.size))?;
        let remains = TaskSpec { limits: config.limits.clone(), ..plan::remains(id, config.cgroup_parent.as_deref()) };
        let module = engine.paths().root.join("modules").join(module);
        let task = backend(BackendKind::Wasm)?.anticipate(&remains, &module, stdio)?;
        Ok(Ahead { task, ends })
    }

    /// What it is to run, if it is a wasm guest; else it has ended.
    pub fn into_parts(self, spec: &TaskSpec) -> Option<(Box<dyn Anticipated>, Ends)> {
        matches!(spec.workload, Workload::Wasm(_)).then_some((self.task, self.ends))
    }
}

/// The module that the last `run` of this kind ran, by its file's name.
pub(crate) fn guess(engine: &Engine, config: &ContainerConfig, pull: PullPolicy) -> Option<PathBuf> {
    // Another parent of its cgroup is checked and noted before anything is made there.
    let plain = config.cgroup_parent.is_none()
        && config.entrypoint.is_none()
        && config.platform.is_none()
        && pull == PullPolicy::Missing;
    let noted = plain.then(|| fs::read_link(note(engine, &config.image)).ok())??;
    // Written by us, but it becomes a path.
    (noted.file_name() == Some(noted.as_os_str())).then_some(noted)
}

/// Leaves the note for the next `run` of this image's name, or takes a wrong one away. Without one it is merely slower, so
/// no failure matters.
pub(crate) fn remember(engine: &Engine, config: &ContainerConfig, spec: &TaskSpec) {
    // What an entrypoint of the container's own leads to says nothing about the image.
    if config.entrypoint.is_some() {
        return;
    }
    let module = match &spec.workload {
        Workload::Wasm(task) if task.http.is_none() => task.module.file_name(),
        _ => None,
    };
    let path = note(engine, &config.image);
    let noted = fs::read_link(&path).ok();
    match module {
        _ if noted.as_deref().map(Path::as_os_str) == module => {}
        None => drop(fs::remove_file(&path)),
        Some(module) => {
            let temporary = path.with_extension(std::process::id().to_string());
            let _ = fs::create_dir(notes(engine));
            let _ = std::os::unix::fs::symlink(module, &temporary).and_then(|()| fs::rename(&temporary, &path));
        }
    }
}

fn notes(engine: &Engine) -> PathBuf {
    engine.paths().root.join("modules/last")
}

fn note(engine: &Engine, image: &str) -> PathBuf {
    notes(engine).join(names::short_hash(image))
}
