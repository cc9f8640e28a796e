//! Docker's `config.json`: who we are at which registry. Secrets lie in the file itself (`auths`), or with a
//! credential helper, a program `docker-credential-NAME` that speaks JSON
//! (<https://github.com/docker/docker-credential-helpers>).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::DOCKER_HUB;
use crate::error::{Class, Error, Result};
use crate::private;

/// Under which key Docker Hub's credentials have always been kept.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The user name by which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// How we prove who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password (or an access token in its place).
    Password {
        /// The name.
        username: String,
        /// The secret.
        password: String,
    },
    /// A refresh token, to be exchanged at the registry's token service.
    IdentityToken(String),
}

impl std::fmt::Debug for Credential {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credential::Password { username, .. } => write!(f, "Password({username})"),
            Credential::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// Where a credential was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Saved {
    /// In this file, readable by whoever can read the file.
    Plain(PathBuf),
    /// With the credential helper of this name.
    Helper(String),
}

/// Docker's client configuration.
#[derive(Debug)]
pub struct Credentials {
    path: PathBuf,
    document: Map<String, Value>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    username: String,
    secret: String,
}

impl Credentials {
    /// Reads the file. A missing one is empty.
    ///
    /// # Errors
    /// `InvalidInput` when it is not a JSON object; the disk's errors.
    pub fn open(path: &Path) -> Result<Self> {
        let document = match fs::read(path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::new(Class::InvalidInput, format!("{}: {e}", path.display())))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Map::new(),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        Ok(Credentials { path: path.to_owned(), document })
    }

    /// The credential for `registry` (`docker.io`, `localhost:5000`), if there is one.
    ///
    /// # Errors
    /// `InvalidInput` when the entry is malformed; `Internal` when a helper fails.
    pub fn get(&self, registry: &str) -> Result<Option<Credential>> {
        let key = key_of(registry);
        if let Some(helper) = self.helper(&key) {
            return helper_get(&helper, &key);
        }
        let Some(entry) = self.entry(&key) else { return Ok(None) };
        let text = |name: &str| entry.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        if let Some(token) = text("identitytoken") {
            return Ok(Some(Credential::IdentityToken(token.to_owned())));
        }
        if let Some(auth) = text("auth") {
            let bad =
                || Error::new(Class::InvalidInput, format!("{}: the entry {key:?} is malformed", self.path.display()));
            let decoded = BASE64.decode(auth.trim()).map_err(|_| bad())?;
            let decoded = String::from_utf8(decoded).map_err(|_| bad())?;
            let (username, password) = decoded.split_once(':').ok_or_else(bad)?;
            // Some clients write a trailing NUL.
            let password = password.trim_end_matches('\0');
            return Ok(Some(Credential::Password { username: username.to_owned(), password: password.to_owned() }));
        }
        Ok(match (text("username"), text("password")) {
            (Some(username), Some(password)) => {
                Some(Credential::Password { username: username.to_owned(), password: password.to_owned() })
            }
            _ => None,
        })
    }

    /// Keeps a credential: with the registry's helper if one is configured, else in the file (mode 0600).
    /// Everything else in the file stays as it is.
    ///
    /// # Errors
    /// A helper's, or the disk's.
    pub fn save(&mut self, registry: &str, credential: &Credential) -> Result<Saved> {
        let key = key_of(registry);
        let (username, secret) = match credential {
            Credential::Password { username, password } => (username.as_str(), password.as_str()),
            Credential::IdentityToken(token) => (TOKEN_USER, token.as_str()),
        };
        if let Some(helper) = self.helper(&key) {
            let request = HelperAnswer { server_url: key.clone(), username: username.into(), secret: secret.into() };
            let request = serde_json::to_string(&request).map_err(|e| Error::json("credential", e))?;
            run_helper(&helper, "store", &request)?;
            // Docker leaves an empty entry, so that other clients see that there is something.
            self.set_entry(&key, Some(Map::new()))?;
            return Ok(Saved::Helper(helper));
        }
        let mut entry = Map::new();
        match credential {
            Credential::Password { .. } => {
                entry.insert("auth".into(), BASE64.encode(format!("{username}:{secret}")).into());
            }
            Credential::IdentityToken(token) => {
                entry.insert("auth".into(), BASE64.encode(format!("{TOKEN_USER}:")).into());
                entry.insert("identitytoken".into(), token.clone().into());
            }
        }
        self.set_entry(&key, Some(entry))?;
        Ok(Saved::Plain(self.path.clone()))
    }

