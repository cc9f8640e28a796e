//! What `exec` runs in a WebAssembly container: a wasm file that the container sees, wherever it lies (layers, the
//! container's own, volumes), or another image's program.
//!
//! It is found and compiled by whoever asks, before its monitor hears of it: compiling may take long, and the monitor has a
//! container to look after. The file is the guest's to change, so it is read once, and what was read is what is compiled.

use jiff::Timestamp;
use wharf_images::NoReport;

use super::{compiled, known, not_executable};
use crate::backend::wasm::cache::{CachedModule, ModuleCache};
use crate::backend::wasm::compile::Limits;
use crate::backend::wasm::tree;
use crate::config::ContainerConfig;
use crate::container::{Container, Status};
use crate::engine::{Engine, PullPolicy};
use crate::error::{Class, Error, Result};
use crate::task::{ExecProgram, ExecSpec, WasmTask, Workload};
use crate::wasi::bindings::types::DescriptorType as Kind;
use crate::wasi::vfs::{Code, Directory, How, OpenFile, Opened};
use crate::{names, plan};

/// The spec with the program that it asks for, compiled. The caller holds a [`Lease`](wharf_images::lease::Lease) until it
/// runs: what was compiled may be no image's, and nobody is to take the layer that shows an image's files for a stray.
///
/// # Errors
/// [`Error::Exec`], with 127 for a program that is not there and 126 for one that cannot be executed.
pub(crate) fn executable(engine: &Engine, container: &Container, spec: &ExecSpec) -> Result<ExecSpec> {
    if spec.privileged {
        let text = "--privileged cannot be used with a WebAssembly container: the guest has no kernel to ask for it";
        return Err(Error::new(Class::InvalidInput, text));
    }
    let view = View::open(engine, container, spec)?;
    let (program, args) = match &spec.tool_image {
        Some(image) => tool(engine, image, &spec.args)?,
        None => (view.compiled(engine, container, spec)?, spec.args.clone()),
    };
    Ok(ExecSpec { program: Some(program), args, ..spec.clone() })
}

/// The program of an image, and its arguments as `run` makes them.
fn tool(engine: &Engine, name: &str, args: &[String]) -> Result<(ExecProgram, Vec<String>)> {
    let (image, _) = engine.ensure_image(name, None, PullPolicy::Missing, &NoReport)?;
    if !image.is_wasm() {
        let text = format!("the image {name} is no WebAssembly image, and cannot be executed in this container");
        return Err(Error::new(Class::InvalidInput, text));
    }
    let config = ContainerConfig { image: name.to_owned(), cmd: args.to_vec(), ..ContainerConfig::default() };
    let tool = Container {
        id: names::new_id()?,
        args: plan::args(&config, &image)?,
        name: String::new(),
        config,
        created: Timestamp::now(),
        state: Status::default(),
        image,
    };
    let found = match known(engine, &tool)? {
        Some(program) => Ok(program),
        None => {
            let found = engine.make_tree(&tool).and_then(|()| compiled(engine, &tool));
            engine.remove_bytes(&tool.id, None)?;
            found
        }
    };
    let found = found.map_err(|e| refused(&e))?;
    if found.serves {
        return Err(serves(name));
    }
    let function = tool.image.wasm_function().map(str::to_owned);
    Ok((ExecProgram { module: found.path, function }, tool.args))
}

/// What the container sees, for a look.
struct View {
    root: Directory,
    /// The working directory, and after it the root.
    here: Directory,
}

impl View {
    fn open(engine: &Engine, container: &Container, spec: &ExecSpec) -> Result<View> {
        let (plan, _) = plan::task_spec(engine, container, None)?;
        let Workload::Wasm(task) = plan.workload else {
            return Err(Error::new(Class::Internal, "a WebAssembly container with a Linux plan"));
        };
        let cwd = spec.cwd.as_deref().unwrap_or(&task.cwd);
        let look = WasmTask { cwd: "/".to_owned(), read_only: true, storage: None, ..WasmTask::clone(&task) };
        let tree = tree::open(&plan.rootfs, &look)?;
        let entered = match cwd.starts_with('/') {
            true => tree.vfs.enter(cwd).map_err(|code| code.message()),
            false => Err("Cwd must be an absolute path"),
        };
        // Docker's code and, in the main, words.
        let here = entered.map_err(|why| exec_error(126, format!("chdir to cwd (\"{cwd}\") failed: {why}")))?;
        Ok(View { root: tree.vfs.directory().ambient(), here: here.ambient().or_root() })
    }

