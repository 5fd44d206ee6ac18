//! One file, from wherever it is to a blob: in parts side by side, each as often as it takes.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use reqwest::{Response, StatusCode, Url};

use super::digest::Digest;
use super::error::PullError;
use super::http::{Ask, Failure, Http, failed};
use super::partial::{self, Partial, disk};
use super::progress::{Event, Report};
use super::settings::{MAX_CONNECTIONS, Settings};
use super::source::shown;
use super::store::Store;
use crate::gguf;

/// Bytes that are written at once.
const WRITE: usize = 1 << 20;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two notes of what is there: as much is fetched again after a crash.
const TICKS_A_NOTE: u32 = 10;
/// How often a file may change under our hands before we give up.
const MAX_CHANGES: u32 = 3;

/// A file to be fetched.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub url: Url,
    /// For this address, and not for where it redirects to.
    pub authorization: Option<HeaderValue>,
    /// As progress and errors call it.
    pub what: String,
    pub digest: Option<Digest>,
    pub size: Option<u64>,
    pub is_gguf: bool,
}

/// Where and how.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub http: &'a Http,
    pub store: &'a Store,
    pub settings: &'a Settings,
    pub report: &'a Report<'a>,
}

/// Why a transfer ended early.
enum End {
    /// It is another file than the one that we have parts of.
    Changed,
    Failed(PullError),
}

impl From<PullError> for End {
    fn from(error: PullError) -> Self {
        Self::Failed(error)
    }
}

/// Leaves the file in the store. Returns its digest and size in bytes.
pub(super) async fn fetch(way: Way<'_>, wanted: &Wanted) -> Result<(Digest, u64), PullError> {
    if let Some(known) = present(way, wanted) {
        return Ok(known);
    }
    let key = key(wanted);
    let opened = Partial::open(way.store, &key, wanted.digest.as_ref(), &wanted.what, way.report).await?;
    let Some(partial) = opened else {
        let gone = || {
            PullError::Store(super::store::StoreError::Damaged {
                path: way.store.root().into(),
                what: "a blob has gone".into(),
            })
        };
        return present(way, wanted).ok_or_else(gone);
    };
    let mut changes = 0;
    let transfer = Transfer { way, wanted, partial: &partial, direct: Mutex::default() };
    loop {
        match transfer.run().await {
            Ok(()) => break,
            Err(End::Changed) if changes < MAX_CHANGES => {
                changes += 1;
                tracing::info!(file = wanted.what, "the file is another one now; fetching it from its beginning");
                partial.reset().await?;
            }
            Err(end) => {
                let _ = partial.save().await;
                return Err(match end {
                    End::Failed(error) => error,
                    End::Changed => {
                        let reason = format!("the file changed {MAX_CHANGES} times while it was being fetched");
                        PullError::Server { url: shown(&wanted.url), reason }
                    }
                });
            }
        }
    }
    partial.save().await?;
    // An earlier attempt that left no note may have written more.
    partial.file().set_len(partial.covered()).map_err(disk(partial.path()))?;
    let digest = verify(way, wanted, &partial).await?;
    let size = partial.covered();
    partial.finish(way.store, &digest)?;
    Ok((digest, size))
}

/// The name of what is not yet a blob.
fn key(wanted: &Wanted) -> String {
    match &wanted.digest {
        Some(digest) => digest.file_name(),
        None => format!("url-{}", Digest::of(wanted.url.as_str().as_bytes()).hex()),
    }
}

/// Whether all of them fit, before the first is fetched.
pub(super) fn check_space_for(store: &Store, files: &[Wanted]) -> Result<(), PullError> {
    let missing = files.iter().filter(|file| !file.digest.as_ref().is_some_and(|digest| store.has(digest)));
    let left = |file: &Wanted| file.size.unwrap_or(0).saturating_sub(partial::noted(store, &key(file)));
    partial::check_space(store.root(), missing.map(left).fold(0, u64::saturating_add))
}

fn present(way: Way<'_>, wanted: &Wanted) -> Option<(Digest, u64)> {
    let digest = wanted.digest.clone()?;
    let size = way.store.blob(&digest).metadata().ok()?.len();
    (way.report)(fetching(wanted, size, size));
    Some((digest, size))
}

