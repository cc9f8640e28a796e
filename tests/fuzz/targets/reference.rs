//! Any text as an image's name: what is accepted is spelled in a way that is accepted again, and means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharf_images::Reference;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    }
});
