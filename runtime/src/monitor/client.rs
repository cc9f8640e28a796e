//! What whoever holds an [`Engine`] asks the monitors of containers, whatever the connection to them is made of.

use std::io::Write;

use wharf_images::Class;

use super::protocol::{self, Reply, Request};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::linux::monitor::connect;
use crate::linux::session::Session;

/// Asks the container's monitor and waits for its answer.
///
/// # Errors
/// `Unavailable` when there is no monitor any more.
pub(crate) fn ask(engine: &Engine, id: &str, request: &Request) -> Result<Reply> {
    protocol::ask(&connect(engine, id)?, request).map_err(|_| gone(id))
}

/// Asks several monitors the same, each of them before the first answer is read: they work side by side.
pub(crate) fn ask_all(engine: &Engine, ids: &[&str], request: &Request) -> Vec<Result<Reply>> {
    // Each holds a descriptor, of which a process may have 1024.
    const AT_ONCE: usize = 256;
    let mut replies = Vec::with_capacity(ids.len());
    for ids in ids.chunks(AT_ONCE) {
        let send = |id: &&str| {
            let mut stream = connect(engine, id)?;
            stream.write_all(&protocol::request_bytes(request)).map_err(|_| gone(id))?;
            Ok(stream)
        };
        let asked: Vec<Result<_>> = ids.iter().map(send).collect();
        let answered = asked.into_iter().zip(ids);
        replies.extend(answered.map(|(stream, id)| protocol::read_reply(stream?).map_err(|_| gone(id))));
    }
    replies
}

/// Asks for streams; gives the process id in the answer, and the connection.
///
/// # Errors
/// As [`ask`], and what the monitor says.
pub(crate) fn open_session(engine: &Engine, id: &str, request: &Request) -> Result<(u32, Session)> {
    let stream = connect(engine, id)?;
    match protocol::ask(&stream, request).map_err(|_| gone(id))? {
        Reply::Started { pid, .. } => Ok((pid, Session::new(stream))),
        Reply::Error(failure) => Err(failure.into()),
        _ => Err(Error::new(Class::Internal, "the monitor gave an answer that was not asked for")),
    }
}

/// There is no monitor any more.
pub(crate) fn gone(id: &str) -> Error {
    Error::new(Class::Unavailable, format!("the monitor of container {} has ended", &id[..12]))
}
