//! The end of bridges, in instances that have a root of their own: nothing of such a one outlives its directory.
//!
//! To remove a bridge takes the kernel a twentieth of a second, for it waits until nobody can hold it any more, and the next
//! container would make it again. So who ran the last container on a bridge does not wait for that, nor does the next
//! container: the monitor, which is done with all else and has let go of its lock, stays for a moment as a process that
//! sleeps. One of them is enough; whoever ends meanwhile tells it to begin its waiting anew.

use std::fs::{File, TryLockError};
use std::io;
use std::time::{Duration, SystemTime};

use super::{Links, Lock, bridge_name, bridge_prefix, is_lasting, lock, remove_bridge, remove_table};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::network::networks;
use crate::paths::Paths;

/// For so long nobody must have used a bridge.
const PAUSE: Duration = Duration::from_secs(1);

/// Whose turn it is to wait; its time of modification is when the last container ended.
const TURN: &str = "network-linger.lock";

/// Called by a monitor when all is done and everybody has been answered: removes the instance's bridges when nobody
/// uses them any more.
pub fn linger(engine: &Engine) {
    let paths = engine.paths();
    if !crate::linux::is_root() || is_lasting(paths) || bridges(paths).is_ok_and(|names| names.is_empty()) {
        return;
    }
    let removed = match wait(paths) {
        Ok(true) => remove_unused(engine),
        Ok(false) => Ok(()),
        // The instance's directory is gone, so nobody is there.
        Err(e) if e.kind() == io::ErrorKind::NotFound => remove_all(paths),
        Err(e) => Err(Error::os("wait for the end of a bridge", e)),
    };
    if let Err(e) = removed {
        eprintln!("wharf: {e}");
    }
}

/// Waits until nobody has used a bridge for a while. False if another one does so already.
fn wait(paths: &Paths) -> io::Result<bool> {
    let path = paths.run.join(TURN);
    let turn = File::options().create(true).truncate(false).write(true).open(&path)?;
    // Before we ask whether another one waits: he looks at this until he lets others wait.
    turn.set_modified(SystemTime::now())?;
    match turn.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    crate::linux::give_back_memory();
    let left = || {
        let since = turn.metadata().and_then(|metadata| metadata.modified()).ok()?;
        PAUSE.checked_sub(since.elapsed().ok()?).filter(|left| !left.is_zero())
    };
    while let Some(left) = left() {
        std::thread::sleep(left);
    }
    // Who ends from here on waits for himself; who has ended before has no place any more when we look.
    drop(turn);
    std::fs::metadata(&path).map(|_| true)
}

/// Removes the bridges of networks that nobody is on, and with the last bridge the firewall's table.
///
/// # Errors
/// The store's and the kernel's.
pub fn remove_unused(engine: &Engine) -> Result<()> {
    let paths = engine.paths();
    if !crate::linux::is_root() || is_lasting(paths) {
        return Ok(());
    }
    let _lock = lock(paths, Lock::Exclusive)?;
    let there = bridges(paths)?;
    let db = engine.containers()?.db();
    for network in networks::all(db)? {
        if there.contains(&bridge_name(paths, network.id)) && !networks::is_used(db, network.id)? {
            remove_bridge(engine, &network)?;
        }
    }
    Ok(())
}

fn remove_all(paths: &Paths) -> Result<()> {
    let failed = |e| Error::os("remove a bridge", e);
    let links = Links::open().map_err(failed)?;
    for name in bridges(paths)? {
        links.remove(&name).map_err(failed)?;
    }
    remove_table(paths)
}

/// True when bridges that nobody uses are not being waited for either: who waited was killed.
pub(super) fn is_forgotten(paths: &Paths) -> bool {
    let Ok(turn) = File::open(paths.run.join(TURN)) else { return false };
    let modified = turn.metadata().and_then(|metadata| metadata.modified());
    let long_ago = modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > 10 * PAUSE));
    long_ago && turn.try_lock_shared().is_ok()
}

/// The names of the instance's bridges.
///
/// # Errors
/// The kernel's.
pub(super) fn bridges(paths: &Paths) -> Result<Vec<String>> {
    let prefix = bridge_prefix(paths);
    let names = Links::open().and_then(|links| links.names());
    let names = names.map_err(|e| Error::os("list network interfaces", e))?;
    Ok(names.into_iter().filter(|name| name.starts_with(&prefix)).collect())
}
