//! What a server fetches for those who ask it over the network.

use std::fmt;
use std::str::FromStr;

use super::error::PullError;
use super::model_name::OLLAMA_HOST;
use super::source::{Source, shown};

/// Whoever may ask a server to fetch from any address can reach through it what they cannot reach themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Nothing.
    Off,
    /// From the hub and from Ollama's registry, or from the mirrors that the server's environment names for them.
    #[default]
    Known,
    /// Also from other registries and from addresses of files.
    Any,
}

impl Allowed {
    pub const ALL: [(&'static str, Self); 3] = [("off", Self::Off), ("known", Self::Known), ("any", Self::Any)];

    /// # Errors
    /// [`PullError::NotAllowed`], with what would be.
    pub fn check(self, source: &Source) -> Result<(), PullError> {
        let foreign = match source {
            Source::Hub(_) => None,
            Source::Ollama(name) => (name.host != OLLAMA_HOST).then(|| name.host.clone()),
            Source::Url { url, .. } => Some(shown(url)),
        };
        let why = match (self, foreign) {
            (Self::Off, _) => "this server fetches no models: --pull off".into(),
            (Self::Known, Some(place)) => {
                format!(
                    "{place} is neither the hub nor Ollama's registry, and this server fetches from no other place: --pull known"
                )
            }
            (Self::Known, None) | (Self::Any, _) => return Ok(()),
        };
        Err(PullError::NotAllowed(why))
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL.iter().find(|(_, value)| value == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for Allowed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        known.map(|(_, value)| *value).ok_or_else(|| format!("{text:?} is none of off, known and any"))
    }
}

#[cfg(test)]
mod tests {
    use super::Allowed;

    #[test]
    fn only_the_places_that_everybody_knows_are_asked_for_others() {
        let known =
            ["hf:org/repo", "hf.co/org/repo:q4_0", "ollama:llama3", "me/mine:1", "registry.ollama.ai/library/a"];
        let others = [
            "localhost:5000/a/b",
            "169.254.169.254/latest/meta-data",
            "http://127.0.0.1/a.gguf",
            "https://e.org/a.gguf",
        ];
        let takes = |allowed: Allowed, source: &str| allowed.check(&source.parse().expect(source)).is_ok();
        for source in known {
            assert!(takes(Allowed::Known, source) && takes(Allowed::Any, source) && !takes(Allowed::Off, source));
        }
        for source in others {
            assert!(!takes(Allowed::Known, source) && takes(Allowed::Any, source) && !takes(Allowed::Off, source));
        }
        let secret = "https://me:secret@e.org/a.gguf?sig=1".parse().expect("a source");
        let why = Allowed::Known.check(&secret).expect_err("not known").to_string();
        assert!(why.contains("https://e.org/a.gguf is neither") && !why.contains("secret"), "{why}");
        for (name, value) in Allowed::ALL {
            assert_eq!((value.to_string().as_str(), name.parse()), (name, Ok(value)));
        }
    }
}
