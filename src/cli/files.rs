//! The files of containers: `diff`, `export`, `commit`.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

use wharf_runtime::files::Commit;

use super::archive::Partial;
use super::context::Context;
use super::failure::{Failure, Result};
use super::parse::Parsed;
use super::verb::{Flag, Listed, Operands, Section, Verb};
use super::{image, text};

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["diff", "container diff"],
        about: "Inspect changes to files or directories on a container's filesystem",
        usage: "CONTAINER",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &[],
        run: diff,
    },
    Verb {
        names: &["export", "container export"],
        about: "Export a container's filesystem as a tar archive",
        usage: "[OPTIONS] CONTAINER",
        listed: Listed::Other,
        operands: Operands::Exactly(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[Flag::value("output", "string", "Write to a file, instead of STDOUT").short('o')],
        }],
        run: export,
    },
    Verb {
        names: &["commit", "container commit"],
        about: "Create a new image from a container's changes",
        usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        listed: Listed::Other,
        operands: Operands::Between(1, 2),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::value("author", "string", "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")")
                    .short('a'),
                Flag::list("change", "Apply Dockerfile instruction to the created image").short('c'),
                Flag::value("message", "string", "Commit message").short('m'),
                Flag::switch("pause", "Pause container during commit").short('p').or("true"),
            ],
        }],
        run: commit,
    },
];

fn diff(parsed: &Parsed, context: &Context) -> Result<()> {
    let changes = context.engine()?.changes(&parsed.operands()[0])?;
    let mut out = BufWriter::new(io::stdout().lock());
    let safe = io::stdout().is_terminal();
    for change in changes {
        let path = if safe { text::visible(&change.path) } else { change.path.as_str().into() };
        writeln!(out, "{} {path}", change.kind.letter())?;
    }
    Ok(out.flush()?)
}

fn export(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let name = &parsed.operands()[0];
    match parsed.value("output").filter(|path| !path.is_empty()) {
        None if io::stdout().is_terminal() => {
            Err(Failure::new("cowardly refusing to save to a terminal. Use the -o flag or redirect"))
        }
        None => Ok(engine.export(name, &mut io::stdout().lock())?),
        Some(path) => {
            // A container that does not exist leaves no file behind.
            engine.container(name)?;
            let (partial, mut file) = Partial::create(path, "export container")?;
            engine.export(name, &mut file)?;
            partial.finish()
        }
    }
}

fn commit(parsed: &Parsed, context: &Context) -> Result<()> {
    let (name, reference) = match parsed.operands() {
        [name, reference] => (name, Some(image::reference(reference)?)),
        [name, ..] => (name, None),
        [] => return Err(Failure::new("no container was named")),
    };
    let text = |flag: &str| parsed.value(flag).unwrap_or_default().to_owned();
    let commit = Commit {
        reference,
        author: text("author"),
        message: text("message"),
        changes: parsed.values("change").map(str::to_owned).collect(),
        pause: parsed.switch("pause"),
    };
    let id = context.engine()?.commit(name, &commit)?;
    Ok(writeln!(io::stdout(), "{id}")?)
}
