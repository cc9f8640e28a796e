//! What `--log-driver` and `--log-opt` say (<https://docs.docker.com/engine/logging/drivers/json-file/>).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::container::Container;
use crate::error::{Class, Error, Result};
use crate::linux::journal;
use crate::plan;

/// How a container's log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPolicy {
    /// It is kept at all.
    pub keep: bool,
    /// Bytes of a file before it is put aside.
    pub max_size: Option<u64>,
    /// Files, with the one that is written.
    pub max_files: u32,
    /// Older files are compressed.
    pub compress: bool,
    /// What is written into each entry.
    pub attributes: BTreeMap<String, String>,
    /// The journal's socket, if lines go there too, and the fields of each entry.
    pub journal: Option<(PathBuf, Vec<(String, String)>)>,
}

impl Default for LogPolicy {
    fn default() -> Self {
        LogPolicy {
            keep: true,
            max_size: None,
            max_files: 1,
            compress: false,
            attributes: BTreeMap::new(),
            journal: None,
        }
    }
}

impl LogPolicy {
    /// The policy of a container.
    ///
    /// # Errors
    /// `InvalidInput`, naming the driver or the option.
    pub fn of(container: &Container) -> Result<Self> {
        let driver = container.config.log.driver.as_str();
        let mut policy = match driver {
            "json-file" => LogPolicy::default(),
            "local" => LogPolicy { max_size: Some(20_000_000), max_files: 5, compress: true, ..LogPolicy::default() },
            // Read by `logs` from a file like that of `local`: to read the journal takes its library.
            "journald" => LogPolicy {
                max_size: Some(20_000_000),
                max_files: 5,
                compress: true,
                journal: Some((PathBuf::from(journal::SOCKET), Vec::new())),
                ..LogPolicy::default()
            },
            "none" => LogPolicy { keep: false, ..LogPolicy::default() },
            other => {
                return Err(Error::new(
                    Class::InvalidInput,
                    format!("error looking up logging plugin {other}: plugin {other:?} not found"),
                )
                .with_hint("use json-file, local, journald or none"));
            }
        };
        let invalid = |text: String| Error::new(Class::InvalidInput, text);
        let (mut compress, mut tag) = (None, "{{.ID}}");
        for (name, value) in &container.config.log.options {
            match (driver, name.as_str()) {
                ("json-file" | "local", "max-size") => {
                    policy.max_size = size(value).ok_or_else(|| {
                        invalid(format!("failed to initialize logging driver: invalid size: '{value}'"))
                    })?;
                }
                ("json-file" | "local", "max-file") => {
                    policy.max_files =
                        value.parse().map_err(|_| invalid(format!("max-file must be a number: {value:?}")))?;
                    if policy.max_files < 1 {
                        return Err(invalid("max-file cannot be less than 1".to_owned()));
                    }
                }
                ("json-file" | "local", "compress") => {
                    let given =
                        value.parse().map_err(|_| invalid(format!("compress must be true or false: {value:?}")))?;
                    compress = Some(given);
                }
                ("json-file" | "journald", "labels") => {
                    let labels = value.split(',').filter_map(|name| Some((name, label(container, name)?)));
                    policy.attributes.extend(labels.map(|(name, value)| (name.to_owned(), value)));
                }
                ("json-file" | "journald", "env") => {
                    let env = plan::env(&container.config, &container.image);
                    let wanted: Vec<&str> = value.split(',').collect();
                    let pairs = env.iter().filter_map(|entry| entry.split_once('='));
                    let pairs = pairs.filter(|(name, _)| wanted.contains(name));
                    policy.attributes.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
                }
                ("journald", "tag") => tag = if value.is_empty() { tag } else { value.as_str() },
                // Output is written before anybody waits for it, so both ways are the same here.
                (_, "mode") if matches!(value.as_str(), "blocking" | "non-blocking") => {}
                (_, "max-buffer-size") => {}
                _ => return Err(invalid(format!("unknown log opt '{name}' for {driver} log driver"))),
            }
        }
        if let Some((_, fields)) = &mut policy.journal {
            *fields = entry_fields(container, tag, std::mem::take(&mut policy.attributes))?;
        }
        if let Some(compress) = compress {
            if compress && (policy.max_files < 2 || policy.max_size.is_none()) {
                return Err(invalid(
                    "compress cannot be true when max-file is less than 2 or max-size is not set".into(),
                ));
            }
            policy.compress = compress;
        }
        if policy.max_size.is_none() && policy.max_files > 1 {
            return Err(invalid("max-file cannot be set without max-size: nothing would ever be put aside".to_owned()));
        }
        Ok(policy)
    }
}

