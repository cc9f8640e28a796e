//! Any bytes, unpacked both ways beside a sentinel: no panic, no way out, no more on disk than was allowed.
#![no_main]

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use libfuzzer_sys::fuzz_target;
use wharf_images::digest::Algorithm;
use wharf_images::layer::{Options, Whiteouts, unpack};

fuzz_target!(|bytes: &[u8]| {
    let ground = tempfile::TempDir::new().unwrap();
    let root = ground.path().join("root");
    std::fs::write(ground.path().join("sentinel"), "precious").unwrap();
    std::fs::create_dir(&root).unwrap();
    for whiteouts in [Whiteouts::Overlay, Whiteouts::Apply] {
        let dir = Dir::open_ambient_dir(&root, ambient_authority()).unwrap();
        let options = Options { algorithm: Algorithm::Sha256, whiteouts: Some(whiteouts), max_bytes: 1 << 20, max_entries: 1000, privileged: false };
        let unpacked = unpack(&mut &*bytes, "", &dir, &options);
        assert!(unpacked.is_err() || unpacked.is_ok_and(|done| done.bytes <= 1 << 20));
        assert_eq!(std::fs::read(ground.path().join("sentinel")).unwrap(), b"precious");
        assert_eq!(std::fs::read_dir(ground.path()).unwrap().count(), 2);
    }
});
