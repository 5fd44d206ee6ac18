//! The key that a request carries.

use axum::http::{HeaderMap, header};

use super::key::KeyHash;

const X_API_KEY: &str = "x-api-key";
/// In front of a key among the subprotocols of a WebSocket: the only header that a page can choose there.
const SUBPROTOCOL: &str = "bearer.";

/// Why a request has no key that could be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoCredentials {
    #[error(
        "this server needs an API key: send the header `Authorization: Bearer KEY` or `x-api-key: KEY`; a WebSocket of a \
         page, the subprotocols `shimmy` and `bearer.KEY`"
    )]
    None,
    #[error("the header `Authorization` must be `Bearer KEY`")]
    NotBearer,
    #[error("the request has more than one API key in `{0}`; send one")]
    Repeated(&'static str),
}

/// Hashes of all keys that the request carries, at most one of each kind. Some clients send a placeholder in one place
/// and the key in another.
pub(super) fn presented(headers: &HeaderMap) -> Result<Vec<KeyHash>, NoCredentials> {
    let mut keys = Vec::new();
    if let Some(value) = single(headers, header::AUTHORIZATION.as_str(), "Authorization")? {
        keys.push(KeyHash::of(bearer(value).ok_or(NoCredentials::NotBearer)?));
    }
    if let Some(value) = single(headers, X_API_KEY, X_API_KEY)? {
        keys.push(KeyHash::of(value.trim_ascii()));
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let offered = offered.flat_map(|value| value.as_bytes().split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    let mut offered = offered.filter_map(|protocol| protocol.strip_prefix(SUBPROTOCOL.as_bytes()));
    keys.extend(offered.next().map(KeyHash::of));
    if offered.next().is_some() {
        return Err(NoCredentials::Repeated("Sec-WebSocket-Protocol"));
    }
    if keys.is_empty() { Err(NoCredentials::None) } else { Ok(keys) }
}

fn single<'a>(headers: &'a HeaderMap, name: &str, shown: &'static str) -> Result<Option<&'a [u8]>, NoCredentials> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(axum::http::HeaderValue::as_bytes);
    if values.next().is_some() { Err(NoCredentials::Repeated(shown)) } else { Ok(first) }
}

/// The scheme's case does not count, and more than one space may follow it.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, key) = value.split_at_checked(SCHEME.len())?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderName, HeaderValue};

    use super::{KeyHash, NoCredentials, presented};

    type Sent = &'static [(&'static str, &'static str)];
    type Found = Result<&'static [&'static str], NoCredentials>;

    #[test]
    fn keys_are_found_where_clients_put_them() {
        const PROTOCOL: &str = "sec-websocket-protocol";
        let cases: [(Sent, Found); 18] = [
            (&[], Err(NoCredentials::None)),
            (&[("authorization", "Bearer a")], Ok(&["a"])),
            (&[("authorization", "bearer   a")], Ok(&["a"])),
            (&[("authorization", "BEARER a")], Ok(&["a"])),
            (&[("authorization", "Bearer ")], Err(NoCredentials::NotBearer)),
            (&[("authorization", "Bearer")], Err(NoCredentials::NotBearer)),
            (&[("authorization", "Basic YTpi")], Err(NoCredentials::NotBearer)),
            (&[("authorization", "a")], Err(NoCredentials::NotBearer)),
            (&[("authorization", "Bearer a, Bearer b")], Ok(&["a, Bearer b"])),
            (
                &[("authorization", "Bearer a"), ("authorization", "Bearer a")],
                Err(NoCredentials::Repeated("Authorization")),
            ),
            (&[("x-api-key", "a")], Ok(&["a"])),
            (&[("x-api-key", "a"), ("x-api-key", "b")], Err(NoCredentials::Repeated("x-api-key"))),
            (&[("authorization", "Bearer a"), ("x-api-key", "b")], Ok(&["a", "b"])),
            (&[(PROTOCOL, "shimmy, bearer.a")], Ok(&["a"])),
            (&[(PROTOCOL, "shimmy"), (PROTOCOL, "bearer.a")], Ok(&["a"])),
            (&[(PROTOCOL, "bearer.a,bearer.b")], Err(NoCredentials::Repeated("Sec-WebSocket-Protocol"))),
            (&[(PROTOCOL, "shimmy, chat")], Err(NoCredentials::None)),
            (&[(PROTOCOL, "xbearer.a")], Err(NoCredentials::None)),
        ];
        for (sent, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value));
            }
            let hashes = |keys: &[KeyHash]| keys.iter().map(KeyHash::to_string).collect::<Vec<_>>();
            let expected =
                expected.map(|keys| keys.iter().map(|key| KeyHash::of(key.as_bytes()).to_string()).collect());
            assert_eq!(presented(&headers).map(|keys| hashes(&keys)), expected, "{sent:?}");
        }
    }
}
