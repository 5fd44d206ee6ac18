//! What is told while a model is fetched.

use std::time::Duration;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::digest::Digest;

/// A step. As JSON it is a line of Ollama's `/api/pull`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What there is to fetch is being asked for.
    Manifest,
    /// Another process fetches this file.
    Waiting {
        what: String,
    },
    /// Bytes of one file.
    Fetching {
        what: String,
        digest: Option<Digest>,
        total: u64,
        completed: u64,
    },
    /// A request failed and will be made again.
    Retrying {
        reason: String,
        after: Duration,
    },
    /// Bytes of one file whose digest is being computed.
    Verifying {
        what: String,
        total: u64,
        completed: u64,
    },
    Writing,
}

/// Who hears of it. Called from the thread that fetches, so it must not block.
pub type Report<'a> = dyn Fn(Event) + Send + Sync + 'a;

impl Event {
    /// In Ollama's words, where it has any.
    #[must_use]
    pub fn status(&self) -> String {
        match self {
            Self::Manifest => "pulling manifest".into(),
            Self::Waiting { what } => format!("waiting for another process that pulls {what}"),
            Self::Fetching { what, .. } => format!("pulling {what}"),
            Self::Retrying { reason, after } => format!("retrying in {:.1} s: {reason}", after.as_secs_f64()),
            Self::Verifying { .. } => "verifying sha256 digest".into(),
            Self::Writing => "writing manifest".into(),
        }
    }

    /// Whether this one takes the place of `earlier`: it is the same step, further on.
    #[must_use]
    pub fn continues(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Fetching { what, .. }, Self::Fetching { what: other, .. })
            | (Self::Verifying { what, .. }, Self::Verifying { what: other, .. }) => what == other,
            _ => false,
        }
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("status", &self.status())?;
        if let Self::Fetching { digest, total, completed, .. } = self {
            if let Some(digest) = digest {
                map.serialize_entry("digest", digest)?;
            }
            map.serialize_entry("total", total)?;
            map.serialize_entry("completed", completed)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Event};

    #[test]
    fn events_are_lines_of_ollamas() {
        let digest = Digest::of(b"");
        let event =
            Event::Fetching { what: digest.short().into(), digest: Some(digest.clone()), total: 10, completed: 4 };
        let expected =
            format!("{{\"status\":\"pulling e3b0c44298fc\",\"digest\":\"{digest}\",\"total\":10,\"completed\":4}}");
        assert_eq!(serde_json::to_string(&event).expect("plain"), expected);
        assert_eq!(serde_json::to_string(&Event::Writing).expect("plain"), r#"{"status":"writing manifest"}"#);
    }
}
