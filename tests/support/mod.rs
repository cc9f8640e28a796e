//! What the integration suites share: an isolated Wharf, a real registry, real images, a terminal, and a search for what is left behind.
//!
//! Nothing is mocked and nothing is skipped in silence: a test that misses a tool fails and says that `.ci/packages` installs it;
//! a test that this machine cannot run calls [`skip`], and `.ci/run` prints the list.

pub mod docker;
pub mod http;
pub mod images;
pub mod leaks;
pub mod proxy;
pub mod registry;
pub mod skip;
pub mod terminal;
pub mod wharf;

use std::process::Command;
use std::time::{Duration, Instant};

pub use skip::skip;
pub use wharf::Wharf;

/// Runs a tool that is not Wharf, and gives its standard output.
///
/// # Panics
/// When it is not installed or fails; then with both streams.
pub fn tool(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| {
        panic!("{}: {e}; .ci/packages installs what the tests need", command.get_program().display())
    });
    assert!(
        out.status.success(),
        "{command:?}: {}\n--- stdout\n{}--- stderr\n{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs skopeo, which trusts our images without a signature.
pub fn skopeo(args: &[&str]) -> String {
    tool(Command::new("skopeo").arg("--insecure-policy").args(args))
}

/// Asks until the answer is `Some`.
///
/// # Panics
/// When `limit` has passed; `what` says what was waited for.
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
