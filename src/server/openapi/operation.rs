//! What the document says of one operation.

use axum::http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::api::ErrorKind;

/// A type's schema, or a reference to it.
pub(in crate::server) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

pub(in crate::server) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code)] // One type or another: it is only described.
pub(in crate::server) enum Either<A, B> {
    One(A),
    Other(B),
}

#[derive(Default)]
pub(in crate::server) struct Operation {
    /// One line, for whoever looks for the right operation.
    pub summary: &'static str,
    /// Markdown; may be empty.
    pub about: &'static str,
    pub parameters: Vec<Parameter>,
    /// Bodies that are taken, each in the place of the others.
    pub takes: Vec<SchemaOf>,
    /// There may be no body.
    pub body_is_optional: bool,
    /// Others than errors.
    pub answers: Vec<Answer>,
    pub fails: Vec<ErrorKind>,
}

/// Beside those of the path.
pub(in crate::server) struct Parameter {
    pub name: &'static str,
    pub place: Place,
    pub about: &'static str,
    pub values: &'static [&'static str],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Place {
    Query,
    Header,
}

pub(in crate::server) struct Answer {
    pub status: StatusCode,
    pub about: &'static str,
    pub content: Content,
}

pub(in crate::server) enum Content {
    Nothing,
    /// Of this type.
    Text(&'static str),
    Json(SchemaOf),
    /// Server-sent events whose data is text, but for those that have a name.
    TextEvents,
    /// Server-sent events whose data is JSON.
    Events(SchemaOf),
    /// JSON, a value a line.
    Lines(SchemaOf),
}

/// Where a model is looked up and loaded.
pub(in crate::server) const LOADING: &[ErrorKind] =
    &[ErrorKind::ModelNotFound, ErrorKind::ModelFailed, ErrorKind::Overloaded];
/// Where a model computes.
pub(in crate::server) const COMPUTING: &[ErrorKind] =
    &[ErrorKind::ModelNotFound, ErrorKind::ModelFailed, ErrorKind::PromptTooLong, ErrorKind::Overloaded];
