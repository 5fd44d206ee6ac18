//! The request body of `POST /v1/responses`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::head::Head;
use super::items::{self, Item, TextOr};
use super::kept::Kept;
use crate::api::conversation::Conversation;
use crate::api::openai::chat::MAX_TOP_LOGPROBS;
use crate::api::openai::fields::{self, AsksForNothing, Common};
use crate::api::openai::tools::{self, FlatTool, Offer, ResponseFormat, ToolChoiceField};
use crate::api::{BadRequest, is_empty};
use crate::chat::{ChatOptions, Message, Role};
use crate::runner::{GenerateSpec, Input};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.ResponsesFields")]
struct Fields {
    input: Option<TextOr<Item>>,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    max_output_tokens: Option<u32>,
    #[serde(default)]
    tools: Vec<FlatTool>,
    tool_choice: Option<ToolChoiceField>,
    parallel_tool_calls: Option<bool>,
    text: Option<TextField>,
    reasoning: Option<Reasoning>,
    include: Option<Vec<String>>,
    #[schemars(range(max = 20))]
    top_logprobs: Option<u32>,
    truncation: Option<String>,
    #[serde(default = "yes")]
    store: bool,
    /// Told again in the answer, and nothing more.
    #[serde(rename = "metadata")]
    _metadata: Option<Map<String, Value>>,
    #[serde(default)]
    chat_template_kwargs: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.TextFormat")]
struct TextField {
    format: Option<ResponseFormat>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.Reasoning")]
struct Reasoning {
    effort: Option<String>,
}

fn yes() -> bool {
    true
}

/// Fields whose meaning would be lost if we passed over them.
const NOT_SERVED: &[(&str, AsksForNothing)] = &[
    ("background", |value| value == false),
    ("conversation", is_empty),
    ("prompt", is_empty),
    ("n", |value| value == 1),
];

/// What `include` can ask for here.
const LOGPROBS: &str = "message.output_text.logprobs";

/// A request, and what of it has no effect here.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "openai.ResponsesRequest", description = "A conversation to answer, or to go on with.")]
pub struct ResponsesRequest {
    #[schemars(flatten)]
    common: Common,
    #[schemars(flatten)]
    fields: Fields,
    /// As it came, to be told and kept.
    #[schemars(skip)]
    body: Value,
    /// Paths of the fields that are passed over, e.g. `user`, `reasoning.summary`.
    #[schemars(skip)]
    pub ignored: Vec<String>,
}

/// What to generate, and what its answer begins with.
#[derive(Clone, Debug)]
pub struct Asked {
    pub spec: GenerateSpec,
    pub head: Head,
    /// The conversation up to the answer, which is to be kept where this is wanted.
    pub input: Vec<Value>,
}

impl ResponsesRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type, or asks for what is not served.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        let (common, fields, mut ignored) = fields::read::<Fields>(&mut body, NOT_SERVED)?;
        let included = fields.include.iter().flatten().enumerate();
        let unknown = included.filter(|(_, name)| *name != LOGPROBS);
        ignored.extend(unknown.map(|(index, _)| format!("include.{index}")));
        if let Some(other) = fields.truncation.as_deref().filter(|truncation| *truncation != "disabled") {
            return Err(BadRequest(format!(
                "truncation is {other:?}; this version leaves nothing of a conversation out by itself, so it must be disabled"
            )));
        }
        Ok(Self { common, fields, body, ignored })
    }

    #[must_use]
    pub fn streams(&self) -> bool {
        self.common.stream
    }

