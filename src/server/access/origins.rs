//! Which pages may use this server from a browser.

use std::fmt;

use axum::http::{HeaderMap, HeaderValue, header};

use super::address::{Address, AddressPattern, Host};
use super::error::AccessError;

/// Where a page comes from, as its browser says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `null`: a file, a sandboxed frame, a redirect between sites.
    Opaque,
    Page {
        scheme: String,
        address: Address,
    },
}

impl Origin {
    pub fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Opaque);
        }
        let (scheme, rest) = split_scheme(text)?;
        // Some web views name their files so.
        let nowhere = Address { host: Host::Name(String::new()), port: None };
        let address = if rest.is_empty() && !is_web(&scheme) { nowhere } else { Address::parse(rest)? };
        Some(Self::Page { scheme, address })
    }

    /// Whether the page came from this server. A proxy may have taken TLS away, so that the scheme does not count.
    pub fn is_at(&self, host: &Address) -> bool {
        match self {
            Self::Opaque => false,
            Self::Page { scheme, address } => {
                let default = default_port(scheme);
                is_web(scheme) && address.host == host.host && address.port.or(default) == host.port.or(default)
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opaque => out.write_str("null"),
            Self::Page { scheme, address: Address { host, port: None } } => write!(out, "{scheme}://{host}"),
            Self::Page { scheme, address: Address { host, port: Some(port) } } => {
                write!(out, "{scheme}://{host}:{port}")
            }
        }
    }
}

fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let fits = scheme.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    fits.then(|| (scheme.to_ascii_lowercase(), rest))
}

fn is_web(scheme: &str) -> bool {
    matches!(scheme, "http" | "https")
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum OriginPattern {
    /// `*`
    Any,
    /// What has no host: `null`, `file://`.
    Is(Origin),
    Like {
        scheme: String,
        address: AddressPattern,
    },
}

impl OriginPattern {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let like = split_scheme(text).and_then(|(scheme, rest)| {
            // People copy the slash out of the address bar.
            let address = AddressPattern::parse(rest.strip_suffix('/').unwrap_or(rest), false)?;
            Some(Self::Like { scheme, address })
        });
        like.or_else(|| Origin::parse(text).map(Self::Is))
    }

    fn matches(&self, origin: &Origin) -> bool {
        match (self, origin) {
            (Self::Any, _) => true,
            (Self::Is(wanted), origin) => wanted == origin,
            (Self::Like { scheme: wanted, address: pattern }, Origin::Page { scheme, address }) => {
                wanted == scheme && pattern.matches(address, default_port(scheme))
            }
            (Self::Like { .. }, Origin::Opaque) => false,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct AllowedOrigins(Vec<OriginPattern>);

impl AllowedOrigins {
    pub fn new(given: &[String]) -> Result<Self, AccessError> {
        let read =
            |text: &String| OriginPattern::parse(text).ok_or_else(|| AccessError::BadOrigin { text: text.clone() });
        given.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn allow(&self, origin: &Origin) -> bool {
        self.0.iter().any(|pattern| pattern.matches(origin))
    }

    pub fn allow_value(&self, value: &HeaderValue) -> bool {
        value.to_str().ok().and_then(Origin::parse).is_some_and(|origin| self.allow(&origin))
    }
}

/// The request's `Origin`; an error where it is malformed or there more than once, as no browser sends it. The text is for
/// the answer.
pub(super) fn origin_of(headers: &HeaderMap) -> Result<Option<Origin>, String> {
    let mut values = headers.get_all(header::ORIGIN).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let origin = value.to_str().ok().and_then(Origin::parse);
            origin.map(Some).ok_or_else(|| format!("the header `Origin` is not an origin: {value:?}"))
        }
        (Some(_), Some(_)) => Err("the header `Origin` is there more than once".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AllowedOrigins, Origin};

    #[test]
    fn a_page_of_this_server_is_told_by_host_and_port() {
        for (origin, host, same) in [
            ("http://localhost:11435", "localhost:11435", true),
            ("http://LOCALHOST:11435", "localhost.:11435", true),
            ("http://localhost", "localhost:80", true),
            ("http://localhost:80", "localhost", true),
            ("https://shimmy.example", "shimmy.example", true),
            ("https://shimmy.example", "shimmy.example:443", true),
            ("https://shimmy.example", "shimmy.example:80", false),
            ("http://[::1]:1", "[0::1]:1", true),
            ("http://localhost:3000", "localhost:11435", false),
            ("http://localhost:11435", "127.0.0.1:11435", false),
            ("http://evil.example", "localhost:11435", false),
            ("http://localhost.evil.example:1", "localhost:1", false),
            ("app://localhost:11435", "localhost:11435", false),
            ("null", "localhost:11435", false),
        ] {
            let (origin_read, host_read) = (Origin::parse(origin).unwrap(), Address::parse(host).unwrap());
            assert_eq!(origin_read.is_at(&host_read), same, "{origin} {host}");
        }
    }

    #[test]
    fn patterns_match_scheme_host_and_port() {
        for (pattern, origin, allowed) in [
            ("https://app.example", "https://app.example", true),
            ("https://App.Example/", "https://app.example:443", true),
            ("https://app.example", "http://app.example", false),
            ("https://app.example", "https://app.example:8443", false),
            ("https://app.example", "https://app.example.evil.example", false),
            ("https://*.app.example", "https://a.app.example", true),
            ("https://*.app.example", "https://app.example", false),
            ("https://*.app.example", "https://evilapp.example", false),
            ("http://localhost:*", "http://localhost:3000", true),
            ("http://localhost:*", "http://localhost", true),
            ("http://localhost:*", "https://localhost:3000", false),
            ("http://localhost", "http://localhost:3000", false),
            ("chrome-extension://abcdef", "chrome-extension://abcdef", true),
            ("chrome-extension://*", "chrome-extension://abcdef", true),
            ("vscode-webview://*", "chrome-extension://abcdef", false),
            ("tauri://localhost", "tauri://localhost", true),
            ("file://", "file://", true),
            ("null", "null", true),
            ("https://app.example", "null", false),
            ("*", "https://anything.example:5", true),
            ("*", "null", true),
        ] {
            let origins = AllowedOrigins::new(&[pattern.to_owned()]).unwrap();
            assert_eq!(origins.allow(&Origin::parse(origin).unwrap()), allowed, "{pattern} {origin}");
        }
        for pattern in
            ["", "app.example", "https://", "https://a.example/path", "https://u@a.example", "://a", "1x://a"]
        {
            let error = AllowedOrigins::new(&[pattern.to_owned()]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--allow-origin {pattern}:")), "{error}");
        }
    }

    #[test]
    fn what_is_no_origin_is_told() {
        for text in ["", "NULL", "evil.example", "http://", "http://a.example/x", "http://a.example http://b.example"] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}
