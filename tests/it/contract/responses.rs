//! OpenAI's responses: items in and out, and answers that are kept.

use serde_json::{Value, json};

use super::{Case, case, with};
use crate::support::{MODEL, Server};

/// A conversation whose answer begins the same on every machine.
fn fact() -> Value {
    json!({ "model": MODEL, "input": "Tell me a fact about Paris.", "max_output_tokens": 3, "temperature": 0 })
}

fn create(name: &'static str, body: Value) -> Case {
    case(name, "POST", "/v1/responses", None, &body)
}

fn stream(name: &'static str, body: Value) -> Case {
    create(name, with(body, json!({ "stream": true })))
}

pub(super) fn cases() -> Vec<Case> {
    let fact = |more: Value| with(fact(), more);
    let item = |item: Value| fact(json!({ "input": [item] }));
    let get = |name, method, path| case(name, method, path, None, &Value::Null);
    let mut cases = vec![
        create("responses", fact(json!({}))),
        stream("responses_stream", fact(json!({}))),
        create(
            "responses_ignored",
            fact(json!({
                "user": "me", "service_tier": "auto", "reasoning": { "summary": "auto" }, "metadata": { "of": "mine" }, "store": false,
                "input": [{ "role": "user", "content": [{ "type": "input_text", "text": "Tell me a fact about Paris." }] }],
            })),
        ),
        create("responses_error_no_input", json!({ "model": MODEL })),
        create("responses_error_wrong_type", item(json!({ "role": "king", "content": "x" }))),
        create("responses_error_image", item(json!({ "role": "user", "content": [{ "type": "input_image" }] }))),
        create("responses_error_item", item(json!({ "type": "item_reference", "id": "msg_1" }))),
        create("responses_error_background", fact(json!({ "background": true }))),
        create("responses_error_truncation", fact(json!({ "truncation": "auto" }))),
        create("responses_error_tool", fact(json!({ "tools": [{ "type": "web_search" }] }))),
        create("responses_error_schema", fact(json!({ "text": { "format": { "type": "json_schema", "name": "x" } } }))),
        create("responses_error_temperature", fact(json!({ "temperature": -1 }))),
        create("responses_error_unknown_model", fact(json!({ "model": "nothing" }))),
        create("responses_error_too_long", fact(json!({ "input": "word ".repeat(9000) }))),
        create("responses_error_previous", fact(json!({ "previous_response_id": "resp_none" }))),
        get("responses_error_unknown", "GET", "/v1/responses/resp_none"),
        get("responses_error_unknown_items", "GET", "/v1/responses/resp_none/input_items"),
        get("responses_error_unknown_delete", "DELETE", "/v1/responses/resp_none"),
        get("responses_error_streamed_again", "GET", "/v1/responses/resp_none?stream=true"),
        get("responses_error_method", "PUT", "/v1/responses"),
    ];
    if !cfg!(feature = "llama") {
        cases.extend(on_the_stub());
    }
    cases
}

