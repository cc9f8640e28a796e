//! The monitor's health checks: a probe is an exec like any other, whose output is kept instead of shown, or a call to
//! one of the container's ports ([`super::call`]), which needs no program in the image.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::PollFd;
use wharf_images::lease::Lease;

use super::call::{self, Call};
use super::{MAIN, Monitor, QUIET};
use crate::backend::modules;
use crate::container::Container;
use crate::error::{Class, Error, Result};
use crate::health::{Health, HealthConfig, MAX_OUTPUT, Probe, Question, without_shell};
use crate::linux::sockets;
use crate::linux::streams;
use crate::plan;
use crate::task::ExecSpec;

/// The checks of a container.
pub(super) struct Checks {
    config: HealthConfig,
    question: Question,
    /// What is executed in a WebAssembly container, once it has been found.
    program: Option<ExecSpec>,
    health: Health,
    /// When the next probe begins, or this one has taken too long.
    pub due: Instant,
    running: Option<Running>,
}

/// A probe that runs.
struct Running {
    start: Timestamp,
    how: How,
}

/// How it runs.
enum How {
    /// As a task, with what that has written.
    Exec(u64, Vec<u8>),
    /// As a call.
    Call(Call),
}

impl Checks {
    /// The checks of a container that has just started, if it is to be checked.
    pub fn of(container: &Container) -> Option<Checks> {
        let config = container.health_config()?;
        let question = match config.question()? {
            Question::Run(args) if container.image.is_wasm() => Question::Run(without_shell(args)),
            question => question,
        };
        let due = Instant::now() + config.pause(crate::health::Verdict::Starting, Duration::ZERO);
        let old = container.state.health.clone().unwrap_or_default();
        let health = Health { log: old.log, ..Health::default() };
        Some(Checks { config, question, program: None, health, due, running: None })
    }

    /// Keeps what the task wrote, if it is the probe.
    pub fn hear(&mut self, task: u64, bytes: &[u8]) {
        if let Some(Running { how: How::Exec(number, output), .. }) = &mut self.running
            && *number == task
        {
            let room = MAX_OUTPUT.saturating_sub(output.len());
            output.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// What to wait for, while a call lasts.
    pub fn poll(&self) -> Option<PollFd<'_>> {
        match &self.running.as_ref()?.how {
            How::Call(call) => Some(call.poll()),
            How::Exec(..) => None,
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
        if let Some(running) = &checks.running {
            let text = format!("Health check exceeded timeout ({})", seconds(checks.config.patience()));
            if let How::Exec(task, _) = running.how
                && let Some(streams) = self.tasks.get(&task)
            {
                let _ = streams.task.signal(libc::SIGKILL);
            }
            return self.answered(-1, Some(text));
        }
        checks.due = Instant::now() + checks.config.patience();
        let (start, question) = (Timestamp::now(), checks.question.clone());
        let failure = if matches!(question, Question::Run(_)) { -1 } else { 1 };
        match self.ask(question) {
            Ok(how) => {
                if let Some(checks) = &mut self.checks {
                    checks.running = Some(Running { start, how });
                }
                Ok(())
            }
            Err(error) => {
                let (end, output) = (Timestamp::now(), error.to_string());
                self.judge(Probe { start, end, exit_code: failure, output })
            }
        }
    }

    fn ask(&mut self, question: Question) -> Result<How> {
        let (port, path) = match question {
            Question::Run(args) => {
                let spec = self.program(ExecSpec { args, ..ExecSpec::default() })?;
                let task = self.start_exec(&spec, streams::make(false, false, None)?)?;
                return Ok(How::Exec(task, Vec::new()));
            }
            Question::Connect(port) => (port, None),
            Question::Get { port: Some(port), path } => (port, Some(path)),
            Question::Get { port: None, path } => {
                (plan::http_port(&self.container.config, &self.container.image.config)?, Some(path))
            }
        };
        Ok(How::Call(Call::new(self.connect(port)?, port, path.as_deref())))
    }

    /// What is executed, found and compiled if that is needed. It is looked for once in a container's run: the monitor has
    /// nobody else to do that, and nothing else is done meanwhile.
    fn program(&mut self, spec: ExecSpec) -> Result<ExecSpec> {
        let Some(checks) = self.checks.as_mut().filter(|_| self.container.image.is_wasm()) else { return Ok(spec) };
        if let Some(program) = &checks.program {
            return Ok(program.clone());
        }
        let _lease = Lease::take(&self.engine.paths().root)?;
        let program = modules::executable(&self.engine, &self.container, &spec)?;
        Ok(checks.program.insert(program).clone())
    }

    /// Begins to connect to a port of the container, as from its own loopback.
    fn connect(&mut self, port: u16) -> Result<OwnedFd> {
        let failed = |fault| Error::new(Class::Unavailable, call::failure(port, fault));
        if let Some(gate) = &mut self.gate {
            return gate.call_guest(port).map_err(failed);
        }
        let socket = OwnedFd::from(self.main()?.task.socket()?);
        sockets::begin_connect(&socket, SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)).map_err(failed)?;
        Ok(socket)
    }

    /// A task has ended: if it is the probe, it counts.
    pub(super) fn checked(&mut self, task: u64, code: i32) -> Result<()> {
        let running = self.checks.as_ref().and_then(|checks| checks.running.as_ref());
        match running.map(|running| &running.how) {
            Some(How::Exec(number, _)) if *number == task => self.answered(code, None),
            _ => Ok(()),
        }
    }

    /// A call can go on.
    pub(super) fn called(&mut self) -> Result<()> {
        let running = self.checks.as_mut().and_then(|checks| checks.running.as_mut());
        match running.map(|running| &mut running.how) {
            Some(How::Call(call)) => match call.go_on() {
                Some((code, text)) => self.answered(code, Some(text)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// The probe is over.
    fn answered(&mut self, exit_code: i32, instead: Option<String>) -> Result<()> {
        let running = self.checks.as_mut().and_then(|checks| checks.running.take());
        let Some(Running { start, how }) = running else { return Ok(()) };
        let output = match how {
            How::Exec(_, output) => String::from_utf8_lossy(&output).into_owned(),
            How::Call(_) => String::new(),
        };
        self.judge(Probe { start, end: Timestamp::now(), exit_code, output: instead.unwrap_or(output) })
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
