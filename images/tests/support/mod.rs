//! The real registry for tests: Debian's `docker-registry` on a free loopback port with a directory of its own, plain,
//! or with TLS and a password file. Needs the packages docker-registry, apache2-utils and openssl.
//!
//! Other packages' tests take this file in by `#[path = "../images/tests/support/mod.rs"] mod support;`.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The user of a registry with passwords.
pub const USER: &str = "tester";
/// Her password.
pub const PASSWORD: &str = "correct horse";

/// A registry that ends with this value.
pub struct TestRegistry {
    process: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl TestRegistry {
    /// A plain HTTP registry that anybody may use.
    pub fn plain() -> Self {
        Self::start("", "")
    }

    /// A pull-through mirror of the registry at `url`.
    pub fn mirror_of(url: &str) -> Self {
        Self::start("", &format!("proxy:\n  remoteurl: {url}\n"))
    }

    /// A registry with a certificate of an authority of its own ([`TestRegistry::authority`]) and [`USER`] only.
    pub fn with_tls_and_password() -> Self {
        Self::start("tls", "")
    }

    fn start(kind: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display();
        let mut http = String::new();
        let mut auth = String::new();
        if kind == "tls" {
            make_certificate(dir.path());
            let password = run(Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]));
            fs::write(dir.path().join("htpasswd"), password).unwrap();
            http = format!("  tls:\n    certificate: {root}/host.crt\n    key: {root}/host.key\n");
            auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {root}/htpasswd\n");
        }
        // Another process may take a port between our choice and the registry's start: then the next one is tried.
        for _ in 0..5 {
            let port = free_port();
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n  \
                 delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{http}{auth}{more}"
            );
            fs::write(dir.path().join("config.yml"), config).unwrap();
            let log = fs::File::create(dir.path().join("log")).unwrap();
            let mut process = Command::new("docker-registry")
                .arg("serve")
                .arg(dir.path().join("config.yml"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("docker-registry (Debian package docker-registry) is needed for this test");
            if answers(&mut process, port) {
                return TestRegistry { process, port, dir };
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        panic!("docker-registry does not start: {}", fs::read_to_string(dir.path().join("log")).unwrap_or_default());
    }

    /// `localhost:PORT`.
    pub fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// `127.0.0.1:PORT`, another name of the same registry.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The authority that vouches for the registry's certificate.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    /// Where the registry keeps its blobs.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.dir.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody uses now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn answers(process: &mut Child, port: u16) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if process.try_wait().unwrap().is_some() {
            return false;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn make_certificate(dir: &Path) {
    let mut extensions = fs::File::create(dir.join("host.ext")).unwrap();
    writeln!(extensions, "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE").unwrap();
    let openssl = |arguments: &str| {
        run(Command::new("openssl").args(arguments.split(' ')).current_dir(dir));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=test-authority"));
    openssl(&format!("req {key} -keyout host.key -out host.csr -subj /CN=localhost"));
    openssl("x509 -req -in host.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out host.crt -days 2 -extfile host.ext");
}

/// Runs a program that must succeed; returns what it said.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
