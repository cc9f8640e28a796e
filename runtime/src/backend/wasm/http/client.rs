//! A guest's own HTTP requests in WASI 0.3 (`wasi:http/client`). They are wasmtime's, and go out by [`outgoing`](super::outgoing)
//! like those of 0.2, but for one word of the interface: a request without a path is one for an empty path.

use http::uri::PathAndQuery;
use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::TrappableError;
use wasmtime_wasi_http::p3::bindings::http::client::{self, HostWithStore};
use wasmtime_wasi_http::p3::bindings::http::types::{self, ErrorCode, Request, Response};
use wasmtime_wasi_http::{WasiHttp, WasiHttpCtxView, WasiHttpView};

/// Gives `linker` the HTTP of WASI 0.3.
///
/// # Errors
/// When it is there already.
pub fn add_to_linker<T: WasiHttpView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, WasiHttp>(linker, T::http)?;
    client::add_to_linker::<T, Client>(linker, T::http)
}

struct Client;

impl HasData for Client {
    type Data<'a> = WasiHttpCtxView<'a>;
}

impl<T> HostWithStore<T> for Client {
    async fn send(
        store: &Accessor<T, Self>,
        request: Resource<Request>,
    ) -> Result<Resource<Response>, TrappableError<ErrorCode>> {
        store.with(|mut store| {
            let sent = store.get().table.get_mut(&request).map_err(TrappableError::trap)?;
            sent.path_with_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
            Ok::<_, TrappableError<ErrorCode>>(())
        })?;
        WasiHttp::send(&store.with_getter::<WasiHttp>(store.getter()), request).await
    }
}
