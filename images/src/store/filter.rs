//! Docker's `--filter` for images (<https://docs.docker.com/reference/cli/docker/image/ls/#filter>).

use jiff::{SignedDuration, Timestamp};

use crate::error::{Class, Error, Result};
use crate::image::Image;
use crate::reference::Reference;

/// What to show, or to prune.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filters {
    /// Only nameless images, or only named ones.
    pub dangling: Option<bool>,
    /// Labels; all must fit.
    pub labels: Vec<LabelFilter>,
    /// Patterns of names; one must fit.
    pub references: Vec<String>,
    /// Only images created before this one.
    pub before: Option<String>,
    /// Only images created after this one.
    pub since: Option<String>,
    /// Only images created before this moment, seconds since 1970.
    pub until: Option<i64>,
}

/// `label=key`, `label=key=value`, `label!=...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFilter {
    key: String,
    value: Option<String>,
    negated: bool,
}

impl LabelFilter {
    fn new(text: &str, negated: bool) -> Self {
        match text.split_once('=') {
            Some((key, value)) => LabelFilter { key: key.to_owned(), value: Some(value.to_owned()), negated },
            None => LabelFilter { key: text.to_owned(), value: None, negated },
        }
    }

    fn fits(&self, image: &Image) -> bool {
        let found = image.config.labels.get(&self.key);
        let fits = found.is_some_and(|value| self.value.as_ref().is_none_or(|wanted| wanted == value));
        fits != self.negated
    }
}

impl Filters {
    /// Parses `name=value` texts.
    ///
    /// # Errors
    /// `InvalidInput` in docker's words.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self> {
        let mut filters = Filters::default();
        for text in texts {
            let text = text.as_ref();
            let (name, value) = text.split_once('=').ok_or_else(|| {
                Error::new(
                    Class::InvalidInput,
                    format!("invalid filter {text:?}: bad format of filter (expected name=value)"),
                )
            })?;
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "dangling" => filters.dangling = Some(boolean(value).ok_or_else(|| invalid_value("dangling", value))?),
                "label" => filters.labels.push(LabelFilter::new(value, false)),
                "label!" => filters.labels.push(LabelFilter::new(value, true)),
                "reference" => filters.references.push(value.to_owned()),
                "before" => filters.before = Some(value.to_owned()),
                "since" => filters.since = Some(value.to_owned()),
                "until" => filters.until = Some(moment(value).ok_or_else(|| bad_time(value))?),
                other => return Err(Error::new(Class::InvalidInput, format!("invalid filter '{other}'"))),
            }
        }
        Ok(filters)
    }

    /// True when labels and age fit; names and other images are the caller's to compare.
    pub(super) fn fits(&self, image: &Image) -> bool {
        self.labels.iter().all(|label| label.fits(image))
            && self.until.is_none_or(|until| created(image).is_none_or(|at| at.as_second() < until))
    }

    /// True when one of the patterns fits the name, or there is none.
    pub(super) fn names(&self, reference: &Reference) -> bool {
        self.references.is_empty()
            || self.references.iter().any(|pattern| {
                glob(pattern.as_bytes(), reference.familiar().as_bytes())
                    || glob(pattern.as_bytes(), reference.familiar_repository().as_bytes())
            })
    }
}

fn invalid_value(name: &str, value: &str) -> Error {
    Error::new(Class::InvalidInput, format!("invalid filter '{name}=[{value}]'"))
}

fn bad_time(value: &str) -> Error {
    Error::new(Class::InvalidInput, format!("failed to parse value as time or duration: {value:?}"))
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => Some(true),
        "false" | "0" | "f" => Some(false),
        _ => None,
    }
}

/// A moment as docker takes it: RFC 3339, a date, seconds since 1970, or how long ago (`1h30m`).
fn moment(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(seconds);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at.as_second());
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>() {
        return date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp().as_second());
    }
    let ago: SignedDuration = text.parse().ok()?;
    Timestamp::now().checked_sub(ago).ok().map(Timestamp::as_second)
}

/// When an image was created, if its config says.
pub(super) fn created(image: &Image) -> Option<Timestamp> {
    image.created.as_ref()?.parse().ok()
}

/// Go's `path.Match`, without its escapes: `*` and `?` do not cross a slash, `[a-z]` and `[^a-z]` are sets.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            glob(rest, text) || text.split_first().is_some_and(|(c, tail)| *c != b'/' && glob(pattern, tail))
        }
        (Some((b'?', rest)), Some((c, tail))) => *c != b'/' && glob(rest, tail),
        (Some((b'[', rest)), Some((c, tail))) => {
            let Some(end) = rest.iter().skip(1).position(|b| *b == b']').map(|i| i + 1) else { return false };
            let (set, negated) = match &rest[..end] {
                [b'^', set @ ..] => (set, true),
                set => (set, false),
            };
            in_set(set, *c) != negated && *c != b'/' && glob(&rest[end + 1..], tail)
        }
        (Some((p, rest)), Some((c, tail))) => p == c && glob(rest, tail),
        _ => false,
    }
}

fn in_set(set: &[u8], c: u8) -> bool {
    match set {
        [low, b'-', high, rest @ ..] => (*low..=*high).contains(&c) || in_set(rest, c),
        [one, rest @ ..] => *one == c || in_set(rest, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
        for (pattern, text, fits) in [
            ("busy*:*", "busybox:latest", true),
            ("busybox", "busybox", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b?sy*", "busybox", true),
            ("[a-c]usy*", "busybox", true),
            ("[^a-c]usy*", "busybox", false),
            ("[b", "b", false),
            ("", "", true),
            ("*:v1.*", "x:v1.2", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn filters_are_parsed_or_refused_in_dockers_words() {
        let filters = Filters::parse(&["dangling=true", "label=a=b", "label!=c", "reference=x*", "until=100"]).unwrap();
        assert_eq!(filters.dangling, Some(true));
        assert_eq!(filters.labels, [LabelFilter::new("a=b", false), LabelFilter::new("c", true)]);
        assert_eq!(filters.until, Some(100));
        for (bad, message) in [
            ("x", "invalid filter \"x\": bad format of filter (expected name=value)"),
            ("x=y", "invalid filter 'x'"),
            ("dangling=perhaps", "invalid filter 'dangling=[perhaps]'"),
            ("until=whenever", "failed to parse value as time or duration: \"whenever\""),
        ] {
            assert_eq!(Filters::parse(&[bad]).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn moments_have_several_spellings() {
        assert_eq!(moment("1970-01-01T00:01:00Z"), Some(60));
        assert_eq!(moment("1970-01-02"), Some(86400));
        let hour_ago = moment("1h0m").unwrap();
        assert!((Timestamp::now().as_second() - hour_ago - 3600).abs() < 5);
    }
}
