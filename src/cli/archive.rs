//! Images as files: `save`, `load`, `import`.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};

use wharf_images::archive::{self, Import};

use super::context::Context;
use super::failure::{Failure, Result};
use super::image::{self, PLATFORM};
use super::parse::Parsed;
use super::progress;
use super::verb::{Flag, Listed, Operands, Section, Verb};

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["save", "image save"],
        about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
        usage: "[OPTIONS] IMAGE [IMAGE...]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::value("output", "string", "Write to a file, instead of STDOUT").short('o'), PLATFORM],
        }],
        run: save,
    },
    Verb {
        names: &["load", "image load"],
        about: "Load an image from a tar archive or STDIN",
        usage: "[OPTIONS]",
        listed: Listed::Other,
        operands: Operands::None,
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::value("input", "string", "Read from tar archive file, instead of STDIN").short('i'),
                Flag::switch("quiet", "Suppress the load output").short('q'),
                Flag::value("platform", "string", "Load only the given platform variant").not_yet(),
            ],
        }],
        run: load,
    },
    Verb {
        names: &["import", "image import"],
        about: "Import the contents from a tarball to create a filesystem image",
        usage: "[OPTIONS] file|- [REPOSITORY[:TAG]]",
        listed: Listed::Other,
        operands: Operands::AtLeast(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::list("change", "Apply Dockerfile instruction to the created image").short('c'),
                Flag::value("message", "string", "Set commit message for imported image").short('m'),
                Flag::value("platform", "string", "Set platform of the imported image"),
            ],
        }],
        run: import,
    },
];

/// What is neither a file nor a directory, nor a link to one.
pub const SPECIAL: &str = "a device, a pipe or a socket";

/// A file under its temporary name; gone when it does not come to [`Partial::finish`].
pub struct Partial {
    path: PathBuf,
    target: PathBuf,
}

impl Partial {
    /// Makes the file, for `what` is to be done.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(target: &str, what: &str) -> Result<(Self, File)> {
        let target = PathBuf::from(target);
        if let Some(dir) = target.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let op = format!("failed to {what}: invalid output path: stat");
            std::fs::metadata(dir).map_err(|e| Failure::io(&op, &dir.display().to_string(), &e))?;
        }
        // It would get the name in place of what has it now: `/dev/null` must not become an archive.
        let kind = match std::fs::symlink_metadata(&target) {
            Ok(meta) if meta.is_dir() => Some("a directory"),
            Ok(meta) if meta.is_symlink() => Some("a symbolic link directly"),
            Ok(meta) if !meta.is_file() => Some(SPECIAL),
            Ok(_) | Err(_) => None,
        };
        if let Some(kind) = kind {
            return Err(Failure::new(format!("failed to {what}: cannot write to {kind}")));
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".{}.partial", std::process::id()));
        let path = target.parent().unwrap_or(Path::new("")).join(name);
        let file = File::create(&path).map_err(|e| Failure::io("open", &target.display().to_string(), &e))?;
        Ok((Partial { path, target }, file))
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(self) -> Result<()> {
        std::fs::rename(&self.path, &self.target)
            .map_err(|e| Failure::io("rename", &self.target.display().to_string(), &e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn save(parsed: &Parsed, context: &Context) -> Result<()> {
    let output = parsed.value("output").filter(|path| *path != "-");
    if output.is_none() && io::stdout().is_terminal() {
        return Err(Failure::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"));
    }
    let platform = image::platform(parsed)?;
    let engine = context.engine()?;
    let write = |to: &mut dyn io::Write| -> Result<()> {
        let mut buffered = BufWriter::with_capacity(1 << 20, to);
        archive::save(engine.images()?, parsed.operands(), platform.as_ref(), &mut buffered)?;
        Ok(buffered.flush()?)
    };
    match output {
        None => write(&mut io::stdout().lock()),
        Some(path) => {
            let (partial, mut file) = Partial::create(path, "save image")?;
            write(&mut file)?;
            partial.finish()
        }
    }
}

/// The stream an operand or flag names.
///
/// # Errors
/// The disk's.
pub fn source(path: Option<&str>) -> Result<Box<dyn Read>> {
    match path {
        None | Some("-") => Ok(Box::new(io::stdin().lock())),
        Some(path) => Ok(Box::new(File::open(path).map_err(|e| Failure::io("open", path, &e))?)),
    }
}

fn load(parsed: &Parsed, context: &Context) -> Result<()> {
    let input = parsed.value("input");
    if input.is_none() && io::stdin().is_terminal() {
        return Err(Failure::new("requested load from stdin, but stdin is empty").hint("name an archive with -i"));
    }
    let mut reader = source(input)?;
    let engine = context.engine()?;
    // Progress is for terminals; docker shows none off one, `--quiet` or not.
    let reporter = progress::reporter(parsed.switch("quiet") || !io::stderr().is_terminal());
    let loaded = archive::load(engine.images()?, &mut *reader, &*reporter)?;
    let lines: String = loaded
        .iter()
        .map(|loaded| match &loaded.reference {
            Some(reference) => format!("Loaded image: {}\n", reference.familiar()),
            None => format!("Loaded image ID: {}\n", loaded.id),
        })
        .collect();
    io::stdout().write_all(lines.as_bytes())?;
    for loaded in &loaded {
        super::pull::compile(&engine, &engine.images()?.resolve(loaded.id.as_str(), None)?);
    }
    Ok(())
}

fn import(parsed: &Parsed, context: &Context) -> Result<()> {
    let from = &parsed.operands()[0];
    if from.starts_with("http://") || from.starts_with("https://") {
        return Err(Failure::new(format!("cannot import from {from}: only files and stdin are read"))
            .hint(format!("curl -L {from} | wharf import - NAME")));
    }
    let reference = parsed.operands().get(1).map(|name| image::reference(name)).transpose()?;
    let options = Import {
        reference,
        platform: image::platform(parsed)?,
        changes: parsed.values("change").map(str::to_owned).collect(),
        message: parsed.value("message").map_or_else(|| format!("Imported from {from}"), str::to_owned),
    };
    let mut reader = source(Some(from))?;
    let engine = context.engine()?;
    let id = archive::import(engine.images()?, &mut *reader, &options, &*progress::reporter(true))?;
    Ok(writeln!(io::stdout(), "{id}")?)
}
