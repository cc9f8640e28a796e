//! A component that serves HTTP in WASI 0.3 (`wasi:http/handler`): each path does one thing that a test wants of a guest.

use wasip3::clocks::monotonic_clock::wait_for;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Service);

struct Service;

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path.as_str(), ""));
        match path {
            "/hello" => Ok(text(200, "Hello, HTTP 0.3!\n")),
            "/host" => Ok(text(200, &format!("{}\n", request.get_authority().unwrap_or_default()))),
            // What comes goes back, as it comes.
            "/echo" => {
                let (_, ended) = wit_future::new(|| Ok(()));
                let (body, trailers) = Request::consume_body(request, ended);
                Ok(Response::new(Fields::new(), Some(body), trailers).0)
            }
            "/count" => Ok(text(200, &format!("{}\n", count()))),
            // So many bytes, as a stream of them.
            "/zeros" => {
                let (mut out, body) = wit_stream::new();
                let mut left: usize = query.parse().unwrap_or(0);
                spawn_local(async move {
                    while left > 0 {
                        let chunk = left.min(64 * 1024);
                        if !out.write_all(vec![0; chunk]).await.is_empty() {
                            return;
                        }
                        left -= chunk;
                    }
                });
                let (_, trailers) = wit_future::new(|| Ok(None));
                Ok(Response::new(Fields::new(), Some(body), trailers).0)
            }
            // Milliseconds in the middle of the answer.
            "/pause" => {
                let (mut out, body) = wit_stream::new();
                let milliseconds: u64 = query.parse().unwrap_or(1000);
                spawn_local(async move {
                    out.write_all(b"first\n".to_vec()).await;
                    wait_for(milliseconds * 1_000_000).await;
                    out.write_all(b"last\n".to_vec()).await;
                });
                let (_, trailers) = wit_future::new(|| Ok(None));
                Ok(Response::new(Fields::new(), Some(body), trailers).0)
            }
            "/slow" => {
                wait_for(query.parse::<u64>().unwrap_or(1000) * 1_000_000).await;
                Ok(text(200, "slow\n"))
            }
            "/spin" => loop {
                std::hint::black_box(());
            },
            "/trap" => panic!("as asked"),
            "/error" => Err(ErrorCode::LoopDetected),
            "/" => Ok(text(200, "the root\n")),
            // Asks somebody else: http://AUTHORITY, or with /PATH behind it
            "/fetch" => Ok(fetch(query).await),
            _ => Ok(text(404, "not found\n")),
        }
    }
}

/// One request sees nothing of another.
fn count() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed) + 1
}

fn text(status: u16, text: &str) -> Response {
    let fields = Fields::new();
    fields.append("content-type", b"text/plain").expect("a header");
    let (mut out, body) = wit_stream::new();
    let bytes = text.as_bytes().to_vec();
    spawn_local(async move {
        out.write_all(bytes).await;
    });
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(fields, Some(body), trailers);
    response.set_status_code(status).expect("a status");
    response
}

async fn fetch(url: &str) -> Response {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let authority = rest.split('/').next().unwrap_or_default();
    let path = rest.strip_prefix(authority).filter(|path| !path.is_empty());
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    request.set_method(&Method::Get).expect("a method");
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(path).expect("a path");
    match client::send(request).await {
        Ok(response) => {
            let status = response.get_status_code();
            let (_, ended) = wit_future::new(|| Ok(()));
            let (body, _) = Response::consume_body(response, ended);
            let body = body.collect().await;
            text(status, &String::from_utf8_lossy(&body))
        }
        Err(e) => text(502, &format!("{e:?}\n")),
    }
}