    /// Whether the answer is to be kept.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.fields.store
    }

    /// The answer that this request goes on from.
    #[must_use]
    pub fn previous(&self) -> Option<&str> {
        self.fields.previous_response_id.as_deref()
    }

    /// `previous` is the answer that [`ResponsesRequest::previous`] names.
    ///
    /// # Errors
    /// What is out of range, or is no text.
    pub fn into_asked(self, previous: Option<&Kept>) -> Result<Asked, BadRequest> {
        let Self { mut common, mut fields, mut body, .. } = self;
        let tools = std::mem::take(&mut fields.tools).into_iter().map(FlatTool::nested).collect();
        let offer = tools::offer(tools, fields.tool_choice.take())?;
        let custom = offer.custom.clone();
        let mut chat = chat_options(&mut fields, offer)?;
        let format = fields.text.take().and_then(|text| text.format);
        let format = tools::constraint(format, "text.format", "text.format.schema")?;
        let mut constraint = common.form(format, "text.format", &chat)?;
        let logprobs = logprobs(&fields)?;

        let mut input = previous.map_or_else(Vec::new, Kept::conversation);
        let mut read = Conversation::default();
        // Those of an earlier answer do not go on.
        if let Some(text) = fields.instructions.take().filter(|text| !text.is_empty()) {
            read.add(Message::new(Role::System, text));
        }
        for (index, item) in input.iter().enumerate() {
            items::add(
                &mut read,
                crate::api::from_value(item.clone())?,
                &format!("previous_response_id: item {index}"),
            )?;
        }
        match fields.input.take() {
            None if previous.is_none() => return Err(BadRequest("`input` is missing".into())),
            None => {}
            Some(TextOr::Text(text)) => read.add(Message::new(Role::User, text)),
            Some(TextOr::List(items)) => {
                for (index, item) in items.into_iter().enumerate() {
                    items::add(&mut read, item, &format!("input[{index}]"))?;
                }
            }
        }
        if read.messages.is_empty() {
            return Err(BadRequest("`input` is empty".into()));
        }
        custom.force(&mut read.messages, &mut chat, &mut constraint);
        let spec = common.into_spec(Input::Messages(read.messages), fields.max_output_tokens)?;
        let spec = GenerateSpec { chat, constraint, logprobs, ..spec };
        if let Some(new) = body.get_mut("input").map(Value::take) {
            input.extend(items::listed(new));
        }
        let head = Head::new(&spec, told(body, &fields), custom);
        Ok(Asked { spec, head, input })
    }
}

fn chat_options(fields: &mut Fields, offer: Offer) -> Result<ChatOptions, BadRequest> {
    let mut template_args = std::mem::take(&mut fields.chat_template_kwargs);
    let effort = fields.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
    let thinking = fields::thinking(effort, "reasoning.effort", &mut template_args)?;
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
    let included = fields.include.iter().flatten().any(|name| name == LOGPROBS);
    match fields.top_logprobs {
        Some(n) if n > MAX_TOP_LOGPROBS => {
            Err(BadRequest(format!("top_logprobs is {n}; it must be from 0 to {MAX_TOP_LOGPROBS}")))
        }
        None | Some(0) => Ok(included.then_some(0)),
        top => Ok(top),
    }
}

