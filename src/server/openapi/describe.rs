//! From the tables to a document in the form of OpenAPI 3.1.

use axum::http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::{Content, Operation, Parameter, Place, SchemaOf, schema_of};
use crate::api::{ErrorKind, anthropic, ollama, openai};
use crate::server::access::OPEN;
use crate::server::error::Envelope;
use crate::server::route::{Route, Table};

const ABOUT: &str = "\
Local GGUF models behind the APIs of shimmy, OpenAI, Anthropic and Ollama.

- Fields that a request has and that have no effect are listed in the response header `x-shimmy-ignored`.
- A 503 (529 in Anthropic's dialect) has `retry-after`, in seconds.
- A stream's type has the schema of its parts in `x-itemSchema`: of each event's data, or of each line.
- A field that is `null` is a field that is absent.";

/// Types are described as they are read, and as they are written.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

/// `keyed` is whether requests need a key.
pub(super) fn document(tables: &[Table], keyed: bool) -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let mut schemas = Schemas {
        read: settings().for_deserialize().into_generator(),
        written: settings().for_serialize().into_generator(),
    };
    let mut paths = Map::new();
    for table in tables {
        for route in &table.routes {
            let path = paths.entry(plain_path(&route.path)).or_insert_with(|| json!({}));
            path[route.method.as_str().to_ascii_lowercase()] = operation(table, route, keyed, &mut schemas);
        }
    }
    let tags: Vec<Value> =
        tables.iter().map(|table| json!({ "name": table.tag, "description": table.about })).collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "shimmy",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
        "components": { "schemas": schemas.into_components() },
    });
    if keyed {
        document["security"] = json!([{ "bearer": [] }, { "x-api-key": [] }]);
        document["components"]["securitySchemes"] = json!({
            "bearer": { "type": "http", "scheme": "bearer" },
            "x-api-key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
        });
    }
    document
}

/// Without axum's mark for parameters that take in slashes.
fn plain_path(path: &str) -> String {
    path.replace("{*", "{")
}

fn operation(table: &Table, route: &Route, keyed: bool, schemas: &mut Schemas) -> Value {
    let Operation { summary, about, parameters, takes, body_is_optional, .. } = &route.operation;
    let mut told = json!({ "operationId": id(route), "tags": [table.tag], "summary": summary });
    if !about.is_empty() {
        told["description"] = (*about).into();
    }
    let all: Vec<Value> =
        path_parameters(&route.path).map(path_parameter).chain(parameters.iter().map(parameter)).collect();
    if !all.is_empty() {
        told["parameters"] = all.into();
    }
    if !takes.is_empty() {
        let schema = one_of(takes, &mut schemas.read);
        told["requestBody"] =
            json!({ "required": !body_is_optional, "content": { "application/json": { "schema": schema } } });
    }
    let needs_key = keyed && !OPEN.contains(&route.path.as_ref());
    if keyed && !needs_key {
        told["security"] = json!([]);
    }
    told["responses"] = responses(route, needs_key, &mut schemas.written);
    told
}

/// `post_v1_chat_completions`
fn id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let method = route.method.as_str().to_ascii_lowercase();
    // `/ollama` and `/ollama/` are two.
    let root = if route.path.ends_with('/') { Some("root") } else { None };
    std::iter::once(method.as_str()).chain(words).chain(root).collect::<Vec<_>>().join("_")
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| Some(part.strip_prefix('{')?.trim_start_matches('*').trim_end_matches('}')))
}

fn path_parameter(name: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } })
}

fn parameter(parameter: &Parameter) -> Value {
    let Parameter { name, place, about, values } = parameter;
    let place = match place {
        Place::Query => "query",
        Place::Header => "header",
    };
    let mut schema = json!({ "type": "string" });
    if !values.is_empty() {
        schema["enum"] = json!(values);
    }
    json!({ "name": name, "in": place, "description": about, "schema": schema })
}

fn responses(route: &Route, needs_key: bool, generator: &mut SchemaGenerator) -> Value {
    let mut responses = Map::new();
    for answer in &route.operation.answers {
        let entry = responses.entry(answer.status.as_str()).or_insert_with(|| json!({ "description": answer.about }));
        if let Some((content_type, told)) = content(&answer.content, generator) {
            entry["content"][content_type] = told;
        }
    }
    // Where two dialects share a path, a client's header decides.
    let mut envelopes = vec![Envelope::of(&route.path, false), Envelope::of(&route.path, true)];
    envelopes.dedup();
    let bodies: Vec<SchemaOf> = envelopes.iter().map(|envelope| envelope_schema(*envelope)).collect();
    for (status, kinds) in failures(route, needs_key, &envelopes) {
        let reasons: Vec<&str> = kinds.iter().map(|kind| reason(*kind)).collect();
        let entry = responses.entry(status.as_str()).or_insert_with(|| json!({ "description": reasons.join("; ") }));
        entry["content"]["application/json"] = json!({ "schema": one_of(&bodies, generator) });
    }
    Value::Object(responses)
}

