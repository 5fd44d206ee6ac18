//! Files that clients send, to make models of.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;

use crate::api::BadRequest;
use crate::library::pull::{Digest, NotADigest, PullError, Upload};
use crate::server::error::ApiError;
use crate::server::extract::PathName;
use crate::server::routes::generate::blocking;
use crate::server::state::AppState;

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error: NotADigest| BadRequest(error.to_string()).into())
}

pub(in crate::server) async fn has_blob(
    State(state): State<AppState>,
    PathName(name): PathName,
) -> Result<StatusCode, ApiError> {
    let digest = digest(&name)?;
    let has = blocking(move || Ok(state.models.store().is_ok_and(|store| store.has(&digest)))).await?;
    Ok(if has { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

/// Bytes that are written at once.
const WRITE: usize = 1 << 20;

/// Takes a file of any size that the disk has room for.
pub(in crate::server) async fn add_blob(
    State(state): State<AppState>,
    PathName(name): PathName,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let digest = digest(&name)?;
    let store = state.models.store()?.clone();
    let mut body = body.into_data_stream();
    let has = {
        let (store, digest) = (store.clone(), digest.clone());
        move || Ok(store.has(&digest))
    };
    if blocking(has).await? {
        // A client that still writes when the connection ends sees no answer.
        while body.next().await.is_some_and(|part| part.is_ok()) {}
        return Ok(StatusCode::OK);
    }
    let failed = |error: &PullError| match error {
        // It is the client's to know what it sends.
        PullError::WrongDigest { .. } => BadRequest(error.to_string()).into(),
        error => ApiError::from(error),
    };
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let begin = {
        let store = store.clone();
        move || Upload::begin(&store, announced).map_err(|error| failed(&error))
    };
    let mut upload = blocking(begin).await?;
    let mut buffer = Vec::new();
    loop {
        let part = body.next().await.transpose();
        let part = part.map_err(|error| BadRequest(format!("what was sent ended early: {error}")))?;
        let ended = part.is_none();
        buffer.extend_from_slice(&part.unwrap_or_default());
        if buffer.len() < WRITE && !ended {
            continue;
        }
        let bytes = std::mem::take(&mut buffer);
        let write = move || upload.write(&bytes).map(|()| upload).map_err(|error| failed(&error));
        upload = blocking(write).await?;
        if ended {
            break;
        }
    }
    blocking(move || upload.finish(&store, &digest).map_err(|error| failed(&error))).await?;
    Ok(StatusCode::CREATED)
}