/// What an answer tells of its request, in its own order.
fn told(mut body: Value, fields: &Fields) -> Map<String, Value> {
    let mut take = |name: &str, default: Value| {
        let value = body.get_mut(name).map_or(default, Value::take);
        (name.to_owned(), value)
    };
    let effort = fields.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
    let told = [
        take("instructions", Value::Null),
        take("max_output_tokens", Value::Null),
        take("metadata", json!({})),
        take("parallel_tool_calls", true.into()),
        take("previous_response_id", Value::Null),
        ("reasoning".to_owned(), json!({ "effort": effort, "summary": null })),
        ("store".to_owned(), fields.store.into()),
        take("temperature", Value::Null),
        take("text", json!({ "format": { "type": "text" } })),
        take("tool_choice", "auto".into()),
        take("tools", json!([])),
        ("top_logprobs".to_owned(), fields.top_logprobs.unwrap_or(0).into()),
        take("top_p", Value::Null),
        ("truncation".to_owned(), "disabled".into()),
    ];
    told.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::ResponsesRequest;
    use crate::api::BadRequest;
    use crate::api::openai::responses::kept::Kept;
    use crate::chat::{Message, Role, ToolCall, ToolChoice};
    use crate::constrain::Constraint;
    use crate::runner::{GenerateSpec, Input};

    fn read(more: Value) -> Result<ResponsesRequest, String> {
        let mut body = json!({ "model": "m", "input": "hello" });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        ResponsesRequest::from_value(body).map_err(|BadRequest(why)| why)
    }

    fn spec(more: Value) -> Result<GenerateSpec, String> {
        Ok(read(more)?.into_asked(None).map_err(|BadRequest(why)| why)?.spec)
    }

    fn messages(input: Value) -> Result<Vec<Message>, String> {
        let Input::Messages(messages) = spec(json!({ "input": input }))?.input else { panic!("no messages") };
        Ok(messages)
    }

    fn call(id: &str, name: &str) -> ToolCall {
        ToolCall { id: id.into(), name: name.into(), arguments: "{\"x\":null}".into() }
    }

    fn result(id: &str, name: Option<&str>, text: &str) -> Message {
        Message { tool_call_id: Some(id.into()), name: name.map(str::to_owned), ..Message::new(Role::Tool, text) }
    }

    /// What one answer consists of is one turn, however many items it was.
    #[test]
    fn items_become_messages() {
        let items = json!([
            { "role": "developer", "content": "be" },
            { "type": "message", "role": "system", "content": "brief" },
            { "role": "user", "content": [{ "type": "input_text", "text": "a" }, { "type": "input_text", "text": "b" }] },
            { "type": "reasoning", "id": "rs_1", "summary": [{ "type": "summary_text", "text": "short" }],
              "content": [{ "type": "reasoning_text", "text": "hm" }], "encrypted_content": null, "status": null },
            { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "phase": null,
              "content": [{ "type": "output_text", "text": "c", "annotations": [], "logprobs": null }] },
            { "type": "function_call", "id": "fc_1", "call_id": "1", "name": "f", "arguments": "{\"x\":null}", "status": "completed" },
            { "type": "function_call", "call_id": "2", "name": "g", "arguments": "{\"x\":null}" },
            { "type": "function_call_output", "call_id": "1", "output": "d" },
            { "type": "function_call_output", "call_id": "3", "output": [{ "type": "input_text", "text": "e" }] },
            { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "so" }] },
            { "role": "assistant", "content": [{ "type": "refusal", "refusal": "no" }] },
        ]);
        let expected = [
            Message::new(Role::System, "be\nbrief"),
            Message::new(Role::User, "a\nb"),
            Message {
                reasoning_content: Some("hm".into()),
                tool_calls: vec![call("1", "f"), call("2", "g")],
                ..Message::new(Role::Assistant, "c")
            },
            result("1", Some("f"), "d"),
            result("3", None, "e"),
            Message { reasoning_content: Some("so".into()), ..Message::new(Role::Assistant, "no") },
        ];
        assert_eq!(messages(items.clone()), Ok(expected.to_vec()));
        assert_eq!(read(json!({ "input": items })).expect("it is served").ignored, [""; 0]);
        assert_eq!(messages(json!("hi")), Ok(vec![Message::new(Role::User, "hi")]));
    }

    #[test]
    fn an_earlier_answer_goes_in_front_and_its_instructions_do_not() {
        let ask = |more: Value, previous: Option<&Kept>| {
            read(more).expect("it is served").into_asked(previous).expect("it is in range")
        };
        let first = ask(json!({ "input": "a", "instructions": "old" }), None);
        let [item] = first.input.as_slice() else { panic!("{:?}", first.input) };
        assert!(item["id"].as_str().is_some_and(|id| id.starts_with("msg_")), "{item}");
        let output = json!({ "output": [{ "type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"x\":null}" }] });
        let kept = Kept::new("resp_1", &output, &first.input);
        let input = json!([{ "type": "function_call_output", "call_id": "1", "output": "7" }]);
        let second =
            ask(json!({ "input": input, "instructions": "new", "previous_response_id": "resp_1" }), Some(&kept));
        let expected = vec![
            Message::new(Role::System, "new"),
            Message::new(Role::User, "a"),
            Message { tool_calls: vec![call("1", "f")], ..Message::new(Role::Assistant, "") },
            result("1", Some("f"), "7"),
        ];
        assert_eq!(second.spec.input, Input::Messages(expected));
        assert_eq!(second.input.len(), 3);
        let cut_off =
            json!({ "output": [{ "type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"x" }] });
        let kept = Kept::new("resp_1", &cut_off, &first.input);
        let Input::Messages(messages) = ask(json!({}), Some(&kept)).spec.input else { panic!("a conversation") };
        assert_eq!(messages[1].tool_calls[0].arguments, "{\"INVALID_JSON\":\"{\\\"x\"}");
    }

    #[test]
    fn tools_forms_and_thoughts_reach_the_spec() {
        let tool = json!({ "type": "function", "name": "f", "parameters": { "enum": [null] }, "strict": true });
        for (choice, expected) in [
            (json!(null), ToolChoice::Auto),
            (json!("none"), ToolChoice::None),
            (json!("required"), ToolChoice::Required),
            (json!({ "type": "function", "name": "f" }), ToolChoice::Named("f".into())),
        ] {
            let chat = spec(json!({ "tools": [tool], "tool_choice": choice })).expect("known").chat;
            assert_eq!((chat.tool_choice, chat.parse, chat.parallel_tool_calls), (expected, true, true));
            assert_eq!(chat.tools[0].parameters, json!({ "enum": [null] }));
        }
        let format = json!({ "type": "json_schema", "name": "x", "strict": true, "schema": { "enum": [null] } });
        let asked = spec(json!({
            "text": { "format": format }, "reasoning": { "effort": "none" }, "max_output_tokens": 7, "top_logprobs": 2, "top_k": 3,
        }))
        .expect("known");
        assert_eq!(asked.constraint, Some(Constraint::JsonSchema(json!({ "enum": [null] }))));
        assert_eq!((asked.chat.thinking, asked.max_tokens, asked.logprobs), (Some(false), Some(7), Some(2)));
        assert_eq!(asked.sampling.top_k, Some(3));
        let included = json!({ "include": ["message.output_text.logprobs"] });
        assert_eq!(spec(included).expect("known").logprobs, Some(0));
    }

    #[test]
    fn what_has_no_effect_is_listed() {
        let request = read(json!({
            "user": "me", "service_tier": "auto", "reasoning": { "effort": "low", "summary": "auto" }, "text": { "verbosity": "low" },
            "include": ["reasoning.encrypted_content", "message.output_text.logprobs"], "background": false, "truncation": "disabled",
            "metadata": { "a": "b" }, "conversation": null,
            "input": [{ "role": "user", "content": "a" }, { "type": "reasoning", "summary": [], "encrypted_content": "x" }],
        }))
        .expect("it is served");
        let expected =
            ["user", "service_tier", "reasoning.summary", "text.verbosity", "input.1.encrypted_content", "include.0"];
        assert_eq!(
            request.ignored.iter().collect::<std::collections::BTreeSet<_>>(),
            expected.map(str::to_owned).iter().collect()
        );
        let asked = request.into_asked(None).expect("it is in range");
        assert_eq!(asked.spec.chat.template_args["reasoning_effort"], json!("low"));
    }

    #[test]
    fn what_would_be_missed_is_refused() {
        let refused = |more: Value| match spec(more) {
            Ok(spec) => panic!("{spec:?}"),
            Err(why) => why,
        };
        let item = |item: Value| refused(json!({ "input": [item] }));
        assert_eq!(refused(json!({ "input": null })), "`input` is missing");
        assert_eq!(refused(json!({ "input": [] })), "`input` is empty");
        assert_eq!(
            item(json!({ "role": "user", "content": [{ "type": "input_file", "file_id": "x" }] })),
            "input[0].content[0]: parts of type \"input_file\" are not served by this version"
        );
        assert_eq!(
            item(json!({ "type": "web_search_call", "id": "1" })),
            "input[0]: items of type \"web_search_call\" are not served by this version"
        );
        assert!(item(json!({ "type": "item_reference", "id": "msg_1" })).contains("send the item itself"));
        assert_eq!(item(json!({ "role": "user" })), "input[0].content is missing");
        assert_eq!(item(json!({ "type": "message", "content": "a" })), "input[0].role is missing");
        assert_eq!(item(json!({ "type": "function_call_output", "output": "a" })), "input[0].call_id is missing");
        assert!(item(json!({ "role": "king", "content": "a" })).starts_with("input[0].role: unknown variant"));
        assert_eq!(refused(json!({ "background": true })), "`background` is not served by this version");
        assert_eq!(refused(json!({ "conversation": "conv_1" })), "`conversation` is not served by this version");
        assert!(refused(json!({ "truncation": "auto" })).starts_with("truncation is \"auto\"; "));
        assert!(refused(json!({ "tools": [{ "type": "web_search" }] })).contains("type \"web_search\" are not served"));
        assert!(refused(json!({ "tool_choice": { "type": "function", "name": "g" } })).contains("names \"g\""));
        assert!(refused(json!({ "tool_choice": { "type": "mcp" } })).contains("\"mcp\" is not served"));
        let format = |format: Value| refused(json!({ "text": { "format": format } }));
        assert_eq!(format(json!({ "type": "json_schema", "name": "x" })), "text.format.schema is missing");
        assert!(format(json!({ "type": "xml" })).starts_with("text.format.type is \"xml\"; "));
        assert!(refused(json!({ "reasoning": { "effort": "huge" } })).starts_with("reasoning.effort is \"huge\"; "));
        assert_eq!(refused(json!({ "top_logprobs": 21 })), "top_logprobs is 21; it must be from 0 to 20");
    }
}
