//! Calls and forms that an answer must have.

use super::{Cut, FAMILIES, Family, GenerateSpec, asked, read, tools};
use crate::chat::{ChatOptions, ToolChoice};
use crate::constrain::Constraint;
use crate::engine::FinishReason;

/// What stands between the end of the question and the arguments of a call.
const OPENINGS: &[(&str, &str)] = &[
    (
        "llama3",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{\"name\": \"get_weather\", \"parameters\": ",
    ),
    ("qwen25", "<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": "),
    (
        "qwen3",
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": ",
    ),
    // Its arguments are not JSON.
    ("qwen3-coder", "<|im_end|>\n<|im_start|>assistant\n{\"name\": \"get_weather\", \"arguments\": "),
    ("hermes", "<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": "),
    ("mistral", "[/INST][TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": "),
    ("magistral", "[/INST][TOOL_CALLS]get_weather[ARGS]"),
    (
        "deepseek-r1",
        "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n",
    ),
    // It tells nobody of tools.
    ("deepseek-v3", "<｜Assistant｜><think></think>{\"name\": \"get_weather\", \"arguments\": "),
    ("gpt-oss", "<|end|><|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>"),
    ("gemma3", "<end_of_turn>\n<start_of_turn>model\n{\"name\": \"get_weather\", \"arguments\": "),
    // Its arguments are not JSON.
    ("gemma4", "<turn|>\n<|turn>model\n<|channel>thought\n<channel|>{\"name\": \"get_weather\", \"arguments\": "),
];

const ARGUMENTS: &str = "{\"city\": \"Köln \\\"x\\\" 🌧\", \"days\": 3}";

fn must(choice: ToolChoice) -> GenerateSpec {
    asked(ChatOptions { parse: true, tools: tools(), tool_choice: choice, ..ChatOptions::default() })
}

/// What follows the question.
fn opening(prompt: &str) -> &str {
    prompt.rsplit_once("What is it like in Paris?").expect("the question").1
}

/// Writes a text by the filter that the request asks for, and reads it.
fn write_and_read(family: &Family, spec: &GenerateSpec, text: &str) -> super::Answer {
    let prepared = family.prompts.prepare(spec, &|| true).expect("a prompt");
    let mut filter = family.prompts.filter(&prepared.form.expect("a form")).expect("a filter");
    for token in family.tokens("Sure") {
        assert_eq!(filter.allows(token), Ok(false), "prose");
    }
    for token in family.tokens(text) {
        assert_eq!(filter.allows(token), Ok(true), "token {token} of {text:?}");
        filter.accept(token).expect("it is allowed");
    }
    let end = family.vocab.end_tokens().first().expect("an end").index();
    assert_eq!(filter.allows(end), Ok(true), "it may end");
    let shown = family.written(&family.tokens(text), &prepared.shown);
    let answers = [Cut::Whole, Cut::Characters, Cut::Tokens(1)].map(|cut| {
        let parser = family.prompts.prepare(spec, &|| true).expect("a prompt").parser;
        let mut answer = read(parser, &shown, FinishReason::Eos, cut);
        answer.tool_calls.iter_mut().for_each(|call| call.id.clear());
        answer
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let [answer, ..] = answers;
    answer
}

#[test]
fn families_calls_begin_where_their_template_puts_them() {
    assert_eq!(OPENINGS.len(), FAMILIES.len());
    for (name, wanted) in OPENINGS {
        let family = Family::new(name);
        let named = must(ToolChoice::Named("get_weather".into()));
        let shown = family.prompts.show(&named).expect("a prompt").text;
        assert_eq!(opening(&shown), *wanted, "{name}");
        let answer = write_and_read(&family, &named, ARGUMENTS);
        assert_eq!(answer.text, "", "{name}");
        let calls: Vec<_> = answer.tool_calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
        assert_eq!(calls, [("get_weather", ARGUMENTS)], "{name}");
    }
}

#[test]
fn families_calls_of_any_tool_begin_before_its_name() {
    for (name, _) in FAMILIES {
        let family = Family::new(name);
        let required = must(ToolChoice::Required);
        let open = family.prompts.show(&required).expect("a prompt").text;
        for (tool, arguments) in [("get_weather", ARGUMENTS), ("get_time", "{}")] {
            let named = family.prompts.show(&must(ToolChoice::Named(tool.into()))).expect("a prompt").text;
            let rest = named.strip_prefix(&open).expect("it goes on from what all calls have in common");
            assert!(tool.ends_with(rest.split(['"', '[', '\n', '<']).next().expect("a name")), "{name}: {rest:?}");
            let answer = write_and_read(&family, &required, &format!("{rest}{arguments}"));
            let calls: Vec<_> = answer.tool_calls.iter().map(|call| (&*call.name, &*call.arguments)).collect();
            assert_eq!((answer.text.as_str(), calls), ("", vec![(tool, arguments)]), "{name}");
        }
    }
}

/// Such vocabularies put a space before what they tokenise. It is no part of the call's name.
#[test]
fn families_calls_in_vocabularies_that_begin_with_a_space() {
    for name in ["qwen25", "magistral"] {
        let family = Family::with(name, true);
        let required = must(ToolChoice::Required);
        let form = family.prompts.prepare(&required, &|| true).expect("a prompt").form.expect("a form");
        let mut filter = family.prompts.filter(&form).expect("a filter");
        let [space, letter] = [" ", "w"].map(|text| *family.tokens(text).last().expect("a token"));
        assert_eq!((filter.allows(space), filter.allows(letter)), (Ok(false), Ok(true)), "{name}");
    }
}

#[test]
fn families_answers_in_a_form_begin_behind_closed_thoughts() {
    let openings = [
        ("llama3", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"),
        ("qwen25", "<|im_end|>\n<|im_start|>assistant\n"),
        ("qwen3", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        ("qwen3-coder", "<|im_end|>\n<|im_start|>assistant\n"),
        ("hermes", "<|im_end|>\n<|im_start|>assistant\n"),
        ("mistral", "[/INST]"),
        ("magistral", "[/INST]"),
        // It never closes a thought by itself, and opens none before an answer of an earlier turn.
        ("deepseek-r1", "<｜Assistant｜>"),
        ("deepseek-v3", "<｜Assistant｜><think></think>"),
        ("gpt-oss", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("gemma3", "<end_of_turn>\n<start_of_turn>model\n"),
        ("gemma4", "<turn|>\n<|turn>model\n<|channel>thought\n<channel|>"),
    ];
    assert_eq!(openings.len(), FAMILIES.len());
    for (name, wanted) in openings {
        let family = Family::new(name);
        let chat = ChatOptions { parse: true, thinking: Some(true), ..ChatOptions::default() };
        let spec = GenerateSpec { constraint: Some(Constraint::JsonObject), ..asked(chat) };
        let shown = family.prompts.show(&spec).expect("a prompt").text;
        assert_eq!(opening(&shown), wanted, "{name}");
        assert_eq!(write_and_read(&family, &spec, ARGUMENTS).text, ARGUMENTS, "{name}");
    }
}
