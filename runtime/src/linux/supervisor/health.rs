//! The monitor's health checks: a probe is an exec like any other, whose output is kept instead of shown.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{MAIN, Monitor, QUIET};
use crate::container::Container;
use crate::error::{Error, Result};
use crate::health::{Health, HealthConfig, MAX_OUTPUT, Probe};
use crate::linux::streams::{self, Streams};
use crate::task::ExecSpec;

/// The checks of a container.
pub(super) struct Checks {
    config: HealthConfig,
    command: Vec<String>,
    health: Health,
    /// When the next probe begins, or this one has taken too long.
    pub due: Instant,
    running: Option<Running>,
}

/// A probe that runs.
struct Running {
    task: u64,
    start: Timestamp,
    output: Vec<u8>,
}

impl Checks {
    /// The checks of a container that has just started, if it is to be checked.
    pub fn of(container: &Container) -> Option<Checks> {
        // What an image says is a program to be executed, which a WebAssembly container has no means to do.
        let config = container.health_config().filter(|_| !container.image.is_wasm())?;
        let command = config.command()?;
        let due = Instant::now() + config.pause(crate::health::Verdict::Starting, Duration::ZERO);
        let old = container.state.health.clone().unwrap_or_default();
        let health = Health { log: old.log, ..Health::default() };
        Some(Checks { config, command, health, due, running: None })
    }

    /// Keeps what the task wrote, if it is the probe.
    pub fn hear(&mut self, task: u64, bytes: &[u8]) {
        if let Some(running) = self.running.as_mut().filter(|running| running.task == task) {
            let room = MAX_OUTPUT.saturating_sub(running.output.len());
            running.output.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
}

impl Monitor {
    /// When a check is due; a frozen container is not checked.
    pub(super) fn check_due(&self) -> Option<Instant> {
        let checks = self.checks.as_ref()?;
        (!self.paused && self.tasks.contains_key(&MAIN)).then_some(checks.due)
    }

    /// Begins a probe, or ends one that has taken too long.
    pub(super) fn check(&mut self) -> Result<()> {
        let Some(checks) = &mut self.checks else { return Ok(()) };
        let start = Timestamp::now();
        if let Some(running) = &checks.running {
            let task = running.task;
            let text = format!("Health check exceeded timeout ({})", seconds(checks.config.patience()));
            if let Some(streams) = self.tasks.get(&task) {
                let _ = streams.task.signal(libc::SIGKILL);
            }
            return self.checked(task, -1, Some(text));
        }
        checks.due = Instant::now() + checks.config.patience();
        let spec = ExecSpec { args: checks.command.clone(), ..ExecSpec::default() };
        match self.probe(&spec) {
            Ok(streams) => {
                let task = self.add_exec(&spec, streams);
                if let Some(checks) = &mut self.checks {
                    checks.running = Some(Running { task, start, output: Vec::new() });
                }
                Ok(())
            }
            Err(error) => self.judge(Probe { start, end: Timestamp::now(), exit_code: -1, output: error.to_string() }),
        }
    }

    fn probe(&self, spec: &ExecSpec) -> Result<Streams> {
        let (stdio, ends) = streams::make(false, false, None)?;
        let mut task = self.main()?.task.exec(spec, stdio)?;
        task.start()?;
        Ok(Streams::new(task, ends))
    }

    /// A task has ended: if it is the probe, it counts.
    pub(super) fn checked(&mut self, task: u64, code: i32, instead: Option<String>) -> Result<()> {
        let running = self.checks.as_mut().and_then(|checks| checks.running.take_if(|running| running.task == task));
        let Some(Running { start, output, .. }) = running else { return Ok(()) };
        let output = instead.unwrap_or_else(|| String::from_utf8_lossy(&output).into_owned());
        self.judge(Probe { start, end: Timestamp::now(), exit_code: code, output })
    }

    fn judge(&mut self, probe: Probe) -> Result<()> {
        let Some(checks) = &mut self.checks else { return Ok(()) };
        let started = self.container.state.started.unwrap_or(probe.start);
        let changed = checks.health.judge(probe, &checks.config, started);
        let age = Duration::try_from(Timestamp::now().duration_since(started)).unwrap_or_default();
        checks.due = Instant::now() + checks.config.pause(checks.health.status, age);
        let health = checks.health.clone();
        if changed {
            self.untold.push(self.container.event(format!("health_status: {}", health.status.name())));
        }
        let events = std::mem::take(&mut self.untold);
        self.quiet_at = Some(Instant::now() + QUIET);
        let recorded = self.engine.containers()?.set_health(&self.container.id, &health, &events);
        self.container.state.health = Some(health);
        recorded
    }

    /// What has started is checked from the beginning.
    pub(super) fn begin_checks(&mut self) -> Result<()> {
        self.checks = Checks::of(&self.container);
        let Some(checks) = &self.checks else { return Ok(()) };
        let health = checks.health.clone();
        self.engine.containers()?.set_health(&self.container.id, &health, &[])?;
        self.container.state.health = Some(health);
        Ok(())
    }
}

/// As Go prints durations of whole seconds and less: `30s`, `1.5s`, `200ms`.
fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1000 => format!("{ms}ms"),
        _ => format!("{}s", duration.as_secs_f64()),
    }
}

/// A failure to check is told where the monitor tells its failures, and the next check is tried.
pub(super) fn told(outcome: Result<(), Error>) {
    if let Err(e) = outcome {
        eprintln!("wharf: health check: {e}");
    }
}
