//! The life of a container as one table: which event takes which state where. Nothing else decides.
//!
//! The words are docker's (`docker ps --filter status=`), with `Starting` for the short time in which the monitor
//! builds the task.

use std::fmt;
use std::str::FromStr;

use wharf_images::Class;

use crate::error::{Error, Result};

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Recorded, never started.
    Created,
    /// Its monitor is building the task.
    Starting,
    /// Its task runs.
    Running,
    /// Its task is frozen.
    Paused,
    /// Its task has ended and its monitor will start another.
    Restarting,
    /// It is being taken away.
    Removing,
    /// Its task has ended.
    Exited,
    /// It was to be removed and something stayed.
    Dead,
}

/// What happens to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Somebody starts it.
    Start,
    /// The task runs.
    Started,
    /// The task could not be made, or the program not executed.
    Failed,
    /// The task is frozen.
    Pause,
    /// The task is thawed.
    Unpause,
    /// The task ended, or the monitor was found dead.
    Exit,
    /// The task ended and the restart policy wants another.
    Restart,
    /// The restart that it waited for is not to be.
    Cancel,
    /// Somebody removes it. A running one has been killed before.
    Remove,
    /// Removing it failed.
    RemoveFailed,
}

impl State {
    /// Every state.
    pub const ALL: [State; 8] = [
        State::Created,
        State::Starting,
        State::Running,
        State::Paused,
        State::Restarting,
        State::Removing,
        State::Exited,
        State::Dead,
    ];

    /// The state after `event`.
    ///
    /// # Errors
    /// `Conflict` when the event cannot happen in this state.
    pub fn after(self, event: Event) -> Result<State> {
        use Event as E;
        use State as S;
        let next = match (self, event) {
            (S::Created | S::Exited, E::Start) => S::Starting,
            (S::Restarting, E::Start) => S::Starting,
            (S::Starting, E::Started) => S::Running,
            (S::Starting, E::Failed) => S::Exited,
            (S::Running, E::Pause) => S::Paused,
            (S::Paused, E::Unpause) => S::Running,
            (S::Starting | S::Running | S::Paused | S::Restarting, E::Exit) => S::Exited,
            (S::Running | S::Paused | S::Starting, E::Restart) => S::Restarting,
            (S::Restarting, E::Cancel) => S::Exited,
            (S::Created | S::Exited | S::Dead | S::Removing, E::Remove) => S::Removing,
            (S::Removing, E::RemoveFailed) => S::Dead,
            (S::Starting | S::Running | S::Paused | S::Removing | S::Dead, E::Start)
            | (
                S::Created | S::Running | S::Paused | S::Restarting | S::Removing | S::Exited | S::Dead,
                E::Started | E::Failed,
            )
            | (S::Created | S::Starting | S::Paused | S::Restarting | S::Removing | S::Exited | S::Dead, E::Pause)
            | (S::Created | S::Starting | S::Running | S::Restarting | S::Removing | S::Exited | S::Dead, E::Unpause)
            | (S::Created | S::Removing | S::Exited | S::Dead, E::Exit)
            | (S::Created | S::Restarting | S::Removing | S::Exited | S::Dead, E::Restart)
            | (S::Created | S::Starting | S::Running | S::Paused | S::Removing | S::Exited | S::Dead, E::Cancel)
            | (S::Starting | S::Running | S::Paused | S::Restarting, E::Remove)
            | (
                S::Created | S::Starting | S::Running | S::Paused | S::Restarting | S::Exited | S::Dead,
                E::RemoveFailed,
            ) => {
                return Err(Error::new(Class::Conflict, format!("the container is {self}: it cannot {event}")));
            }
        };
        Ok(next)
    }

    /// True while a monitor must be holding the container's lock.
    pub fn is_live(self) -> bool {
        match self {
            State::Starting | State::Running | State::Paused | State::Restarting => true,
            State::Created | State::Removing | State::Exited | State::Dead => false,
        }
    }

    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Starting => "starting",
            State::Running => "running",
            State::Paused => "paused",
            State::Restarting => "restarting",
            State::Removing => "removing",
            State::Exited => "exited",
            State::Dead => "dead",
        }
    }
}

impl Event {
    /// Docker's word for it in `events`, if docker tells it.
    pub fn told(self) -> Option<&'static str> {
        match self {
            Event::Started => Some("start"),
            Event::Pause => Some("pause"),
            Event::Unpause => Some("unpause"),
            Event::Exit | Event::Restart => Some("die"),
            Event::Start | Event::Failed | Event::Cancel | Event::Remove | Event::RemoveFailed => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Event::Start => "start",
            Event::Started => "have started",
            Event::Failed => "have failed to start",
            Event::Pause => "be paused",
            Event::Unpause => "be unpaused",
            Event::Exit => "have exited",
            Event::Restart => "restart",
            Event::Cancel => "have its restart cancelled",
            Event::Remove => "be removed",
            Event::RemoveFailed => "have failed to be removed",
        })
    }
}

impl FromStr for State {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        State::ALL
            .into_iter()
            .find(|s| s.name() == text)
            .ok_or_else(|| Error::new(Class::InvalidInput, format!("invalid container state {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 10] = [
        Event::Start,
        Event::Started,
        Event::Failed,
        Event::Pause,
        Event::Unpause,
        Event::Exit,
        Event::Restart,
        Event::Cancel,
        Event::Remove,
        Event::RemoveFailed,
    ];

    /// The whole machine, written out a second time: a row a state, a column an event, `-` for a refusal.
    #[test]
    fn every_state_meets_every_event() {
        let table = "
            created    starting - - - - - - - removing -
            starting   - running exited - - exited restarting - - -
            running    - - - paused - exited restarting - - -
            paused     - - - - running exited restarting - - -
            restarting starting - - - - exited - exited - -
            removing   - - - - - - - - removing dead
            exited     starting - - - - - - - removing -
            dead       - - - - - - - - removing -
        ";
        let rows: Vec<&str> = table.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        assert_eq!(rows.len(), State::ALL.len());
        for (row, state) in rows.iter().zip(State::ALL) {
            let mut words = row.split_whitespace();
            assert_eq!(words.next(), Some(state.name()));
            let cells: Vec<&str> = words.collect();
            assert_eq!(cells.len(), EVENTS.len());
            for (cell, event) in cells.iter().zip(EVENTS) {
                match state.after(event) {
                    Ok(next) => assert_eq!(next.name(), *cell, "{state} + {event:?}"),
                    Err(_) => assert_eq!("-", *cell, "{state} + {event:?}"),
                }
            }
        }
    }

    #[test]
    fn names_read_back() {
        for state in State::ALL {
            assert_eq!(state.name().parse::<State>().unwrap(), state);
        }
        assert!("sleeping".parse::<State>().is_err());
    }
}
