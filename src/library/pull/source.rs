//! Where a model is to be fetched from, as a user writes it.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::digest::Digest;
use super::error::PullError;
use super::model_name::{ModelName, as_part};
use super::quant;
use crate::library::untagged;

/// The part of a hub's repository that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HubSource {
    /// `ORG/REPO`.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// A quantisation, or a file's name; none for the one that suits most machines.
    pub wanted: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `hf:ORG/REPO[@REVISION][:QUANTIZATION]`, `hf.co/…`, and addresses of the hub's pages.
    Hub(HubSource),
    /// `ollama:NAME[:TAG]`, or the name alone.
    Ollama(ModelName),
    /// The address of a GGUF file, `#sha256=…` behind it where its digest is known.
    Url { url: Url, digest: Option<Digest> },
}

const HUB_HOSTS: &[&str] = &["huggingface.co", "hf.co"];
const MAIN: &str = "main";

impl FromStr for Source {
    type Err = PullError;

    fn from_str(text: &str) -> Result<Self, PullError> {
        let bad = |why: String| PullError::BadSource { asked: without_password(text), why };
        let hub = HUB_HOSTS.iter().find_map(|host| text.strip_prefix(host)?.strip_prefix('/'));
        if let Some(rest) = text.strip_prefix("hf:").or(hub) {
            return hub_source(rest).map(Self::Hub).map_err(bad);
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            return from_url(text).map_err(bad);
        }
        let name = text.strip_prefix("ollama:").unwrap_or(text);
        name.parse().map(Self::Ollama).map_err(|error: super::model_name::NotAName| bad(error.why))
    }
}

impl Source {
    /// Whether the store keeps what this names under `full`, a model's name with its host. Whatever the revision was.
    #[must_use]
    pub fn is_stored_as(&self, full: &str) -> bool {
        let full = untagged(full);
        match self {
            Self::Ollama(name) => untagged(&name.full()) == full,
            Self::Hub(source) => {
                let rest = full.strip_prefix(&format!("hf.co/{}", source.repo.to_lowercase()));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
                    && source.tags().is_none_or(|tags| {
                        let found = rest.and_then(|rest| rest.strip_prefix(':'));
                        found.is_some_and(|found| tags.iter().any(|tag| tag == found))
                    })
            }
            Self::Url { .. } => false,
        }
    }
}

impl HubSource {
    /// The tags that the wanted file's model may have in the store.
    fn tags(&self) -> Option<[String; 3]> {
        let wanted = self.wanted.as_ref()?.to_lowercase();
        let stem = wanted.strip_suffix(".gguf").unwrap_or(&wanted);
        Some(quant::labels_of_file(stem).map(|label| as_part(&label).to_lowercase()))
    }
}

fn hub_source(text: &str) -> Result<HubSource, String> {
    const FORM: &str = "a model of the hub is hf:ORG/REPO, hf:ORG/REPO:QUANTIZATION or hf:ORG/REPO@REVISION";
    let (path, wanted) = match text.split_once(':') {
        Some((path, wanted)) => (path, Some(wanted)),
        None => (text, None),
    };
    let (repo, revision) = path.split_once('@').unwrap_or((path, MAIN));
    let (org, name) = repo.split_once('/').ok_or(FORM)?;
    if wanted == Some("") || revision.is_empty() || revision.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(FORM.into());
    }
    ModelName::new("hf.co", org, name, "latest").map_err(|error| error.why)?;
    // Ollama's clients append this tag to names without one.
    let wanted = wanted.filter(|wanted| *wanted != "latest").map(str::to_owned);
    Ok(HubSource { repo: repo.to_owned(), revision: revision.to_owned(), wanted })
}

fn from_url(text: &str) -> Result<Source, String> {
    let mut url = Url::parse(text).map_err(|error| error.to_string())?;
    let digest = match url.fragment() {
        None | Some("") => None,
        Some(fragment) => {
            let digest = fragment.strip_prefix("sha256=").ok_or("behind `#` only sha256=DIGEST can stand")?;
            Some(digest.parse::<Digest>().map_err(|error| error.to_string())?)
        }
    };
    url.set_fragment(None);
    let host = url.host_str().ok_or("it has no host")?;
    if HUB_HOSTS.contains(&host) && digest.is_none() {
        return hub_page(&url).map(Source::Hub);
    }
    Ok(Source::Url { url, digest })
}

/// Pages and files of the hub: `/ORG/REPO`, `/ORG/REPO/tree/REVISION`, `/ORG/REPO/{blob,resolve}/REVISION/FILE`.
fn hub_page(url: &Url) -> Result<HubSource, String> {
    let decoded = |part| percent_decode_str(part).decode_utf8().map_err(|_| "its path is not UTF-8");
    let parts: Vec<Cow<'_, str>> = url.path().trim_matches('/').split('/').map(decoded).collect::<Result<_, _>>()?;
    let parts: Vec<&str> = parts.iter().map(Cow::as_ref).collect();
    let (repo, revision, wanted) = match parts.as_slice() {
        [org, repo] => (format!("{org}/{repo}"), MAIN, None),
        [org, repo, "tree", revision] => (format!("{org}/{repo}"), *revision, None),
        [org, repo, "blob" | "resolve", revision, .., file] => (format!("{org}/{repo}"), *revision, Some(*file)),
        _ => return Err("it is the address of neither a repository nor a file of the hub".into()),
    };
    let mut source = hub_source(&format!("{repo}@{revision}"))?;
    source.wanted = wanted.map(str::to_owned);
    Ok(source)
}