/// The statuses that errors are answered with, and which.
fn failures(route: &Route, needs_key: bool, envelopes: &[Envelope]) -> Vec<(StatusCode, Vec<ErrorKind>)> {
    let mut kinds = route.operation.fails.clone();
    if !route.operation.takes.is_empty() {
        kinds.push(ErrorKind::BodyTooLarge);
    }
    if needs_key {
        kinds.push(ErrorKind::NoKey);
    }
    // Each request can have a wrong host, at the least.
    kinds.extend([ErrorKind::BadRequest, ErrorKind::Forbidden, ErrorKind::Internal]);
    let mut found: Vec<(StatusCode, Vec<ErrorKind>)> = Vec::new();
    for (kind, envelope) in kinds.iter().flat_map(|kind| envelopes.iter().map(move |envelope| (*kind, envelope))) {
        let status = envelope.status(kind);
        match found.iter_mut().find(|(known, _)| *known == status) {
            Some((_, kinds)) if kinds.contains(&kind) => {}
            Some((_, kinds)) => kinds.push(kind),
            None => found.push((status, vec![kind])),
        }
    }
    found.sort_by_key(|(status, _)| *status);
    found
}

fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::BadRequest => "The request is wrong",
        ErrorKind::PromptTooLong => "The prompt is longer than the context",
        ErrorKind::ModelNotFound => "There is no such model",
        ErrorKind::NoSuchResponse => "There is no such response, or none any more",
        ErrorKind::NoPreviousResponse => "The response to go on from is not kept",
        ErrorKind::NoKey => "No key was sent, or a wrong one",
        ErrorKind::Forbidden => {
            "The host or the page is not one of those that may ask, or it is not the server's to do"
        }
        ErrorKind::NoSuchPath => "There is no such path",
        ErrorKind::WrongMethod => "The path does not take this method",
        ErrorKind::BodyTooLarge => "The body is too large",
        ErrorKind::Overloaded => "Too many requests wait; try again later",
        ErrorKind::ModelFailed => "The model could not be loaded, or failed",
        ErrorKind::NotFetched => "The registry or hub did not give it",
        ErrorKind::NoSpace => "There is no space left on the server's disk",
        ErrorKind::NotServed => "This version does not do that",
        ErrorKind::Internal => "The server failed; its log has the reason",
    }
}

fn envelope_schema(envelope: Envelope) -> SchemaOf {
    match envelope {
        Envelope::Plain => schema_of::<ollama::shapes::ErrorBody>,
        Envelope::OpenAi => schema_of::<openai::shapes::ErrorBody>,
        Envelope::Anthropic => schema_of::<anthropic::shapes::ErrorBody>,
    }
}

fn content(content: &Content, generator: &mut SchemaGenerator) -> Option<(&'static str, Value)> {
    let parts = |about: &str| json!({ "type": "string", "description": about });
    // Some readers hold the whole stream against it, others each event, which is an object then.
    let events = |about: &str| json!({ "type": ["string", "object"], "description": about });
    Some(match content {
        Content::Nothing => return None,
        Content::Text(content_type) => (content_type, json!({ "schema": { "type": "string" } })),
        Content::Json(schema) => ("application/json", json!({ "schema": schema(generator) })),
        Content::TextEvents => (
            "text/event-stream",
            json!({ "schema": events(
                "Each event's data is text, a line break a further `data:` line. The event `usage` tells token counts, `error` \
                 what failed; `[DONE]` ends the stream."
            ) }),
        ),
        Content::Events(item) => (
            "text/event-stream",
            json!({ "schema": events("Each event's data is JSON."), "x-itemSchema": item(generator) }),
        ),
        Content::Lines(item) => {
            ("application/x-ndjson", json!({ "schema": parts("Each line is JSON."), "x-itemSchema": item(generator) }))
        }
    })
}

fn one_of(schemas: &[SchemaOf], generator: &mut SchemaGenerator) -> Schema {
    match schemas {
        [schema] => schema(generator),
        several => {
            let all: Vec<Schema> = several.iter().map(|schema| schema(generator)).collect();
            schemars::json_schema!({ "anyOf": all })
        }
    }
}

impl Schemas {
    fn into_components(mut self) -> Map<String, Value> {
        let mut all = self.read.take_definitions(true);
        for (name, schema) in self.written.take_definitions(true) {
            match all.get(&name) {
                // A type that is read otherwise than it is written needs two names.
                Some(other) => debug_assert_eq!(*other, schema, "two schemas are called {name}"),
                None => {
                    all.insert(name, schema);
                }
            }
        }
        all
    }
}
