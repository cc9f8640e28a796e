//! Debian's docker-registry on a free loopback port, plain or with TLS and passwords.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{eventually, tool};

/// Who may come in to a protected registry.
pub const USER: &str = "anna";
/// And by what word.
pub const PASSWORD: &str = "correct horse";

/// A running registry. Ends when dropped.
pub struct Registry {
    dir: TempDir,
    server: Child,
    port: u16,
}

impl Registry {
    /// Plain HTTP, open to all.
    pub fn plain() -> Self {
        Self::start(false)
    }

    /// HTTPS with a certificate of [`Registry::authority`], for [`USER`] with [`PASSWORD`].
    pub fn protected() -> Self {
        Self::start(true)
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// This name in this registry.
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host())
    }

    /// A directory that holds the authority's certificate as `ca.crt`, as docker's and podman's `certs.d` want it.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("authority")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What was asked of it, in order: `METHOD PATH STATUS`.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.path().join("log")).expect("a log");
        // Apache's combined format: who - - [when] "METHOD PATH PROTOCOL" STATUS LENGTH ...
        let request = |line: &str| {
            let (request, rest) = line.split_once("] \"")?.1.split_once("\" ")?;
            Some(format!("{} {}", request.rsplit_once(' ')?.0, rest.split(' ').next()?))
        };
        log.lines().filter_map(request).collect()
    }

    fn start(protected: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("registry-").tempdir().expect("a temporary directory");
        let port = free_port();
        let path = |name: &str| dir.path().join(name);
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            path("data").display()
        );
        if protected {
            certificate(&dir);
            let entry = tool(Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]));
            fs::write(path("htpasswd"), entry).expect("htpasswd");
            config += &format!(
                "  tls: {{certificate: {}, key: {}}}\nauth: {{htpasswd: {{realm: wharf, path: {}}}}}\n",
                path("server.crt").display(),
                path("server.key").display(),
                path("htpasswd").display()
            );
        }
        fs::write(path("config.yml"), config).expect("config.yml");
        let log = fs::File::create(path("log")).expect("a log");
        let mut server = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("docker-registry: {e}; .ci/packages installs what the tests need"));
        eventually("docker-registry answers", Duration::from_secs(20), || {
            if let Some(status) = server.try_wait().expect("a child") {
                panic!("docker-registry: {status}\n{}", fs::read_to_string(path("log")).unwrap_or_default());
            }
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        Registry { dir, server, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A certificate authority and, signed by it, a server certificate for 127.0.0.1 and localhost.
fn certificate(dir: &TempDir) {
    let openssl = |args: &[&str]| tool(Command::new("openssl").current_dir(dir.path()).args(args));
    fs::create_dir(dir.path().join("authority")).expect("a directory");
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"];
    openssl(
        &[
            &["req", "-x509", "-days", "2", "-subj", "/CN=Test authority"][..],
            &key,
            &["ca.key", "-out", "authority/ca.crt"],
        ]
        .concat(),
    );
    openssl(&[&["req", "-subj", "/CN=localhost"][..], &key, &["server.key", "-out", "server.csr"]].concat());
    fs::write(dir.path().join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\n")
        .expect("names");
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "authority/ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "names",
        "-out",
        "server.crt",
    ]);
}
