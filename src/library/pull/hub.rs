//! Repositories of the hub: which files there are, and where their bytes are.

use reqwest::header::{HeaderMap, HeaderValue, LINK};
use reqwest::{StatusCode, Url};
use serde::Deserialize;

use super::digest::Digest;
use super::download::{Wanted, Way};
use super::error::PullError;
use super::http::{Ask, Failure};
use super::quant::{self, RepoFile};
use super::source::{HubSource, shown};

/// Listings are pages of a thousand files.
const MAX_PAGES: usize = 50;
const MAX_PAGE: usize = 8 << 20;

/// What makes up one model.
#[derive(Debug)]
pub(super) struct HubModel {
    /// The name's tag.
    pub label: String,
    /// The shards.
    pub files: Vec<Wanted>,
    pub projector: Option<Wanted>,
    /// Repository, commit and label.
    pub source: String,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: Digest,
    size: u64,
}

struct Hub<'a> {
    way: Way<'a>,
    source: &'a HubSource,
    base: Url,
    authorization: Option<HeaderValue>,
}

/// Asks the hub what `source` is made of.
pub(super) async fn resolve(way: Way<'_>, source: &HubSource) -> Result<HubModel, PullError> {
    let bad = |why: String| PullError::BadSource { asked: way.settings.hub.clone(), why };
    let base = Url::parse(&way.settings.hub).map_err(|error| bad(format!("HF_ENDPOINT is no address: {error}")))?;
    if base.cannot_be_a_base() {
        return Err(bad("HF_ENDPOINT must be an address such as https://example.com".into()));
    }
    let bearer = |token: &String| HeaderValue::from_str(&format!("Bearer {token}"));
    let mut authorization = way.settings.token.as_ref().map(bearer).transpose();
    if let Ok(Some(value)) = &mut authorization {
        value.set_sensitive(true);
    }
    let authorization = authorization.map_err(|_| bad("HF_TOKEN has characters that no token has".into()))?;
    Hub { way, source, base, authorization }.resolve().await
}

/// A refusal in words that help. The hub gives the same answer for what is private, gated or not there.
pub(super) fn denied(way: Way<'_>, source: &HubSource, status: u16, reason: &str) -> PullError {
    let page = format!("{}/{}", way.settings.hub, source.repo);
    let advice = if way.settings.token.is_some() {
        format!(
            "{reason}; accept the model's licence at {page}, and check that HF_TOKEN may read it and the name is right"
        )
    } else {
        format!("{reason}; the name may be wrong, else accept the model's licence at {page} and set HF_TOKEN")
    };
    PullError::Denied { what: source.repo.clone(), status, advice }
}

impl Hub<'_> {
    async fn resolve(&self) -> Result<HubModel, PullError> {
        let HubSource { repo, revision, wanted } = self.source;
        let url = self.url(&["api", "models"], &["revision", revision]);
        let (_, body) = self.get(&url).await?;
        let Revision { sha } = read(&url, &body)?;
        // All files of one commit, also where somebody pushes another meanwhile.
        if sha.len() != 40 || !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(PullError::Server { url: shown(&url), reason: format!("{sha:?} is no commit") });
        }
        let files = self.files(&sha).await?;
        let choice = quant::choose(repo, &files, wanted.as_deref())?;
        Ok(HubModel {
            files: choice.files.iter().map(|file| self.wanted(&sha, file)).collect(),
            projector: choice.projector.as_ref().map(|file| self.wanted(&sha, file)),
            source: format!("hf:{repo}@{sha}:{}", choice.label),
            label: choice.label,
        })
    }

    async fn files(&self, sha: &str) -> Result<Vec<RepoFile>, PullError> {
        let mut url = self.url(&["api", "models"], &["tree", sha]);
        url.query_pairs_mut().append_pair("recursive", "true");
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let (headers, body) = self.get(&url).await?;
            let page: Vec<Entry> = read(&url, &body)?;
            let listed = page.into_iter().filter(|entry| entry.kind == "file");
            files.extend(listed.map(|entry| match entry.lfs {
                Some(lfs) => RepoFile { path: entry.path, size: lfs.size, digest: Some(lfs.oid) },
                None => RepoFile { path: entry.path, size: entry.size, digest: None },
            }));
            match next_page(&headers, &url) {
                // The token goes along.
                Some(next) if next.origin() == self.base.origin() => url = next,
                _ => return Ok(files),
            }
        }
        Err(PullError::Server { url: shown(&url), reason: format!("the listing has more than {MAX_PAGES} pages") })
    }

    fn wanted(&self, sha: &str, file: &RepoFile) -> Wanted {
        let mut parts = vec!["resolve", sha];
        parts.extend(file.path.split('/'));
        Wanted {
            url: self.url(&[], &parts),
            authorization: self.authorization.clone(),
            what: file.path.rsplit('/').next().unwrap_or_default().to_owned(),
            digest: file.digest.clone(),
            size: Some(file.size),
            is_gguf: true,
        }
    }

    /// `BASE/before…/ORG/REPO/after…`, each part escaped.
    fn url(&self, before: &[&str], after: &[&str]) -> Url {
        let mut url = self.base.clone();
        // It can be a base; that was looked at.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(before).extend(self.source.repo.split('/')).extend(after);
        }
        url
    }

    async fn get(&self, url: &Url) -> Result<(HeaderMap, Vec<u8>), PullError> {
        let ask = Ask { accept: Some("application/json"), ..Ask::new(url, self.authorization.as_ref()) };
        self.way.http.small(&ask, MAX_PAGE, self.way.report).await.map_err(|failure| match failure {
            Failure::Refused { status: status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), reason } => {
                denied(self.way, self.source, status.as_u16(), &reason)
            }
            Failure::Refused { status: StatusCode::NOT_FOUND, reason } => PullError::NotFound {
                what: format!("{} at {:?}", self.source.repo, self.source.revision),
                advice: format!("{reason}; look at {} for the right name", self.way.settings.hub),
            },
            failure => failure.into_error(url),
        })
    }
}

fn read<T: serde::de::DeserializeOwned>(url: &Url, body: &[u8]) -> Result<T, PullError> {
    let wrong = |error: serde_json::Error| format!("the answer is not what the hub's API gives: {error}");
    serde_json::from_slice(body).map_err(|error| PullError::Server { url: shown(url), reason: wrong(error) })
}

/// `<https://…>; rel="next"`.
fn next_page(headers: &HeaderMap, url: &Url) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    url.join(next.split_once('<')?.1.split_once('>')?.0).ok()
}
