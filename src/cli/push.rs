//! `push`.

use std::io::Write as _;

use wharf_images::Progress;

use super::context::Context;
use super::failure::{Failure, Result};
use super::parse::Parsed;
use super::pull::is_untagged;
use super::verb::{Flag, Listed, Operands, Section, Verb};
use super::{image, progress};

/// The commands of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["push", "image push"],
    about: "Upload an image to a registry",
    usage: "[OPTIONS] NAME[:TAG]",
    listed: Listed::Common,
    operands: Operands::Exactly(1),
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::switch("all-tags", "Push all tags of an image to the repository").short('a'),
            Flag::switch("quiet", "Suppress verbose output").short('q'),
        ],
    }],
    run: push,
}];

fn push(parsed: &Parsed, context: &Context) -> Result<()> {
    let name = &parsed.operands()[0];
    let reference = image::reference(name)?;
    let quiet = parsed.switch("quiet");
    let engine = context.engine()?;
    let images = engine.images()?;
    let reporter = progress::on_stdout(quiet);
    let mut names = vec![reference.clone()];
    if parsed.switch("all-tags") {
        if !is_untagged(name) {
            return Err(Failure::new("tag can't be used with --all-tags/-a"));
        }
        let all = images.records()?.into_iter().filter_map(|record| record.reference);
        names = all.filter(|other| other.repository() == reference.repository() && other.tag().is_some()).collect();
        names.sort();
        if names.is_empty() {
            let repository = reference.familiar_repository();
            return Err(Failure::new(format!("An image does not exist locally with the tag: {repository}")));
        }
    } else if is_untagged(name) {
        reporter.report(Progress::Line("Using default tag: latest"));
    }
    let registry = context.registry()?;
    for name in &names {
        // Docker's client is told of what fails here as it is told of progress.
        registry.push(images, name, &*reporter).map_err(|e| {
            let failure = Failure::new(e.to_string());
            e.hint().map_or_else(|| Failure::new(e.to_string()), |hint| failure.hint(hint))
        })?;
    }
    if quiet {
        writeln!(std::io::stdout(), "{reference}")?;
    }
    Ok(())
}
