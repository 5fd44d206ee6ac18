//! One operation: a method on a path, who answers it, and what the API's document says about it.

use std::borrow::Cow;

use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::routing::{self, MethodRouter};
use schemars::JsonSchema;

use super::openapi::{Answer, Content, Operation, Parameter, Place, schema_of};
use super::state::AppState;
use crate::api::ErrorKind;

pub(super) struct Route {
    pub method: Method,
    /// As axum writes it: `/v1/models/{*id}`.
    pub path: Cow<'static, str>,
    pub handler: MethodRouter<AppState>,
    pub operation: Operation,
}

/// The operations of one dialect.
pub(super) struct Table {
    /// What groups them in the document.
    pub tag: &'static str,
    pub about: &'static str,
    pub routes: Vec<Route>,
}

macro_rules! methods {
    ($($name:ident => $method:ident),*) => {$(
        pub(super) fn $name<H, T>(path: &'static str, handler: H, summary: &'static str) -> Route
        where
            H: Handler<T, AppState>,
            T: 'static,
        {
            let operation = Operation { summary, ..Operation::default() };
            Route { method: Method::$method, path: path.into(), handler: routing::$name(handler), operation }
        }
    )*};
}

methods!(get => GET, head => HEAD, post => POST, delete => DELETE);

impl Route {
    /// The same operation below another root.
    pub fn below(mut self, root: &str) -> Self {
        self.path = format!("{root}{}", self.path).into();
        self
    }

    /// More than the summary says, in Markdown.
    pub fn about(mut self, text: &'static str) -> Self {
        self.operation.about = text;
        self
    }

    /// The body is a `T`. Said again, it may also be another type.
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        self.operation.takes.push(schema_of::<T>);
        self
    }

    /// There may be a body, which is a `T`.
    pub fn may_take<T: JsonSchema>(mut self) -> Self {
        self.operation.body_is_optional = true;
        self.takes::<T>()
    }

    /// 200, with a `T`.
    pub fn answers<T: JsonSchema>(self) -> Self {
        self.answers_as::<T>(StatusCode::OK, "Done")
    }

    pub fn answers_as<T: JsonSchema>(self, status: StatusCode, about: &'static str) -> Self {
        self.answer(status, about, Content::Json(schema_of::<T>))
    }

    /// Server-sent events whose data is text.
    pub fn text_events(self) -> Self {
        self.answer(StatusCode::OK, "Done", Content::TextEvents)
    }

    /// Server-sent events whose data is a `T`.
    pub fn events<T: JsonSchema>(self) -> Self {
        self.answer(StatusCode::OK, "Done", Content::Events(schema_of::<T>))
    }

    /// NDJSON: a `T` a line.
    pub fn lines<T: JsonSchema>(self) -> Self {
        self.answer(StatusCode::OK, "Done", Content::Lines(schema_of::<T>))
    }

    /// 200, with a body of this type that is no JSON.
    pub fn text(self, content_type: &'static str) -> Self {
        self.answer(StatusCode::OK, "Done", Content::Text(content_type))
    }

    /// This status without a body.
    pub fn nothing(self, status: StatusCode, about: &'static str) -> Self {
        self.answer(status, about, Content::Nothing)
    }

    fn answer(mut self, status: StatusCode, about: &'static str, content: Content) -> Self {
        self.operation.answers.push(Answer { status, about, content });
        self
    }

    /// Errors beside those that any request with such a path and body can meet.
    pub fn fails(mut self, kinds: &[ErrorKind]) -> Self {
        self.operation.fails.extend(kinds);
        self
    }

    /// A parameter that may be left out. With `values` it is one of them.
    pub fn query(self, name: &'static str, values: &'static [&'static str], about: &'static str) -> Self {
        self.parameter(Parameter { name, place: Place::Query, about, values })
    }

    /// A request header that may be left out.
    pub fn header(self, name: &'static str, about: &'static str) -> Self {
        self.parameter(Parameter { name, place: Place::Header, about, values: &[] })
    }

    fn parameter(mut self, parameter: Parameter) -> Self {
        self.operation.parameters.push(parameter);
        self
    }
}