/// The stub says what it is told to say, thoughts and calls too.
fn on_the_stub() -> Vec<Case> {
    let script = |text: &str, more: Value| with(json!({ "model": "stub", "input": text }), more);
    let tool = json!({ "type": "function", "name": "weather", "description": "Of a place", "strict": true,
        "parameters": { "type": "object", "properties": { "place": { "type": "string" } } } });
    let tools = || json!({ "tools": [tool] });
    let all = "<think> Hm, rain? </think> Let me look. stub:call weather {\"place\": \"Paris\"} stub:call weather {}";
    let forced = |choice: Value| script("{\"place\": \"Rome\"}", with(tools(), json!({ "tool_choice": choice })));
    let second_turn = script(
        "",
        json!({ "instructions": "Be brief.", "input": [
            { "role": "user", "content": "And in Paris?" },
            { "type": "reasoning", "id": "rs_1", "summary": [], "content": [{ "type": "reasoning_text", "text": "Hm." }] },
            { "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}", "status": "completed" },
            { "type": "function_call_output", "call_id": "call_1", "output": "Rain all day" },
        ] }),
    );
    let run = json!({ "type": "custom", "name": "run", "description": "Python", "format": { "type": "text" } });
    let runs = || {
        let text =
            "stub:call run {\"input\": \"print(\\\"\\u00e9\\\")\\nx = 1\"} stub:call weather {} stub:call run {}";
        script(text, json!({ "tools": [tool, run] }))
    };
    let ran = script(
        "",
        json!({ "tools": [run], "input": [
            { "type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "run", "input": "x = 1", "status": "completed" },
            { "type": "custom_tool_call_output", "call_id": "call_1", "output": "It ran" },
        ] }),
    );
    let logprobs = json!({ "include": ["message.output_text.logprobs"], "top_logprobs": 1 });
    vec![
        create("responses_completed", script("It is fine.", json!({}))),
        stream("responses_completed_stream", script("It is fine.", json!({}))),
        create("responses_tools", script(all, tools())),
        stream("responses_tools_stream", script(all, tools())),
        stream("responses_cut_off_stream", script(all, with(tools(), json!({ "max_output_tokens": 8 })))),
        create("responses_tools_named", forced(json!({ "type": "function", "name": "weather" }))),
        stream("responses_tools_required_stream", forced(json!("required"))),
        create("responses_tools_result", second_turn),
        create("responses_custom", runs()),
        stream("responses_custom_stream", runs()),
        create("responses_custom_result", ran),
        create("responses_logprobs", script("one two", logprobs.clone())),
        stream("responses_logprobs_stream", script("one two", logprobs)),
        stream("responses_nothing_stream", script("<think> </think>", json!({}))),
        create("responses_failure_before", script("stub:fail", json!({}))),
        stream("responses_failure_midway", script("stub:break", json!({}))),
    ]
}

fn id(response: &Value) -> &str {
    response["id"].as_str().unwrap_or_else(|| panic!("no id in {response}"))
}

/// The data of each event, whose name must be its type.
fn events(stream: &str) -> Vec<Value> {
    let event = |event: &str| {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
        data
    };
    stream.split_terminator("\n\n").map(event).collect()
}

#[test]
fn an_answer_is_kept_until_it_is_deleted() {
    let server = Server::start();
    let first = server.post("/v1/responses", &fact()).json();
    let path = format!("/v1/responses/{}", id(&first));
    assert_eq!(server.get(&path).json(), first);
    // Transcripts hide it.
    assert_eq!((&first["status"], &first["completed_at"]), (&json!("incomplete"), &json!(null)));

    let more = json!({ "input": [{ "role": "user", "content": "And one more." }], "previous_response_id": id(&first) });
    let stream = server.post("/v1/responses", &with(fact(), with(more, json!({ "stream": true })))).text();
    let events = events(&stream);
    assert!(events.iter().enumerate().all(|(at, event)| event["sequence_number"] == at), "{stream}");
    let second = events.last().unwrap()["response"].clone();
    assert_eq!(second["previous_response_id"], first["id"]);
    let longer = |response: &Value| response["usage"]["input_tokens"].as_u64().unwrap();
    assert!(longer(&second) > longer(&first), "{second}");
    assert_eq!(server.get(&format!("/v1/responses/{}", id(&second))).json(), second);

    let items = |query: &str| server.get(&format!("/v1/responses/{}/input_items{query}", id(&second))).json();
    let [question, answer, again] = items("?order=asc")["data"].as_array().unwrap().clone().try_into().unwrap();
    assert_eq!(
        (&question["role"], &question["content"][0]["text"]),
        (&json!("user"), &json!("Tell me a fact about Paris."))
    );
    assert_eq!(answer, first["output"][0]);
    assert_eq!(
        (items("")["first_id"].as_str(), items("")["last_id"].as_str()),
        (Some(id(&again)), Some(id(&question)))
    );

    let deleted = server.request("DELETE", &path, &[], "");
    assert_eq!(deleted.json(), json!({ "id": id(&first), "object": "response", "deleted": true }));
    assert_eq!((server.get(&path).status, server.request("DELETE", &path, &[], "").status), (404, 404));
    let gone = server.post("/v1/responses", &with(fact(), json!({ "previous_response_id": id(&first) })));
    assert_eq!((gone.status, &gone.json()["error"]["code"]), (400, &json!("previous_response_not_found")));
    // The later one has a conversation of its own.
    assert_eq!(server.post("/v1/responses", &with(fact(), json!({ "previous_response_id": id(&second) }))).status, 200);
}

/// On the stub the answer is the prompt; a model is held to it.
#[test]
fn a_custom_tools_text_keeps_to_its_grammar() {
    let server = Server::start();
    let lark = json!({ "type": "grammar", "syntax": "lark", "definition": "start: \"a \\\"b\\\"\"" });
    let run = json!({ "type": "custom", "name": "run", "description": "Runs it.", "format": lark });
    let body = json!({ "model": MODEL, "input": "a \"b\"", "tools": [run], "tool_choice": "required", "stream": true });
    let stream = server.post("/v1/responses", &body).text();
    let events = events(&stream);
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let deltas = of("response.custom_tool_call_input.delta");
    let input: String = deltas.iter().filter_map(|event| event["delta"].as_str()).collect();
    let [done] = of("response.custom_tool_call_input.done").try_into().unwrap();
    assert_eq!((input.as_str(), done["input"].as_str()), ("a \"b\"", Some("a \"b\"")), "{stream}");
    let [item] = events.last().unwrap()["response"]["output"].as_array().unwrap().clone().try_into().unwrap();
    assert_eq!(
        (&item["type"], &item["name"], &item["input"]),
        (&json!("custom_tool_call"), &json!("run"), &json!("a \"b\""))
    );
    assert_eq!((&item["id"], &item["status"]), (&done["item_id"], &json!("completed")));
}

#[test]
fn what_is_not_to_be_kept_is_not() {
    let server = Server::start();
    let answer = server.post("/v1/responses", &with(fact(), json!({ "store": false }))).json();
    assert_eq!(answer["store"], false);
    assert_eq!(server.get(&format!("/v1/responses/{}", id(&answer))).status, 404);
}
