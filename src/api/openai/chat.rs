//! The request body of `POST /v1/chat/completions`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::custom::Customs;
use super::fields::{self, AsksForNothing, Common};
use super::tools::{self, Offer, ResponseFormat, ToolChoiceField, ToolField};
use super::turn::Turn;
use crate::api::shimmy::StreamOptions;
use crate::api::{BadRequest, is_empty};
use crate::chat::ChatOptions;
use crate::runner::{GenerateSpec, Input};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.ChatFields")]
struct Fields {
    messages: Vec<Turn>,
    stream_options: Option<StreamOptions>,
    /// The older name of `max_completion_tokens`.
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    #[schemars(range(min = 1, max = 128))]
    n: Option<u32>,
    #[serde(default)]
    tools: Vec<ToolField>,
    tool_choice: Option<ToolChoiceField>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    logprobs: bool,
    #[schemars(range(max = 20))]
    top_logprobs: Option<u32>,
    reasoning_effort: Option<String>,
    #[serde(default)]
    chat_template_kwargs: Map<String, Value>,
}

/// Other tokens whose probabilities are told.
pub(super) const MAX_TOP_LOGPROBS: u32 = 20;

/// A request, and what of it has no effect here.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "openai.ChatRequest", description = "A conversation to answer.")]
pub struct ChatRequest {
    #[schemars(flatten)]
    common: Common,
    #[schemars(flatten)]
    fields: Fields,
    #[schemars(skip)]
    offer: Offer,
    #[schemars(skip)]
    choices: u32,
    /// Paths of the fields that are passed over, e.g. `user`, `messages.0.name`.
    #[schemars(skip)]
    pub ignored: Vec<String>,
}

/// Fields whose meaning would be lost if we passed over them.
const NOT_SERVED: &[(&str, AsksForNothing)] = &[
    ("functions", is_empty),
    ("function_call", |value| value == "none" || value == "auto"),
    ("modalities", |value| *value == serde_json::json!(["text"])),
    ("audio", |_| false),
    ("web_search_options", |_| false),
    // Those of other local servers.
    ("continue_final_message", |value| value == false),
    ("add_generation_prompt", |value| value == true),
];

impl ChatRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type, or asks for what is not served.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        let (common, mut fields, mut ignored) = fields::read::<Fields>(&mut body, NOT_SERVED)?;
        for (index, turn) in fields.messages.iter().enumerate() {
            ignored.extend(turn.ignored().iter().map(|path| format!("messages.{index}.{path}")));
        }
        let choices = fields::choices(fields.n, 1)?;
        let offer = tools::offer(std::mem::take(&mut fields.tools), fields.tool_choice.take())?;
        Ok(Self { common, fields, offer, choices, ignored })
    }

    /// Those whose calls are told in another way.
    #[must_use]
    pub fn custom_tools(&self) -> Customs {
        self.offer.custom.clone()
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.common.stream
    }

    /// How many answers are wanted.
    #[must_use]
    pub fn choices(&self) -> u32 {
        self.choices
    }

    #[must_use]
    pub fn includes_usage(&self) -> bool {
        self.fields.stream_options.is_some_and(|options| options.include_usage)
    }

    /// # Errors
    /// What is out of range, or is no text.
    pub fn into_spec(self) -> Result<GenerateSpec, BadRequest> {
        let Self { mut common, mut fields, offer, .. } = self;
        let custom = offer.custom.clone();
        let mut chat = chat_options(&mut fields, offer)?;
        let format = fields.response_format.take();
        let format = tools::constraint(format, "response_format", "response_format.json_schema.schema")?;
        let mut constraint = common.form(format, "response_format", &chat)?;
        let logprobs = logprobs(&fields)?;
        if fields.messages.is_empty() {
            return Err(BadRequest("`messages` is empty".into()));
        }
        let messages = fields.messages.into_iter().enumerate().map(|(index, turn)| turn.into_message(index));
        let mut messages = messages.collect::<Result<Vec<_>, _>>()?;
        custom.force(&mut messages, &mut chat, &mut constraint);
        let spec = common.into_spec(Input::Messages(messages), fields.max_completion_tokens.or(fields.max_tokens))?;
        Ok(GenerateSpec { chat, constraint, logprobs, ..spec })
    }
}

fn chat_options(fields: &mut Fields, offer: Offer) -> Result<ChatOptions, BadRequest> {
    let mut template_args = std::mem::take(&mut fields.chat_template_kwargs);
    let thinking = fields::thinking(fields.reasoning_effort.as_deref(), "reasoning_effort", &mut template_args)?;
    Ok(ChatOptions {
        tools: offer.tools,
        tool_choice: offer.choice,
        parallel_tool_calls: fields.parallel_tool_calls.unwrap_or(true),
        thinking,
        template_args,
        parse: true,
    })
}

