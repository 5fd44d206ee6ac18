//! JSON Schemas of what cannot derive one: a type that is read or written by hand, and a request that is read from another type.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::chat::ToolCall;
use crate::registry::KeepAlive;

/// The schema of a request is that of the fields that it is read from.
macro_rules! described_by {
    ($request:ty, $fields:ty) => {
        impl schemars::JsonSchema for $request {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                <$fields as schemars::JsonSchema>::schema_name()
            }

            fn schema_id() -> std::borrow::Cow<'static, str> {
                <$fields as schemars::JsonSchema>::schema_id()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$fields as schemars::JsonSchema>::json_schema(generator)
            }
        }
    };
}
pub(super) use described_by;

/// A text, or what `list` describes.
pub(super) fn text_or(list: Schema) -> Schema {
    json_schema!({ "anyOf": [{ "type": "string" }, list] })
}

impl JsonSchema for ToolCall {
    fn schema_name() -> Cow<'static, str> {
        "ToolCallInput".into()
    }

    /// As it is read.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A tool that the model wanted to be run.",
            "type": "object",
            "properties": {
                "id": { "type": "string" },
                "function": {
                    "type": "object",
                    "properties": {
                        "name": { "type": "string" },
                        "arguments": { "description": "A JSON object, or the text of one.", "type": ["object", "string", "null"] },
                    },
                    "required": ["name"],
                },
                "custom": {
                    "description": "In place of `function`.",
                    "type": "object",
                    "properties": { "name": { "type": "string" }, "input": { "type": "string" } },
                    "required": ["name", "input"],
                },
            },
        })
    }
}

impl JsonSchema for KeepAlive {
    fn schema_name() -> Cow<'static, str> {
        "ollama.KeepAlive".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How long the model stays loaded after the answer: seconds, or a duration such as \"5m\"; negative means for ever.",
            "type": ["number", "string"],
        })
    }
}
