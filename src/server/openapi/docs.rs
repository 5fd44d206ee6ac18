//! `GET /docs`: one page, without anything from elsewhere, that shows the document and sends requests.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use base64::Engine;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("docs.html");

/// The page's own style and script, by their hashes, and requests to this server; nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let digest = Sha256::digest(inside(PAGE, tag).unwrap_or_default());
        format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(digest))
    };
    format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash("style"),
        hash("script")
    )
});

/// What stands between a tag and its end.
fn inside<'a>(page: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = page.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(text, _)| text)
}

pub(in crate::server) async fn page() -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, PAGE)
}

#[cfg(test)]
mod tests {
    use super::{PAGE, POLICY, inside};

    /// What the policy has no hash of, a browser would not run.
    #[test]
    fn the_page_has_one_style_and_one_script_and_nothing_from_elsewhere() {
        for tag in ["style", "script"] {
            assert!(inside(PAGE, tag).is_some_and(|text| text.len() > 1000), "{tag}");
            assert_eq!(PAGE.matches(&format!("<{tag}")).count(), 1, "{tag}");
        }
        for elsewhere in ["http://", "https://", " style=", " onclick=", "innerHTML"] {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
        assert_eq!(POLICY.matches("'sha256-").count(), 2);
    }
}