fn logprobs(fields: &Fields) -> Result<Option<u32>, BadRequest> {
    match (fields.logprobs, fields.top_logprobs) {
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(BadRequest("`top_logprobs` needs `logprobs`: true".into())),
        (true, Some(n)) if n > MAX_TOP_LOGPROBS => {
            Err(BadRequest(format!("top_logprobs is {n}; it must be from 0 to {MAX_TOP_LOGPROBS}")))
        }
        (true, n) => Ok(Some(n.unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::ChatRequest;
    use crate::chat::{Message, Role};
    use crate::chat::{Tool, ToolCall, ToolChoice};
    use crate::constrain::Constraint;
    use crate::runner::Input;

    /// Clients send what they have no value for as null, and an answer back as it came.
    #[test]
    fn nulls_are_absent_fields() {
        let body = json!({
            "model": "m", "stream": null, "stream_options": { "include_usage": null }, "ignore_eos": null, "priority": null,
            "seed": null, "stop": null, "tools": null, "user": null,
            "messages": [
                { "role": "user", "content": "a" },
                { "role": "assistant", "content": "b", "refusal": null, "audio": null, "function_call": null, "tool_calls": null },
                { "role": "assistant", "content": [{ "type": "refusal", "refusal": "c" }], "tool_calls": [] },
            ],
        });
        let request = ChatRequest::from_value(body).expect("it is served");
        assert_eq!(request.ignored, [""; 0]);
        assert!(!request.streams());
        let spec = request.into_spec().expect("it is in range");
        let Input::Messages(messages) = spec.input else { panic!("messages") };
        assert_eq!(messages[2], Message::new(Role::Assistant, "c"));
    }

    fn spec(more: serde_json::Value) -> Result<crate::runner::GenerateSpec, String> {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }] });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        ChatRequest::from_value(body).and_then(ChatRequest::into_spec).map_err(|error| error.0)
    }

    #[test]
    fn tools_and_their_choice() {
        let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]);
        let chat =
            |choice: serde_json::Value| spec(json!({ "tools": tools, "tool_choice": choice })).map(|spec| spec.chat);
        let named = chat(json!({ "type": "function", "function": { "name": "f" } })).expect("it is there");
        let tool = Tool { name: "f".into(), description: String::new(), parameters: json!({ "type": "object" }) };
        assert_eq!((named.tools, named.tool_choice), (vec![tool], ToolChoice::Named("f".into())));
        assert_eq!(chat(json!("required")).expect("known").tool_choice, ToolChoice::Required);
        assert_eq!(chat(json!(null)).expect("absent").tool_choice, ToolChoice::Auto);
        let unknown = chat(json!({ "type": "function", "function": { "name": "g" } })).expect_err("not there");
        assert_eq!(unknown, "tool_choice names \"g\", which is not among `tools`");
        assert!(spec(json!({ "tool_choice": "required" })).is_err());
        assert!(spec(json!({ "tools": [{ "type": "web_search" }] })).expect_err("no function").contains("web_search"));
        let allowed = |mode: &str, name: &str| {
            let among = json!([{ "type": "function", "function": { "name": name } }]);
            let other = json!({ "type": "function", "function": { "name": "g" } });
            let choice = json!({ "type": "allowed_tools", "allowed_tools": { "mode": mode, "tools": among } });
            spec(json!({ "tools": [tools[0], other], "tool_choice": choice })).map(|spec| spec.chat)
        };
        let one = allowed("required", "f").expect("it is there");
        assert_eq!((one.tools.len(), one.tools[0].name.as_str(), one.tool_choice), (1, "f", ToolChoice::Required));
        assert_eq!(
            allowed("auto", "h").expect_err("not there"),
            "tool_choice allows \"h\", which is not among `tools`"
        );

        let both = spec(json!({ "tools": tools, "response_format": { "type": "json_object" } })).expect_err("unclear");
        assert!(both.contains("tool_choice"), "{both}");

        let turns = json!([
            { "role": "assistant", "content": null, "reasoning_content": "hm",
              "tool_calls": [{ "id": "1", "type": "function", "function": { "name": "f", "arguments": "{}" } }] },
            { "role": "tool", "tool_call_id": "1", "content": "7" },
        ]);
        let Input::Messages(turns) = spec(json!({ "messages": turns })).expect("it is served").input else { panic!() };
        assert_eq!(turns[0].tool_calls, [ToolCall { id: "1".into(), name: "f".into(), arguments: "{}".into() }]);
        assert_eq!((turns[0].reasoning_content.as_deref(), turns[1].tool_call_id.as_deref()), (Some("hm"), Some("1")));
    }

    #[test]
    fn custom_tools_are_functions_of_a_text() {
        let with = |format, choice: serde_json::Value| {
            let tool = json!({ "type": "custom", "custom": { "name": "c", "description": "Runs.", "format": format } });
            spec(json!({ "tools": [tool], "tool_choice": choice }))
        };
        let named = json!({ "type": "custom", "custom": { "name": "c" } });
        let plain = with(json!({ "type": "text" }), named.clone()).expect("it is there").chat;
        let parameters = |input| json!({ "type": "object", "properties": { "input": input }, "required": ["input"], "additionalProperties": false });
        assert_eq!(plain.tools[0].parameters, parameters(json!({ "type": "string" })));
        assert_eq!(plain.tool_choice, ToolChoice::Named("c".into()));
        let grammar = |syntax| json!({ "type": "grammar", "grammar": { "syntax": syntax, "definition": "a" } });
        let regex = with(grammar("regex"), json!("required")).expect("the call must happen").chat;
        assert_eq!(regex.tools[0].parameters, parameters(json!({ "type": "string", "pattern": "^(?:a)$" })));
        let lark = with(grammar("lark"), named).expect("the call must happen");
        assert_eq!((lark.constraint, lark.chat.tool_choice), (Some(Constraint::Lark("a".into())), ToolChoice::None));
        let Input::Messages(turns) = lark.input else { panic!("messages") };
        assert_eq!((turns[0].role, turns.len()), (Role::System, 2));
        assert!(turns[0].content.contains("\"c\"") && turns[0].content.ends_with("Runs."), "{}", turns[0].content);
        let may = with(grammar("lark"), json!("auto")).expect_err("nothing would hold the model to it");
        assert!(may.contains("grammar of the custom tool \"c\""), "{may}");
    }

    #[test]
    fn forms_probabilities_and_thoughts() {
        let form = |format| spec(json!({ "response_format": format })).map(|spec| spec.constraint);
        assert_eq!(form(json!({ "type": "json_object" })), Ok(Some(Constraint::JsonObject)));
        let schema = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "string" } } });
        assert_eq!(form(schema), Ok(Some(Constraint::JsonSchema(json!({ "type": "string" })))));
        assert!(form(json!({ "type": "json_schema" })).is_err());
        assert!(form(json!({ "type": "xml" })).is_err());
        assert!(spec(json!({ "grammar": "root ::= \"a\"" })).expect("one form").constraint.is_some());
        let forms = |more| spec(more).map(|spec| spec.constraint);
        let regex = |text: &str| Ok(Some(Constraint::Regex(text.into())));
        assert_eq!(forms(json!({ "guided_regex": "a+", "guided_choice": [], "guided_grammar": "" })), regex("a+"));
        assert_eq!(forms(json!({ "structured_outputs": { "regex": "a+", "json": null } })), regex("a+"));
        assert_eq!(forms(json!({ "guided_choice": ["yes", "no"] })), regex("(yes|no)"));
        let lark = Constraint::Lark("start: \"a\"".into());
        assert_eq!(forms(json!({ "structured_outputs": { "grammar": "start: \"a\"" } })), Ok(Some(lark)));
        let object = json!({ "type": "object", "properties": { "a": { "const": null } } });
        for field in ["json_schema", "guided_json"] {
            assert_eq!(forms(json!({ field: object })), Ok(Some(Constraint::JsonSchema(object.clone()))), "{field}");
        }
        let both = forms(json!({ "guided_regex": "a", "structured_outputs": { "json_object": true } }));
        assert_eq!(both, Err("give `guided_regex` or `structured_outputs.json_object`, not both".into()));
        let tag = forms(json!({ "structured_outputs": { "structural_tag": "{}" } })).expect_err("it would be missed");
        assert_eq!(tag, "`structured_outputs.structural_tag` is not served by this version");
        let logprobs = |more| spec(more).map(|spec| spec.logprobs);
        assert_eq!(logprobs(json!({ "logprobs": true, "top_logprobs": 3 })), Ok(Some(3)));
        assert_eq!(logprobs(json!({ "logprobs": true })), Ok(Some(0)));
        assert!(
            logprobs(json!({ "top_logprobs": 3 })).is_err()
                && logprobs(json!({ "logprobs": true, "top_logprobs": 21 })).is_err()
        );
        let bias = spec(json!({ "logit_bias": { "17": -100 } })).expect("in range").sampling.logit_bias;
        assert_eq!(bias, [(17, -100.0)]);
        assert!(
            spec(json!({ "logit_bias": { "x": 1 } })).is_err() && spec(json!({ "logit_bias": { "1": 101 } })).is_err()
        );
        let chat = spec(json!({ "reasoning_effort": "high", "chat_template_kwargs": { "enable_thinking": false } }))
            .expect("known")
            .chat;
        assert_eq!((chat.thinking, &chat.template_args["reasoning_effort"]), (Some(false), &json!("high")));
        assert_eq!(spec(json!({ "reasoning_effort": "none" })).expect("known").chat.thinking, Some(false));
    }

    #[test]
    fn what_has_no_effect_is_listed_also_within_fields() {
        let image = |detail: &str, x: Option<u8>| json!({ "url": "data:", "detail": detail, "x": x });
        let parts = json!([
            { "type": "text", "text": "a", "cache_control": { "type": "ephemeral" } },
            { "type": "image_url", "image_url": image("high", Some(1)) },
            { "type": "image_url", "image_url": image("auto", None) },
        ]);
        let body = json!({
            "model": "m", "messages": [{ "role": "user", "content": "a", "x": 1 }, { "role": "user", "content": parts }],
            "x": 1, "stream_options": { "x": 1 }, "structured_outputs": { "regex": "a", "x": 1 },
        });
        let request = ChatRequest::from_value(body).expect("it is served");
        let own = ["messages.0.x", "x", "stream_options.x", "structured_outputs.x"];
        let parts = ["0.cache_control", "1.image_url.detail", "1.image_url.x"];
        let all = own.map(String::from).into_iter().chain(parts.map(|path| format!("messages.1.content.{path}")));
        assert_eq!(request.ignored, all.collect::<Vec<_>>());
    }

    #[test]
    fn what_has_no_effect_is_listed_and_what_would_be_missed_is_refused() {
        let body = json!({
            "model": "m", "user": "me", "n": 1, "tools": [], "tool_choice": "none", "logprobs": null, "functions": [],
            "response_format": { "type": "text" }, "max_tokens": 5, "max_completion_tokens": 7, "seed": -1,
            "messages": [
                { "role": "developer", "content": "be brief" },
                { "role": "user", "name": "Ada", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            ],
        });
        let request = ChatRequest::from_value(body.clone()).expect("it is served");
        assert_eq!(request.ignored, ["user", "messages.1.name"]);
        let spec = request.into_spec().expect("it is in range");
        assert_eq!((spec.max_tokens, spec.sampling.seed), (Some(7), Some(u32::MAX)));
        let expected = vec![Message::new(Role::System, "be brief"), Message::new(Role::User, "a\nb")];
        assert_eq!(spec.input, Input::Messages(expected));

        let refused = |field: &str, value: serde_json::Value| {
            let mut body = body.clone();
            body[field] = value;
            ChatRequest::from_value(body).and_then(ChatRequest::into_spec).expect_err("it would be missed").0
        };
        assert_eq!(refused("n", json!(0)), "n is 0; it must be from 1 to 128");
        assert_eq!(refused("functions", json!([{}])), "`functions` is not served by this version");
        assert_eq!(refused("messages", json!([])), "`messages` is empty");
        let image = |role: &str, image: Value| {
            refused("messages", json!([{ "role": role, "content": [{ "type": "image_url", "image_url": image }] }]))
        };
        assert_eq!(image("user", json!({})), "messages[0].content[0].image_url.url is missing");
        assert_eq!(
            image("user", json!({ "url": "https://x.org/a.png" })),
            "messages[0].content[0].image_url.url: images are not fetched from elsewhere; send it in base64, or as a data: address"
        );
        let system = image("system", json!({ "url": "data:image/png;base64,aGk=" }));
        assert_eq!(system, "messages[0].content[0]: an image stands in a turn of the user");
        let call = json!([{ "role": "user", "content": "a", "tool_calls": [{ "id": "1", "function": { "name": "f", "arguments": "{}" } }] }]);
        assert_eq!(refused("messages", call), "messages[0].tool_calls: only an assistant calls tools");
        let mut cut_off = body.clone();
        cut_off["messages"] = json!([{ "role": "assistant", "tool_calls": [{ "id": "1", "function": { "name": "f", "arguments": "[" } }] }]);
        let asked = ChatRequest::from_value(cut_off).and_then(ChatRequest::into_spec).expect("it can be gone on from");
        let Input::Messages(turns) = asked.input else { panic!("a conversation") };
        assert_eq!(turns[0].tool_calls[0].arguments, "{\"INVALID_JSON\":\"[\"}");
        assert_eq!(
            refused("messages", json!([{ "role": "tool", "content": "7" }])),
            "messages[0].tool_call_id is missing"
        );
        assert_eq!(
            refused("messages", json!([{ "role": "assistant", "content": null }])),
            "messages[0].content is missing"
        );
        let empty = json!([{ "role": "user", "content": [] }]);
        assert_eq!(refused("messages", empty), "messages[0].content is empty");
        assert!(refused("temperature", json!("hot")).starts_with("temperature: "));
    }
}
