//! The request body of `POST /v1/messages` and of `POST /v1/messages/count_tokens`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::turns::{self, Blocks, Turn};
use crate::api::shimmy::GenerateRequest;
use crate::api::{BadRequest, StopList, is_empty};
use crate::chat::{ChatOptions, Message, Role, Tool, ToolChoice};
use crate::constrain::Constraint;
use crate::engine::Priority;
use crate::runner::{GenerateSpec, Input};

/// What is absent takes the defaults of shimmy's own dialect.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.MessagesRequest", description = "A conversation to answer.")]
struct Fields {
    model: String,
    messages: Vec<Turn>,
    system: Option<Blocks>,
    /// Required, but where tokens are counted.
    max_tokens: Option<u32>,
    #[serde(default)]
    stop_sequences: Vec<String>,
    #[serde(default)]
    stream: bool,
    #[schemars(range(min = 0.0, max = 100.0))]
    temperature: Option<f32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f32>,
    top_k: Option<u32>,
    #[serde(default)]
    tools: Vec<ToolField>,
    tool_choice: Option<ChoiceField>,
    thinking: Option<Thinking>,
    output_config: Option<OutputConfig>,
    // Not Anthropic's, but as in the other dialects.
    #[schemars(range(min = 0.0, max = 1.0))]
    min_p: Option<f32>,
    #[schemars(range(min = 0.01, max = 100.0))]
    repeat_penalty: Option<f32>,
    seed: Option<i64>,
    #[serde(default)]
    ignore_eos: bool,
    #[serde(default)]
    priority: Priority,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.Tool")]
struct ToolField {
    /// Absent, or `custom`, for a tool that the client describes itself.
    #[serde(rename = "type")]
    kind: Option<String>,
    name: String,
    #[serde(default)]
    description: String,
    input_schema: Option<Map<String, Value>>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.ToolChoice")]
struct ChoiceField {
    #[serde(rename = "type")]
    kind: ChoiceKind,
    name: Option<String>,
    #[serde(default)]
    disable_parallel_tool_use: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "anthropic.ToolChoiceType")]
enum ChoiceKind {
    Auto,
    Any,
    Tool,
    None,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.Thinking")]
struct Thinking {
    #[serde(rename = "type")]
    kind: ThinkingKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "anthropic.ThinkingType")]
enum ThinkingKind {
    Enabled,
    Disabled,
    /// As the model likes, which for a template is to let it.
    Adaptive,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.OutputConfig")]
struct OutputConfig {
    format: Option<Format>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.Format")]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    schema: Option<Map<String, Value>>,
}

/// Fields whose meaning would be lost if we passed over them.
const NOT_SERVED: &[&str] = &["container", "mcp_servers", "output_format"];

/// Fields that hold somebody else's JSON, in which null means something.
const FOREIGN: &[&str] = &["input", "input_schema", "schema"];

/// `messages[0].content: …` is `messages.0.content: …` in this dialect.
fn dotted(BadRequest(message): BadRequest) -> BadRequest {
    BadRequest(match message.split_once(": ") {
        Some((path, why)) => format!("{}: {why}", path.replace('[', ".").replace(']', "")),
        None => message,
    })
}

/// A request, and what of it has no effect here.
#[derive(Clone, Debug)]
pub struct MessagesRequest {
    spec: GenerateSpec,
    streams: bool,
    /// Paths of what is passed over, e.g. `metadata`, `messages.0.content.0.cache_control`.
    pub ignored: Vec<String>,
}

crate::api::schema::described_by!(MessagesRequest, Fields);

impl MessagesRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type, out of range, or asks for what is not served.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        crate::api::drop_nulls(&mut body, FOREIGN);
        for field in NOT_SERVED {
            if body.get(*field).is_some_and(|value| !is_empty(value)) {
                return Err(BadRequest(format!("`{field}` is not served by this version")));
            }
        }
        let (mut fields, mut ignored) = crate::api::from_value_noting_ignored::<Fields>(body).map_err(dotted)?;
        let turns = std::mem::take(&mut fields.messages);
        if turns.is_empty() {
            return Err(BadRequest("`messages` is empty".into()));
        }
        let messages = turns::messages(fields.system.take(), turns)?;
        ignored.retain(|path| !NOT_SERVED.contains(&path.as_str()));
        let streams = fields.stream;
        Ok(Self { spec: fields.into_spec(messages)?, streams, ignored })
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.streams
    }

