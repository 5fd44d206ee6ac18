//! Names of models in the store: `HOST/NAMESPACE/MODEL:TAG`, of which the first two have defaults.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The host that a name without one belongs to.
pub const OLLAMA_HOST: &str = "registry.ollama.ai";
/// The namespace of names without one.
pub const LIBRARY: &str = "library";
const LATEST: &str = "latest";

/// Longest part of a name, in bytes. File systems take 255.
const MAX_PART: usize = 128;

/// Each part is a plain file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelName {
    pub host: String,
    pub namespace: String,
    pub model: String,
    pub tag: String,
}

/// A text that is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked:?} is not a model's name: {why}")]
pub struct NotAName {
    pub asked: String,
    pub why: String,
}

impl ModelName {
    /// # Errors
    /// Where a part is empty, too long or has other characters than letters, digits, `.`, `_` and `-`.
    pub fn new(host: &str, namespace: &str, model: &str, tag: &str) -> Result<Self, NotAName> {
        for (what, part) in [("host", host), ("namespace", namespace), ("model", model), ("tag", tag)] {
            // A port is part of a host.
            let also = if what == "host" { ":" } else { "" };
            if let Err(why) = check_part(part, also) {
                let asked = format!("{host}/{namespace}/{model}:{tag}");
                return Err(NotAName { asked, why: format!("the {what} {part:?} {why}") });
            }
        }
        let [host, namespace, model, tag] = [host, namespace, model, tag].map(str::to_owned);
        Ok(Self { host, namespace, model, tag })
    }

    /// Where its manifest lies below `manifests`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        [&self.host, &self.namespace, &self.model, &self.tag].iter().collect()
    }

    /// Reads [`ModelName::path`] back.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let parts: Vec<&str> = path.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
        let [host, namespace, model, tag] = parts.as_slice() else { return None };
        Self::new(host, namespace, model, tag).ok()
    }

    /// With everything that may be left out.
    #[must_use]
    pub fn full(&self) -> String {
        let Self { host, namespace, model, tag } = self;
        format!("{host}/{namespace}/{model}:{tag}")
    }

    /// Whether a user who writes `asked` can mean this one: the host and the usual namespace may be left out.
    #[must_use]
    pub fn answers_to(&self, asked: &str) -> bool {
        let asked = asked.to_lowercase();
        let tagged =
            |name: &str| if last_part(name).contains(':') { name.to_owned() } else { format!("{name}:{LATEST}") };
        let asked = tagged(&asked);
        let short = self.to_string();
        let Self { namespace, model, tag, .. } = self;
        let middle = format!("{namespace}/{model}:{tag}").to_lowercase();
        // As one is listed whose short name another model has.
        let apart = format!("{}/{short}", self.host.to_lowercase());
        let full = self.full().to_lowercase();
        [short, middle, apart, full].contains(&asked)
    }
}

fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

fn check_part(part: &str, also: &str) -> Result<(), &'static str> {
    if part.is_empty() {
        return Err("is empty");
    }
    if part.len() > MAX_PART {
        return Err("is too long");
    }
    if part.starts_with(['.', '-']) {
        return Err("begins with a dot or dash");
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c) || also.contains(c);
    if part.chars().all(fits) { Ok(()) } else { Err("has characters other than letters, digits, '.', '_' and '-'") }
}

/// What a file name or label becomes as a part of a name.
#[must_use]
pub fn as_part(text: &str) -> String {
    let plain: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let trimmed = plain.trim_start_matches(['.', '-']);
    let short = &trimmed[..trimmed.len().min(MAX_PART)];
    if short.is_empty() { LATEST.into() } else { short.into() }
}

impl FromStr for ModelName {
    type Err = NotAName;

    /// `[HOST/][NAMESPACE/]MODEL[:TAG]`.
    fn from_str(text: &str) -> Result<Self, NotAName> {
        let (name, tag) = match last_part(text).rsplit_once(':') {
            Some((_, tag)) => (&text[..text.len() - tag.len() - 1], tag),
            None => (text, LATEST),
        };
        match name.split('/').collect::<Vec<_>>().as_slice() {
            [model] => Self::new(OLLAMA_HOST, LIBRARY, model, tag),
            [namespace, model] => Self::new(OLLAMA_HOST, namespace, model, tag),
            [host, namespace, model] => Self::new(host, namespace, model, tag),
            _ => Err(NotAName { asked: text.into(), why: "it has more than three parts".into() }),
        }
    }
}

impl fmt::Display for ModelName {
    /// As it is listed: in lower case, without the host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, model, tag, .. } = self;
        let name = if namespace == LIBRARY { format!("{model}:{tag}") } else { format!("{namespace}/{model}:{tag}") };
        f.write_str(&name.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ModelName, as_part};

    #[test]
    fn parts_that_are_left_out_have_defaults() {
        for (text, path, shown) in [
            ("Llama3", "registry.ollama.ai/library/Llama3/latest", "llama3:latest"),
            ("llama3:8b", "registry.ollama.ai/library/llama3/8b", "llama3:8b"),
            ("me/mine:1", "registry.ollama.ai/me/mine/1", "me/mine:1"),
            ("hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF/Q4_K_M", "org/repo-gguf:q4_k_m"),
            ("localhost:5000/a/b", "localhost:5000/a/b/latest", "a/b:latest"),
        ] {
            let name: ModelName = text.parse().expect(text);
            assert_eq!(name.path().to_str(), Some(path));
            assert_eq!(ModelName::at(&name.path()), Some(name.clone()));
            assert_eq!(name.to_string(), shown);
            assert!(name.answers_to(text) && name.answers_to(shown), "{text}");
        }
    }

    #[test]
    fn a_name_is_answered_to_with_and_without_what_is_usual() {
        let name: ModelName = "llama3".parse().expect("a name");
        for asked in [
            "llama3",
            "LLAMA3:latest",
            "library/llama3",
            "registry.ollama.ai/library/llama3:latest",
            "registry.ollama.ai/llama3:latest",
        ] {
            assert!(name.answers_to(asked), "{asked}");
        }
        for asked in ["llama3:8b", "me/llama3", "hf.co/library/llama3", ""] {
            assert!(!name.answers_to(asked), "{asked}");
        }
    }

    proptest! {
        /// Nothing that a server or user sends leads out of the store.
        #[test]
        fn no_name_climbs(text in r"[a-z./:\\~\x00 -]{0,24}") {
            if let Ok(name) = text.parse::<ModelName>() {
                prop_assert_eq!(name.path().components().count(), 4);
                prop_assert!(name.path().components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }

        #[test]
        fn any_label_becomes_a_part(text in ".{0,200}") {
            prop_assert!(ModelName::new("h", "n", "m", &as_part(&text)).is_ok());
        }
    }
}
