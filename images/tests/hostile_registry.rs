//! Registries that lie, break off, and fish for passwords.

#[path = "support/hostile.rs"]
mod hostile;
#[path = "support/image.rs"]
mod image;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hostile::{Hostile, Reply, Request};
use image::{TestImage, noise, open_store};
use wharf_images::digest::{Algorithm, Hasher};
use wharf_images::registry::{Backoff, Config, Registry, RegistryConfig};
use wharf_images::{Class, Digest, Error, NoReport, Reference};

/// Fast patience.
fn config() -> Config {
    let backoff = Backoff { attempts: 4, base: Duration::from_millis(5), cap: Duration::from_millis(50) };
    Config { backoff, ..Config::default() }
}

/// A configuration in which `me:secret` is logged in at `host`.
fn logged_in(host: &str, entry: &str) -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, format!(r#"{{"auths": {{"{host}": {entry}}}}}"#)).unwrap();
    (dir, Config { docker_config: Some(path), ..config() })
}

fn password() -> String {
    format!(r#"{{"auth": "{}"}}"#, BASE64.encode("me:secret"))
}

fn pull_with(config: Config, host: &str) -> Result<wharf_images::Image, Error> {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let name: Reference = format!("{host}/x:1").parse().unwrap();
    let pulled = Registry::new(config).pull(&store, &name, None, &NoReport);
    if pulled.is_err() {
        assert!(store.records().unwrap().is_empty(), "what failed is not recorded");
    }
    pulled
}

fn sample() -> Arc<TestImage> {
    Arc::new(TestImage::new(&[("a", &noise(5, 700_000))]))
}

/// What an honest registry answers.
fn honest(image: &TestImage, request: &Request) -> Reply {
    let path = request.line.split(' ').nth(1).unwrap_or_default();
    if path == "/v2/" {
        return Reply::new(200, "{}");
    }
    if path.contains("/manifests/") {
        return Reply::new(200, image.manifest.clone())
            .with("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .with("Docker-Content-Digest", image.digest().to_string());
    }
    let blob = image.blobs.iter().find(|bytes| path.ends_with(Digest::of(bytes).as_str()));
    let Some(blob) = blob else { return Reply::new(404, "{}") };
    let from = request.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) => Reply::new(206, &blob[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len())),
        None => Reply::new(200, blob.clone()),
    }
}

fn is_layer(request: &Request, image: &TestImage) -> bool {
    request.line.ends_with(Digest::of(&image.blobs[1]).as_str())
}

#[test]
fn an_honest_one_is_believed() {
    let image = sample();
    let server = Hostile::new(move |request, _| honest(&image, request));
    pull_with(config(), &server.host()).unwrap();
}

#[test]
fn a_manifest_must_be_what_was_asked_for() {
    let image = sample();
    let server = Hostile::new(move |request, _| {
        let mut reply = honest(&image, request);
        if request.line.contains("/manifests/") {
            reply.body.push(b' ');
        }
        reply
    });
    let error = pull_with(config(), &server.host()).unwrap_err();
    assert_eq!(error.class(), Class::Corrupt, "{error}");
    assert!(error.to_string().contains("manifest verification failed"), "{error}");
}

#[test]
fn a_manifest_has_an_end() {
    for endless in [false, true] {
        let server = Hostile::new(move |request, _| match request.line.contains("/manifests/") {
            true if endless => Reply { endless, ..Reply::new(200, "{") },
            true => Reply { claimed: Some(5 << 20), ..Reply::new(200, "{") },
            false => Reply::new(200, "{}"),
        });
        let error = pull_with(config(), &server.host()).unwrap_err();
        assert_eq!(error.class(), Class::LimitExceeded, "{error}");
    }
}

#[test]
fn a_layer_of_other_bytes_or_another_size_is_refused() {
    type Spoil = fn(&mut Reply);
    let spoils: [Spoil; 4] = [
        |reply| reply.body[1000] ^= 1,
        |reply| reply.body.push(0),
        |reply| reply.body.truncate(reply.body.len() - 1),
        |reply| reply.endless = true,
    ];
    for (number, spoil) in spoils.into_iter().enumerate() {
        let image = sample();
        let server = Hostile::new(move |request, _| {
            let mut reply = honest(&image, request);
            if is_layer(request, &image) {
                spoil(&mut reply);
            }
            reply
        });
        let error = pull_with(config(), &server.host()).unwrap_err();
        assert_eq!(error.class(), Class::Corrupt, "{number}: {error}");
    }
}