/// The fields that docker's driver gives each entry of the journal.
fn entry_fields(
    container: &Container,
    tag: &str,
    attributes: BTreeMap<String, String>,
) -> Result<Vec<(String, String)>> {
    let tag = tagged(container, tag)?;
    let mut fields = vec![
        ("CONTAINER_ID", container.short_id().to_owned()),
        ("CONTAINER_ID_FULL", container.id.clone()),
        ("CONTAINER_NAME", container.name.clone()),
        ("CONTAINER_TAG", tag.clone()),
        ("IMAGE_NAME", container.config.image.clone()),
        ("SYSLOG_IDENTIFIER", tag),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect::<Vec<_>>();
    let own = attributes.into_iter().map(|(name, value)| (field_name(&name), value));
    let own: Vec<_> = own.filter(|(name, _)| !name.is_empty() && !fields.iter().any(|f| f.0 == *name)).collect();
    fields.extend(own);
    Ok(fields)
}

/// `com.example.x` as the journal's fields are named: capital letters, digits and lines below, which do not begin it.
fn field_name(name: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(letter).collect::<String>().trim_start_matches('_').to_owned()
}

/// Docker's `--log-opt tag=`, of whose templates these are the fields
/// (<https://docs.docker.com/engine/logging/log_tags/>).
fn tagged(container: &Container, template: &str) -> Result<String> {
    let mut text = template.to_owned();
    for (field, value) in [
        ("ID", container.short_id()),
        ("FullID", &container.id),
        ("Name", &container.name),
        ("ImageID", container.image.id.short()),
        ("ImageFullID", container.image.id.as_str()),
        ("ImageName", &container.config.image),
        ("DaemonName", "wharf"),
    ] {
        text = text.replace(&format!("{{{{.{field}}}}}"), value);
    }
    match text.contains("{{") {
        false => Ok(text),
        true => {
            let error = Error::new(Class::InvalidInput, format!("invalid log tag: {template}"));
            Err(error.with_hint(
                "it may have {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageID}}, {{.ImageFullID}}, {{.ImageName}}",
            ))
        }
    }
}

fn label(container: &Container, name: &str) -> Option<String> {
    container.config.labels.get(name).or_else(|| container.image.config.labels.get(name)).cloned()
}

/// Docker's sizes here count in thousands; -1 is no limit.
fn size(text: &str) -> Option<Option<u64>> {
    if text == "-1" {
        return Some(None);
    }
    let number = text.trim_end_matches(['b', 'B']);
    let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match number[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(factor)?;
    (bytes > 0).then_some(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_journal_are_named_as_it_wants() {
        assert_eq!(field_name("com.example.some-name"), "COM_EXAMPLE_SOME_NAME");
        assert_eq!(field_name("__x1"), "X1");
    }

    #[test]
    fn sizes_are_dockers() {
        assert_eq!(size("10m"), Some(Some(10_000_000)));
        assert_eq!(size("3kb"), Some(Some(3_000)));
        assert_eq!(size("512"), Some(Some(512)));
        assert_eq!(size("-1"), Some(None));
        for bad in ["", "0", "x", "1t", "-2", "1.5m"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
