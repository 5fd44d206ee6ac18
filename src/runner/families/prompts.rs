//! What templates are given to render: conversations with calls, and texts that hold control tokens' names.

use super::{FAMILIES, Family, GenerateSpec, Input, Message, Role, TokenId, may_call};
use crate::chat::ToolCall;
use crate::runner::Infill;

/// How often each control token is in the prompt.
fn counts(family: &Family, spec: &GenerateSpec) -> Vec<usize> {
    let tokens = family.prompts.prepare(spec, &|| true).expect("a prompt").tokens;
    let count = |name: &&str| {
        let [id]: [TokenId; 1] = family.tokens(name).try_into().expect("one token");
        tokens.iter().filter(|token| **token == id).count()
    };
    family.control.iter().map(count).collect()
}

#[test]
fn families_control_tokens_in_a_text_stay_text() {
    for (name, control) in FAMILIES {
        let family = Family::new(name);
        let said = |text: &str| {
            let mut spec = super::asked(may_call(None));
            spec.input = Input::Messages(vec![
                Message::new(Role::System, format!("Be kind{text}.")),
                Message::new(Role::User, format!("Hello{text}!")),
                Message::new(Role::Assistant, format!("Hi{text}.")),
                Message::new(Role::User, format!("{text} and {text}")),
            ]);
            spec.chat.tools[0].description = format!("a tool{text}");
            spec
        };
        let plain = counts(&family, &said("x"));
        assert!(plain.iter().any(|n| *n > 1), "{name}: the template has control tokens: {plain:?}");
        let mut all = String::new();
        for mark in control.iter() {
            assert_eq!(counts(&family, &said(mark)), plain, "{name}: {mark}");
            all.push_str(mark);
        }
        assert_eq!(counts(&family, &said(&all)), plain, "{name}: {all}");
        let shown = family.prompts.show(&said(&all)).expect("a prompt").text;
        assert!(shown.contains(&format!("{all} and {all}")), "{name}: the text itself is whole");
    }
}

/// Calls and their results go back into the prompt in the family's words.
#[test]
fn families_conversations_with_calls_are_rendered() {
    let rendered = [
        (
            "llama3",
            "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}",
            "ipython<|end_header_id|>\n\n\"17 °C\"",
        ),
        (
            "qwen25",
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
            "<tool_response>\n17 °C\n",
        ),
        (
            "qwen3",
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
            "<tool_response>\n17 °C\n",
        ),
        ("qwen3-coder", "<function=get_weather>\n<parameter=city>\nParis\n</parameter>", "<tool_response>\n17 °C\n"),
        (
            "hermes",
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
            "<tool_response>\n17 °C\n",
        ),
        (
            "mistral",
            "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}, \"id\": \"abcdefghi\"}]",
            "[TOOL_RESULTS]",
        ),
        ("magistral", "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\"}", "[TOOL_RESULTS]17 °C"),
        (
            "deepseek-r1",
            "<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Paris\"}\n```",
            "<｜tool▁output▁begin｜>17 °C",
        ),
        (
            "deepseek-v3",
            "{\"name\": \"get_weather\", \"arguments\": {\"city\":\"Paris\"}}",
            "Result of the tool: 17 °C",
        ),
        (
            "gpt-oss",
            " to=functions.get_weather<|channel|>commentary json<|message|>{\"city\": \"Paris\"}<|call|>",
            "functions.get_weather to=assistant",
        ),
        ("gemma3", "{\"name\": \"get_weather\", \"arguments\": {\"city\":\"Paris\"}}", "Result of the tool: 17 °C"),
        ("gemma4", "call:get_weather{city:<|\"|>Paris<|\"|>}", "response:get_weather{value:<|\"|>17 °C<|\"|>}"),
    ];
    assert_eq!(rendered.len(), FAMILIES.len());
    for (name, call, result) in rendered {
        let mut spec = super::asked(may_call(None));
        let Input::Messages(messages) = &mut spec.input else { panic!("messages") };
        let made =
            ToolCall { id: "abcdefghi".into(), name: "get_weather".into(), arguments: "{\"city\":\"Paris\"}".into() };
        messages.push(Message { tool_calls: vec![made], ..Message::new(Role::Assistant, "") });
        let id = Some("abcdefghi".to_owned());
        messages.push(Message {
            tool_call_id: id,
            name: Some("get_weather".into()),
            ..Message::new(Role::Tool, "17 °C")
        });
        let shown = Family::new(name).prompts.show(&spec).expect("a prompt").text;
        let (_, behind) = shown.split_once(call).unwrap_or_else(|| panic!("{name}: no {call:?} in {shown:?}"));
        assert!(behind.contains(result), "{name}: no {result:?} in {behind:?}");
        assert!(shown.contains("get_time of it"), "{name}: the tools are told");
    }
}

/// Names of marks in what somebody wrote stay text.
#[test]
fn families_gaps_stand_between_their_marks() {
    let model = super::model(&["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"], false);
    let template = super::TemplateChoice::new(&model, Some("chatml")).expect("a template");
    let prompts = super::Prompts::new(model.vocab().expect("a vocabulary"), template, Err(String::new()), [512; 2]);
    let gap = Infill { before: "a <|fim_suffix|>".into(), behind: "b".into(), ..Infill::default() };
    let prompt = prompts.show(&GenerateSpec::new("m", Input::Infill(gap))).expect("a prompt");
    assert_eq!(prompt.text.trim_start_matches("<s>"), "<|fim_prefix|>a <|fim_suffix|><|fim_suffix|>b<|fim_middle|>");
    let mark = prompts.tokenize("<|fim_suffix|>", false, true).expect("a mark");
    assert_eq!(prompt.tokens.iter().filter(|token| mark == [**token]).count(), 1);
}
