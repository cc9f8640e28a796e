//! What the fuzz targets in `tests/fuzz` try for hours, tried for a moment with every test run: bytes from strangers
//! neither panic nor reach out of where they belong.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tar::EntryType;

use crate::content::ContentStore;
use crate::image::Image;
use crate::layer::testing::{Archive, Ground, applied, options};
use crate::reference::Reference;
use crate::registry::parse_challenges;

/// Names of few parts, so that entries meet each other and the world outside.
fn name() -> impl Strategy<Value = String> {
    let part =
        select(vec!["a", "b", "c", "..", ".", "", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..", "outside", "sentinel"]);
    (any::<bool>(), vec(part, 1..4)).prop_map(|(absolute, parts)| {
        let name = parts.join("/");
        if absolute { format!("/{name}") } else { name }
    })
}

fn kind() -> impl Strategy<Value = EntryType> {
    select(vec![
        EntryType::Regular,
        EntryType::Directory,
        EntryType::Symlink,
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::GNULongName,
        EntryType::GNULongLink,
        EntryType::XHeader,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_sequence_of_entries_reaches_outside(entries in vec((kind(), name(), name(), 0u32..0o10000), 1..12)) {
        for options in [options(), applied()] {
            let ground = Ground::new();
            for entry in &entries {
                // One archive for each: a refused entry ends an archive, and the next may build on what it left.
                let mut archive = Archive::new();
                archive.entry(entry.0, &entry.1, entry.3, &entry.2, b"");
                let _ = ground.unpack_bytes(&archive.bytes(), &options);
            }
            let mut archive = Archive::new();
            for (kind, path, link, mode) in &entries {
                archive.entry(*kind, path, *mode, link, if *kind == EntryType::Regular { b"evil" } else { b"" });
            }
            let _ = ground.unpack_bytes(&archive.bytes(), &options);
        }
    }

    #[test]
    fn damaged_layers_are_errors(flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), gzip in any::<bool>()) {
        use std::io::Write;
        let mut archive = Archive::new();
        archive.dir("d/", 0o755).pax(&[("path", b"d/long"), ("SCHILY.xattr.user.a", b"b")]).file("x", 0o644, b"content");
        archive.symlink("s", "d").hard_link("h", "d/long").file("d/.wh.gone", 0o644, b"");
        let mut bytes = archive.bytes();
        if gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&bytes).unwrap();
            bytes = encoder.finish().unwrap();
        }
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = Ground::new().unpack_bytes(&bytes, &options());
    }

    #[test]
    fn any_bytes_are_a_layer_or_an_error(bytes in vec(any::<u8>(), 0..2000)) {
        let _ = Ground::new().unpack_bytes(&bytes, &options());
    }

    #[test]
    fn any_text_is_a_reference_or_an_error(text in "\\PC{0,80}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
        }
    }

    #[test]
    fn any_text_is_challenges_or_none(text in "(Bearer |Basic |realm=|\"|,|\\\\|\\PC){0,40}") {
        let _ = parse_challenges(&text);
    }

    #[test]
    fn any_document_is_an_image_or_an_error(
        bytes in vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let root = tempfile::TempDir::new().unwrap();
        let content = ContentStore::open(root.path()).unwrap();
        let config = content.put(br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#).unwrap();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":80}},"layers":[]}}"#
        );
        let mut damaged = manifest.into_bytes();
        let at = cut.index(damaged.len());
        damaged[at] = value;
        for document in [bytes, damaged] {
            let target = content.put(&document).unwrap();
            let _ = Image::read(&content, &target, None);
        }
    }
}
