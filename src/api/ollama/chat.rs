//! Ollama's request body of `POST /api/chat`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::common::{Common, read};
use crate::api::BadRequest;
use crate::api::shimmy::GenerateRequest;
use crate::chat::{Image, Message, Role, Tool, ToolCall};
use crate::registry::KeepAlive;
use crate::runner::GenerateSpec;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ollama.ChatFields")]
struct Fields {
    model: String,
    messages: Option<Vec<Turn>>,
    tools: Option<Vec<ToolField>>,
    stream: Option<bool>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ollama.Turn")]
struct Turn {
    role: Role,
    content: Option<String>,
    thinking: Option<String>,
    /// In base64; they stand before the text.
    images: Option<Vec<Image>>,
    tool_calls: Option<Vec<ToolCall>>,
    /// Whose result it is.
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ollama.Tool")]
struct ToolField {
    #[serde(rename = "type")]
    kind: Option<String>,
    function: Function,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ollama.Function")]
struct Function {
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
}

/// A request, and what of it has no effect here.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(
    rename = "ollama.ChatRequest",
    description = "A conversation to answer. Without messages the model is loaded, or unloaded."
)]
pub struct ChatRequest {
    #[schemars(flatten)]
    fields: Fields,
    #[schemars(flatten)]
    common: Common,
    /// Paths of the fields that are passed over, e.g. `truncate`, `options.num_ctx`.
    #[schemars(skip)]
    pub ignored: Vec<String>,
}

impl ChatRequest {
    /// # Errors
    /// The first field that is missing or of a wrong type.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        let (fields, common, mut ignored) = read::<Fields>(body)?;
        // What our own answers have beside the function comes back with them.
        let is_a_calls = |path: &str| path.starts_with("messages.") && path.contains(".tool_calls.");
        ignored.retain(|path| !(is_a_calls(path) && (path.ends_with(".index") || path.ends_with(".type"))));
        Ok(Self { fields, common, ignored })
    }

    #[must_use]
    pub fn model(&self) -> &str {
        &self.fields.model
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.fields.stream.unwrap_or(true)
    }

    /// No messages ask for the model to be loaded, or unloaded, and for nothing else.
    #[must_use]
    pub fn only_loads(&self) -> bool {
        self.fields.messages.as_ref().is_none_or(Vec::is_empty)
    }

    /// How long the model stays after the answer, where the request says so.
    #[must_use]
    pub fn keep_alive(&self) -> Option<KeepAlive> {
        self.common.keep_alive
    }

    /// # Errors
    /// What is out of range, or is no text.
    pub fn into_spec(self) -> Result<GenerateSpec, BadRequest> {
        let Fields { model, messages, tools, .. } = self.fields;
        let messages = messages.unwrap_or_default().into_iter().map(Turn::into_message).collect();
        let tools = read_tools(tools.unwrap_or_default())?;
        let request = GenerateRequest { model, messages: Some(messages), ..GenerateRequest::default() };
        let mut spec = self.common.into_spec(request)?;
        spec.chat.tools = tools;
        // Ollama's clients expect any number of them.
        spec.chat.parallel_tool_calls = true;
        spec.chat.parse = true;
        Ok(spec)
    }
}

impl Turn {
    fn into_message(self) -> Message {
        Message {
            images: self.images.unwrap_or_default(),
            reasoning_content: self.thinking.filter(|text| !text.is_empty()),
            tool_calls: self.tool_calls.unwrap_or_default(),
            tool_call_id: self.tool_call_id,
            name: self.tool_name,
            ..Message::new(self.role, self.content.unwrap_or_default())
        }
    }
}