fn fetching(wanted: &Wanted, total: u64, completed: u64) -> Event {
    Event::Fetching { what: wanted.what.clone(), digest: wanted.digest.clone(), total, completed }
}

/// The digest and the header. What is not as it should be is thrown away.
async fn verify(way: Way<'_>, wanted: &Wanted, partial: &Partial) -> Result<Digest, PullError> {
    let found = digest_of(way, wanted, partial).await?;
    if let Some(expected) = wanted.digest.clone().filter(|expected| *expected != found) {
        partial.reset().await?;
        return Err(PullError::WrongDigest { what: wanted.what.clone(), expected, found });
    }
    if wanted.is_gguf
        && let Err(error) = gguf::Header::open(partial.path())
    {
        partial.reset().await?;
        // The path is that of a file that is gone.
        let reason = error.to_string();
        let reason = reason.strip_prefix(&format!("{}: ", partial.path().display())).unwrap_or(&reason).to_owned();
        return Err(PullError::NotGguf { what: wanted.what.clone(), reason });
    }
    Ok(found)
}

async fn digest_of(way: Way<'_>, wanted: &Wanted, partial: &Partial) -> Result<Digest, PullError> {
    let (sender, mut read) = tokio::sync::watch::channel(0);
    let mut file: File = partial.file().try_clone().map_err(disk(partial.path()))?;
    let compute = move || {
        file.seek(SeekFrom::Start(0))?;
        // Nobody hears of it when the pull is given up.
        Digest::of_file(&file, |done| sender.send(done).is_ok())
    };
    let work = tokio::task::spawn_blocking(compute);
    let total = partial.covered();
    let tell = |completed| (way.report)(Event::Verifying { what: wanted.what.clone(), total, completed });
    tell(0);
    while read.changed().await.is_ok() {
        tell(*read.borrow_and_update());
        tokio::time::sleep(TICK).await;
    }
    drop(read);
    let found = work.await.unwrap_or_else(|died| Err(std::io::Error::other(died))).map_err(disk(partial.path()))?;
    found.ok_or_else(|| disk(partial.path())(std::io::Error::other("interrupted")))
}

struct Transfer<'a> {
    way: Way<'a>,
    wanted: &'a Wanted,
    partial: &'a Partial,
    /// Where the address redirects to. Asking there saves the hub a request for each part.
    direct: Mutex<Option<Url>>,
}

