//! `system prune`: everything that nobody uses, in one go
//! (<https://docs.docker.com/reference/cli/docker/system/prune/>).

use std::io::Write as _;

use jiff::Timestamp;
use wharf_images::store::Filters as ImageFilters;

use super::context::Context;
use super::failure::{Failure, Result};
use super::parse::Parsed;
use super::verb::{FORCE_PROMPT, Flag, Listed, Operands, Section, Verb};
use super::{container_prune, image, network, text, units, values, volume};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["system prune"],
    about: "Remove unused data",
    usage: "[OPTIONS]",
    listed: Listed::Other,
    operands: Operands::None,
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::switch("all", "Remove all unused images not just dangling ones").short('a'),
            Flag::list("filter", "Provide filter values (e.g. \"label=<key>=<value>\")").of("filter"),
            FORCE_PROMPT,
            Flag::switch("volumes", "Prune anonymous volumes"),
        ],
    }],
    run: prune,
}];

/// Docker's warning.
fn warning(all: bool, volumes: bool, filters: &[&str]) -> String {
    let mut lines = vec!["all stopped containers", "all networks not used by at least one container"];
    if volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    lines.extend(match all {
        true => ["all images without at least one container associated to them", "all build cache"],
        false => ["all dangling images", "unused build cache"],
    });
    let list = |lines: &[&str]| lines.iter().map(|line| format!("  - {line}\n")).collect::<String>();
    let mut text = format!(":\n{}", list(&lines));
    if !filters.is_empty() {
        text.push_str(&format!("\n  Items to be pruned will be filtered with:\n{}", list(filters)));
    }
    text
}

fn prune(parsed: &Parsed, context: &Context) -> Result<()> {
    let (all, volumes) = (parsed.switch("all"), parsed.switch("volumes"));
    let given: Vec<&str> = parsed.values("filter").collect();
    let pairs = values::filters(parsed)?;
    if volumes && pairs.iter().any(|(name, _)| name == "until") {
        return Err(Failure::new("The \"until\" filter is not supported with \"--volumes\""));
    }
    let for_volumes = volume::Filters::of(pairs.clone(), &["label", "label!", "until"])?;
    let for_images = ImageFilters::parse(&given)?;
    let for_containers = container_prune::Filters::new(pairs, Timestamp::now())?;
    if !text::agreed(parsed, &warning(all, volumes, &given))? {
        return Ok(());
    }
    let engine = context.engine()?;
    let mut out = std::io::stdout();
    // Containers first: they are what uses the rest.
    let (removed, mut freed) = container_prune::containers(&engine, &for_containers)?;
    if !removed.is_empty() {
        writeln!(out, "Deleted Containers:\n{}\n", removed.join("\n"))?;
    }
    write!(out, "{}", network::removed_text(&network::remove_unused(&engine, &for_containers)?))?;
    if volumes {
        let (removed, bytes) = volume::remove_unused(&engine, false, &for_volumes)?;
        freed += bytes;
        if !removed.is_empty() {
            writeln!(out, "Deleted Volumes:\n{}\n", removed.join("\n"))?;
        }
    }
    let pruned = image::remove_unused(&engine, all, &for_images)?;
    freed += pruned.reclaimed;
    write!(out, "{}", image::removed_text(&pruned.removed))?;
    Ok(writeln!(out, "Total reclaimed space: {}", units::sum(freed))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_is_dockers() {
        let asked = |all, volumes, filters: &[&str]| text::question(&warning(all, volumes, filters));
        insta::assert_snapshot!(format!("{}\n---\n{}", asked(false, false, &[]), asked(true, true, &["label=x"])));
    }
}
