//! Tells a client which fields of its request had no effect.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;

const HEADER: HeaderName = HeaderName::from_static("x-shimmy-ignored");
/// Longest value of that header.
const MAX_BYTES: usize = 1024;

/// The header's value, where there is something to tell.
#[derive(Debug)]
pub(super) struct Ignored(Option<HeaderValue>);

impl Ignored {
    /// `paths` name the fields, e.g. `user`, `messages.0.name`.
    pub fn new(paths: &[String]) -> Self {
        if paths.is_empty() {
            return Self(None);
        }
        tracing::debug!(fields = paths.join(", "), "fields that have no effect");
        let mut list = String::new();
        for (index, path) in paths.iter().enumerate() {
            // The client chose the names.
            let name: String = path.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
            if list.len() + name.len() > MAX_BYTES {
                list.push_str(&format!(", and {} more", paths.len() - index));
                break;
            }
            list.push_str(if list.is_empty() { "" } else { ", " });
            list.push_str(&name);
        }
        Self(HeaderValue::from_str(&list).ok())
    }

    pub fn noted_in(self, mut response: Response) -> Response {
        if let Some(list) = self.0 {
            response.headers_mut().insert(HEADER, list);
        }
        response
    }
}
