//! Signals by name and by number, as docker's `--signal`, `--stop-signal` and `STOPSIGNAL` spell them.
//!
//! The numbers are Linux's on x86-64 and arm64 (`signal(7)`), on every host: a container's signal is a matter of the
//! container, and a client on another system must mean the same one.

use crate::error::{Class, Error, Result};

/// The greatest signal number, `SIGRTMAX`.
const MAX: i32 = 64;
/// `SIGRTMIN` as the C library counts it: it keeps the first two real-time signals for itself.
const RTMIN: i32 = 34;

/// `SIGKILL`.
pub const KILL: i32 = 9;
/// `SIGTERM`, what `stop` sends unless told otherwise.
pub const TERM: i32 = 15;

/// Names without `SIG`, by number; the first of several names of one number is the one we print.
const NAMES: [(&str, i32); 36] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", KILL),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", TERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", RTMIN),
    ("RTMAX", MAX),
];

/// The number of `TERM`, `SIGTERM`, `sigterm`, `15`, `RTMIN+3` or `RTMAX-2`.
///
/// # Errors
/// `InvalidInput` in docker's words.
pub fn parse(text: &str) -> Result<i32> {
    let invalid = || Error::new(Class::InvalidInput, format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=MAX).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |digits: &str| digits.parse::<u8>().map(i32::from).map_err(|_| invalid());
    let number = if let Some(digits) = name.strip_prefix("RTMIN+") {
        RTMIN + offset(digits)?
    } else if let Some(digits) = name.strip_prefix("RTMAX-") {
        MAX - offset(digits)?
    } else {
        return NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).ok_or_else(invalid);
    };
    if (RTMIN..=MAX).contains(&number) { Ok(number) } else { Err(invalid()) }
}

/// `SIGTERM` for 15; `RTMIN+n` for real-time signals; the number itself for what has no name.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|(_, known)| *known == number) {
        Some((name, _)) => format!("SIG{name}"),
        None if (RTMIN..MAX).contains(&number) => format!("SIGRTMIN+{}", number - RTMIN),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (text, number) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("KILL", 9),
            ("SIGWINCH", 28),
            ("POLL", 29),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("64", 64),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn refuses_in_dockers_words() {
        for text in ["", "0", "65", "-1", "SIG", "NOPE", "SIGSIGTERM", "RTMIN+31", "RTMAX-31", "RTMIN+", "TERM "] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid signal: {text}"));
            assert_eq!(error.class(), Class::InvalidInput);
        }
    }

    #[test]
    fn every_number_has_a_name_that_parses_back() {
        for number in 1..=MAX {
            assert_eq!(parse(&name(number)).unwrap(), number);
        }
        assert_eq!((name(6), name(17), name(29)), ("SIGABRT".into(), "SIGCHLD".into(), "SIGIO".into()));
    }
}