    /// The file that the spec names, compiled.
    fn compiled(&self, engine: &Engine, container: &Container, spec: &ExecSpec) -> Result<ExecProgram> {
        let program = spec.args.first().map_or("", String::as_str);
        let environment = spec.environment(plan::env(&container.config, &container.image));
        let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH="));
        let file = self.find(program, path.unwrap_or_default()).map_err(|code| match code {
            Code::NoEntry | Code::NotDirectory => missing(container, program),
            Code::Access | Code::IsDirectory => quoted(126, program, "permission denied"),
            code => quoted(126, program, code.message()),
        })?;
        let module = compile(engine, &file).map_err(|e| refused(&e))?;
        match module.profile.serves {
            false => Ok(ExecProgram { module: module.path, function: None }),
            true => Err(serves(program)),
        }
    }

    /// Looks for a program as a shell does, but that a bare name may also be that of a file here.
    fn find(&self, program: &str, path: &str) -> Result<OpenFile, Code> {
        let bare = !program.contains('/');
        let beneath = path.split(':').filter(|dir| bare && dir.starts_with('/')).map(|dir| format!("{dir}/{program}"));
        let mut found = self.regular(program);
        for candidate in beneath {
            if !matches!(found, Err(Code::NoEntry)) {
                break;
            }
            found = self.regular(&candidate);
        }
        found
    }

    fn regular(&self, path: &str) -> Result<OpenFile, Code> {
        let (dir, relative) = match path.strip_prefix('/') {
            Some(relative) => (&self.root, relative.trim_start_matches('/')),
            None => (&self.here, path),
        };
        // Opening something else, a fifo, could wait for ever.
        if dir.stat_at(relative, true)?.kind != Kind::RegularFile {
            return Err(Code::Access);
        }
        match dir.open(relative, How { follow: true, read: true, ..How::default() })? {
            Opened::File(file) => Ok(file),
            Opened::Directory(_) => Err(Code::IsDirectory),
        }
    }
}

fn compile(engine: &Engine, file: &OpenFile) -> Result<CachedModule> {
    let failed = |code: Code| Error::new(Class::Corrupt, format!("read the module: {}", code.message()));
    let most = Limits::default().source;
    let mut wasm = Vec::new();
    loop {
        let piece = file.read(most, wasm.len() as u64).map_err(failed)?;
        if piece.is_empty() {
            return ModuleCache::open(&engine.paths().root)?.ensure_bytes(&wasm, None);
        }
        wasm.extend(piece);
        if wasm.len() as u64 > most {
            let text = format!("the module is larger than {} MB", most >> 20);
            return Err(Error::new(Class::LimitExceeded, text));
        }
    }
}

/// A program that was found and cannot be executed, in the words that say why.
fn refused(e: &Error) -> Error {
    match e {
        Error::Exec { code, message } => exec_error(*code, message.clone()),
        e => not_executable(e),
    }
}

fn missing(container: &Container, program: &str) -> Error {
    if container.image.diff_ids().is_empty() {
        let text = "the image is one module, without a root filesystem to find programs in\n\
                    run another image's program in this container: wharf exec --tool-image IMAGE CONTAINER [ARG...]";
        return quoted(127, program, text);
    }
    quoted(127, program, "no such file in the container")
}

fn serves(program: &str) -> Error {
    quoted(126, program, "the component serves HTTP, and is no program to execute")
}

fn quoted(code: i32, program: &str, why: &str) -> Error {
    exec_error(code, format!("exec: {program:?}: {why}"))
}

fn exec_error(code: i32, message: String) -> Error {
    Error::Exec { code, message }
}
