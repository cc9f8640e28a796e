//! Where the guests of one network find each other: a file in the run directory for each socket that is bound on it, with
//! the word of the loopback port that stands for it. Only we can read them, so only we can call.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::engine::Engine;
use crate::error::Result;
use crate::network::{Endpoint, Protocol};
use crate::paths;

/// The directory, which is there afterwards.
pub(super) fn directory(engine: &Engine) -> Result<PathBuf> {
    let dir = engine.paths().run.join("net");
    paths::make_dir(&dir)?;
    Ok(dir)
}

/// The file of an address.
pub(super) fn file(dir: &Path, network: i64, at: SocketAddr, protocol: Protocol) -> PathBuf {
    dir.join(format!("{}{}.{protocol}", prefix(network, at.ip()), at.port()))
}

/// How the files of an address begin: Windows has no colons in names.
fn prefix(network: i64, ip: IpAddr) -> String {
    format!("{network}-{ip}-").replace(':', "_")
}

/// Writes a word, whole or not at all.
pub(super) fn write(path: &Path, word: &str) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, word)?;
    fs::rename(&temporary, path)
}

/// Takes away what a container has left at its address.
pub(super) fn forget(engine: &Engine, endpoint: &Endpoint) {
    let own: Vec<_> = endpoint.addresses().map(|(ip, _)| prefix(endpoint.network_id, ip)).collect();
    let Ok(entries) = fs::read_dir(engine.paths().run.join("net")) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if own.iter().any(|own| name.to_string_lossy().starts_with(own.as_str())) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
