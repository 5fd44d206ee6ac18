//! Which names this server answers to. A page whose own name was pointed at this machine (DNS rebinding) asks under that name.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{Version, header};

use super::address::{Address, AddressPattern, Host};
use super::error::AccessError;

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// As it was asked for, `host:port`.
    pub asked: &'a str,
    /// What that stands for.
    pub addresses: &'a [SocketAddr],
}

impl Bound<'_> {
    /// Whether only this machine can reach it.
    pub(super) fn is_local(&self) -> bool {
        self.addresses.iter().all(|address| address.ip().to_canonical().is_loopback())
    }
}

#[derive(Clone, Debug)]
pub(super) struct AllowedHosts {
    patterns: Vec<AddressPattern>,
    ips: Ips,
}

/// Which addresses are taken for names. None of them can be pointed elsewhere, since no name has to be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ips {
    Listed,
    All,
}

impl AllowedHosts {
    /// `has_keys`: a page that rebinds its name has none of them, so that any name will do where others than this machine
    /// ask, unless `given` restricts it.
    pub fn new(given: &[String], bound: Bound<'_>, has_keys: bool) -> Result<Self, AccessError> {
        let mut patterns = Vec::new();
        for text in given {
            let pattern = AddressPattern::parse(text, true);
            patterns.push(pattern.ok_or_else(|| AccessError::BadHost { text: text.clone() })?);
        }
        let local = bound.is_local();
        if !local && has_keys && given.is_empty() {
            patterns.extend(AddressPattern::parse("*", true));
        }
        patterns.extend(["localhost", "127.0.0.1", "[::1]"].iter().filter_map(|own| AddressPattern::parse(own, true)));
        patterns.extend(Address::parse(bound.asked).map(|asked| AddressPattern::of_host(asked.host)));
        patterns.extend(bound.addresses.iter().map(|address| of_ip(address.ip())));
        Ok(Self { patterns, ips: if local { Ips::Listed } else { Ips::All } })
    }

    pub fn allows(&self, address: &Address) -> bool {
        let is_ip = matches!(address.host, Host::Ip(_));
        (is_ip && self.ips == Ips::All) || self.patterns.iter().any(|pattern| pattern.matches(address, Some(80)))
    }
}

fn of_ip(ip: IpAddr) -> AddressPattern {
    AddressPattern::of_host(Host::Ip(ip.to_canonical()))
}

/// What is wrong with how a request names its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostError {
    #[error("the header `Host` is missing")]
    Missing,
    #[error("the header `Host` is there more than once")]
    Repeated,
    #[error("the header `Host` is not a host with an optional port")]
    Malformed,
}

/// All names under which a request asks: the header's, and that of a target in absolute form, which HTTP lets win. `None`
/// from clients of HTTP/1.0, which no browser is.
pub(super) fn hosts_of(request: &Request) -> Result<Vec<Address>, HostError> {
    let mut values = request.headers().get_all(header::HOST).iter();
    let in_header = match (values.next(), values.next()) {
        (Some(value), None) => Some(value.to_str().ok().and_then(Address::parse).ok_or(HostError::Malformed)?),
        (None, _) if request.version() < Version::HTTP_11 => None,
        (None, _) => return Err(HostError::Missing),
        (Some(_), Some(_)) => return Err(HostError::Repeated),
    };
    let in_target = match request.uri().authority() {
        Some(authority) => Some(Address::parse(authority.as_str()).ok_or(HostError::Malformed)?),
        None => None,
    };
    Ok(in_target.into_iter().chain(in_header).collect())
}

#[cfg(test)]
mod tests {
    use super::{Address, AllowedHosts, Bound};

    fn allowed(given: &[&str], asked: &str, address: &str, has_keys: bool) -> AllowedHosts {
        let given: Vec<String> = given.iter().map(|&text| text.to_owned()).collect();
        let addresses = [address.parse().unwrap()];
        AllowedHosts::new(&given, Bound { asked, addresses: &addresses }, has_keys).unwrap()
    }

    #[test]
    fn what_is_answered_to_depends_on_where_the_server_listens() {
        let local = allowed(&[], "127.0.0.1:11435", "127.0.0.1:11435", false);
        let named = allowed(&[], "shimmy.test:1", "127.0.0.2:1", false);
        let more = allowed(&["a.example:8080", "*.b.example"], "127.0.0.1:1", "127.0.0.1:1", true);
        let open = allowed(&[], "0.0.0.0:11435", "0.0.0.0:11435", false);
        let keyed = allowed(&[], "0.0.0.0:11435", "0.0.0.0:11435", true);
        let strict = allowed(&["a.example"], "[::]:1", "[::]:1", true);
        let all = [&local, &named, &more, &open, &keyed, &strict];
        let expected = [
            ("localhost", [true, true, true, true, true, true]),
            ("LOCALHOST.:9", [true, true, true, true, true, true]),
            ("127.0.0.1:9", [true, true, true, true, true, true]),
            ("[::1]", [true, true, true, true, true, true]),
            ("[::ffff:127.0.0.1]", [true, true, true, true, true, true]),
            ("127.0.0.2", [false, true, false, true, true, true]),
            ("192.168.1.5:11435", [false, false, false, true, true, true]),
            ("shimmy.test", [false, true, false, false, true, false]),
            ("a.example:8080", [false, false, true, false, true, true]),
            ("a.example", [false, false, false, false, true, true]),
            ("x.b.example", [false, false, true, false, true, false]),
            ("evil.example:11435", [false, false, false, false, true, false]),
            ("localhost.evil.example", [false, false, false, false, true, false]),
            ("127.0.0.1.evil.example", [false, false, false, false, true, false]),
            ("127.1", [false, false, false, false, true, false]),
        ];
        for (host, answers) in expected {
            let address = Address::parse(host).unwrap();
            assert_eq!(all.map(|hosts| hosts.allows(&address)), answers, "{host}");
        }
    }

    #[test]
    fn a_host_with_a_scheme_is_refused_in_words() {
        let addresses = ["127.0.0.1:1".parse().unwrap()];
        let bound = Bound { asked: "127.0.0.1:1", addresses: &addresses };
        let error = AllowedHosts::new(&["http://a.example".into()], bound, false).unwrap_err().to_string();
        assert!(error.starts_with("--allow-host http://a.example:"), "{error}");
    }

    #[test]
    fn only_loopback_is_local() {
        for (address, local) in [
            ("127.0.0.1:1", true),
            ("127.5.5.5:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("10.0.0.1:1", false),
            ("[fe80::1]:1", false),
        ] {
            let addresses = [address.parse().unwrap()];
            assert_eq!(Bound { asked: address, addresses: &addresses }.is_local(), local, "{address}");
        }
        let both = ["127.0.0.1:1".parse().unwrap(), "10.0.0.1:1".parse().unwrap()];
        assert!(!Bound { asked: "x:1", addresses: &both }.is_local());
    }
}
