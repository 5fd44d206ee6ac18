//! `host[:port]`, as the headers `Host` and `Origin` have it, and patterns of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name of DNS, in bytes.
const MAX_NAME: usize = 253;

/// Names are in lower case and without a dot at their end. IPv4 addresses that are written as IPv6 ones are IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Name(String),
    Ip(IpAddr),
}

impl Host {
    /// `None` for what no browser sends: other ways to write an IPv4 address are names here, and no resolver is asked.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let ip: Ipv6Addr = rest.strip_suffix(']')?.parse().ok()?;
            return Some(Self::Ip(IpAddr::V6(ip).to_canonical()));
        }
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Some(Self::Ip(ip.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let fits = (1..=MAX_NAME).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        fits.then(|| Self::Name(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => out.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => write!(out, "{ip}"),
            Self::Ip(IpAddr::V6(ip)) => write!(out, "[{ip}]"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub host: Host,
    /// `None` stands for the scheme's own.
    pub port: Option<u16>,
}

impl Address {
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = split_port(text)?;
        let port = match port {
            None | Some("") => None,
            Some(digits) => Some(parse_port(digits)?),
        };
        Some(Self { host: Host::parse(host)?, port })
    }
}

/// Host and what stands behind the colon, if there is one.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let end = text.rfind(']').map_or_else(|| text.find(':').unwrap_or(text.len()), |bracket| bracket + 1);
    let (host, rest) = text.split_at(end);
    if rest.is_empty() { Some((host, None)) } else { Some((host, Some(rest.strip_prefix(':')?))) }
}

/// Without the plus sign that Rust would take.
fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    /// `*`
    Any,
    /// `*.example.com`, without `*.`.
    Below(String),
    Is(Host),
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        match text.strip_prefix("*.") {
            Some(domain) => match Host::parse(domain)? {
                Host::Name(domain) => Some(Self::Below(domain)),
                Host::Ip(_) => None,
            },
            None => Host::parse(text).map(Self::Is),
        }
    }

    fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Below(domain), Host::Name(name)) => name
                .strip_suffix(domain.as_str())
                .and_then(|front| front.strip_suffix('.'))
                .is_some_and(|f| !f.is_empty()),
            (Self::Below(_), Host::Ip(_)) => false,
            (Self::Is(wanted), host) => wanted == host,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortPattern {
    Any,
    Is(Option<u16>),
}

/// `example.com`, `*.example.com`, `*`, `[::1]`; each may have a port, or `:*` for any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressPattern {
    host: HostPattern,
    port: PortPattern,
}

impl AddressPattern {
    /// `any_port` says what a pattern without a port means: any, or none.
    pub fn parse(text: &str, any_port: bool) -> Option<Self> {
        let (host, port) = split_port(text)?;
        let port = match port {
            None if any_port => PortPattern::Any,
            None => PortPattern::Is(None),
            Some("*") => PortPattern::Any,
            Some("") => return None,
            Some(digits) => PortPattern::Is(Some(parse_port(digits)?)),
        };
        Some(Self { host: HostPattern::parse(host)?, port })
    }

    pub fn of_host(host: Host) -> Self {
        Self { host: HostPattern::Is(host), port: PortPattern::Any }
    }

    /// `default_port` is what a missing one stands for, on either side.
    pub fn matches(&self, address: &Address, default_port: Option<u16>) -> bool {
        let port = match self.port {
            PortPattern::Any => true,
            PortPattern::Is(port) => port.or(default_port) == address.port.or(default_port),
        };
        port && self.host.matches(&address.host)
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressPattern, Host};

    #[test]
    fn addresses_are_read_as_browsers_write_them() {
        let name = |name: &str| Host::Name(name.to_owned());
        let ip = |ip: &str| Host::Ip(ip.parse().unwrap());
        for (text, host, port) in [
            ("localhost", name("localhost"), None),
            ("LocalHost:80", name("localhost"), Some(80)),
            ("localhost.", name("localhost"), None),
            ("localhost:", name("localhost"), None),
            ("127.0.0.1:11435", ip("127.0.0.1"), Some(11435)),
            ("[::1]", ip("::1"), None),
            ("[::1]:65535", ip("::1"), Some(65535)),
            ("[0:0:0:0:0:0:0:1]:1", ip("::1"), Some(1)),
            ("[::ffff:127.0.0.1]", ip("127.0.0.1"), None),
            ("xn--bcher-kva.example", name("xn--bcher-kva.example"), None),
            ("my_host", name("my_host"), None),
            // Left to nobody to interpret.
            ("127.1", name("127.1"), None),
            ("2130706433", name("2130706433"), None),
        ] {
            assert_eq!(Address::parse(text), Some(Address { host, port }), "{text}");
        }
        for text in [
            "",
            ":80",
            ".",
            "::1",
            "[::1",
            "::1]",
            "[::1]80",
            "[::1%25eth0]",
            "[127.0.0.1]",
            "[]",
            "localhost:65536",
            "localhost:+80",
            "localhost:8 0",
            "localhost:80:80",
            "user@localhost",
            "localhost/",
            "local host",
            "localhost, evil.example",
            "bücher.example",
        ] {
            assert_eq!(Address::parse(text), None, "{text}");
        }
        assert_eq!(Address::parse(&"a".repeat(254)), None);
    }

    #[test]
    fn patterns_match_whole_labels_and_ports() {
        for (pattern, address, matches) in [
            ("example.com", "example.com", true),
            ("Example.COM", "example.com:8080", true),
            ("example.com:8080", "example.com:8080", true),
            ("example.com:8080", "example.com:8081", false),
            ("example.com:80", "example.com", true),
            ("example.com:*", "example.com:1", true),
            ("example.com", "example.com.evil.example", false),
            ("example.com", "notexample.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com:3", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "notexample.com", false),
            ("*.example.com", ".example.com", false),
            ("*", "anything.example:1", true),
            ("*", "[::1]", true),
            ("*:80", "a.example", true),
            ("*:80", "a.example:81", false),
            ("[::1]", "[0::1]:5", true),
            ("[::1]:5", "[::1]:6", false),
            ("10.0.0.1", "[::ffff:10.0.0.1]", true),
            ("10.0.0.1", "10.0.0.1.nip.example", false),
        ] {
            let pattern_read = AddressPattern::parse(pattern, true).unwrap_or_else(|| panic!("{pattern}"));
            let address_read = Address::parse(address).unwrap_or_else(|| panic!("{address}"));
            assert_eq!(pattern_read.matches(&address_read, Some(80)), matches, "{pattern} {address}");
        }
        for pattern in ["", "http://a.example", "a.example/", "*.127.0.0.1", "a.*.example", "*a.example", "a:", "a:x"] {
            assert_eq!(AddressPattern::parse(pattern, true), None, "{pattern}");
        }
    }
}