    /// Forgets the credential. Returns false when there was none.
    ///
    /// # Errors
    /// A helper's, or the disk's.
    pub fn erase(&mut self, registry: &str) -> Result<bool> {
        let key = key_of(registry);
        let mut found = false;
        if let Some(helper) = self.helper(&key) {
            found = helper_get(&helper, &key)?.is_some();
            if found {
                run_helper(&helper, "erase", &key)?;
            }
        }
        if self.entry(&key).is_some() {
            found = true;
            self.set_entry(&key, None)?;
        }
        Ok(found)
    }

    fn helper(&self, key: &str) -> Option<String> {
        let name = |v: &Value| v.as_str().filter(|n| !n.is_empty()).map(str::to_owned);
        let special = self
            .document
            .get("credHelpers")
            .and_then(Value::as_object)
            .and_then(|helpers| helpers.iter().find(|(k, _)| same_registry(k, key)).map(|(_, v)| v));
        special.or_else(|| self.document.get("credsStore")).and_then(name)
    }

    fn entry(&self, key: &str) -> Option<&Map<String, Value>> {
        let auths = self.document.get("auths")?.as_object()?;
        let entry = auths.get(key).or_else(|| auths.iter().find(|(k, _)| same_registry(k, key)).map(|(_, v)| v));
        entry?.as_object()
    }

    fn set_entry(&mut self, key: &str, entry: Option<Map<String, Value>>) -> Result<()> {
        let auths = self.document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        let Some(auths) = auths.as_object_mut() else {
            return Err(Error::new(Class::InvalidInput, format!("{}: auths is not an object", self.path.display())));
        };
        auths.retain(|k, _| !same_registry(k, key));
        if let Some(entry) = entry {
            auths.insert(key.to_owned(), Value::Object(entry));
        }
        self.write()
    }

