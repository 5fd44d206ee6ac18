//! A server that speaks the hub's and Ollama's protocols, and misbehaves on demand.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use shimmy::library::pull::Digest;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What one request for a file's bytes gets instead of an answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing more comes after so many bytes.
    Stall(usize),
    /// The connection ends after so many bytes.
    Cut(usize),
    /// A status, with headers.
    Status(u16, Vec<(&'static str, String)>),
    /// All of the file, whatever range was asked for.
    WholeFile,
    /// A body that says that it is packed.
    Packed,
    /// The first byte is another one.
    Corrupt,
    /// The file is another one from now on.
    Replace(Vec<u8>),
    /// Waits before each 16 KiB.
    Slow(Duration),
}

#[derive(Debug, Clone)]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
}

/// Bytes and their ETag, which takes a while to compute without optimisation.
#[derive(Clone)]
struct File {
    bytes: Arc<Vec<u8>>,
    etag: String,
}

impl File {
    fn new(bytes: &[u8]) -> Self {
        Self { bytes: Arc::new(bytes.to_vec()), etag: format!("\"{}\"", Digest::of(bytes).hex()) }
    }
}

#[derive(Default)]
pub struct Inner {
    /// By path.
    files: Mutex<HashMap<String, File>>,
    /// Other answers, by path.
    pages: Mutex<HashMap<String, (u16, Value)>>,
    /// The `Link` of a page, by path.
    links: Mutex<HashMap<String, String>>,
    /// Each for one request.
    faults: Mutex<VecDeque<Fault>>,
    /// For all requests.
    always: Mutex<Option<Fault>>,
    asked: Mutex<Vec<Asked>>,
    /// Where requests for `/…/resolve/…` are sent.
    cdn: Mutex<Option<String>>,
    validators: Mutex<bool>,
}

pub struct Fake {
    pub inner: Arc<Inner>,
    pub address: String,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inner = Arc::new(Inner { validators: Mutex::new(true), ..Inner::default() });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().fallback(answer).with_state(Arc::clone(&inner));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Self { inner, address, _runtime: runtime }
    }

    pub fn file(&self, path: &str, bytes: &[u8]) {
        self.inner.files.lock().unwrap().insert(path.into(), File::new(bytes));
    }

    pub fn page(&self, path: &str, status: u16, body: Value) {
        self.inner.pages.lock().unwrap().insert(path.into(), (status, body));
    }

    /// The page goes on there.
    pub fn link(&self, path: &str, next: &str) {
        self.inner.links.lock().unwrap().insert(path.into(), format!("<{next}>; rel=\"next\""));
    }

    pub fn fault(&self, fault: Fault) {
        self.inner.faults.lock().unwrap().push_back(fault);
    }

    pub fn always(&self, fault: Option<Fault>) {
        *self.inner.always.lock().unwrap() = fault;
    }

    /// Says neither which file it is nor from when.
    pub fn without_validators(&self) {
        *self.inner.validators.lock().unwrap() = false;
    }

    pub fn send_downloads_to(&self, other: &Fake) {
        *self.inner.cdn.lock().unwrap() = Some(other.address.clone());
    }

    /// Requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.inner.asked.lock().unwrap().clone()
    }

    /// A repository at [`COMMIT`]. Files larger than a kilobyte have a digest, as on the hub.
    pub fn repository(&self, repo: &str, files: &[(&str, &[u8])]) {
        self.page(&format!("/api/models/{repo}/revision/main"), 200, json!({ "id": repo, "sha": COMMIT }));
        let entry = |(path, bytes): &(&str, &[u8])| {
            let mut entry = json!({ "type": "file", "path": path, "size": bytes.len(), "oid": "0" });
            if bytes.len() > 1024 {
                entry["lfs"] = json!({ "oid": Digest::of(bytes).hex(), "size": bytes.len(), "pointerSize": 134 });
            }
            entry
        };
        let mut entries: Vec<Value> = files.iter().map(entry).collect();
        entries.push(json!({ "type": "directory", "path": "sub", "size": 0, "oid": "0" }));
        self.page(&format!("/api/models/{repo}/tree/{COMMIT}"), 200, json!(entries));
        for (path, bytes) in files {
            self.file(&format!("/{repo}/resolve/{COMMIT}/{path}"), bytes);
        }
    }

    /// A model of Ollama's, of layers with their kinds. Returns the manifest.
    pub fn ollama(&self, name: &str, tag: &str, layers: &[(&str, &[u8])]) -> Value {
        let config = br#"{"model_format":"gguf"}"#;
        let layer = |kind: &str, bytes: &[u8]| {
            let digest = Digest::of(bytes);
            self.file(&format!("/v2/{name}/blobs/{digest}"), bytes);
            json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
        };
        let kinds = layers.iter().map(|(kind, bytes)| layer(&format!("application/vnd.ollama.image.{kind}"), bytes));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": layer("application/vnd.docker.container.image.v1+json", config),
            "layers": kinds.collect::<Vec<_>>(),
        });
        self.page(&format!("/v2/{name}/manifests/{tag}"), 200, manifest.clone());
        manifest
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    inner.asked.lock().unwrap().push(Asked { path: path.clone(), headers: request.headers().clone() });
    if let Some((status, body)) = inner.pages.lock().unwrap().get(&path) {
        let mut response = (StatusCode::from_u16(*status).unwrap(), axum::Json(body.clone())).into_response();
        if let Some(link) = inner.links.lock().unwrap().get(&path) {
            response.headers_mut().insert(header::LINK, link.parse().unwrap());
        }
        return response;
    }
    if !inner.files.lock().unwrap().contains_key(&path) {
        let body = json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "there is none" }] });
        return (StatusCode::NOT_FOUND, axum::Json(body)).into_response();
    }
    if let Some(cdn) = inner.cdn.lock().unwrap().as_ref()
        && path.contains("/resolve/")
    {
        return (StatusCode::FOUND, [(header::LOCATION, format!("{cdn}{path}?signature=secret"))]).into_response();
    }
    let fault = inner.faults.lock().unwrap().pop_front().or(inner.always.lock().unwrap().clone());
    if let Some(Fault::Replace(bytes)) = &fault {
        inner.files.lock().unwrap().insert(path.clone(), File::new(bytes));
    }
    let file = inner.files.lock().unwrap()[&path].clone();
    serve(&inner, request.headers(), file, fault)
}

