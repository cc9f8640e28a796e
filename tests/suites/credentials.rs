//! Credential helpers: programs `docker-credential-NAME` that keep secrets in docker's stead, spoken to as
//! <https://github.com/docker/docker-credential-helpers> says. The helper here is a shell script that writes down what
//! it was asked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::Wharf;
use crate::support::registry::{PASSWORD, Registry, USER};
use crate::support::wharf::{Ran, run};

/// Keeps each server's document in a file of its own, and a line for each call in `calls`.
const HELPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
if [ "$1" = store ]; then document=$(cat); server=$(printf %s "$document" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/')
else server=$(cat); fi
echo "$1 $server" >>calls
file=kept-$(printf %s "$server" | tr ':/' '__')
case $1 in
get) cat "$file" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
store) printf %s "$document" >"$file" ;;
erase) rm -f "$file" ;;
*) echo "unknown verb $1" >&2; exit 2 ;;
esac
"#;

/// A Wharf that trusts the registry and has helpers on its path.
struct Bench {
    wharf: Wharf,
    registry: Registry,
}

impl Bench {
    fn new() -> Self {
        let bench = Bench { wharf: Wharf::with_busybox(), registry: Registry::protected() };
        bench.wharf.trust(&bench.registry);
        fs::create_dir_all(bench.helpers()).expect("a directory");
        bench
    }

    fn helpers(&self) -> PathBuf {
        self.wharf.dir().join("helpers")
    }

    /// A helper of this name with this script.
    fn helper(&self, name: &str, script: &str) {
        let path = self.helpers().join(format!("docker-credential-{name}"));
        fs::write(&path, script).expect("a helper");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// A client's configuration directory with this `config.json`.
    fn config(&self, name: &str, config: &Value) -> String {
        let dir = self.wharf.dir().join(name);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("config.json"), config.to_string()).expect("config.json");
        dir.to_str().expect("plain").to_owned()
    }

    fn read(&self, name: &str) -> Value {
        let text = fs::read(self.wharf.dir().join(name).join("config.json")).expect("config.json");
        serde_json::from_slice(&text).expect("JSON")
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.helpers().join("calls")).unwrap_or_default().replace(&self.registry.host(), "HOST")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.wharf.command(args);
        command.env("PATH", format!("{}:{}", self.helpers().display(), std::env::var("PATH").expect("a path")));
        command
    }

    fn run(&self, code: i32, args: &[&str]) -> Ran {
        let ran = run(self.command(args), &[]);
        assert_eq!(ran.code, code, "{ran}");
        ran
    }

    fn login(&self, config: &str) -> Ran {
        let host = self.registry.host();
        let ran = run(
            self.command(&["--config", config, "login", "-u", USER, "--password-stdin", &host]),
            PASSWORD.as_bytes(),
        );
        assert_eq!(ran.code, 0, "{ran}");
        ran
    }
}

#[test]
fn a_store_keeps_gives_and_forgets() {
    let bench = Bench::new();
    bench.helper("test", HELPER);
    let config = bench.config("client", &json!({"credsStore": "test", "psFormat": "kept"}));
    let host = bench.registry.host();
    let name = bench.registry.name("secret/busybox");
    bench.run(0, &["tag", "busybox", &name]);

    let told = bench.login(&config);
    assert!(!told.stderr.contains("unencrypted"), "{told}");
    let written = bench.read("client");
    assert_eq!(written["auths"][&host], json!({}), "an empty entry says that there is something: {written}");
    assert_eq!(written["psFormat"], "kept");
    assert!(!written.to_string().contains(PASSWORD));
    let kept = fs::read(bench.helpers().join(format!("kept-{}", host.replace(':', "_")))).expect("what it keeps");
    let kept: Value = serde_json::from_slice(&kept).expect("JSON");
    assert_eq!(kept, json!({"ServerURL": host, "Username": USER, "Secret": PASSWORD}));

    bench.run(0, &["--config", &config, "push", &name]);
    bench.run(0, &["rmi", &name, "busybox"]);
    bench.run(0, &["--config", &config, "pull", "-q", &name]);
    bench.run(0, &["rmi", &name]);
    // `run` and `create` pull by themselves: with the same credentials.
    assert_eq!(bench.run(0, &["--config", &config, "run", "--rm", &name, "echo", "in"]).stdout, "in\n");
    bench.run(0, &["rmi", &name]);
    bench.run(0, &["--config", &config, "create", "--name", "made", &name]);
    bench.run(0, &["rm", "made"]);
    bench.run(0, &["rmi", &name]);
    let denied = bench.run(125, &["run", "--rm", &name, "true"]);
    assert!(denied.stderr.contains("wharf login"), "the default configuration knows nobody: {denied}");

    assert_eq!(bench.calls().lines().filter(|line| *line == "store HOST").count(), 1, "{}", bench.calls());
    assert!(bench.calls().lines().filter(|line| *line == "get HOST").count() >= 4, "{}", bench.calls());
    bench.run(0, &["--config", &config, "logout", &host]);
    assert!(bench.calls().ends_with("erase HOST\n"), "{}", bench.calls());
    assert_eq!(bench.read("client")["auths"].get(&host), None);
    bench.run(1, &["--config", &config, "pull", &name]);
    let again = bench.run(0, &["--config", &config, "logout", &host]);
    assert!(again.stdout.contains("Not logged in to"), "{again}");
}

#[test]
fn a_helper_may_be_for_one_registry_only() {
    let bench = Bench::new();
    bench.helper("this", HELPER);
    let host = bench.registry.host();
    // The store for all others does not even exist.
    let config = bench.config("client", &json!({"credsStore": "none-such", "credHelpers": {&host: "this"}}));
    bench.login(&config);
    let name = bench.registry.name("secret/busybox");
    bench.run(0, &["tag", "busybox", &name]);
    bench.run(0, &["--config", &config, "push", &name]);
    assert!(bench.calls().contains("store HOST\n"), "{}", bench.calls());
}

#[test]
fn a_helper_that_fails_is_named() {
    let bench = Bench::new();
    bench.helper("broken", "#!/bin/sh\necho the keychain is locked >&2; exit 3\n");
    let config = bench.config("client", &json!({"credsStore": "broken"}));
    let host = bench.registry.host();
    let name = bench.registry.name("secret/busybox");
    bench.run(0, &["tag", "busybox", &name]);
    let args = ["--config", &config, "login", "-u", USER, "-p", PASSWORD, &host];
    let refused = bench.run(1, &args);
    assert!(refused.stderr.contains("docker-credential-broken store: the keychain is locked"), "{refused}");
    assert!(!refused.stderr.contains(PASSWORD), "{refused}");
    // As docker does, a pull or push goes on as nobody; where that is not enough, the helper is named.
    let refused = bench.run(1, &["--config", &config, "push", &name]);
    assert!(refused.stderr.contains("docker-credential-broken get: the keychain is locked"), "{refused}");

    let open = Registry::plain();
    let public = open.name("public/busybox");
    bench.run(0, &["tag", "busybox", &public]);
    bench.run(0, &["--config", &config, "push", &public]);
}
