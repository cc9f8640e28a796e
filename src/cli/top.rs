//! `top`: a container's processes, as the host's ps(1) shows them.

use std::io::Write as _;

use super::context::Context;
use super::failure::Result;
use super::parse::Parsed;
use super::table;
use super::verb::{Listed, Operands, Verb};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["top", "container top"],
    about: "Display the running processes of a container",
    usage: "CONTAINER [ps OPTIONS]",
    listed: Listed::Other,
    operands: Operands::AtLeast(1),
    trailing: true,
    sections: &[],
    run: top,
}];

/// The narrowest column of docker's table here.
const NARROWEST: usize = 20;

fn top(parsed: &Parsed, context: &Context) -> Result<()> {
    let engine = context.engine()?;
    let operands = parsed.operands();
    let found = engine.top(&operands[0], &operands[1..])?;
    let rows: Vec<_> = std::iter::once(found.titles).chain(found.rows).collect();
    Ok(std::io::stdout().write_all(table::layout_wide(&rows, NARROWEST).as_bytes())?)
}