/// For messages: who gives a password with an address does not want it in a log. Queries hold signatures.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn without_password(text: &str) -> String {
    match Url::parse(text) {
        Ok(url) if url.has_host() => shown(&url),
        _ => text.chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HubSource, Source};

    fn hub(repo: &str, revision: &str, wanted: Option<&str>) -> Source {
        let [repo, revision] = [repo, revision].map(str::to_owned);
        Source::Hub(HubSource { repo, revision, wanted: wanted.map(str::to_owned) })
    }

    #[test]
    fn sources_of_each_kind_are_told_apart() {
        for (text, source) in [
            ("hf:Org/Repo-GGUF", hub("Org/Repo-GGUF", "main", None)),
            ("hf:Org/Repo:Q8_0", hub("Org/Repo", "main", Some("Q8_0"))),
            ("hf.co/Org/Repo:latest", hub("Org/Repo", "main", None)),
            ("huggingface.co/Org/Repo@v1:q4_k_m", hub("Org/Repo", "v1", Some("q4_k_m"))),
            ("https://huggingface.co/Org/Repo", hub("Org/Repo", "main", None)),
            ("https://huggingface.co/Org/Repo/tree/dev", hub("Org/Repo", "dev", None)),
            ("https://hf.co/Org/Repo/blob/main/sub/a.Q4_0.gguf", hub("Org/Repo", "main", Some("a.Q4_0.gguf"))),
            ("https://hf.co/Org/Repo/resolve/main/a.gguf?download=true", hub("Org/Repo", "main", Some("a.gguf"))),
            (
                "https://hf.co/Org/Repo/blob/refs%2Fpr%2F1/my%20model.gguf",
                hub("Org/Repo", "refs/pr/1", Some("my model.gguf")),
            ),
            ("ollama:llama3:8b", Source::Ollama("llama3:8b".parse().expect("a name"))),
            ("llama3", Source::Ollama("llama3".parse().expect("a name"))),
        ] {
            assert_eq!(text.parse::<Source>().expect(text), source);
        }
        let text = format!("https://example.com/a.gguf?sig=1#sha256={}", "0".repeat(64));
        let Source::Url { url, digest } = text.parse().expect("a file") else { panic!("no file") };
        assert_eq!((url.as_str(), digest.is_some()), ("https://example.com/a.gguf?sig=1", true));
    }

    #[test]
    fn what_was_fetched_is_known_by_its_name_in_the_store() {
        let stored = "hf.co/org/repo-gguf:q4_k_m";
        for source in ["hf:Org/Repo-GGUF", "hf:org/repo-gguf@v1:Q4_K_M", "hf:org/repo-gguf:m-00001-of-00002.gguf"] {
            let is_there = source.parse::<Source>().expect(source).is_stored_as(stored);
            assert_eq!(is_there, !source.contains("00001"), "{source}");
        }
        for source in ["hf:Org/Repo-GGUF:M.Q4_K_M.gguf", "hf:Org/Repo-GGUF:m-q4_k_m-00001-of-00002.gguf"] {
            assert!(source.parse::<Source>().expect(source).is_stored_as(stored), "{source}");
        }
        let named = "hf.co/org/repo-gguf:m.q4_k_m";
        assert!("hf:Org/Repo-GGUF:M.Q4_K_M.gguf".parse::<Source>().expect("a source").is_stored_as(named));
        assert!(!"hf:Org/Repo-GGUF:N.Q4_K_M.gguf".parse::<Source>().expect("a source").is_stored_as(named));
        for source in ["hf:org/repo-gguf:q8_0", "hf:org/repo", "ollama:org/repo-gguf:q4_k_m", "https://e.org/m.gguf"] {
            assert!(!source.parse::<Source>().expect(source).is_stored_as(stored), "{source}");
        }
        let is_llama = |source: &str| {
            source.parse::<Source>().expect("a source").is_stored_as("registry.ollama.ai/library/llama3:latest")
        };
        assert!(is_llama("ollama:llama3") && is_llama("ollama:Llama3:latest") && !is_llama("ollama:llama3:8b"));
    }

    #[test]
    fn an_error_says_what_is_possible_and_keeps_passwords() {
        for (text, word) in [
            ("hf:repo", "hf:ORG/REPO"),
            ("hf:a/b:", "hf:ORG/REPO"),
            ("hf:../b", "begins with a dot"),
            ("hf:a/b@x/../y", "hf:ORG/REPO"),
            ("ollama:a/b/c/d", "three parts"),
            ("https://user:secret@example.com/a.gguf#md5=1", "sha256=DIGEST"),
            ("https://example.com/a.gguf#sha256=12", "64 hexadecimal"),
        ] {
            let error = text.parse::<Source>().expect_err(text).to_string();
            assert!(error.contains(word) && !error.contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(hf:|https://hf.co/|ollama:)?.{0,40}") {
            let _ = text.parse::<Source>();
        }
    }
}
