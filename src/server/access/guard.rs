//! The checks in front of all routes. No body is read before they have passed.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use super::credentials::presented;
use super::hosts::hosts_of;
use super::origins::origin_of;
use super::{Access, KeyHash};
use crate::api::ErrorKind;
use crate::server::error::ApiError;

/// How long a browser may remember what a page is allowed.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Paths that can be read without a key.
pub(in crate::server) const OPEN: &[&str] = &["/health", "/docs"];

pub(in crate::server) const WRONG_KEY: &str = "the API key is not one of this server's";

/// Who sent a request that was let through. WebSockets outlive it, and ask again for each generation.
#[derive(Clone, Debug)]
pub(in crate::server) struct Caller {
    access: Arc<Access>,
    key: Option<KeyHash>,
}

impl Caller {
    /// Whether this server asks for keys.
    pub fn is_asked_for_a_key(&self) -> bool {
        self.access.keys.are_required()
    }

    /// Whether the key is right at this moment, or none is needed.
    pub fn is_known(&self) -> bool {
        !self.is_asked_for_a_key() || self.key.is_some_and(|key| self.access.keys.find(&key).is_some())
    }
}

/// From the outside in: host and origin, then the browsers' own questions about pages, which carry no key, then the key.
pub(in crate::server) fn protect(router: Router, access: &Arc<Access>) -> Router {
    let router = router.layer(from_fn_with_state(Arc::clone(access), check_key));
    // It takes each OPTIONS for a preflight.
    let router = if access.origins.is_empty() { router } else { router.layer(cors(Arc::clone(access))) };
    router.layer(from_fn_with_state(Arc::clone(access), check_names))
}

fn cors(access: Arc<Access>) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| access.origins.allow_value(origin)))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .allow_private_network(true)
        // Ours, `request-id` and whatever comes: what a page may ask for, it may read.
        .expose_headers(Any)
        .max_age(PREFLIGHT_AGE)
}

async fn check_names(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    match access.judge_names(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => refuse(&error, &request),
    }
}

async fn check_key(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let key = match access.judge_key(&request) {
        Ok(key) => key,
        Err(_) if is_open(&request) => None,
        Err(error) => return refuse(&error, &request),
    };
    request.extensions_mut().insert(Caller { access, key });
    next.run(request).await
}

fn refuse(error: &ApiError, request: &Request) -> Response {
    tracing::debug!(method = %request.method(), path = request.uri().path(), reason = error.message, "refused");
    error.answer_to(request)
}

/// Whoever watches the process has no key, and a browser that opens a page sends none.
fn is_open(request: &Request) -> bool {
    OPEN.contains(&request.uri().path()) && matches!(*request.method(), Method::GET | Method::HEAD)
}

impl Access {
    fn judge_names(&self, request: &Request) -> Result<(), ApiError> {
        let hosts =
            hosts_of(request).map_err(|error| ApiError::new(ErrorKind::BadRequest, format!("bad request: {error}")))?;
        let forbidden = |message: String| ApiError::new(ErrorKind::Forbidden, message);
        if let Some(host) = hosts.iter().find(|host| !self.hosts.allows(host)) {
            let host = &host.host;
            return Err(forbidden(format!(
                "this server does not answer to the name {host}; `shimmy serve --allow-host {host}` makes it do so"
            )));
        }
        let Some(origin) = origin_of(request.headers()).map_err(forbidden)? else { return Ok(()) };
        let own = hosts.first().is_some_and(|host| origin.is_at(host));
        if own || self.origins.allow(&origin) {
            return Ok(());
        }
        Err(forbidden(format!(
            "pages of {origin} may not use this server; `shimmy serve --allow-origin {origin}` lets them"
        )))
    }

    /// The right one of the request's keys, where one is needed.
    fn judge_key(&self, request: &Request) -> Result<Option<KeyHash>, ApiError> {
        if !self.keys.are_required() {
            return Ok(None);
        }
        let refused = |message: String| ApiError::new(ErrorKind::NoKey, message);
        let presented = presented(request.headers()).map_err(|error| refused(error.to_string()))?;
        for key in presented {
            if let Some(name) = self.keys.find(&key) {
                tracing::debug!(key = name, path = request.uri().path(), "let in");
                return Ok(Some(key));
            }
        }
        Err(refused(WRONG_KEY.into()))
    }
}
