//! Tools and the form of an answer, as OpenAI writes them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::custom::{Custom, Customs, Format};
use crate::api::BadRequest;
use crate::chat::{Tool, ToolChoice};
use crate::constrain::Constraint;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.Tool")]
pub(super) struct ToolField {
    r#type: String,
    function: Option<Function>,
    custom: Option<Custom>,
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
#[schemars(rename = "openai.FlatTool", description = "A function or a custom tool that the model may ask for.")]
pub(super) struct FlatTool {
    r#type: String,
    name: Option<String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Value,
    #[serde(rename = "strict")]
    _strict: Option<bool>,
    /// Of a custom tool.
    format: Option<Format>,
}

impl FlatTool {
    pub fn nested(self) -> ToolField {
        let Self { r#type, name, description, parameters, _strict, format } = self;
        let name = name.unwrap_or_default();
        if r#type == "custom" {
            return ToolField { r#type, function: None, custom: Some(Custom { name, description, format }) };
        }
        ToolField { r#type, function: Some(Function { name, description, parameters, _strict }), custom: None }
    }
}

/// What the model may or must call.
#[derive(Clone, Debug, Default)]
pub(super) struct Offer {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    pub custom: Customs,
}

/// # Errors
/// A tool or a choice that is not served.
pub(super) fn offer(fields: Vec<ToolField>, choice: Option<ToolChoiceField>) -> Result<Offer, BadRequest> {
    let mut tools = tools(fields)?;
    let choice = match choice {
        Some(ToolChoiceField::Named(NamedTool { r#type, allowed_tools, mode, tools: among, .. }))
            if r#type == "allowed_tools" =>
        {
            let (mode, among) =
                allowed_tools.map_or((mode, among), |Allowed { mode, tools }| (Some(mode), Some(tools)));
            allowed(among.unwrap_or_default(), &mut tools)?;
            Some(ToolChoiceField::Mode(mode.unwrap_or_else(|| "auto".into())))
        }
        choice => choice,
    };
    let (tools, forms): (Vec<Tool>, Vec<Option<Option<Constraint>>>) = tools.into_iter().unzip();
    let choice = tool_choice(choice, &tools)?;
    let custom = forms.into_iter().enumerate().filter_map(|(index, form)| Some((index, form?))).collect();
    let custom = Customs::new(custom, &tools, &choice)?;
    Ok(Offer { tools, choice, custom })
}

/// A tool, and where it is a custom one, the form of its text.
type Read = (Tool, Option<Option<Constraint>>);

/// Leaves the tools that are among these.
fn allowed(among: Vec<NamedTool>, tools: &mut Vec<Read>) -> Result<(), BadRequest> {
    let names: Vec<String> = among.into_iter().map(|tool| tool.name().unwrap_or_default()).collect();
    if let Some(name) = names.iter().find(|name| tools.iter().all(|(tool, _)| tool.name != **name)) {
        return Err(BadRequest(format!("tool_choice allows {name:?}, which is not among `tools`")));
    }
    tools.retain(|(tool, _)| names.contains(&tool.name));
    Ok(())
}

fn tools(fields: Vec<ToolField>) -> Result<Vec<Read>, BadRequest> {
    let mut tools: Vec<Read> = Vec::with_capacity(fields.len());
    for (index, field) in fields.into_iter().enumerate() {
        let refuse = |why: &str| Err(BadRequest(format!("tools[{index}]: {why}")));
        let (tool, form) = match (field.r#type.as_str(), field.function, field.custom) {
            ("function", Some(Function { name, description, parameters, .. }), _) => {
                (Tool { name, description, parameters }, None)
            }
            ("custom", _, Some(custom)) => match custom.into_tool() {
                Ok((tool, form)) => (tool, Some(form)),
                Err(why) => return refuse(&why),
            },
            (missing @ ("function" | "custom"), ..) => return refuse(&format!("`{missing}` is missing")),
            (other, ..) => return refuse(&format!("tools of type {other:?} are not served by this version")),
        };
        let name = &tool.name;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
            return refuse(&format!("the name {name:?} must have 1 to {MAX_NAME} letters, digits, `_`, `-` or `.`"));
        }
        if tools.iter().any(|(other, _)| other.name == *name) {
            return refuse(&format!("the name {name:?} is taken by another tool"));
        }
        tools.push((tool, form));
    }
    Ok(tools)
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "openai.ToolChoice")]
pub(super) enum ToolChoiceField {
    Mode(String),
    Named(NamedTool),
}

/// A tool, or several with the type `allowed_tools`. Responses have the fields of what is named beside its type.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.NamedTool")]
pub(super) struct NamedTool {
    r#type: String,
    function: Option<ToolName>,
    custom: Option<ToolName>,
    name: Option<String>,
    allowed_tools: Option<Allowed>,
    mode: Option<String>,
    tools: Option<Vec<NamedTool>>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.ToolName")]
struct ToolName {
    name: String,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.AllowedTools")]
struct Allowed {
    mode: String,
    tools: Vec<NamedTool>,
}

impl NamedTool {
    fn name(self) -> Option<String> {
        let name = match self.r#type.as_str() {
            "function" => self.function,
            "custom" => self.custom,
            _ => return None,
        };
        name.map(|tool| tool.name).or(self.name)
    }
}

fn tool_choice(field: Option<ToolChoiceField>, tools: &[Tool]) -> Result<ToolChoice, BadRequest> {
    let choice = match field {
        None => return Ok(ToolChoice::Auto),
        Some(ToolChoiceField::Mode(mode)) => match mode.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            other => {
                return Err(BadRequest(format!("tool_choice is {other:?}; it can be none, auto, required or a tool")));
            }
        },
        Some(ToolChoiceField::Named(tool)) => {
            let kind = tool.r#type.clone();
            let Some(name) = tool.name() else {
                return Err(BadRequest(format!("tool_choice of type {kind:?} is not served by this version")));
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
