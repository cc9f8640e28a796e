//! `search`: repositories of Docker Hub, or of another registry
//! (<https://docs.docker.com/reference/cli/docker/search/>).

use wharf_images::Reference;
use wharf_images::registry::Found;

use super::context::Context;
use super::failure::{Failure, Result};
use super::listing::{Column, Listing};
use super::login::{DOCKER_HUB, registry_of};
use super::parse::{Parsed, parse_bool};
use super::verb::{FORMAT, Flag, Listed, NO_TRUNC, Operands, Section, Verb};
use super::{text, values};

/// The command of this file.
pub static VERBS: &[Verb] = &[Verb {
    names: &["search"],
    about: "Search a registry for images",
    usage: "[OPTIONS] TERM",
    listed: Listed::Common,
    operands: Operands::Exactly(1),
    trailing: false,
    sections: &[Section {
        title: "Options",
        flags: &[
            Flag::list("filter", "Filter output based on conditions provided").short('f').of("filter"),
            FORMAT,
            Flag::value("limit", "int", "Max number of search results").or("25"),
            NO_TRUNC,
            Flag::value("registry", "string", "Registry to search, if not that of TERM (default Docker Hub)"),
        ],
    }],
    run: search,
}];

/// Characters of a description in the table.
const DESCRIPTION: usize = 45;

struct Row {
    found: Found,
    no_trunc: bool,
}

static LISTING: Listing<Row> = Listing {
    columns: &[
        Column { field: "Name", header: "NAME", text: |row| text::visible(&row.found.name).into_owned() },
        Column { field: "Description", header: "DESCRIPTION", text: Row::description },
        Column { field: "StarCount", header: "STARS", text: |row| row.found.stars.to_string() },
        Column { field: "IsOfficial", header: "OFFICIAL", text: |row| ok(row.found.official) },
        Column { field: "IsAutomated", header: "AUTOMATED", text: |row| ok(row.found.automated) },
    ],
    kind: "*search.Context",
    labels: |_| None,
};

fn ok(is: bool) -> String {
    if is { "[OK]" } else { "" }.to_owned()
}

impl Row {
    /// On one line: strangers have written it.
    fn description(&self) -> String {
        let line = self.found.description.replace(['\r', '\n', '\t'], " ");
        let line = text::visible(&line).into_owned();
        if self.no_trunc || line.chars().count() <= DESCRIPTION {
            return line;
        }
        line.chars().take(DESCRIPTION - 1).chain(['\u{2026}']).collect()
    }
}

/// Docker's filters.
#[derive(Default)]
struct Filters {
    official: Option<bool>,
    automated: Option<bool>,
    stars: u64,
}

impl Filters {
    fn new(filters: Vec<(String, String)>) -> Result<Self> {
        let mut read = Filters::default();
        for (name, value) in filters {
            let invalid = || Failure::new(format!("invalid filter '{name}={value}'"));
            match name.as_str() {
                "is-official" => read.official = Some(parse_bool(&value).ok_or_else(invalid)?),
                "is-automated" => read.automated = Some(parse_bool(&value).ok_or_else(invalid)?),
                "stars" => read.stars = read.stars.max(value.parse().map_err(|_| invalid())?),
                _ => return Err(Failure::new(format!("invalid filter '{name}'"))),
            }
        }
        Ok(read)
    }

    fn fit(&self, found: &Found) -> bool {
        self.official.is_none_or(|is| is == found.official)
            && self.automated.is_none_or(|is| is == found.automated)
            && found.stars >= self.stars
    }
}

fn search(parsed: &Parsed, context: &Context) -> Result<()> {
    let filters = Filters::new(values::filters(parsed)?)?;
    let limit: i64 = parsed.read("limit", values::integer)?.unwrap_or(0);
    let limit = match limit {
        0 => 25,
        1..=100 => limit as usize,
        _ => return Err(Failure::new(format!("Error: limit {limit} is outside the range of [1, 100]"))),
    };
    let term = &parsed.operands()[0];
    let (registry, term) = match parsed.value("registry").filter(|name| !name.is_empty()) {
        Some(registry) => (registry_of(registry), term.as_str()),
        None => split(term),
    };
    let found = context.registry()?.search(&registry, term, limit)?;
    let no_trunc = parsed.switch("no-trunc");
    let rows: Vec<Row> =
        found.into_iter().filter(|found| filters.fit(found)).map(|found| Row { found, no_trunc }).collect();
    LISTING.print(parsed, &rows, &["Name", "Description", "StarCount", "IsOfficial"])
}

/// Where to look, and for what: as in an image's name, a registry may stand in front.
fn split(term: &str) -> (String, &str) {
    let rest = term.split_once('/').map(|(_, rest)| rest);
    match (term.parse::<Reference>(), rest) {
        (Ok(name), Some(rest)) if term.starts_with(&format!("{}/", name.domain())) => {
            (registry_of(name.domain()), rest)
        }
        _ => (DOCKER_HUB.0.to_owned(), term),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_may_name_its_registry() {
        for (term, registry, rest) in [
            ("nginx", "docker.io", "nginx"),
            ("bitnami/nginx", "docker.io", "bitnami/nginx"),
            ("docker.io/nginx", "docker.io", "nginx"),
            ("localhost:5000/web", "localhost:5000", "web"),
            ("quay.io/a/b", "quay.io", "a/b"),
            ("Not A Name", "docker.io", "Not A Name"),
        ] {
            assert_eq!(split(term), (registry.to_owned(), rest), "{term}");
        }
    }
}