    /// What to generate.
    ///
    /// # Errors
    /// `max_tokens` is missing, or the assistant's turn would have to be continued.
    pub fn into_spec(self) -> Result<GenerateSpec, BadRequest> {
        if self.spec.max_tokens.is_none() {
            return Err(BadRequest("`max_tokens` is missing".into()));
        }
        match &self.spec.input {
            Input::Messages(messages) if messages.last().is_some_and(|last| last.role == Role::Assistant) => {
                Err(BadRequest(
                    "`messages` ends with a turn of the assistant, and continuing one is not served by this version; \
                     end with a turn of the user"
                        .into(),
                ))
            }
            _ => Ok(self.spec),
        }
    }

    /// What to count the tokens of.
    #[must_use]
    pub fn into_counted(self) -> GenerateSpec {
        self.spec
    }
}

impl Fields {
    fn into_spec(self, messages: Vec<Message>) -> Result<GenerateSpec, BadRequest> {
        let tools = self.tools.into_iter().enumerate().map(|(index, tool)| tool.into_tool(index));
        let tools = tools.collect::<Result<Vec<_>, _>>()?;
        let parallel_tool_calls = !self.tool_choice.as_ref().is_some_and(|choice| choice.disable_parallel_tool_use);
        let tool_choice = self.tool_choice.map_or(Ok(ToolChoice::Auto), |choice| choice.into_choice(&tools))?;
        // Without being asked, Anthropic's models do not think.
        let thinking = self.thinking.is_some_and(|thinking| thinking.kind != ThinkingKind::Disabled);
        let format = self.output_config.and_then(|config| config.format);
        let request = GenerateRequest {
            model: self.model,
            messages: Some(messages),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed.map(crate::api::seed),
            stop: Some(StopList::Many(self.stop_sequences)),
            priority: self.priority,
            ignore_eos: self.ignore_eos,
            ..GenerateRequest::default()
        };
        Ok(GenerateSpec {
            chat: ChatOptions {
                tools,
                tool_choice,
                parallel_tool_calls,
                thinking: Some(thinking),
                parse: true,
                ..ChatOptions::default()
            },
            constraint: format.map(Format::into_constraint).transpose()?,
            ..request.into_spec()?
        })
    }
}

impl ToolField {
    fn into_tool(self, index: usize) -> Result<Tool, BadRequest> {
        if let Some(kind) = self.kind.filter(|kind| kind != "custom") {
            return Err(BadRequest(format!(
                "tools.{index}: tools of type {kind:?} are not served by this version; \
                 describe a tool of your own with `input_schema`"
            )));
        }
        let Some(schema) = self.input_schema else {
            return Err(BadRequest(format!("tools.{index}.input_schema is missing")));
        };
        Ok(Tool { name: self.name, description: self.description, parameters: Value::Object(schema) })
    }
}

impl ChoiceField {
    fn into_choice(self, tools: &[Tool]) -> Result<ToolChoice, BadRequest> {
        let must_call = matches!(self.kind, ChoiceKind::Any | ChoiceKind::Tool);
        if must_call && tools.is_empty() {
            return Err(BadRequest("tool_choice asks for a tool, and `tools` is empty".into()));
        }
        Ok(match (self.kind, self.name) {
            (ChoiceKind::Auto, _) => ToolChoice::Auto,
            (ChoiceKind::Any, _) => ToolChoice::Required,
            (ChoiceKind::None, _) => ToolChoice::None,
            (ChoiceKind::Tool, None) => return Err(BadRequest("tool_choice.name is missing".into())),
            (ChoiceKind::Tool, Some(name)) if tools.iter().any(|tool| tool.name == name) => ToolChoice::Named(name),
            (ChoiceKind::Tool, Some(name)) => {
                return Err(BadRequest(format!("tool_choice.name is {name:?}, and `tools` has no tool of this name")));
            }
        })
    }
}

