//! Health checks: what is asked for, and what a container's probes say of it
//! (<https://docs.docker.com/reference/dockerfile/#healthcheck>). How a probe is run is the monitor's affair.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// So many results are kept.
const KEPT: usize = 5;

/// So many bytes of a probe's output are kept.
pub const MAX_OUTPUT: usize = 4096;

/// Docker's `Healthcheck`, in the image's config and the container's: durations in nanoseconds; 0 and nothing take what
/// the image says, else docker's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    /// `["NONE"]`, `["CMD", program, ...]` or `["CMD-SHELL", line]`; and, which docker does not know, `["HTTP", path]` and
    /// `["TCP", port]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between the end of a probe and the next.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// A probe that takes longer has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// Failures count only so long after the start, or after the first success.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// The interval in the start period.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// So many failures in a row are unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl HealthConfig {
    /// What the container says; where it says nothing, what the image says.
    #[must_use]
    pub fn or(mut self, image: HealthConfig) -> HealthConfig {
        let first = |own: u64, other: u64| if own == 0 { other } else { own };
        if self.test.is_empty() {
            self.test = image.test;
        }
        HealthConfig {
            test: self.test,
            interval: first(self.interval, image.interval),
            timeout: first(self.timeout, image.timeout),
            start_period: first(self.start_period, image.start_period),
            start_interval: first(self.start_interval, image.start_interval),
            retries: first(self.retries, image.retries),
        }
    }

    /// What a probe does, if there is to be one.
    pub fn question(&self) -> Option<Question> {
        let (kind, args) = self.test.split_first()?;
        match (kind.as_str(), args) {
            ("CMD", [_, ..]) => Some(Question::Run(args.to_vec())),
            ("CMD-SHELL", [line, ..]) => Some(Question::Run(["/bin/sh", "-c", line].map(str::to_owned).to_vec())),
            ("HTTP", [place]) => parse_http(place).ok(),
            ("TCP", [port]) => parse_tcp(port).ok(),
            _ => None,
        }
    }

    /// How long a probe may take.
    pub fn patience(&self) -> Duration {
        or_default(self.timeout, 30)
    }

    /// How long to wait for the next probe of what started so long ago.
    pub fn pause(&self, health: Verdict, age: Duration) -> Duration {
        if health == Verdict::Starting && age < Duration::from_nanos(self.start_period) {
            or_default(self.start_interval, 5)
        } else {
            or_default(self.interval, 30)
        }
    }

    fn retries(&self) -> u64 {
        if self.retries == 0 { 3 } else { self.retries }
    }
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// It runs a program in the container, which must end with 0.
    Run(Vec<String>),
    /// It connects to a port of the container.
    Connect(u16),
    /// It asks a port of the container for a path, and wants a status from 200 to 399.
    Get {
        /// The port; where there is none, the one that the container serves.
        port: Option<u16>,
        /// From the slash on.
        path: String,
    },
}

/// What a probe executes where there is no shell: the words of the line that the shell was to be given.
pub fn without_shell(args: Vec<String>) -> Vec<String> {
    match args.as_slice() {
        [shell, c, line] if shell == "/bin/sh" && c == "-c" => line.split_whitespace().map(str::to_owned).collect(),
        _ => args,
    }
}

/// `--health-http`: `/path`, or `:port/path`.
///
/// # Errors
/// Says what it must look like.
pub fn parse_http(text: &str) -> Result<Question, String> {
    let bad = || format!("invalid path {text:?}: expected /PATH or :PORT/PATH");
    let (port, path) = match text.strip_prefix(':').and_then(|rest| rest.split_once('/')) {
        Some((port, path)) => (Some(parse_port(port).map_err(|_| bad())?), format!("/{path}")),
        None => (None, text.to_owned()),
    };
    // It becomes a line of a request.
    let fits = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Question::Get { port, path }) } else { Err(bad()) }
}

/// `--health-tcp`: a port.
///
/// # Errors
/// Says what it must look like.
pub fn parse_tcp(text: &str) -> Result<Question, String> {
    parse_port(text).map(Question::Connect)
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(format!("invalid port {text:?}: expected a number from 1 to 65535")),
    }
}

fn or_default(nanoseconds: u64, seconds: u64) -> Duration {
    if nanoseconds == 0 { Duration::from_secs(seconds) } else { Duration::from_nanos(nanoseconds) }
}

/// What the probes say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing yet.
    #[default]
    Starting,
    /// The last one succeeded.
    Healthy,
    /// Too many failed.
    Unhealthy,
}

