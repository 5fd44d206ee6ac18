//! `POST /tokenize`, `/detokenize`, `/apply-template` and `/infill`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::generate::{Started, start, with_model};
use crate::api::infill::{InfillEncoder, InfillRequest, infill_body};
use crate::api::utility::{self, DetokenizeRequest, TokenizeRequest};
use crate::server::error::ApiError;
use crate::server::extract::JsonBody;
use crate::server::ignored::Ignored;
use crate::server::state::AppState;
use crate::server::stream;

pub(in crate::server) async fn tokenize(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let asked = TokenizeRequest::from_value(body)?;
    let ignored = Ignored::new(&asked.ignored);
    let answer = with_model(&state, asked.model.clone(), move |runner| {
        let tokens = runner.tokenize(&asked.content, asked.add_special, asked.parse_special)?;
        Ok(if asked.with_pieces {
            utility::pieces_body(&tokens, &runner.pieces(&tokens)?)
        } else {
            utility::tokens_body(&tokens)
        })
    });
    Ok(ignored.noted_in(Json(answer.await?).into_response()))
}

pub(in crate::server) async fn detokenize(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let asked = DetokenizeRequest::from_value(body)?;
    let ignored = Ignored::new(&asked.ignored);
    let pieces = with_model(&state, asked.model, move |runner| runner.pieces(&asked.tokens));
    Ok(ignored.noted_in(Json(utility::content_body(&pieces.await?)).into_response()))
}

pub(in crate::server) async fn apply_template(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let (spec, ignored) = utility::template_spec(body)?;
    let ignored = Ignored::new(&ignored);
    let prompt = with_model(&state, spec.model.clone(), move |runner| runner.prompt(&spec));
    Ok(ignored.noted_in(Json(utility::prompt_body(&prompt.await?.text)).into_response()))
}

pub(in crate::server) async fn infill(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = InfillRequest::from_value(body)?;
    let (streams, ignored) = (request.streams(), Ignored::new(&request.ignored));
    let Started { deltas, lease, model, .. } = start(&state, request.into_spec()?).await?;
    let response = if streams {
        stream::respond(deltas, lease, InfillEncoder::new(model)).await?
    } else {
        let (answer, summary) = stream::collect(deltas).await?;
        drop(lease);
        Json(infill_body(&model, &answer, &summary)).into_response()
    };
    Ok(ignored.noted_in(response))
}