fn serve(inner: &Inner, headers: &HeaderMap, file: File, fault: Option<Fault>) -> Response {
    let File { bytes, etag } = file;
    let validators = *inner.validators.lock().unwrap();
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap().to_owned());
    let mut range = text(header::RANGE).map(|range| parse(&range, bytes.len()));
    if text(header::IF_RANGE).is_some_and(|asked| asked != etag) {
        range = None;
    }
    match &fault {
        Some(Fault::Status(status, headers)) => {
            let mut response = StatusCode::from_u16(*status).unwrap().into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().unwrap());
            }
            return response;
        }
        Some(Fault::WholeFile) => range = None,
        _ => {}
    }
    let total = bytes.len();
    let (start, end) = range.unwrap_or((0, total));
    if start >= end && total > 0 {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let mut builder = Response::builder().header(header::CONTENT_LENGTH, end - start);
    if validators {
        builder = builder.header(header::ETAG, etag);
    }
    builder = match range {
        Some(_) => builder.status(206).header(header::CONTENT_RANGE, format!("bytes {start}-{}/{total}", end - 1)),
        None => builder.status(200),
    };
    if matches!(fault, Some(Fault::Packed)) {
        builder = builder.header(header::CONTENT_ENCODING, "gzip");
    }
    let mut part = bytes[start..end].to_vec();
    if let (Some(Fault::Corrupt), Some(byte)) = (&fault, part.first_mut()) {
        *byte ^= 1;
    }
    builder.body(body(part, fault)).unwrap()
}

fn body(bytes: Vec<u8>, fault: Option<Fault>) -> Body {
    const CHUNK: usize = 16 << 10;
    Body::from_stream(async_stream::stream! {
        let mut sent = 0;
        for chunk in bytes.chunks(CHUNK) {
            match fault {
                Some(Fault::Stall(after)) if sent >= after => std::future::pending().await,
                Some(Fault::Cut(after)) if sent >= after => {
                    yield Err(std::io::Error::other("cut"));
                    return;
                }
                Some(Fault::Slow(wait)) => tokio::time::sleep(wait).await,
                _ => {}
            }
            sent += chunk.len();
            yield Ok(Bytes::copy_from_slice(chunk));
        }
    })
}

/// `bytes=a-b` as a half-open range within the file.
fn parse(range: &str, total: usize) -> (usize, usize) {
    let (start, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    (start.parse().unwrap(), last.parse::<usize>().map_or(total, |last| (last + 1).min(total)))
}
