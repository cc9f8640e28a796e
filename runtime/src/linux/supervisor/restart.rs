//! Between two runs of a container: its task has ended, its restart policy wants another, and its monitor waits.
//!
//! In this time there is no task, only the lock, the socket and the log; state and exit code are recorded, so that a
//! monitor that dies here is followed by another one, made by whoever finds the lock free.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use wharf_images::Class;

use super::{MAIN, Monitor, QUIET, health};
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::linux::gate::Desk;
use crate::linux::monitor::backend;
use crate::linux::streams::{self, Streams};
use crate::monitor::ExitRecord;
use crate::plan::{self, PlannedFile};
use crate::state::Event;
use crate::task::Exit;

/// The pause before the next start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest {
    pub until: Instant,
    /// How the last task ended.
    pub exit: Exit,
}

impl Monitor {
    /// The task has ended: true if another one is to follow, which is then recorded and waited for.
    pub(super) fn rests(&mut self, exit: Exit) -> Result<bool> {
        let status = &self.container.state;
        if self.leaving || status.stopped || !self.container.config.restart.wants(exit.code, status.restarts) {
            return Ok(false);
        }
        let record = ExitRecord { exit, finished: Timestamp::now() };
        let lived = status.started.map_or(0, |started| record.finished.duration_since(started).as_millis());
        let pause = self.backoff.next(Duration::from_millis(u64::try_from(lived).unwrap_or(0)));
        let before = self.last_words(exit);
        record.write(&self.engine.paths().exit_record(&self.container.id))?;
        self.container.state = self.engine.record_restart(&self.container, &record, &before)?;
        for (number, mut streams) in std::mem::take(&mut self.tasks) {
            // Execs died with the container's first process.
            self.tell_exit(number, if number == MAIN { exit.code } else { 137 });
            if let Err(e) = streams.task.delete() {
                eprintln!("wharf: {e}");
            }
        }
        self.checks = None;
        if let Some(gate) = &mut self.gate {
            gate.clear();
        }
        (self.kill_at, self.timeout_at, self.paused) = (None, None, false);
        self.quiet_at = Some(Instant::now() + QUIET);
        self.rest = Some(Rest { until: Instant::now() + pause, exit });
        Ok(true)
    }

    /// The pause is over: starts another task.
    pub(super) fn resume(&mut self) -> Result<()> {
        let mut made = None;
        let resumed = self.try_resume(&mut made);
        if resumed.is_err()
            && let Some(mut streams) = made
        {
            let _ = streams.task.signal(libc::SIGKILL);
            let _ = streams.task.delete();
        }
        resumed
    }

    fn try_resume(&mut self, made: &mut Option<Streams>) -> Result<()> {
        let containers = self.engine.containers()?;
        let before = std::mem::take(&mut self.untold);
        let started = containers.advance(&self.container, Event::Start, (&before, &[]), |_| ())?;
        self.container.state = started;
        self.rest = None;
        ExitRecord::remove(&self.engine.paths().exit_record(&self.container.id))?;
        let streams = made.insert(make(&self.engine, &self.container)?);
        streams.task.place()?;
        if let Some(connected) = &self.connected {
            streams.task.connect(connected.again(&self.engine, &self.container)?)?;
        }
        if let Some(relayed) = &mut self.relayed {
            streams.task.relay(&mut |pid| relayed.connect(&self.engine, &self.container, pid))?;
        }
        streams.take_console()?;
        if let Some(sockets) = streams.task.take_names() {
            super::answer_names(self.connected.as_mut(), self.relayed.as_mut(), sockets);
        }
        match &mut self.gate {
            Some(gate) => streams.task.start_connected(&mut Desk { gate, engine: &self.engine, guest: MAIN })?,
            None => streams.task.start()?,
        }
        let (pid, walls) = (streams.task.pid(), streams.task.walls().cloned());
        self.container.state =
            containers.advance(&self.container, Event::Started, (&[], &[]), |status| status.begin(pid, walls))?;
        self.timeout_at = self.container.config.timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        self.quiet_at = Some(Instant::now() + QUIET);
        self.tasks.extend(made.take().map(|streams| (MAIN, streams)));
        health::told(self.begin_checks());
        Ok(())
    }

    /// The container's task, which there is none of between two runs.
    pub(super) fn main(&self) -> Result<&Streams> {
        self.tasks.get(&MAIN).ok_or_else(|| {
            let text = format!("Container {} is restarting, wait until the container is running", self.container.id);
            Error::new(Class::Conflict, text)
        })
    }
}

fn make(engine: &Engine, container: &Container) -> Result<Streams> {
    let (spec, files) = plan::task_spec(engine, container, None)?;
    let (stdio, ends) = streams::make(container.config.tty, container.config.interactive, None)?;
    let task = backend(container.backend())?.create(&spec, stdio)?;
    let mut streams = Streams::new(task, ends);
    match files.iter().try_for_each(PlannedFile::write) {
        Ok(()) => Ok(streams),
        Err(error) => {
            let _ = streams.task.signal(libc::SIGKILL);
            let _ = streams.task.delete();
            Err(error)
        }
    }
}
