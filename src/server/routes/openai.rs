//! OpenAI's paths, below `/v1`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};

use super::generate::{Started, blocking, start_several, with_bare_model, with_model};
use crate::api::anthropic;
use crate::api::openai::{
    self, ChatEncoder, ChatRequest, CompletionEncoder, CompletionRequest, Echo, EmbedRequest, Head, RerankRequest,
};
use crate::registry::{AdapterStatus, ModelStatus, Registry};
use crate::runner::RunnerError;
use crate::server::error::ApiError;
use crate::server::extract::{JsonBody, PathName};
use crate::server::ignored::Ignored;
use crate::server::state::AppState;
use crate::server::stream;
use crate::system;

pub(in crate::server) async fn chat(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = ChatRequest::from_value(body)?;
    let (streams, include_usage) = (request.streams(), request.includes_usage());
    let ignored = Ignored::new(&request.ignored);
    let (choices, custom) = (request.choices(), request.custom_tools());
    let Started { deltas, lease, model, .. } = start_several(&state, vec![request.into_spec()?], choices).await?;
    let head = Head::chat(model, system::fingerprint()).with(custom);
    let response = if streams {
        let encoder = ChatEncoder::new(head, include_usage, deltas.len());
        stream::respond(deltas, lease, encoder).await?
    } else {
        let answers = stream::collect_all(deltas).await?;
        drop(lease);
        Json(openai::chat_body(&head, &answers)).into_response()
    };
    Ok(ignored.noted_in(response))
}

pub(in crate::server) async fn embeddings(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = EmbedRequest::from_value(body)?;
    let (ignored, format) = (Ignored::new(&request.ignored), request.format());
    let spec = request.into_spec()?;
    let model = spec.model.clone();
    let found = with_bare_model(&state, model.clone(), move |runner| runner.embed(&spec)).await?;
    Ok(ignored.noted_in(Json(openai::embed_body(&model, &found, format)).into_response()))
}

pub(in crate::server) async fn rerank(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = RerankRequest::from_value(body)?;
    let ignored = Ignored::new(&request.ignored);
    let (spec, told) = request.into_spec();
    let model = spec.model.clone();
    let found = with_bare_model(&state, model.clone(), move |runner| runner.rank(&spec)).await?;
    Ok(ignored.noted_in(Json(openai::rerank_body(&model, &found, &told)).into_response()))
}

pub(in crate::server) async fn completions(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let request = CompletionRequest::from_value(body)?;
    let (streams, include_usage) = (request.streams(), request.includes_usage());
    let ignored = Ignored::new(&request.ignored);
    let (choices, echoes) = (request.choices(), request.echoes());
    let Started { deltas, lease, model, .. } = start_several(&state, request.into_specs()?, choices).await?;
    let choices = choices as usize;
    let echoes = told(&state, model.clone(), echoes, choices, deltas.len()).await?;
    let head = Head::completion(model, system::fingerprint());
    let response = if streams {
        let encoder = CompletionEncoder::new(head, include_usage, echoes, choices);
        stream::respond(deltas, lease, encoder).await?
    } else {
        let answers = stream::collect_all(deltas).await?;
        drop(lease);
        Json(openai::completion_body(&head, &answers, &echoes, choices)).into_response()
    };
    Ok(ignored.noted_in(response))
}

/// What stands in front of each of `answers` answers: the text of its prompt, or nothing.
async fn told(
    state: &AppState,
    model: String,
    echoes: Vec<Echo>,
    choices: usize,
    answers: usize,
) -> Result<Vec<Option<String>>, ApiError> {
    if echoes.is_empty() {
        return Ok(vec![None; answers]);
    }
    with_model(state, model, move |runner| {
        let text = |echo| match echo {
            Echo::Text(text) => Ok(text),
            Echo::Tokens(tokens) => Ok(String::from_utf8_lossy(&runner.pieces(&tokens)?.concat()).into_owned()),
        };
        let texts: Vec<String> = echoes.into_iter().map(text).collect::<Result<_, RunnerError>>()?;
        Ok(texts.into_iter().flat_map(|text| vec![Some(text); choices]).collect())
    })
    .await
}

/// All models, each followed by its pairs with an adapter, as requests name them. Blocks.
fn with_pairs(registry: &Registry, listed: Vec<ModelStatus>) -> Vec<ModelStatus> {
    let adapters = registry.adapters(None).unwrap_or_default();
    let pairs = |base: ModelStatus| {
        let own = adapters.iter().filter(|adapter| adapter.model == base.name);
        let pairs: Vec<ModelStatus> = own.map(|adapter| pair(&base, adapter)).collect();
        std::iter::once(base).chain(pairs)
    };
    listed.into_iter().flat_map(pairs).collect()
}

fn pair(base: &ModelStatus, adapter: &AdapterStatus) -> ModelStatus {
    let name = format!("{}+{}", base.name, adapter.name);
    ModelStatus { name, path: Some(adapter.path.clone()), ..base.clone() }
}

/// Of a model, or of one with adapters.
fn status_of(registry: &Registry, id: &str) -> Result<ModelStatus, ApiError> {
    let (base, Some(named)) = registry.split_name(id)? else { return Ok(registry.status(id)?) };
    let (mut status, known) = (registry.status(base)?, registry.adapters(Some(base))?);
    for name in named {
        match known.iter().find(|adapter| adapter.name == name) {
            Some(adapter) => status = pair(&status, adapter),
            // Not found, with names that are much alike.
            None => return Ok(registry.status(id)?),
        }
    }
    Ok(status)
}

pub(in crate::server) async fn models(
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Result<Json<serde_json::Value>, ApiError> {
    let (registry, listed) = (Arc::clone(&state.registry), state.models.list().await?);
    let found = blocking(move || Ok(with_pairs(&registry, listed))).await?;
    let models = if headers.contains_key(anthropic::VERSION_HEADER) { anthropic::models } else { openai::models };
    Ok(Json(models(&found)))
}

pub(in crate::server) async fn model(
    State(state): State<AppState>,
    headers: HeaderMap,
    PathName(id): PathName,
) -> Result<Json<serde_json::Value>, ApiError> {
    let registry = Arc::clone(&state.registry);
    let status = blocking(move || status_of(&registry, &id)).await?;
    let model = if headers.contains_key(anthropic::VERSION_HEADER) { anthropic::model } else { openai::model };
    Ok(Json(model(&status)))
}
