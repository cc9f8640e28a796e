//! `login` and `logout`.

use std::io::{BufRead as _, IsTerminal as _, Read as _, Write as _};

use wharf_images::registry::{Credential, Registry, Saved};

use super::context::Context;
use super::failure::{Failure, Result, tell};
use super::parse::Parsed;
use super::verb::{Flag, Listed, Operands, Section, Verb};

/// Docker Hub, in images' names and as its credentials have always been keyed.
pub const DOCKER_HUB: (&str, &str) = ("docker.io", "https://index.docker.io/v1/");

/// The commands of this file.
pub static VERBS: &[Verb] = &[
    Verb {
        names: &["login"],
        about: "Authenticate to a registry",
        usage: "[OPTIONS] [SERVER]",
        listed: Listed::Common,
        operands: Operands::AtMost(1),
        trailing: false,
        sections: &[Section {
            title: "Options",
            flags: &[
                Flag::value("password", "string", "Password or Personal Access Token (PAT)").short('p'),
                Flag::switch("password-stdin", "Take the Password or Personal Access Token (PAT) from stdin"),
                Flag::value("username", "string", "Username").short('u'),
            ],
        }],
        run: login,
    },
    Verb {
        names: &["logout"],
        about: "Log out from a registry",
        usage: "[SERVER]",
        listed: Listed::Common,
        operands: Operands::AtMost(1),
        trailing: false,
        sections: &[],
        run: logout,
    },
];

fn server(parsed: &Parsed) -> String {
    registry_of(parsed.operands().first().map_or(DOCKER_HUB.0, String::as_str))
}

/// The registry's name: people paste addresses.
pub fn registry_of(text: &str) -> String {
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    match text.split('/').next().unwrap_or(text) {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.0.to_owned(),
        host => host.to_owned(),
    }
}

/// As docker shows it.
fn shown(server: &str) -> &str {
    if server == DOCKER_HUB.0 { DOCKER_HUB.1 } else { server }
}

fn login(parsed: &Parsed, context: &Context) -> Result<()> {
    let server = server(parsed);
    let registry = context.registry()?;
    let credential = match kept(parsed, &registry, &server)? {
        Some(credential) => {
            writeln!(std::io::stdout(), "Authenticating with existing credentials...")?;
            credential
        }
        None => ask(parsed)?,
    };
    let saved = registry.login(&server, &credential)?;
    if let Saved::Plain(path) = saved {
        let path = path.display();
        tell(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{path}'.\n\
             Name a credential helper as credsStore there to keep them elsewhere.\n\n"
        ));
    }
    writeln!(std::io::stdout(), "Login Succeeded")?;
    Ok(())
}

/// What is known already, when nothing else was given.
fn kept(parsed: &Parsed, registry: &Registry, server: &str) -> Result<Option<Credential>> {
    if parsed.given("username") || parsed.given("password") || parsed.switch("password-stdin") {
        return Ok(None);
    }
    Ok(registry.credential(server)?)
}

fn ask(parsed: &Parsed) -> Result<Credential> {
    let username = parsed.value("username").map(str::to_owned);
    let username = match (username, parsed.switch("password-stdin")) {
        (_, true) if parsed.given("password") => {
            return Err(Failure::new("conflicting options: cannot specify both --password and --password-stdin"));
        }
        (None, true) => return Err(Failure::new("the --password-stdin option requires --username to be set")),
        (Some(username), true) => {
            let mut password = String::new();
            std::io::stdin().read_to_string(&mut password).map_err(|e| Failure::io("read", "stdin", &e))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            return password_of(username, password);
        }
        (username, false) => username,
    };
    if let Some(password) = parsed.value("password") {
        tell("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
        if let Some(username) = username {
            return password_of(username, password.to_owned());
        }
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("Cannot perform an interactive login from a non TTY device")
            .hint("use --username with --password-stdin"));
    }
    let username = match username {
        Some(username) => username,
        None => prompt("Username: ")?,
    };
    let password = match parsed.value("password") {
        Some(password) => password.to_owned(),
        None => {
            tell("Password: ");
            let secret = console::Term::stderr().read_secure_line();
            secret.map_err(|e| Failure::io("read", "the terminal", &e))?
        }
    };
    password_of(username, password)
}

fn prompt(question: &str) -> Result<String> {
    let mut out = std::io::stdout();
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|e| Failure::io("read", "stdin", &e))?;
    Ok(answer.trim().to_owned())
}

fn password_of(username: String, password: String) -> Result<Credential> {
    if username.is_empty() {
        return Err(Failure::new("username is empty"));
    }
    if password.is_empty() {
        return Err(Failure::new("password is empty"));
    }
    Ok(Credential::Password { username, password })
}

fn logout(parsed: &Parsed, context: &Context) -> Result<()> {
    let server = server(parsed);
    let what = if context.registry()?.logout(&server)? { "Removing login credentials for" } else { "Not logged in to" };
    writeln!(std::io::stdout(), "{what} {}", shown(&server))?;
    Ok(())
}
