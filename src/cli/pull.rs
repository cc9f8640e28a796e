//! `pull`.

use std::io::Write as _;

use wharf_images::{Image, Platform};
use wharf_runtime::Engine;
use wharf_runtime::engine::PullPolicy;

use super::context::Context;
use super::failure::{self, Failure, Result};
use super::parse::Parsed;
use super::verb::{Flag, Listed, Operands, Section, Verb};
use super::{image, progress};

/// The commands of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["pull", "image pull"],
    about: "Download an image from a registry",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    listed: Listed::Common,
    operands: Operands::Exactly(1),
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::switch("all-tags", "Download all tagged images in the repository").short('a'),
            Flag::value("platform", "string", "Set platform if server is multi-platform capable"),
            Flag::switch("quiet", "Suppress verbose output").short('q'),
        ],
    }],
    run: pull,
}];

/// True when docker would add `latest` by itself.
pub fn is_untagged(name: &str) -> bool {
    !name.contains('@') && !name.rsplit('/').next().unwrap_or(name).contains(':')
}

fn pull(parsed: &Parsed, context: &Context) -> Result<()> {
    let name = &parsed.operands()[0];
    let reference = image::reference(name)?;
    let platform = parsed.read("platform", |text| text.parse::<Platform>().map_err(|e| e.to_string()))?;
    let all = parsed.switch("all-tags");
    if all && !is_untagged(name) {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let engine = context.engine()?;
    if reference.is_builtin() {
        engine.ensure_image(name, platform.as_ref(), PullPolicy::Missing, &wharf_images::NoReport)?;
        return Ok(writeln!(std::io::stdout(), "{reference}")?);
    }
    let reporter = progress::on_stdout(parsed.switch("quiet"));
    let registry = context.registry()?;
    let wanted = if all {
        let tags = registry.tags(&reference, &*reporter)?;
        tags.iter().map(|tag| reference.with_tag(tag)).collect::<Result<Vec<_>, _>>()?
    } else {
        if is_untagged(name) {
            reporter.report(wharf_images::Progress::Line("Using default tag: latest"));
        }
        vec![reference.clone()]
    };
    for reference in &wanted {
        let image = registry.pull(engine.images()?, reference, platform.as_ref(), &*reporter)?;
        compile(&engine, &image);
    }
    let shown = if all { reference.repository() } else { reference.to_string() };
    Ok(writeln!(std::io::stdout(), "{shown}")?)
}

/// Compiles what has come in. An image that is here but cannot run here is still a good image: to be looked at, tagged,
/// pushed. So this is told, and is no failure.
pub fn compile(engine: &Engine, image: &Image) {
    if let Err(e) = engine.compile(image) {
        failure::tell(&format!("warning: this image cannot run here: {e}\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        for name in ["debian", "localhost:5000/x", "a/b"] {
            assert!(is_untagged(name), "{name}");
        }
        for name in ["debian:12", "localhost:5000/x:y", "a@sha256:00"] {
            assert!(!is_untagged(name), "{name}");
        }
    }
}
