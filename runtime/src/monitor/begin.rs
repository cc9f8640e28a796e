//! The beginning of a monitor, wherever it runs: which container, and what becomes of it when it cannot be started.

use std::fs::File;
use std::time::Duration;

use jiff::Timestamp;

use crate::container::{Container, Status};
use crate::engine::{Engine, LOCK_PATIENCE};
use crate::error::{Error, Result};
use crate::linux;
use crate::state::{Event, State};

/// The container, and its lock unless another monitor holds it.
///
/// # Errors
/// `NotFound`; `Conflict` when it is paused.
pub(crate) fn to_be_started(engine: &Engine, name: &str) -> Result<(Container, Option<File>)> {
    let container = engine.startable(name)?;
    let patience = match container.state.state {
        // Its monitor waits to start it; without one, nobody holds the lock.
        State::Restarting => Duration::ZERO,
        state if state.is_live() => return Ok((container, None)),
        _ => LOCK_PATIENCE,
    };
    let Some(lock) = engine.lock(&container.id, patience)? else {
        return Ok((container, None));
    };
    // Between the look and the lock another start may have come and gone, or a removal.
    let container = engine.startable(&container.id)?;
    Ok((container, Some(lock)))
}

/// The container could not be started: what was made is taken away, what was recorded says why.
///
/// # Errors
/// The disk's and the database's.
pub(crate) fn undo(engine: &Engine, container: &Container, recorded: bool, error: &Error) -> Result<()> {
    if recorded {
        linux::network::leave(engine, container)?;
    }
    engine.release_volumes(container)?;
    if !recorded {
        return engine.discard(container);
    }
    if container.config.auto_remove {
        engine.containers()?.remove(container, &[])?;
        return engine.discard(container);
    }
    failed(engine, container, error)
}

/// Records that the task could not be made, and why.
///
/// # Errors
/// The database's.
pub(crate) fn failed(engine: &Engine, container: &Container, error: &Error) -> Result<()> {
    let change = |status: &mut Status| {
        status.exit_code = error.exit_code();
        status.error = Some(error.to_string());
        status.finished = Some(Timestamp::now());
    };
    engine.containers()?.advance(container, Event::Failed, (&[], &[]), change)?;
    engine.detach_network(&container.id)
}
