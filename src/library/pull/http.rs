//! Requests: redirects, patience, and answers of bounded size.

use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderValue, IF_RANGE, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};

use super::error::PullError;
use super::progress::{Event, Report};
use super::settings::Settings;
use super::source::shown;

const CONNECT: Duration = Duration::from_secs(20);
const MAX_REDIRECTS: usize = 10;
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A server that asks for more patience than this is given up for now.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    retries: u32,
    backoff: Duration,
}

/// Why one request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The next one may not. The server may say when.
    Passing { reason: String, after: Option<Duration> },
    /// The server's last word.
    Refused { status: StatusCode, reason: String },
    /// Nothing that the server said, and nothing that another try would change.
    Final { reason: String },
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Ask<'a> {
    pub url: &'a Url,
    pub accept: Option<&'static str>,
    pub authorization: Option<&'a HeaderValue>,
    /// `bytes=a-b`, with the validator of what is there already.
    pub range: Option<(String, Option<String>)>,
}

impl<'a> Ask<'a> {
    pub fn new(url: &'a Url, authorization: Option<&'a HeaderValue>) -> Self {
        Self { url, accept: None, authorization, range: None }
    }
}

/// Counts failures in a row, and waits longer after each.
#[derive(Debug)]
pub(super) struct Patience {
    left: u32,
    retries: u32,
    wait: Duration,
    backoff: Duration,
}

impl Patience {
    /// After progress it begins anew.
    pub fn renew(&mut self) {
        self.left = self.retries;
        self.wait = self.backoff;
    }

    /// Waits before the next try; `false` where there is none left.
    pub async fn wait(&mut self, reason: &str, after: Option<Duration>, report: &Report<'_>) -> bool {
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        // Clients that failed together shall not come back together.
        let jittered = self.wait.mul_f64(0.75 + fastrand::f64() / 2.0);
        self.wait = (self.wait * 2).min(MAX_BACKOFF);
        let after = after.map_or(jittered, |after| after.max(self.backoff));
        if after > MAX_RETRY_AFTER {
            return false;
        }
        report(Event::Retrying { reason: reason.to_owned(), after });
        tokio::time::sleep(after).await;
        true
    }
}

impl Http {
    pub fn new(settings: &Settings) -> Result<Self, PullError> {
        // One that is installed already serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("shimmy/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(settings.stall)
            .referer(false)
            .redirect(redirect::Policy::custom(follow))
            .build()
            .map_err(|error| PullError::Server { url: settings.hub.clone(), reason: chain(&error) })?;
        Ok(Self { client, retries: settings.retries, backoff: settings.backoff })
    }

    pub fn patience(&self) -> Patience {
        Patience { left: self.retries, retries: self.retries, wait: self.backoff, backoff: self.backoff }
    }

    /// One try. The answer is a success, and its body comes as it is.
    pub async fn get(&self, ask: &Ask<'_>) -> Result<Response, Failure> {
        let mut request = self.client.get(ask.url.clone());
        if let Some(accept) = ask.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(value) = ask.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if let Some((range, validator)) = &ask.range {
            request = request.header(RANGE, range);
            if let Some(validator) = validator {
                request = request.header(IF_RANGE, validator);
            }
        }
        let response = request.send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        if status.is_success() {
            return match response.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
                None | Some(b"" | b"identity") => Ok(response),
                // Nobody asked for it. Unpacked, a small answer can fill a disk.
                Some(encoding) => {
                    let reason = format!("the answer is packed ({})", String::from_utf8_lossy(encoding));
                    Err(Failure::Refused { status, reason })
                }
            };
        }
        let passing = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
        if passing || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status) {
            return Err(Failure::Passing { reason: status.to_string(), after: retry_after(response.headers()) });
        }
        Err(Failure::Refused { status, reason: reason(response).await })
    }

    /// A small answer, with retries. Its headers come along.
    pub async fn small(
        &self,
        ask: &Ask<'_>,
        limit: usize,
        report: &Report<'_>,
    ) -> Result<(HeaderMap, Vec<u8>), Failure> {
        let mut patience = self.patience();
        loop {
            let got = match self.get(ask).await {
                Ok(response) => whole(response, limit).await,
                Err(failure) => Err(failure),
            };
            match got {
                Err(Failure::Passing { reason, after }) if patience.wait(&reason, after, report).await => {}
                other => return other,
            }
        }
    }
}

/// Follows a server's redirects, but not from an encrypted connection to an open one. Credentials go to the first host only;
/// the client drops them by itself.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let downgraded = attempt.url().scheme() != "https" && attempt.previous().iter().any(|url| url.scheme() == "https");
    if downgraded {
        attempt.error("a redirect from https to another scheme")
    } else if attempt.previous().len() > MAX_REDIRECTS {
        attempt.error("too many redirects")
    } else {
        attempt.follow()
    }
}

async fn whole(mut response: Response, limit: usize) -> Result<(HeaderMap, Vec<u8>), Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        if body.len() + chunk.len() > limit {
            let reason = format!("the answer is longer than {limit} bytes");
            return Err(Failure::Refused { status: response.status(), reason });
        }
        body.extend_from_slice(&chunk);
    }
    Ok((response.headers().clone(), body))
}

/// What a refusal says about itself: the hub has headers for it, Ollama's registry a list of errors.
async fn reason(response: Response) -> String {
    const LONGEST: usize = 4096;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(message) = header("x-error-message") {
        return message;
    }
    let status = response.status();
    let Ok((_, body)) = whole(response, LONGEST).await else { return status.to_string() };
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = json["errors"][0]["message"].as_str().or(json["error"].as_str());
    message.map_or_else(|| status.to_string(), |message| message.chars().take(300).collect())
}

pub(super) fn failed(error: &reqwest::Error) -> Failure {
    let reason = chain(error);
    if error.is_redirect() || error.is_builder() {
        return Failure::Final { reason };
    }
    if reason.contains("invalid peer certificate") {
        let advice = "where an authority of your own signs, name its file with SSL_CERT_FILE";
        return Failure::Final { reason: format!("{reason}; {advice}") };
    }
    Failure::Passing { reason, after: None }
}

/// An error with its causes and without its address, which may hold a signature.
fn chain(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    match (error.is_timeout(), causes.is_empty()) {
        (true, _) => "nothing came for too long".into(),
        (false, true) => "the request failed".into(),
        (false, false) => causes.join(": "),
    }
}

/// Seconds or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok()
}

impl Failure {
    /// For whom no status means anything special.
    pub fn into_error(self, url: &Url) -> PullError {
        let reason = match self {
            Self::Passing { reason, .. } => {
                format!("{reason}; given up after several tries, the next pull goes on from here")
            }
            Self::Final { reason } => reason,
            Self::Refused { status, reason } if reason.starts_with(status.as_str()) => reason,
            Self::Refused { status, reason } => format!("{status}: {reason}"),
        };
        PullError::Server { url: shown(url), reason }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use super::retry_after;

    #[test]
    fn a_server_says_when_in_seconds_or_as_a_date() {
        let parsed = |text: &str| {
            let value = HeaderValue::from_str(text).expect("a header's value");
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        assert_eq!(parsed("7"), Some(Duration::from_secs(7)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(parsed(&date).is_some_and(|wait| wait > Duration::from_secs(50)));
        assert_eq!(parsed("soon"), None);
    }
}
