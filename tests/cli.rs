//! The command line as a person meets it: the real program's help, errors, exit codes and formats.
//!
//! Where the docker client is installed it is the judge of the grammar: [`docker`] asks both the same.

// What these tests do not need, others do.
#[allow(dead_code)]
mod support;

#[path = "cli/containers.rs"]
mod containers;
#[path = "cli/docker.rs"]
mod docker;
#[path = "cli/errors.rs"]
mod errors;
#[path = "cli/help.rs"]
mod help;
#[path = "cli/images.rs"]
mod images;
#[path = "cli/terminal.rs"]
mod terminal;
