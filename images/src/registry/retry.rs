//! When to ask again, and how long to wait: exponential back-off with full jitter, so that many clients that were
//! turned away together do not come back together. `Retry-After` is obeyed up to a cap
//! (<https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>).

use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// How failed requests are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// How often a request is made at most.
    pub attempts: u32,
    /// The longest first pause.
    pub base: Duration,
    /// The longest pause, also when the server asks for a longer one.
    pub cap: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { attempts: 6, base: Duration::from_millis(400), cap: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The pause after the `failures`th failure in a row (from 1).
    pub(super) fn pause(&self, failures: u32, asked: Option<Duration>) -> Duration {
        if let Some(asked) = asked {
            return asked.min(self.cap);
        }
        let longest = self.base.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.cap);
        // Not less than half: a pause of nothing would waste an attempt.
        longest.mul_f64(0.5 + 0.5 * jitter())
    }
}

/// A number in 0..1. Without the system's randomness there is no jitter, which harms nobody.
fn jitter() -> f64 {
    let mut bytes = [0u8; 4];
    match crate::os::random(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    }
}

/// True for answers that a later attempt may better.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// What `Retry-After` asks for: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let when: SystemTime = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().into();
    Some(when.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_capped() {
        let backoff = Backoff { attempts: 9, base: Duration::from_millis(100), cap: Duration::from_secs(1) };
        for (failures, longest) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (60, 1000)] {
            for _ in 0..50 {
                let pause = backoff.pause(failures, None).as_millis();
                assert!(pause >= longest / 2 && pause <= longest, "{failures}: {pause}");
            }
        }
        assert_eq!(backoff.pause(1, Some(Duration::from_millis(700))), Duration::from_millis(700));
        assert_eq!(backoff.pause(1, Some(Duration::from_secs(86400))), Duration::from_secs(1));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let headers = |text: &str| HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Wed, 21 Oct 2015 07:28:00 GMT")), Some(Duration::ZERO));
        let far = retry_after(&headers("Fri, 21 Oct 2095 07:28:00 GMT")).unwrap();
        assert!(far > Duration::from_secs(86400));
        assert_eq!(retry_after(&headers("soon")), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