fn read_tools(fields: Vec<ToolField>) -> Result<Vec<Tool>, BadRequest> {
    let mut tools: Vec<Tool> = Vec::with_capacity(fields.len());
    for (index, ToolField { kind, function }) in fields.into_iter().enumerate() {
        let Function { name, description, parameters } = function;
        if let Some(kind) = kind.filter(|kind| kind != "function") {
            return Err(BadRequest(format!("tools[{index}].type is {kind:?}; only \"function\" is served")));
        }
        if name.is_empty() || tools.iter().any(|tool| tool.name == name) {
            return Err(BadRequest(format!("tools[{index}]: the name {name:?} is empty or taken by another tool")));
        }
        let parameters = parameters.unwrap_or_else(|| json!({ "type": "object", "properties": {} }));
        tools.push(Tool { name, description: description.unwrap_or_default(), parameters });
    }
    Ok(tools)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::ChatRequest;
    use crate::chat::{Image, Message, Role, Tool, ToolCall};
    use crate::registry::KeepAlive;
    use crate::runner::{GenerateSpec, Input};

    fn spec(body: Value) -> Result<GenerateSpec, String> {
        ChatRequest::from_value(body).and_then(ChatRequest::into_spec).map_err(|error| error.0)
    }

    /// An answer of ours, and a tool's result, as clients send them back.
    #[test]
    fn a_round_of_tools() {
        let call =
            json!({ "id": "c1", "type": "function", "function": { "index": 0, "name": "f", "arguments": { "a": 1 } } });
        let body = json!({ "model": "m", "messages": [
            { "role": "user", "content": "hi", "images": ["aGk=", "eW8="] },
            { "role": "assistant", "thinking": "hm", "content": null, "tool_calls": [call] },
            { "role": "tool", "content": "3", "tool_name": "f", "tool_call_id": "c1" },
        ], "tools": [{ "type": "function", "function": { "name": "f", "strict": true } }] });
        let request = ChatRequest::from_value(body.clone()).expect("it is served");
        assert_eq!(request.ignored, ["tools.0.function.strict"]);
        assert!(request.streams() && !request.only_loads());
        let spec = request.into_spec().expect("in range");
        let asked = Message {
            reasoning_content: Some("hm".into()),
            tool_calls: vec![ToolCall { id: "c1".into(), name: "f".into(), arguments: r#"{"a":1}"#.into() }],
            ..Message::new(Role::Assistant, "")
        };
        let result =
            Message { tool_call_id: Some("c1".into()), name: Some("f".into()), ..Message::new(Role::Tool, "3") };
        let images = vec![Image::new(b"hi".to_vec()), Image::new(b"yo".to_vec())];
        let user = Message { images, ..Message::new(Role::User, "hi") };
        assert_eq!(spec.input, Input::Messages(vec![user, asked, result]));
        let parameters = json!({ "type": "object", "properties": {} });
        assert_eq!(spec.chat.tools, [Tool { name: "f".into(), description: String::new(), parameters }]);
        assert!(spec.chat.parse && spec.chat.parallel_tool_calls);
    }

    #[test]
    fn no_messages_load_or_unload() {
        let request = |body| ChatRequest::from_value(body).expect("it is served");
        assert!(request(json!({ "model": "m" })).only_loads());
        let unload = request(json!({ "model": "m", "messages": [], "keep_alive": "0s" }));
        assert!(unload.only_loads());
        assert_eq!(unload.keep_alive(), Some(KeepAlive::NOT));
        assert_eq!(request(json!({ "model": "m", "keep_alive": -1 })).keep_alive(), Some(KeepAlive::Forever));
    }

    #[test]
    fn what_would_be_missed_is_refused() {
        let with = |turn: Value, more: Value| {
            let mut body = json!({ "model": "m", "messages": [turn] });
            body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            spec(body).expect_err("it would be missed")
        };
        let turn = || json!({ "role": "user", "content": "x" });
        let image = json!({ "role": "user", "content": "x", "images": ["aGk=", "https://x.org/a.png"] });
        let why = "messages[0].images[1]: images are not fetched from elsewhere";
        assert!(with(image, json!({})).starts_with(why));
        let tools = json!({ "tools": [{ "type": "web", "function": { "name": "f" } }] });
        assert_eq!(with(turn(), tools), "tools[0].type is \"web\"; only \"function\" is served");
        let twice = json!({ "tools": [{ "function": { "name": "f" } }, { "function": { "name": "f" } }] });
        assert_eq!(with(turn(), twice), "tools[1]: the name \"f\" is empty or taken by another tool");
        assert!(with(turn(), json!({ "tools": [{}] })).starts_with("tools[0]: missing field `function`"));
        assert!(with(turn(), json!({ "options": { "top_k": "few" } })).starts_with("options.top_k: "));
        assert!(with(json!({ "role": "king" }), json!({})).starts_with("messages[0].role: "));
    }
}