impl Verdict {
    /// Docker's word.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Starting => "starting",
            Verdict::Healthy => "healthy",
            Verdict::Unhealthy => "unhealthy",
        }
    }
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its exit code; -1 when it could not be run or took too long.
    pub exit_code: i32,
    /// What it wrote, or why there is nothing.
    pub output: String,
}

/// A container's health, under docker's field names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// The verdict.
    pub status: Verdict,
    /// Failures in a row.
    pub failing_streak: u64,
    /// The last probes, the oldest first.
    pub log: Vec<Probe>,
}

impl Health {
    /// Takes one more probe of what has `started` then into account. True when the verdict is another one now.
    pub fn judge(&mut self, probe: Probe, config: &HealthConfig, started: Timestamp) -> bool {
        let before = self.status;
        if probe.exit_code == 0 {
            (self.status, self.failing_streak) = (Verdict::Healthy, 0);
        } else {
            let age = Duration::try_from(probe.start.duration_since(started)).unwrap_or_default();
            if self.status != Verdict::Starting || age >= Duration::from_nanos(config.start_period) {
                self.failing_streak += 1;
                if self.failing_streak >= config.retries() {
                    self.status = Verdict::Unhealthy;
                }
            }
        }
        self.log.push(probe);
        self.log.drain(..self.log.len().saturating_sub(KEPT));
        self.status != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(second: i64, exit_code: i32) -> Probe {
        let at = Timestamp::from_second(second).unwrap();
        Probe { start: at, end: at, exit_code, output: String::new() }
    }

    #[test]
    fn failures_count_after_the_start_period_or_the_first_success() {
        let config = HealthConfig { retries: 2, start_period: 10_000_000_000, ..HealthConfig::default() };
        let started = Timestamp::UNIX_EPOCH;
        let mut health = Health::default();
        for second in 0..9 {
            assert!(!health.judge(probe(second, 1), &config, started));
        }
        assert_eq!((health.status, health.failing_streak, health.log.len()), (Verdict::Starting, 0, KEPT));
        let mut early = health.clone();
        assert!(early.judge(probe(9, 0), &config, started));
        assert!(!early.judge(probe(9, 1), &config, started));
        assert!(early.judge(probe(9, -1), &config, started));
        assert_eq!((early.status, early.failing_streak), (Verdict::Unhealthy, 2));
        assert!(!health.judge(probe(10, 1), &config, started));
        assert!(health.judge(probe(11, 1), &config, started));
        assert!(health.judge(probe(12, 0), &config, started));
        assert_eq!((health.status, health.failing_streak), (Verdict::Healthy, 0));
    }

    #[test]
    fn what_the_container_does_not_say_the_image_does() {
        let json = r#"{"Test":["CMD","curl","x"],"Interval":5000000000,"Retries":9}"#;
        let image: HealthConfig = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&image).unwrap(), json);
        let merged = HealthConfig { retries: 1, ..HealthConfig::default() }.or(image);
        assert_eq!(merged.question(), Some(Question::Run(vec!["curl".to_owned(), "x".to_owned()])));
        assert_eq!((merged.retries(), merged.patience()), (1, Duration::from_secs(30)));
        assert_eq!(merged.pause(Verdict::Starting, Duration::ZERO), Duration::from_secs(5));
        let none = HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() };
        assert_eq!(none.question(), None);
        assert_eq!(HealthConfig::default().question(), None);
    }

    #[test]
    fn questions_that_need_no_program() {
        let asks = |test: &[&str]| {
            let test = test.iter().map(|&word| word.to_owned()).collect();
            HealthConfig { test, ..HealthConfig::default() }.question()
        };
        let get = |port, path: &str| Some(Question::Get { port, path: path.to_owned() });
        assert_eq!(asks(&["HTTP", "/up?x=1"]), get(None, "/up?x=1"));
        assert_eq!(asks(&["HTTP", ":8080/"]), get(Some(8080), "/"));
        assert_eq!(asks(&["TCP", "6379"]), Some(Question::Connect(6379)));
        for bad in ["", "up", ":x/up", ":0/", ":80", "/a b", "/\r\nHost: x", "/\u{e9}"] {
            assert_eq!(asks(&["HTTP", bad]), None, "{bad:?}");
        }
        for bad in ["", "0", "65536", "http"] {
            assert_eq!(asks(&["TCP", bad]), None, "{bad:?}");
        }
    }
}