    fn write(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(&self.document).map_err(|e| Error::json("config.json", e))?;
        // Through a symlink, as people keep this file among their dotfiles.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let directory = path.parent().unwrap_or(Path::new("."));
        private::create_dir(directory).map_err(|e| Error::io("create", directory, e))?;
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let temporary = path.with_file_name(name);
        let written = (|| {
            // One of the same name can only be a dead process's.
            let _ = fs::remove_file(&temporary);
            let mut file = private::create_file(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        })();
        written.map_err(|e| {
            let _ = fs::remove_file(&temporary);
            Error::io("write", &path, e)
        })
    }
}

fn key_of(registry: &str) -> String {
    if registry == DOCKER_HUB { DOCKER_HUB_KEY.to_owned() } else { registry.to_owned() }
}

/// Old clients wrote keys with a scheme and a path.
fn same_registry(a: &str, b: &str) -> bool {
    fn host(key: &str) -> &str {
        let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        match key.split('/').next().unwrap_or(key) {
            "docker.io" | "registry-1.docker.io" => "index.docker.io",
            host => host,
        }
    }
    host(a) == host(b)
}

fn helper_get(helper: &str, key: &str) -> Result<Option<Credential>> {
    let Some(answer) = run_helper(helper, "get", key)? else { return Ok(None) };
    let answer: HelperAnswer =
        serde_json::from_slice(&answer).map_err(|e| Error::json(format!("docker-credential-{helper} get"), e))?;
    Ok(match answer {
        HelperAnswer { secret, .. } if secret.is_empty() => None,
        HelperAnswer { username, secret, .. } if username == TOKEN_USER => Some(Credential::IdentityToken(secret)),
        HelperAnswer { username, secret, .. } => Some(Credential::Password { username, password: secret }),
    })
}

/// Runs a helper; `None`: it has no such credential.
fn run_helper(helper: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>> {
    let program = format!("docker-credential-{helper}");
    if helper.contains(['/', '\\']) {
        return Err(Error::new(Class::InvalidInput, format!("{helper:?} is no name of a credential helper")));
    }
    let failed = |why: String| {
        Error::new(Class::Internal, format!("{program} {verb}: {why}"))
            .with_hint("credsStore and credHelpers in docker's config.json name the helpers")
    };
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that fails early does not read; its exit says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let said = String::from_utf8_lossy(if output.stdout.is_empty() { &output.stderr } else { &output.stdout });
    if said.contains("credentials not found") {
        return Ok(None);
    }
    Err(failed(said.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password { username: username.into(), password: password.into() }
    }

    fn open(text: &str) -> (tempfile::TempDir, Credentials) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker/config.json");
        if !text.is_empty() {
            fs::create_dir(dir.path().join("docker")).unwrap();
            fs::write(&path, text).unwrap();
        }
        let credentials = Credentials::open(&path).unwrap();
        (dir, credentials)
    }

    #[test]
    fn entries_of_all_spellings_are_found() {
        let auth = BASE64.encode("me:p:w");
        let (_dir, c) = open(&format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}}, "https://old.example/v2/": {{"auth": "{auth}"}},
                "t.example": {{"auth": "{auth}", "identitytoken": "tok"}}, "empty.example": {{}},
                "bad.example": {{"auth": "%%%"}}, "plain.example": {{"username": "a", "password": "b"}}}}}}"#
        ));
        assert_eq!(c.get("docker.io").unwrap(), Some(password("me", "p:w")));
        assert_eq!(c.get("old.example").unwrap(), Some(password("me", "p:w")));
        assert_eq!(c.get("t.example").unwrap(), Some(Credential::IdentityToken("tok".into())));
        assert_eq!(c.get("plain.example").unwrap(), Some(password("a", "b")));
        assert_eq!(c.get("empty.example").unwrap(), None);
        assert_eq!(c.get("example").unwrap(), None);
        assert_eq!(c.get("old.example:5000").unwrap(), None);
        assert_eq!(c.get("bad.example").unwrap_err().class(), Class::InvalidInput);
    }

    #[test]
    fn saving_keeps_what_it_does_not_know() {
        let (_dir, mut c) = open(r#"{"psFormat": "x", "auths": {"a.example": {"auth": "eDp5"}}, "new": {"z": [1]}}"#);
        let saved = c.save("docker.io", &password("me", "secret")).unwrap();
        assert_eq!(saved, Saved::Plain(c.path.clone()));
        c.save("i.example", &Credential::IdentityToken("tok".into())).unwrap();
        let again = Credentials::open(&c.path).unwrap();
        assert_eq!(again.get("docker.io").unwrap(), Some(password("me", "secret")));
        assert_eq!(again.get("i.example").unwrap(), Some(Credential::IdentityToken("tok".into())));
        assert_eq!(again.get("a.example").unwrap(), Some(password("x", "y")));
        assert_eq!(again.document["psFormat"], "x");
        assert_eq!(again.document["new"]["z"][0], 1);
        assert!(again.document["auths"].get(DOCKER_HUB_KEY).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private_and_a_symlink_survives() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, mut c) = open("");
        c.save("a.example", &password("u", "p")).unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&c.path), 0o600);
        assert_eq!(mode(c.path.parent().unwrap()), 0o700);
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink(&c.path, &link).unwrap();
        Credentials::open(&link).unwrap().save("b.example", &password("u", "p")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().file_type().is_symlink());
        assert!(Credentials::open(&c.path).unwrap().get("b.example").unwrap().is_some());
    }

    #[test]
    fn erasing_says_whether_there_was_something() {
        let (_dir, mut c) = open(r#"{"auths": {"https://a.example/v1/": {"auth": "eDp5"}}}"#);
        assert!(c.erase("a.example").unwrap());
        assert!(!c.erase("a.example").unwrap());
        assert_eq!(Credentials::open(&c.path).unwrap().get("a.example").unwrap(), None);
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let shown = format!("{:?} {:?}", password("me", "hidden"), Credential::IdentityToken("hidden".into()));
        assert!(!shown.contains("hidden"));
    }

    #[test]
    fn a_helper_name_is_not_a_path() {
        let (_dir, c) = open(r#"{"credHelpers": {"a.example": "../../tmp/x"}, "credsStore": "wharf-none-such"}"#);
        assert_eq!(c.get("a.example").unwrap_err().class(), Class::InvalidInput);
        let error = c.get("b.example").unwrap_err();
        assert!(error.to_string().contains("docker-credential-wharf-none-such"), "{error}");
    }
}
