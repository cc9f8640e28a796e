//! Sizes and durations as docker shows and reads them (its go-units library: <https://pkg.go.dev/github.com/docker/go-units>).

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// Bytes with three digits that count: `1.23MB`.
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, &DECIMAL, 3)
}

/// Bytes with four digits that count: `1.234MB`. Docker has sums so.
pub fn sum(bytes: u64) -> String {
    scaled(bytes, 1000.0, &DECIMAL, 4)
}

/// Bytes in powers of 1024 with four digits that count: `15.64GiB`.
pub fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &BINARY, 4)
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    // Losing the last of more than 53 bits does not show in four digits.
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// C's `%.Ng` for numbers from 0 to a few thousand.
fn significant(value: f64, digits: usize) -> String {
    let whole = format!("{value:.0}").len();
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// How long, roughly: `About a minute`, `3 hours`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 730 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// How long from `then` to `now`, roughly; nothing when the clock went backwards.
pub fn elapsed(then: Timestamp, now: Timestamp) -> String {
    human_duration(Duration::try_from(now.duration_since(then)).unwrap_or_default())
}

/// `2 minutes ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    format!("{} ago", elapsed(then, now))
}

/// Go's default form of a time, where we are: `2006-01-02 15:04:05 -0700 MST`.
pub fn date(time: Timestamp) -> String {
    local(time).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// The same to the nanosecond, as far as it is known: Go's `Time.String`.
pub fn exact_date(time: Timestamp) -> String {
    local(time).strftime("%Y-%m-%d %H:%M:%S%.f %z %Z").to_string()
}

/// The same as RFC 3339 writes it, without fractions: `2006-01-02T15:04:05-07:00`, or `Z` for UTC.
pub fn rfc3339(time: Timestamp) -> String {
    let zoned = local(time);
    let zone = if zoned.offset().is_zero() { "Z".to_owned() } else { zoned.strftime("%:z").to_string() };
    zoned.strftime("%Y-%m-%dT%H:%M:%S").to_string() + &zone
}

/// In the person's time zone (`TZ`, `/etc/localtime`), or in UTC where there is none.
fn local(time: Timestamp) -> Zoned {
    time.to_zoned(TimeZone::try_system().unwrap_or(TimeZone::UTC))
}

/// Reads a size of memory or disk: `512m`, `1.5g`, `64KiB`, or plain bytes. Units are powers of 1024.
///
/// # Errors
/// Docker's words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let bad = || format!("invalid size: '{text}'");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let suffix = suffix.strip_prefix(' ').unwrap_or(suffix).to_ascii_lowercase();
    let (unit, tail) = suffix.split_at(suffix.len().min(usize::from(suffix.starts_with(['k', 'm', 'g', 't', 'p']))));
    if !matches!(tail, "" | "b" | "i" | "ib") {
        return Err(format!("invalid suffix: '{suffix}'"));
    }
    let power = match unit {
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => 0,
    };
    // Truncation is docker's; a float to integer cast saturates.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bytes = (number * 1024f64.powi(power)) as u64;
    Ok(bytes)
}

/// As Go prints it: `1m30s`.
pub fn go_duration(duration: Duration) -> String {
    let decimal = |nanoseconds: u128, unit: u128| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", nanoseconds % unit);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}", nanoseconds / unit)
    };
    let nanoseconds = duration.as_nanos();
    match nanoseconds {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanoseconds}ns"),
        1_000..1_000_000 => return format!("{}\u{b5}s", decimal(nanoseconds, 1_000)),
        1_000_000..1_000_000_000 => return format!("{}ms", decimal(nanoseconds, 1_000_000)),
        _ => {}
    }
    let (minutes, rest) = (duration.as_secs() / 60, nanoseconds % 60_000_000_000);
    let seconds = decimal(rest, 1_000_000_000) + "s";
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

/// Reads Go's durations: `1h30m`, `1.5s`, `300ms`.
///
/// # Errors
/// Go's words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("time: invalid duration {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| missing_unit(text))?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += number * seconds;
        rest = tail;
    }
    Duration::try_from_secs_f64(total).map_err(|_| bad())
}

