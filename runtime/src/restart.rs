//! Restart policies: whether a container that ended starts again, and when
//! (<https://docs.docker.com/engine/containers/start-containers-automatically/>).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Class, Error, Result};

/// The first pause; each one is twice as long as the one before.
const SHORTEST: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(60);
/// Who ran for so long begins with the shortest pause again.
const HEALTHY: Duration = Duration::from_secs(10);

/// Docker's `--restart`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// It stays ended.
    #[default]
    No,
    /// It starts again when its exit code is not 0, at most so many times.
    OnFailure(Option<u32>),
    /// It starts again, and when the system starts.
    Always,
    /// The same, but what somebody has stopped does not start with the system.
    UnlessStopped,
}

impl RestartPolicy {
    /// Docker's name for it.
    pub fn name(self) -> &'static str {
        match self {
            RestartPolicy::No => "no",
            RestartPolicy::OnFailure(_) => "on-failure",
            RestartPolicy::Always => "always",
            RestartPolicy::UnlessStopped => "unless-stopped",
        }
    }

    /// Docker's `MaximumRetryCount`: 0 is no limit.
    pub fn most(self) -> u32 {
        match self {
            RestartPolicy::OnFailure(most) => most.unwrap_or(0),
            RestartPolicy::No | RestartPolicy::Always | RestartPolicy::UnlessStopped => 0,
        }
    }

    /// Whether what ended by itself with `code`, after `restarts` restarts, starts again.
    pub fn wants(self, code: i32, restarts: u32) -> bool {
        match self {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure(most) => code != 0 && most.is_none_or(|most| restarts < most),
            RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        }
    }

    /// Whether what has ended starts when the system does. `stopped`: somebody has stopped it.
    pub fn boots(self, stopped: bool) -> bool {
        match self {
            RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !stopped,
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestartPolicy::OnFailure(Some(most)) => write!(f, "on-failure:{most}"),
            other => f.write_str(other.name()),
        }
    }
}

impl FromStr for RestartPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        WrittenPolicy::parse(text)?.policy()
    }
}

/// A policy as it is written, `NAME[:COUNT]`: its form is right, its meaning not looked at. (Docker's client looks at the
/// one and its daemon at the other.)
#[derive(Debug, Clone, Copy)]
pub struct WrittenPolicy<'a> {
    /// Which policy.
    pub name: &'a str,
    count: i64,
}

fn bad<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(Class::InvalidInput, message))
}

impl<'a> WrittenPolicy<'a> {
    /// Takes its two parts.
    ///
    /// # Errors
    /// `InvalidInput` without a name before the colon, or without a number behind it.
    pub fn parse(text: &'a str) -> Result<Self> {
        let (name, count) = text.split_once(':').map_or((text, None), |(name, count)| (name, Some(count)));
        if name.is_empty() && count.is_some() {
            return bad("invalid restart policy format: no policy provided before colon");
        }
        match count.filter(|count| !count.is_empty()).map(str::parse) {
            None => Ok(WrittenPolicy { name, count: 0 }),
            Some(Ok(count)) => Ok(WrittenPolicy { name, count }),
            Some(Err(_)) => bad("invalid restart policy format: maximum retry count must be an integer"),
        }
    }

    /// The policy that is meant.
    ///
    /// # Errors
    /// `InvalidInput` when there is none of this name, or none with this count.
    pub fn policy(self) -> Result<RestartPolicy> {
        let policy = match self.name {
            "" | "no" => RestartPolicy::No,
            "always" => RestartPolicy::Always,
            "unless-stopped" => RestartPolicy::UnlessStopped,
            "on-failure" => {
                return match u32::try_from(self.count) {
                    Ok(count) => Ok(RestartPolicy::OnFailure((count > 0).then_some(count))),
                    Err(_) => bad("invalid restart policy: maximum retry count cannot be negative"),
                };
            }
            other => {
                return bad(format!(
                    "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or \
                     'unless-stopped'"
                ));
            }
        };
        match self.count {
            0 => Ok(policy),
            _ => bad("invalid restart policy: maximum retry count can only be used with 'on-failure'"),
        }
    }
}

/// The pauses between starts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    /// The pause after a run that lasted so long.
    pub fn next(&mut self, lived: Duration) -> Duration {
        self.0 = if lived >= HEALTHY || self.0.is_zero() { SHORTEST } else { (self.0 * 2).min(LONGEST) };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_read_back_and_wrong_ones_are_refused() {
        for text in ["no", "always", "unless-stopped", "on-failure", "on-failure:3"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        assert_eq!("".parse::<RestartPolicy>().unwrap(), RestartPolicy::No);
        assert_eq!("on-failure:0".parse::<RestartPolicy>().unwrap(), RestartPolicy::OnFailure(None));
        for text in ["sometimes", ":3", "always:3", "on-failure:x", "on-failure:-1", "no:1"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap_err().class(), Class::InvalidInput, "{text}");
        }
    }

    #[test]
    fn who_starts_again() {
        use RestartPolicy as P;
        for code in [0, 1, 137] {
            assert!(!P::No.wants(code, 0));
            assert!(P::Always.wants(code, 1000) && P::UnlessStopped.wants(code, 1000));
            assert_eq!(P::OnFailure(None).wants(code, 1000), code != 0);
        }
        assert!(P::OnFailure(Some(2)).wants(1, 1) && !P::OnFailure(Some(2)).wants(1, 2));
        assert!(P::Always.boots(true) && P::UnlessStopped.boots(false) && !P::UnlessStopped.boots(true));
        assert!(!P::No.boots(false) && !P::OnFailure(None).boots(false));
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..12).map(|_| backoff.next(Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(backoff.next(Duration::from_secs(10)), SHORTEST);
    }
}
