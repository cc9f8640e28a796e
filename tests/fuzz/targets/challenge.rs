//! Any text as a registry's `WWW-Authenticate` header.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_images::registry::parse_challenges;

fuzz_target!(|header: &str| {
    let _ = parse_challenges(header);
});
