//! A person at a terminal: a pseudo-terminal whose slave is the program's controlling terminal.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::wharf;

/// A program that runs at a terminal.
pub struct Terminal {
    child: Child,
    master: File,
    screen: Arc<Mutex<Vec<u8>>>,
    /// Up to here the screen has been looked at.
    seen: usize,
    line: String,
}

impl Terminal {
    /// Starts the command at a terminal of 24 rows and 80 columns.
    pub fn start(command: &Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo-terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        let name = ptsname(&master, Vec::new()).expect("ptsname").into_string().expect("a plain name");
        let slave = OpenOptions::new().read(true).write(true).open(name).expect("the slave");
        tcsetwinsize(&slave, size(24, 80)).expect("a size");

        // setsid(1) makes the terminal the controlling one, which a safe program cannot do between fork and exec.
        let mut child = Command::new("setsid");
        child.arg("--ctty").arg("--wait").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => child.env(name, value),
                None => child.env_remove(name),
            };
        }
        let stream = || OwnedFd::from(slave.try_clone().expect("dup"));
        child.env("TERM", "xterm").stdin(stream()).stdout(stream()).stderr(stream());
        let line = format!("{command:?}");
        let child = child.spawn().unwrap_or_else(|e| panic!("{line}: {e}"));

        let master = File::from(master);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, shown) = (master.try_clone().expect("dup"), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut bytes) {
                shown.lock().expect("the screen").extend_from_slice(&bytes[..n]);
            }
        });
        Terminal { child, master, screen, seen: 0, line }
    }

    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until this appears after all that was expected before.
    pub fn expect(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let found = {
                let screen = self.screen.lock().expect("the screen");
                screen[self.seen..].windows(text.len()).position(|w| w == text.as_bytes())
            };
            if let Some(at) = found {
                self.seen += at + text.len();
                return;
            }
            assert!(Instant::now() < end, "no {text:?} on the screen of {}; there is:\n{}", self.line, self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All that was shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("the screen")).into_owned()
    }

    /// Gives the terminal another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, size(rows, columns)).expect("a size");
    }

    /// Waits for the program's end.
    pub fn wait(&mut self) -> i32 {
        wharf::wait(&mut self.child, &self.line)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