fn missing_unit(text: &str) -> String {
    format!("time: missing unit in duration {text:?}")
}

/// Reads a moment as `logs --since` takes it: a duration before `now`, seconds since 1970, or RFC 3339 of which the
/// end may be missing. A time without zone is UTC.
///
/// # Errors
/// Says what is not understood.
pub fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let bad = || format!("failed to parse value as time or duration: {text:?}");
    if let Ok(duration) = parse_duration(text) {
        return now.checked_sub(duration).map_err(|_| bad());
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds = seconds.parse().map_err(|_| bad())?;
        let nanos = format!("{fraction:0<9.9}").parse().map_err(|_| bad())?;
        return Timestamp::new(seconds, nanos).map_err(|_| bad());
    }
    // The missing end, taken from midnight UTC.
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        13 => format!("{text}:00:00Z"),
        16 => format!("{text}:00Z"),
        _ if text.ends_with('Z') || text.get(19..).is_some_and(|tail| tail.contains(['+', '-'])) => text.to_owned(),
        _ => format!("{text}Z"),
    };
    whole.parse().map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        // For the last one Go prints `1e+03kB`; nobody misses it.
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_234_567, "1.23MB"),
            (74_800_000, "74.8MB"),
            (999_999, "1000kB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(binary_size(16 << 30), "16GiB");
        assert_eq!(binary_size(16_790_000_000), "15.64GiB");
    }

    #[test]
    fn durations_are_dockers() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(ago(now + Duration::from_secs(5), now), "Less than a second ago");
    }

    #[test]
    fn sizes_read() {
        let good = [
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("64KiB", 65536),
            ("10", 10),
            ("10b", 10),
            ("1 kB", 1024),
            ("0", 0),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "x", "m", "-1", "1.2.3"] {
            assert_eq!(parse_size(bad), Err(format!("invalid size: '{bad}'")), "{bad}");
        }
        for (bad, suffix) in [("1x", "x"), ("1mm", "mm"), ("1  k", " k")] {
            assert_eq!(parse_size(bad), Err(format!("invalid suffix: '{suffix}'")), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_like_gos() {
        for (nanoseconds, want) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (1_000_000_000, "1s"),
            (90_500_000_000, "1m30.5s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanoseconds)), want);
        }
    }

    #[test]
    fn go_durations_read() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("300ms"), Ok(Duration::from_millis(300)));
        assert_eq!(parse_duration("5"), Err(r#"time: missing unit in duration "5""#.to_owned()));
        assert_eq!(parse_duration("5d"), Err(r#"time: unknown unit "d" in duration "5d""#.to_owned()));
        assert_eq!(parse_duration("x"), Err(r#"time: invalid duration "x""#.to_owned()));
        assert!(parse_duration("").is_err());
    }

    #[test]
    fn moments_read() {
        let now: Timestamp = "2024-05-01T12:00:00Z".parse().expect("time");
        let cases = [
            ("10m", "2024-05-01T11:50:00Z"),
            ("1714557600", "2024-05-01T10:00:00Z"),
            ("1714557600.5", "2024-05-01T10:00:00.5Z"),
            ("2024-05-01", "2024-05-01T00:00:00Z"),
            ("2024-05-01T10:30", "2024-05-01T10:30:00Z"),
            ("2024-05-01T10:30:15", "2024-05-01T10:30:15Z"),
            ("2024-05-01T10:30:15.25Z", "2024-05-01T10:30:15.25Z"),
            ("2024-05-01T10:30:15+02:00", "2024-05-01T08:30:15Z"),
        ];
        for (text, want) in cases {
            let want: Timestamp = want.parse().expect("time");
            assert_eq!(parse_moment(text, now), Ok(want), "{text}");
        }
        assert!(parse_moment("yesterday", now).is_err());
    }

    #[test]
    fn dates_are_gos() {
        assert_eq!(date(Timestamp::UNIX_EPOCH), "1970-01-01 00:00:00 +0000 UTC");
    }
}