#[test]
fn a_broken_connection_is_resumed() {
    let image = sample();
    let shown = image.clone();
    let server = Hostile::new(move |request, _| {
        let mut reply = honest(&image, request);
        if is_layer(request, &image) && reply.body.len() > 100_000 {
            reply.claimed = Some(reply.body.len());
            reply.body.truncate(100_000);
        }
        reply
    });
    pull_with(config(), &server.host()).unwrap();
    let ranges: Vec<_> = server.requests().into_iter().filter(|r| is_layer(r, &shown)).collect();
    assert!(ranges.len() >= 7, "{}", ranges.len());
    assert!(ranges[1..].iter().all(|r| r.header("range").is_some()));
}

/// What a registry that keeps uploads has seen.
#[derive(Default)]
struct Received {
    bytes: usize,
    parts: Vec<String>,
}

#[test]
fn a_broken_upload_goes_on_where_the_registry_is() {
    const LOST: usize = 3_000_000;
    let image = Arc::new(TestImage::new(&[("a", &noise(7, 20 << 20))]));
    let size = image.blobs[1].len();
    let received = Arc::new(Mutex::new(Received::default()));
    let seen = received.clone();
    let server = Hostile::new(move |request, host| {
        let length = request.header("content-length").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
        let mut received = received.lock().unwrap();
        let at = |bytes: usize| format!("0-{}", bytes.saturating_sub(1));
        let next = format!("http://{host}/upload/large");
        match request.line.split(' ').next().unwrap_or_default() {
            "HEAD" => Reply::new(404, ""),
            "POST" => Reply::new(202, "").with("Location", "/upload/small"),
            "PATCH" => {
                received.parts.push(request.header("content-range").unwrap_or_default().to_owned());
                // Of the second part only some arrives, and the connection breaks.
                if received.parts.len() == 2 {
                    received.bytes += LOST;
                    return Reply { broken: true, ..Reply::default() };
                }
                received.bytes += length;
                Reply::new(202, "").with("Location", next).with("Range", at(received.bytes))
            }
            "GET" if request.line.contains("/upload/") => {
                Reply::new(204, "").with("Location", next).with("Range", at(received.bytes))
            }
            "PUT" => {
                if request.line.contains("/upload/large") {
                    received.bytes += length;
                }
                Reply::new(201, "")
            }
            _ => Reply::new(200, "{}"),
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(dir.path());
    let name: Reference = format!("{}/x:1", server.host()).parse().unwrap();
    image.record(&store, &name);
    Registry::new(config()).push(&store, &name, &NoReport).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.bytes, size, "every byte once: {:?}", seen.parts);
    let part = 8 << 20;
    let third = part + LOST;
    let expected = [(0, part), (part, 2 * part), (third, third + part), (third + part, size)];
    assert_eq!(seen.parts, expected.map(|(from, to)| format!("{from}-{}", to - 1)));
}

#[test]
fn sha512_digests_are_as_good() {
    let sha512 = |bytes: &[u8]| {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(bytes);
        hasher.finish()
    };
    for spoiled in [false, true] {
        let image = TestImage::made(image::architecture(), &sha512, &[("a", &noise(8, 100_000)), ("b", b"b")]);
        let digest = sha512(&image.manifest);
        let shown = digest.clone();
        let server = Hostile::new(move |request, _| {
            if request.line.contains("/manifests/") {
                return Reply::new(200, image.manifest.clone())
                    .with("Content-Type", "application/vnd.oci.image.manifest.v1+json")
                    .with("Docker-Content-Digest", shown.to_string());
            }
            match image.blobs.iter().find(|bytes| request.line.ends_with(sha512(bytes).as_str())) {
                Some(blob) if spoiled && blob.len() > 50_000 => {
                    let mut blob = blob.clone();
                    blob[40_000] ^= 1;
                    Reply::new(200, blob)
                }
                Some(blob) => Reply::new(200, blob.clone()),
                None => Reply::new(404, "{}"),
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let store = open_store(dir.path());
        let name: Reference = format!("{}/x@{digest}", server.host()).parse().unwrap();
        let pulled = Registry::new(config()).pull(&store, &name, None, &NoReport);
        if spoiled {
            assert_eq!(pulled.unwrap_err().class(), Class::Corrupt);
            continue;
        }
        let image = pulled.unwrap();
        assert_eq!((image.id.algorithm(), &image.manifest), (Algorithm::Sha512, &digest));
        assert!(store.snapshots.contains(&image.diff_ids()));
        assert!(store.snapshots.prepare("c", &image.diff_ids()).is_ok());
    }
}

#[test]
fn a_server_without_ranges_is_asked_for_all_again() {
    let image = sample();
    let times = AtomicUsize::new(0);
    let server = Hostile::new(move |request, _| {
        if !is_layer(request, &image) {
            return honest(&image, request);
        }
        let whole = image.blobs[1].clone();
        match times.fetch_add(1, Ordering::Relaxed) {
            0 => Reply { claimed: Some(whole.len()), ..Reply::new(200, &whole[..50_000]) },
            _ => Reply::new(200, whole),
        }
    });
    pull_with(config(), &server.host()).unwrap();
}

#[test]
fn a_server_in_trouble_is_asked_again_but_not_for_ever() {
    for (status, times, good) in [(429, 2, true), (503, 3, true), (500, 99, false)] {
        let image = sample();
        let count = AtomicUsize::new(0);
        let server = Hostile::new(move |request, _| {
            if request.line.contains("/manifests/") && count.fetch_add(1, Ordering::Relaxed) < times {
                return Reply::new(status, "").with("Retry-After", "0");
            }
            honest(&image, request)
        });
        let outcome = pull_with(config(), &server.host());
        assert_eq!(outcome.is_ok(), good, "{status}: {outcome:?}");
        if let Err(error) = outcome {
            assert_eq!(error.class(), Class::Unavailable);
            assert_eq!(server.count("GET /v2/x/manifests/"), 4);
        }
    }
}

#[test]
fn redirects_end() {
    let image = sample();
    let server = Hostile::new(move |request, host| match is_layer(request, &image) {
        true => Reply::new(307, "").with("Location", format!("http://{host}{}", &request.line[4..])),
        false => honest(&image, request),
    });
    let error = pull_with(config(), &server.host()).unwrap_err();
    assert!(error.to_string().contains("more than 10 times"), "{error}");
    for bad in ["file:///etc/passwd", "http://", "%"] {
        let image = sample();
        let server = Hostile::new(move |request, _| match is_layer(request, &image) {
            true if bad != "%" => Reply::new(302, "").with("Location", bad),
            true => Reply::new(302, ""),
            false => honest(&image, request),
        });
        let error = pull_with(config(), &server.host()).unwrap_err();
        assert_eq!(error.class(), Class::Forbidden, "{bad}: {error}");
    }
}

#[test]
fn a_redirect_takes_no_password_along() {
    let image = sample();
    let storage = {
        let image = image.clone();
        Hostile::new(move |request, _| honest(&image, request))
    };
    let elsewhere = storage.host();
    let server = Hostile::new(move |request, _| {
        if request.header("authorization").is_none() {
            return Reply::new(401, "{}").with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match is_layer(request, &image) {
            true => Reply::new(307, "").with("Location", format!("http://{elsewhere}{}", &request.line[4..])),
            false => honest(&image, request),
        }
    });
    let (_dir, config) = logged_in(&server.host(), &password());
    pull_with(config, &server.host()).unwrap();
    let seen = storage.requests();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|r| r.header("authorization").is_none()), "{seen:?}");
}

/// A registry that wants tokens from `realm`, and takes any.
fn token_registry(image: Arc<TestImage>, realm: impl Fn(&str) -> String + Send + Sync + 'static) -> Hostile {
    Hostile::new(move |request, host| {
        if request.line.contains("/token") {
            return Reply::new(200, r#"{"token": "from-me", "expires_in": 300}"#);
        }
        if request.header("authorization").is_none_or(|a| !a.starts_with("Bearer ")) {
            let realm = realm(host);
            return Reply::new(401, "{}").with(
                "WWW-Authenticate",
                format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:x:pull\""),
            );
        }
        honest(&image, request)
    })
}

#[test]
fn a_foreign_token_service_sees_no_password() {
    let thief = Hostile::new(|_, _| Reply::new(200, r#"{"token": "stolen"}"#));
    let address = thief.host();
    let server = token_registry(sample(), move |_| format!("http://{address}/token"));
    for entry in [password(), r#"{"identitytoken": "secret-token"}"#.to_owned()] {
        let (_dir, config) = logged_in(&server.host(), &entry);
        pull_with(config, &server.host()).unwrap();
    }
    let seen = thief.requests();
    assert!(seen.len() >= 2, "it is asked as nobody");
    for request in &seen {
        assert!(request.header("authorization").is_none(), "{request:?}");
        assert!(!request.body.contains("secret") && !request.line.contains("me"), "{request:?}");
    }
    // The user may say that it is the right one.
    let (_dir, mut config) = logged_in(&server.host(), &password());
    let table = RegistryConfig { token_realms: vec![thief.host()], ..RegistryConfig::default() };
    config.registries.insert(server.host(), table);
    pull_with(config, &server.host()).unwrap();
    let basic = format!("Basic {}", BASE64.encode("me:secret"));
    assert_eq!(thief.requests().last().unwrap().header("authorization"), Some(basic.as_str()));
}

#[test]
fn a_refusal_by_a_foreign_token_service_is_explained() {
    let thief = Hostile::new(|_, _| Reply::new(401, "{}"));
    let address = thief.host();
    let server = token_registry(sample(), move |_| format!("http://{address}/token"));
    let (_dir, config) = logged_in(&server.host(), &password());
    let error = pull_with(config, &server.host()).unwrap_err();
    assert_eq!(error.class(), Class::Unauthorized);
    assert!(error.hint().unwrap().contains("token-realms"), "{:?}", error.hint());
}

#[test]
fn a_realm_must_be_a_web_address() {
    for realm in ["file:///etc/passwd", "", "javascript:1", "http://"] {
        let server = token_registry(sample(), move |_| realm.to_owned());
        let error = pull_with(config(), &server.host()).unwrap_err();
        assert_eq!(error.class(), Class::Forbidden, "{realm}: {error}");
    }
}

#[test]
fn the_registrys_own_token_service_gets_what_it_needs() {
    let server = token_registry(sample(), |host| format!("http://{host}/token"));
    let (_dir, config) = logged_in(&server.host(), &password());
    pull_with(config, &server.host()).unwrap();
    let asked: Vec<Request> = server.requests().into_iter().filter(|r| r.line.contains("/token")).collect();
    assert_eq!(asked.len(), 1, "one token serves the whole pull");
    assert!(asked[0].header("authorization").is_some_and(|a| a.starts_with("Basic ")));
    assert!(
        asked[0].line.contains("scope=repository%3Ax%3Apull") && asked[0].line.contains("service=s"),
        "{:?}",
        asked[0]
    );

    let server = token_registry(sample(), |host| format!("http://{host}/token"));
    let (_dir, config) = logged_in(&server.host(), r#"{"identitytoken": "refresh-me"}"#);
    pull_with(config, &server.host()).unwrap();
    let asked = server.requests().into_iter().find(|r| r.line.contains("/token")).unwrap();
    assert!(asked.line.starts_with("POST"), "{asked:?}");
    assert!(asked.body.contains("grant_type=refresh_token") && asked.body.contains("refresh_token=refresh-me"));
}

#[test]
fn a_token_that_ends_in_mid_pull_is_renewed() {
    let image = sample();
    let tokens = AtomicUsize::new(0);
    let server = Hostile::new(move |request, host| {
        if request.line.contains("/token") {
            let number = tokens.fetch_add(1, Ordering::Relaxed);
            return Reply::new(200, format!(r#"{{"access_token": "t{number}"}}"#));
        }
        // The first token is good for the manifest only.
        let wanted = if is_layer(request, &image) { "Bearer t1" } else { "Bearer t" };
        if request.header("authorization").is_none_or(|a| !a.starts_with(wanted)) {
            return Reply::new(401, "{}").with("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\""));
        }
        honest(&image, request)
    });
    pull_with(config(), &server.host()).unwrap();
    assert_eq!(server.count("GET /token"), 2);
}

#[test]
fn a_registry_that_never_has_enough_is_left() {
    let server = Hostile::new(|request, host| match request.line.contains("/token") {
        true => Reply::new(200, r#"{"token": "t"}"#),
        false => Reply::new(401, "{}").with("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\"")),
    });
    let error = pull_with(config(), &server.host()).unwrap_err();
    assert_eq!(error.class(), Class::Unauthorized, "{error}");
    let words =
        format!("pull access denied for {}/x, repository does not exist or may require 'wharf login'", server.host());
    assert!(error.to_string().starts_with(&words), "{error}");
    assert!(server.count("GET /token") <= 3);
}