impl Format {
    fn into_constraint(self) -> Result<Constraint, BadRequest> {
        let at = "output_config.format";
        if self.kind != "json_schema" {
            return Err(BadRequest(format!(
                "{at}: {:?} is not served by this version; use \"json_schema\"",
                self.kind
            )));
        }
        let schema = self.schema.ok_or_else(|| BadRequest(format!("{at}.schema is missing")))?;
        Ok(Constraint::JsonSchema(Value::Object(schema)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::MessagesRequest;
    use crate::chat::{Message, Role, ToolCall, ToolChoice};
    use crate::constrain::Constraint;
    use crate::runner::{GenerateSpec, Input};

    fn hello() -> Value {
        json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "user", "content": "hello" }] })
    }

    fn with(more: Value) -> Value {
        let mut body = hello();
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body
    }

    fn spec(more: Value) -> GenerateSpec {
        MessagesRequest::from_value(with(more)).and_then(MessagesRequest::into_spec).expect("it is served")
    }

    fn refused(more: Value) -> String {
        MessagesRequest::from_value(with(more)).and_then(MessagesRequest::into_spec).expect_err("it is refused").0
    }

    fn tool() -> Value {
        json!({ "name": "f", "description": "does", "input_schema": { "type": "object", "default": null } })
    }

    #[test]
    fn blocks_become_messages() {
        let conversation = json!({
            "system": [{ "type": "text", "text": "be" }, { "type": "text", "text": "brief" }],
            "messages": [
                { "role": "user", "content": "a" },
                { "role": "user", "content": [{ "type": "text", "text": "b" }] },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "hm", "signature": "" },
                    { "type": "redacted_thinking", "data": "x" },
                    { "type": "text", "text": "c", "citations": null },
                    { "type": "tool_use", "id": "1", "name": "f", "input": { "x": null }, "caller": null },
                    { "type": "tool_use", "id": "2", "name": "g", "input": {} },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "1", "content": "d" },
                    { "type": "text", "text": "f" },
                    { "type": "tool_result", "tool_use_id": "2", "is_error": true,
                      "content": [{ "type": "text", "text": "e", "cache_control": { "type": "ephemeral" } }] },
                ] },
            ],
        });
        let request = MessagesRequest::from_value(with(conversation)).expect("it is served");
        assert_eq!(request.ignored, ["messages.2.content.1.data", "messages.3.content.2.content.0.cache_control"]);
        let call = |id: &str, name: &str, arguments: &str| ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        };
        let result = |id: &str, name: &str, text: &str| Message {
            tool_call_id: Some(id.into()),
            name: Some(name.into()),
            ..Message::new(Role::Tool, text)
        };
        let expected = vec![
            Message::new(Role::System, "be\nbrief"),
            Message::new(Role::User, "a\nb"),
            Message {
                reasoning_content: Some("hm".into()),
                tool_calls: vec![call("1", "f", "{\"x\":null}"), call("2", "g", "{}")],
                ..Message::new(Role::Assistant, "c")
            },
            result("1", "f", "d"),
            result("2", "g", "Error: e"),
            Message::new(Role::User, "f"),
        ];
        assert_eq!(request.into_spec().expect("it is in range").input, Input::Messages(expected));
    }

    #[test]
    fn tools_thoughts_and_forms_reach_the_spec() {
        let chat = spec(json!({})).chat;
        assert_eq!((chat.thinking, chat.parallel_tool_calls, chat.parse), (Some(false), true, true));
        for (thinking, expected) in [("enabled", true), ("adaptive", true), ("disabled", false)] {
            let chat = spec(json!({ "thinking": { "type": thinking, "budget_tokens": 1024 } })).chat;
            assert_eq!(chat.thinking, Some(expected), "{thinking}");
        }
        for (choice, expected) in [
            (json!({ "type": "auto" }), ToolChoice::Auto),
            (json!({ "type": "any" }), ToolChoice::Required),
            (json!({ "type": "none" }), ToolChoice::None),
            (json!({ "type": "tool", "name": "f" }), ToolChoice::Named("f".into())),
        ] {
            assert_eq!(spec(json!({ "tools": [tool()], "tool_choice": choice })).chat.tool_choice, expected);
        }
        let one = json!({ "type": "auto", "disable_parallel_tool_use": true });
        let chat = spec(json!({ "tools": [tool()], "tool_choice": one })).chat;
        assert!(!chat.parallel_tool_calls);
        assert_eq!((&chat.tools[0].name, &chat.tools[0].parameters), (&"f".to_owned(), &tool()["input_schema"]));
        let format = json!({ "format": { "type": "json_schema", "schema": { "enum": [null] } } });
        let expected = Constraint::JsonSchema(json!({ "enum": [null] }));
        assert_eq!(spec(json!({ "output_config": format })).constraint, Some(expected));
    }

    #[test]
    fn what_has_no_effect_is_listed() {
        let body = with(json!({
            "metadata": { "user_id": "me" }, "service_tier": "auto", "container": null, "mcp_servers": [],
            "thinking": { "type": "enabled", "budget_tokens": 1024 },
            "system": [{ "type": "text", "text": "x", "cache_control": { "type": "ephemeral" } }],
            "tools": [{ "name": "f", "input_schema": {}, "strict": true }],
        }));
        let request = MessagesRequest::from_value(body).expect("it is served");
        let expected =
            ["metadata", "service_tier", "thinking.budget_tokens", "system.0.cache_control", "tools.0.strict"];
        assert_eq!(request.ignored, expected);
    }

    #[test]
    fn what_would_be_missed_is_refused() {
        let content = |blocks: Value| refused(json!({ "messages": [{ "role": "user", "content": blocks }] }));
        assert_eq!(
            content(json!([{ "type": "text", "text": "a" }, { "type": "document", "source": { "type": "text" } }])),
            "messages.0.content.1: blocks of type \"document\" are not served by this version"
        );
        let image = |source: Value| content(json!([{ "type": "image", "source": source }]));
        assert_eq!(
            image(json!({ "type": "url", "url": "https://x.org/a.png" })),
            "messages.0.content.0.source.type is \"url\"; images are taken as \"base64\""
        );
        assert_eq!(image(json!({ "type": "base64" })), "messages.0.content.0.source.data is missing");
        assert!(
            image(json!({ "type": "base64", "data": "-" })).starts_with("messages.0.content.0.source.data: it is not")
        );
        let inner = json!([{ "type": "tool_result", "tool_use_id": "1", "content": [{ "type": "document" }] }]);
        assert!(content(inner).starts_with("messages.0.content.0.content.0: blocks of type \"document\""));
        assert_eq!(content(json!([{ "type": "text" }])), "messages.0.content.0.text is missing");
        assert_eq!(content(json!([])), "messages.0.content is empty");
        assert!(content(json!([{ "type": "tool_use" }])).contains("has no place in a turn of the user"));
        assert!(content(json!(5)).starts_with("messages.0.content: invalid type: integer `5`, expected a text or"));
        assert!(
            refused(json!({ "messages": [{ "role": "assistant", "content": "so" }] }))
                .contains("continuing one is not")
        );
        assert_eq!(refused(json!({ "messages": [] })), "`messages` is empty");
        assert_eq!(refused(json!({ "max_tokens": null })), "`max_tokens` is missing");
        assert!(refused(json!({ "thinking": { "type": "sometimes" } })).starts_with("thinking.type: unknown variant"));
        assert!(
            refused(json!({ "tools": [{ "type": "web_search_20250305", "name": "web_search" }] }))
                .starts_with("tools.0: tools of type \"web_search_20250305\" are not served")
        );
        assert_eq!(refused(json!({ "tools": [{ "name": "f" }] })), "tools.0.input_schema is missing");
        let forced = |choice: Value| refused(json!({ "tools": [tool()], "tool_choice": choice }));
        assert!(forced(json!({ "type": "tool", "name": "g" })).contains("`tools` has no tool of this name"));
        assert_eq!(forced(json!({ "type": "tool" })), "tool_choice.name is missing");
        assert!(refused(json!({ "tool_choice": { "type": "any" } })).contains("`tools` is empty"));
        assert_eq!(refused(json!({ "container": "c" })), "`container` is not served by this version");
        let format = json!({ "format": { "type": "regex" } });
        assert!(refused(json!({ "output_config": format })).contains("use \"json_schema\""));
    }

    /// An agent counts whatever it has so far.
    #[test]
    fn counting_takes_what_cannot_be_continued() {
        let mut body = with(json!({ "messages": [{ "role": "assistant", "content": [] }] }));
        body.as_object_mut().expect("an object").remove("max_tokens");
        let spec = MessagesRequest::from_value(body).expect("it is served").into_counted();
        assert_eq!(spec.input, Input::Messages(vec![Message::new(Role::Assistant, "")]));
    }
}
