//! Tools and the form of an answer, as OpenAI writes them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::api::BadRequest;
use crate::chat::{Tool, ToolChoice};
use crate::constrain::Constraint;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.Tool")]
pub(super) struct ToolField {
    r#type: String,
    function: Option<Function>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.Function")]
struct Function {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Value,
    /// Arguments of forced calls always keep to the schema.
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

/// Letters of a tool's name.
const MAX_NAME: usize = 128;

/// As responses write it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.FlatTool", description = "A function that the model may ask for.")]
pub(super) struct FlatTool {
    r#type: String,
    name: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Value,
    #[serde(rename = "strict")]
    _strict: Option<bool>,
}

impl FlatTool {
    pub fn nested(self) -> ToolField {
        let Self { r#type, name, description, parameters, _strict } = self;
        let name = name.unwrap_or_default();
        ToolField { r#type, function: Some(Function { name, description, parameters, _strict }) }
    }
}

/// # Errors
/// A tool that is no function, or has no name of its own.
pub(super) fn tools(fields: Vec<ToolField>) -> Result<Vec<Tool>, BadRequest> {
    let mut tools: Vec<Tool> = Vec::with_capacity(fields.len());
    for (index, field) in fields.into_iter().enumerate() {
        let refuse = |why: &str| Err(BadRequest(format!("tools[{index}]: {why}")));
        if field.r#type != "function" {
            return refuse(&format!("tools of type {:?} are not served by this version", field.r#type));
        }
        let Some(Function { name, description, parameters, .. }) = field.function else {
            return refuse("`function` is missing");
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
            return refuse(&format!("the name {name:?} must have 1 to {MAX_NAME} letters, digits, `_`, `-` or `.`"));
        }
        if tools.iter().any(|tool| tool.name == name) {
            return refuse(&format!("the name {name:?} is taken by another tool"));
        }
        tools.push(Tool { name, description, parameters });
    }
    Ok(tools)
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "openai.ToolChoice")]
pub(super) enum ToolChoiceField {
    Mode(String),
    /// Responses have the name beside the type.
    Named {
        r#type: String,
        function: Option<FunctionName>,
        name: Option<String>,
    },
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.FunctionName")]
pub(super) struct FunctionName {
    name: String,
}

/// # Errors
/// A choice that is unknown, or of a tool that is not there.
pub(super) fn tool_choice(field: Option<ToolChoiceField>, tools: &[Tool]) -> Result<ToolChoice, BadRequest> {
    let choice = match field {
        None => return Ok(ToolChoice::Auto),
        Some(ToolChoiceField::Mode(mode)) => match mode.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            other => {
                return Err(BadRequest(format!(
                    "tool_choice is {other:?}; it can be none, auto, required or a function"
                )));
            }
        },
        Some(ToolChoiceField::Named { r#type, function, name }) => {
            let name = function.map(|function| function.name).or(name);
            let Some(name) = name.filter(|_| r#type == "function") else {
                return Err(BadRequest(format!("tool_choice of type {:?} is not served by this version", r#type)));
            };
            if tools.iter().all(|tool| tool.name != name) {
                return Err(BadRequest(format!("tool_choice names {name:?}, which is not among `tools`")));
            }
            ToolChoice::Named(name)
        }
    };
    if choice == ToolChoice::Required && tools.is_empty() {
        return Err(BadRequest("tool_choice is \"required\" and there are no `tools`".into()));
    }
    Ok(choice)
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.ResponseFormat")]
pub(super) struct ResponseFormat {
    r#type: String,
    json_schema: Option<SchemaField>,
    /// llama.cpp's way to say the same, and that of responses.
    schema: Option<Value>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "strict")]
    _strict: Option<bool>,
    #[serde(rename = "description")]
    _description: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.JsonSchemaFormat")]
struct SchemaField {
    schema: Option<Value>,
    // Neither has an effect: what a form asks for is always kept to.
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "strict")]
    _strict: Option<bool>,
    #[serde(rename = "description")]
    _description: Option<String>,
}

/// `at` is the field that the format came in, `schema_at` the one for its schema.
///
/// # Errors
/// A form that is unknown or not complete.
pub(super) fn constraint(
    format: Option<ResponseFormat>,
    at: &str,
    schema_at: &str,
) -> Result<Option<Constraint>, BadRequest> {
    let Some(ResponseFormat { r#type, json_schema, schema, .. }) = format else { return Ok(None) };
    match (r#type.as_str(), json_schema.and_then(|field| field.schema).or(schema)) {
        ("text", _) => Ok(None),
        ("json_object", None) => Ok(Some(Constraint::JsonObject)),
        ("json_object" | "json_schema", Some(schema)) => Ok(Some(Constraint::JsonSchema(schema))),
        ("json_schema", None) => Err(BadRequest(format!("{schema_at} is missing"))),
        (other, _) => Err(BadRequest(format!("{at}.type is {other:?}; it can be text, json_object or json_schema"))),
    }
}
