//! Looking into containers: their processes and what they use. Nothing here changes one.

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Class, Error, Result};
use crate::linux;
use crate::monitor::client;
use crate::monitor::protocol::{Reply, Request};
use crate::task::Usage;

/// Processes in the columns of ps(1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// The columns.
    pub titles: Vec<String>,
    /// A row for each process, as many cells as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Engine {
    /// Its processes, as ps(1) shows them with these options; `-ef` when there are none.
    ///
    /// # Errors
    /// `Conflict` when it does not run; what ps says of its options.
    pub fn top(&self, name: &str, options: &[String]) -> Result<Processes> {
        let container = self.container(name)?;
        if !container.state.state.is_live() {
            return Err(Error::new(Class::Conflict, format!("Container {} is not running", container.id)));
        }
        match self.ask(&container, &Request::Processes)? {
            Reply::Processes { pids, execs } => {
                let found = linux::top::processes(&container, &pids, &execs, options)?;
                self.tell(&container.event("top"))?;
                Ok(found)
            }
            _ => Err(Error::new(Class::Internal, "the monitor did not name its processes")),
        }
    }

    /// What these containers use now, in their order. All their monitors are asked before the first answer is read. `None`
    /// of one that does not run (any more).
    ///
    /// # Errors
    /// What a monitor says.
    pub fn usages(&self, containers: &[Container]) -> Result<Vec<Option<Usage>>> {
        let live: Vec<&str> =
            containers.iter().filter(|c| c.state.state.is_live()).map(|container| container.id.as_str()).collect();
        let mut replies = client::ask_all(self, &live, &Request::Usage).into_iter();
        let usage = |container: &Container| match container.state.state.is_live().then(|| replies.next()).flatten() {
            Some(Ok(Reply::Usage(usage))) => Ok(Some(usage)),
            Some(Ok(Reply::Error(failure))) => Err(failure.into()),
            Some(Ok(_)) => Err(Error::new(Class::Internal, "the monitor gave no usage")),
            // It has ended since we looked.
            Some(Err(_)) | None => Ok(None),
        };
        containers.iter().map(usage).collect()
    }
}