impl Transfer<'_> {
    /// Fetches what is missing.
    async fn run(&self) -> Result<(), End> {
        let state = self.partial.state();
        let size = self.wanted.size.or(state.size);
        if size == Some(state.done.covered()) && size == Some(state.done.end()) {
            return Ok(());
        }
        if size.is_some_and(|size| state.done.end() > size) {
            return Err(End::Changed);
        }
        let piece = self.way.settings.piece;
        // Where the size is not known, the first answer tells it.
        let first = state.done.first_missing(size.unwrap_or(u64::MAX), piece);
        let response = self.ask(first.clone()).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return self.telling(self.whole(response)).await;
        }
        let total = self.accept(&response, &first)?;
        if self.wanted.digest.is_none() && validator(response.headers()).is_none() {
            // Nothing would tell whether two parts are of one file.
            drop(response);
            return self.telling(async { self.whole(self.ask_whole().await?).await }).await;
        }
        self.check_space(total)?;
        let first = first.start..first.end.min(total);
        let mut pieces = self.partial.state().done.pieces(total, piece);
        pieces.retain(|range| range.start != first.start);
        pieces.reverse();
        let connections = self.way.settings.connections.clamp(1, MAX_CONNECTIONS).min(pieces.len() + 1);
        let queue = Mutex::new(pieces);
        let mut begun = Some((first, response));
        let workers: Vec<_> = (0..connections).map(|_| self.work(&queue, begun.take())).collect();
        let all = async { futures_util::future::try_join_all(workers).await.map(drop) };
        self.telling(all).await
    }

    /// Tells how far it is, and notes it, while `work` goes on.
    async fn telling(&self, work: impl Future<Output = Result<(), End>>) -> Result<(), End> {
        let tell = || {
            let completed = self.partial.covered();
            let total = self.partial.state().size.unwrap_or(completed);
            (self.way.report)(fetching(self.wanted, total, completed));
        };
        let ticks = async {
            loop {
                for _ in 0..TICKS_A_NOTE {
                    tell();
                    tokio::time::sleep(TICK).await;
                }
                if let Err(error) = self.partial.save().await {
                    return error;
                }
            }
        };
        tokio::select! {
            done = work => {
                tell();
                done
            }
            error = ticks => Err(error.into()),
        }
    }

    /// Fetches one piece after the other.
    async fn work(&self, queue: &Mutex<Vec<Range<u64>>>, begun: Option<(Range<u64>, Response)>) -> Result<(), End> {
        if let Some((range, response)) = begun {
            self.piece(range, Some(response)).await?;
        }
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match next {
                Some(range) => self.piece(range, None).await?,
                None => return Ok(()),
            }
        }
    }

    async fn piece(&self, range: Range<u64>, begun: Option<Response>) -> Result<(), End> {
        let mut patience = self.way.http.patience();
        let mut at = range.start;
        let mut begun = begun;
        loop {
            let response = match begun.take() {
                Some(response) => response,
                None => {
                    let response = self.ask(at..range.end).await?;
                    // The rest of another file, or all of it where parts were to be had before.
                    if response.status() != StatusCode::PARTIAL_CONTENT {
                        return Err(End::Changed);
                    }
                    self.accept(&response, &(at..range.end))?;
                    response
                }
            };
            let before = at;
            let reason = self.read(response, &mut at, range.end).await?;
            if at == range.end {
                return Ok(());
            }
            if at > before {
                patience.renew();
            }
            if !patience.wait(&reason, None, self.way.report).await {
                return Err(self.gave_up(Failure::Passing { reason, after: None }).into());
            }
        }
    }

    /// Without ranges: from the beginning to the end.
    async fn whole(&self, begun: Response) -> Result<(), End> {
        let mut patience = self.way.http.patience();
        let mut begun = Some(begun);
        loop {
            let response = match begun.take() {
                Some(response) => response,
                None => self.ask_whole().await?,
            };
            let size = response.content_length();
            self.check_size(size)?;
            self.partial.reset().await?;
            let validator = validator(response.headers());
            self.partial.change(|state| (state.size, state.validator) = (size, validator));
            self.check_space(size.unwrap_or(0))?;
            let mut at = 0;
            let reason = self.read(response, &mut at, size.unwrap_or(u64::MAX)).await?;
            if size.map_or(reason == ENDED, |size| at == size) {
                self.partial.change(|state| state.size = Some(at));
                return Ok(());
            }
            if !patience.wait(&reason, None, self.way.report).await {
                return Err(self.gave_up(Failure::Passing { reason, after: None }).into());
            }
        }
    }

    /// Writes what comes, up to `end`. Returns why nothing more came.
    async fn read(&self, mut response: Response, at: &mut u64, end: u64) -> Result<String, End> {
        let mut buffer = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let ended = match &chunk {
                Ok(Some(chunk)) => {
                    let fits = usize::try_from(end - *at).unwrap_or(usize::MAX) - buffer.len();
                    buffer.extend_from_slice(&chunk[..chunk.len().min(fits)]);
                    buffer.len() as u64 == end - *at
                }
                _ => true,
            };
            if buffer.len() >= WRITE || (ended && !buffer.is_empty()) {
                let length = buffer.len() as u64;
                self.partial.write(*at, std::mem::take(&mut buffer)).await?;
                *at += length;
            }
            if ended {
                return Ok(match chunk {
                    Ok(_) => ENDED.into(),
                    Err(error) => match failed(&error) {
                        Failure::Passing { reason, .. }
                        | Failure::Refused { reason, .. }
                        | Failure::Final { reason } => reason,
                    },
                });
            }
        }
    }

    /// Asks for a range until an answer comes.
    async fn ask(&self, range: Range<u64>) -> Result<Response, End> {
        let bytes = format!("bytes={}-{}", range.start, range.end - 1);
        // A digest says at the end whether all parts are of one file; without one, the server must say so each time.
        let validator = self.partial.state().validator.filter(|_| self.wanted.digest.is_none());
        self.patiently(Some((bytes, validator))).await
    }

    async fn ask_whole(&self) -> Result<Response, End> {
        self.patiently(None).await
    }

    async fn patiently(&self, range: Option<(String, Option<String>)>) -> Result<Response, End> {
        let mut patience = self.way.http.patience();
        loop {
            let direct = self.direct.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut ask = match &direct {
                Some(url) => Ask::new(url, None),
                None => Ask::new(&self.wanted.url, self.wanted.authorization.as_ref()),
            };
            ask.range.clone_from(&range);
            let failure = match self.way.http.get(&ask).await {
                Ok(response) => {
                    self.remember(response.url());
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            let (reason, after) = match failure {
                Failure::Refused { status: StatusCode::RANGE_NOT_SATISFIABLE, .. } => return Err(End::Changed),
                // An address with a signature holds for an hour or so.
                Failure::Refused { reason, .. } if direct.is_some() => {
                    *self.direct.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    (reason, Some(Duration::ZERO))
                }
                Failure::Passing { reason, after } => (reason, after),
                last @ (Failure::Refused { .. } | Failure::Final { .. }) => return Err(self.gave_up(last).into()),
            };
            if !patience.wait(&reason, after, self.way.report).await {
                return Err(self.gave_up(Failure::Passing { reason, after }).into());
            }
        }
    }

    fn remember(&self, answered: &Url) {
        if answered.origin() != self.wanted.url.origin() {
            *self.direct.lock().unwrap_or_else(PoisonError::into_inner) = Some(answered.clone());
        }
    }

    /// Checks that a part is of the file that we have parts of. Returns the file's size.
    fn accept(&self, response: &Response, asked: &Range<u64>) -> Result<u64, End> {
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| content_range(value.to_str().ok()?));
        let Some((start, end, total)) = range else {
            let reason = "its answer to a range request does not say which range it is".into();
            return Err(PullError::Server { url: shown(&self.wanted.url), reason }.into());
        };
        self.check_size(Some(total))?;
        if start != asked.start || end != asked.end.min(total) {
            return Err(End::Changed);
        }
        let validator = validator(response.headers());
        let state = self.partial.state();
        let other_size = state.size.is_some_and(|size| size != total);
        let other_file = state.size.is_some() && state.validator != validator;
        if other_size || (other_file && self.wanted.digest.is_none()) {
            return Err(End::Changed);
        }
        self.partial.change(|state| (state.size, state.validator) = (Some(total), validator));
        Ok(total)
    }

    fn check_size(&self, found: Option<u64>) -> Result<(), PullError> {
        match (self.wanted.size, found) {
            (Some(wanted), Some(found)) if wanted != found => {
                let reason = format!("{} has {found} bytes there, {wanted} were announced", self.wanted.what);
                Err(PullError::Server { url: shown(&self.wanted.url), reason })
            }
            _ => Ok(()),
        }
    }

    fn check_space(&self, total: u64) -> Result<(), PullError> {
        partial::check_space(self.way.store.root(), total.saturating_sub(self.partial.covered()))
    }

    fn gave_up(&self, failure: Failure) -> PullError {
        match failure {
            Failure::Refused { status: StatusCode::NOT_FOUND, reason } => {
                PullError::NotFound { what: shown(&self.wanted.url), advice: reason }
            }
            Failure::Refused { status: status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), reason } => {
                PullError::Denied { what: shown(&self.wanted.url), status: status.as_u16(), advice: reason }
            }
            failure => failure.into_error(&self.wanted.url),
        }
    }
}

/// The body ended. Where its length was announced, it is one of a request that ended early.
const ENDED: &str = "the connection ended early";

/// A strong ETag, else the date: what `If-Range` takes.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text(ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(LAST_MODIFIED))
}

/// `bytes 0-99/1000` is (0, 100, 1000).
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last, total) = (start.parse().ok()?, last.parse::<u64>().ok()?, total.parse().ok()?);
    (start <= last && last < total).then_some((start, last + 1, total))
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn a_content_range_must_make_sense() {
        assert_eq!(content_range("bytes 0-99/1000"), Some((0, 100, 1000)));
        for text in [
            "bytes */1000",
            "bytes 0-99/*",
            "bytes 9-3/10",
            "bytes 0-10/10",
            "0-9/10",
            "bytes 0-99999999999999999999/1",
        ] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
