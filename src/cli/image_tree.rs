//! `images --tree`: each image with what it has for each platform, in docker's layout.

use std::io::Write as _;

use wharf_images::store::{Filters, Offer};
use wharf_images::{Digest, Reference};
use wharf_runtime::Engine;

use super::failure::{Failure, Result, tell};
use super::images::UNTAGGED;
use super::parse::Parsed;
use super::text::visible;
use super::units;

/// Spaces between columns.
const GAP: usize = 3;
const TITLES: [&str; 5] = ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "IN USE"];

/// What stands in a line, but for its name.
#[derive(Default)]
struct Details {
    id: String,
    usage: u64,
    content: u64,
    used: bool,
}

/// Prints what `filters` let through.
///
/// # Errors
/// The flags that docker does not have here; the store's.
pub fn print(parsed: &Parsed, engine: &Engine, filters: &Filters) -> Result<()> {
    for (flag, given) in [
        ("quiet", parsed.switch("quiet")),
        ("no-trunc", parsed.switch("no-trunc")),
        ("digests", parsed.switch("digests")),
        ("format", parsed.given("format")),
    ] {
        if given {
            return Err(Failure::new(format!("--{flag} is not yet supported with --tree")));
        }
    }
    let images = engine.images()?;
    let mut blocks = Vec::new();
    for summary in images.list(filters)? {
        let offers = images.offers(&summary.image.target)?;
        let mut whole = Details { id: summary.image.target.short().to_owned(), ..Details::default() };
        let mut lines = Vec::new();
        for (n, offer) in offers.iter().enumerate() {
            let own = details(engine, offer)?;
            whole.usage += own.usage;
            whole.content += own.content;
            whole.used |= own.used;
            let branch = if n + 1 == offers.len() { "\u{2514}\u{2500}" } else { "\u{251c}\u{2500}" };
            lines.push((format!("{branch} {}", visible(&offer.platform.to_string())), Some(own)));
        }
        let mut names: Vec<String> = summary.names.iter().map(Reference::familiar).collect();
        if names.is_empty() {
            names.push(UNTAGGED.to_owned());
        }
        let last = names.pop().unwrap_or_default();
        let mut block: Vec<(String, Option<Details>)> = names.into_iter().map(|name| (name, None)).collect();
        block.push((last, Some(whole)));
        block.extend(lines);
        blocks.push(block);
    }
    tell("WARNING: This is an experimental feature. The output may change and shouldn't be depended on.\n");
    Ok(std::io::stdout().write_all(layout(&blocks).as_bytes())?)
}

fn details(engine: &Engine, offer: &Offer) -> Result<Details> {
    let id = offer.manifest.short().to_owned();
    let used = |id: &Digest| Ok::<_, Failure>(!engine.users_of_image(id)?.is_empty());
    Ok(match &offer.image {
        Some(image) => Details {
            id,
            usage: offer.content.saturating_add(offer.unpacked),
            content: offer.content,
            used: used(&image.id)?,
        },
        None => Details { id, ..Details::default() },
    })
}

fn layout(blocks: &[Vec<(String, Option<Details>)>]) -> String {
    let width = |name: &str| name.chars().count();
    let widest = blocks.iter().flatten().map(|(name, _)| width(name)).max().unwrap_or(0).max(TITLES[0].len());
    let gap = " ".repeat(GAP);
    let [name, id, usage, content, used] = TITLES;
    let mut text = format!("{name:widest$}{gap}{id:12}{gap}{usage}{gap}{content}{gap}{used}\n");
    for (n, block) in blocks.iter().enumerate() {
        if n > 0 {
            text.push('\n');
        }
        for (name, details) in block {
            let line = match details {
                None => name.clone(),
                Some(details) => {
                    let (usage, content) = (units::size(details.usage), units::size(details.content));
                    let used = if details.used { "  \u{2714}" } else { "" };
                    format!("{name:widest$}{gap}{:12}{gap}{usage:>10}{gap}{content:>12}{gap}{used}", details.id)
                }
            };
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_dockers() {
        let details = |usage, content, used| Some(Details { id: "beefdbd8a1da".to_owned(), usage, content, used });
        let blocks = vec![
            vec![
                ("alpine:3".to_owned(), None),
                ("alpine:latest".to_owned(), details(13_600_000, 4_090_000, true)),
                ("├─ linux/amd64".to_owned(), details(13_600_000, 4_090_000, true)),
                ("└─ linux/s390x".to_owned(), details(0, 0, false)),
            ],
            vec![("one:1".to_owned(), details(5, 5, false))],
        ];
        let want = "\
IMAGE            ID             DISK USAGE   CONTENT SIZE   IN USE
alpine:3
alpine:latest    beefdbd8a1da       13.6MB         4.09MB     ✔
├─ linux/amd64   beefdbd8a1da       13.6MB         4.09MB     ✔
└─ linux/s390x   beefdbd8a1da           0B             0B

one:1            beefdbd8a1da           5B             5B
";
        assert_eq!(layout(&blocks), want);
    }
}
