//! What families answer, and what is told of it.

use super::{Cut, Delta, Family, may_call};
use crate::chat::{ChatOptions, ToolChoice};
use crate::engine::{AdapterSet, EngineConfig, EngineHandle, Event, FinishReason, Job};
use crate::llama::ContextParams;

/// A call's name and its arguments.
type Call = (&'static str, &'static str);
/// An answer as the model writes it; its thoughts, its text and its calls.
type Row = (&'static str, &'static str, &'static str, &'static [Call]);

const PARIS: Call = ("get_weather", r#"{"city": "Paris"}"#);
const NOW: Call = ("get_time", "{}");
/// Escaped as JSON has it, and not.
const ODD: Call = ("get_weather", "{\"city\": \"Köln \\u00e9\\n\\\"x\\\" \\\\ {🌧}\", \"days\": -3}");

/// By family, and whether thoughts were asked for.
const ANSWERS: &[(&str, Option<bool>, &[Row])] = &[
    (
        "llama3",
        None,
        &[
            ("Rain, \"perhaps\".", "", "Rain, \"perhaps\".", &[]),
            ("{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}", "", "", &[PARIS]),
            (
                "{\"type\": \"function\", \"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}}",
                "",
                "",
                &[PARIS],
            ),
            ("{\"name\": \"get_time\", \"parameters\": {}}", "", "", &[NOW]),
            ("Let me look.\n{\"name\": \"get_time\", \"parameters\": {}}", "", "Let me look.\n", &[NOW]),
            (
                "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Köln \\u00e9\\n\\\"x\\\" \\\\ {🌧}\", \"days\": -3}}",
                "",
                "",
                &[ODD],
            ),
        ],
    ),
    ("qwen25", None, TOOL_CALL),
    ("hermes", None, TOOL_CALL),
    ("qwen3", Some(false), TOOL_CALL),
    (
        "qwen3",
        None,
        &[
            ("<think>\nHm.\n</think>\n\nRain.", "Hm.\n", "Rain.", &[]),
            ("Rain.", "", "Rain.", &[]),
            (
                "<think>\nHm, <tool_call>?\n</think>\n\n<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>",
                "Hm, <tool_call>?\n",
                "",
                &[NOW],
            ),
        ],
    ),
    (
        "qwen3-coder",
        None,
        &[
            ("Rain, \"perhaps\".", "", "Rain, \"perhaps\".", &[]),
            (
                "Look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
                "",
                "Look.\n",
                &[("get_weather", "{\"city\":\"Paris\"}")],
            ),
            (
                "<tool_call>\n<function=get_weather>\n<parameter=city>\nKöln \"x\" \\ 🌧\nb\n</parameter>\n<parameter=days>\n3\n\
                 </parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=get_time>\n</function>\n</tool_call>",
                "",
                "",
                &[("get_weather", "{\"city\":\"Köln \\\"x\\\" \\\\ 🌧\\nb\",\"days\":3}"), NOW],
            ),
        ],
    ),
    (
        "mistral",
        None,
        &[
            ("Rain, [1, 2].", "", "Rain, [1, 2].", &[]),
            (
                "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}, \"id\": \"abcdefghi\"}, \
                 {\"name\": \"get_time\", \"arguments\": {}, \"id\": \"abcdefghj\"}]",
                "",
                "",
                &[PARIS, NOW],
            ),
            (
                "Look. [TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": \
                 {\"city\": \"Köln \\u00e9\\n\\\"x\\\" \\\\ {🌧}\", \"days\": -3}, \"id\": \"abcdefghi\"}]",
                "",
                "Look. ",
                &[ODD],
            ),
        ],
    ),
    (
        "magistral",
        None,
        &[
            ("Rain.", "", "Rain.", &[]),
            ("[THINK]Hm.[/THINK]Rain.", "Hm.", "Rain.", &[]),
            ("[THINK]Hm.[/THINK][TOOL_CALLS]get_time[ARGS]{}", "Hm.", "", &[NOW]),
            (
                "Look.[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\"}[TOOL_CALLS]get_time[ARGS]{}",
                "",
                "Look.",
                &[PARIS, NOW],
            ),
            (
                "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Köln \\u00e9\\n\\\"x\\\" \\\\ {🌧}\", \"days\": -3}",
                "",
                "",
                &[ODD],
            ),
        ],
    ),
    (
        "deepseek-r1",
        None,
        &[
            ("Hm.\n</think>\n\nRain.", "Hm.\n", "Rain.", &[]),
            ("Hm.\n</think>\n\nSo:\n```json\n{\"a\": 1}\n```", "Hm.\n", "So:\n```json\n{\"a\": 1}\n```", &[]),
            (
                "Hm.\n</think>\n\nLook.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n\
                 {\"city\": \"Paris\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n\
                 {}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                "Hm.\n",
                "Look.",
                &[PARIS, NOW],
            ),
            (
                "Hm.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n\
                 {\"city\": \"Köln \\u00e9\\n\\\"x\\\" \\\\ {🌧}\", \"days\": -3}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                "Hm.\n",
                "",
                &[ODD],
            ),
        ],
    ),
    (
        "deepseek-v3",
        Some(true),
        &[
            ("Hm.</think>Rain.", "Hm.", "Rain.", &[]),
            (
                "Hm.</think>Look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\"}\
                 <｜tool▁call▁end｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                "Hm.",
                "Look.",
                &[PARIS, NOW],
            ),
        ],
    ),
    (
        "deepseek-v3",
        Some(false),
        &[
            ("Rain.", "", "Rain.", &[]),
            (
                "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>\
                 {\"city\": \"Köln \\u00e9\\n\\\"x\\\" \\\\ {🌧}\", \"days\": -3}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
                "",
                "",
                &[ODD],
            ),
            // Its template tells nobody of tools, so that we do, and ask for this.
            (
                "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}",
                "",
                "",
                &[("get_weather", "{\"city\":\"Paris\"}")],
            ),
        ],
    ),
    (
        "gpt-oss",
        None,
        &[
            ("<|channel|>final<|message|>Rain.", "", "Rain.", &[]),
            (
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Rain.",
                "Hm.",
                "Rain.",
                &[],
            ),
            (" to=functions.get_weather<|channel|>commentary json<|message|>{\"city\": \"Paris\"}", "", "", &[PARIS]),
            (
                "<|channel|>commentary<|message|>Look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_time \
                 <|constrain|>json<|message|>{}",
                "",
                "Look.",
                &[NOW],
            ),
            (
                "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather \
                 <|constrain|>json<|message|>{\"city\": \"Köln \\u00e9\\n\\\"x\\\" \\\\ {🌧}\", \"days\": -3}",
                "Hm.",
                "",
                &[ODD],
            ),
        ],
    ),
    (
        "gemma3",
        None,
        &[
            ("Rain, {\"a\": 1}.", "", "Rain, {\"a\": 1}.", &[]),
            ("{\"name\": \"get_time\", \"arguments\": {}}", "", "", &[NOW]),
            (
                "{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Köln \\u00e9\\n\\\"x\\\" 🌧\"}}\n",
                "",
                "",
                &[("get_weather", "{\"city\":\"Köln é\\n\\\"x\\\" 🌧\"}")],
            ),
        ],
    ),
    (
        "gemma4",
        Some(true),
        &[
            ("<|channel>thought\nHm.\n<channel|>Rain.", "Hm.\n", "Rain.", &[]),
            ("<|channel>thought\nHm.\n<channel|><|tool_call>call:get_time{}<tool_call|>", "Hm.\n", "", &[NOW]),
        ],
    ),
    (
        "gemma4",
        Some(false),
        &[
            ("Rain.", "", "Rain.", &[]),
            (
                "Look.<|tool_call>call:get_weather{city:<|\"|>Köln \"x\" \\ 🌧<|\"|>,days:-3}<tool_call|>\
                 <|tool_call>call:get_time{}<tool_call|>",
                "",
                "Look.",
                &[("get_weather", "{\"city\":\"Köln \\\"x\\\" \\\\ 🌧\",\"days\":-3}"), NOW],
            ),
        ],
    ),
];

const TOOL_CALL: &[Row] = &[
    ("Rain, \"perhaps\".", "", "Rain, \"perhaps\".", &[]),
    ("<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>", "", "", &[PARIS]),
    (
        "Look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\n\
         <tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>",
        "",
        "Look.\n",
        &[PARIS, NOW],
    ),
    (
        "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": \
         {\"city\": \"Köln \\u00e9\\n\\\"x\\\" \\\\ {🌧}\", \"days\": -3}}\n</tool_call>",
        "",
        "",
        &[ODD],
    ),
];

fn calls(answer: &super::Answer) -> Vec<(&str, &str)> {
    answer.tool_calls.iter().map(|call| (call.name.as_str(), call.arguments.as_str())).collect()
}

#[test]
fn families_answers_are_told_apart() {
    for (name, thinking, rows) in ANSWERS {
        let family = Family::new(name);
        for (output, thought, text, wanted) in *rows {
            let answer = family.read(&may_call(*thinking), output);
            assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), (*thought, *text), "{name}: {output:?}");
            assert_eq!(calls(&answer), *wanted, "{name}: {output:?}");
            for (_, arguments) in calls(&answer) {
                serde_json::from_str::<serde_json::Value>(arguments).expect("arguments are JSON");
            }
        }
    }
}

/// Without tools, or where they must not be called, what looks like a call is text.
#[test]
fn families_call_nothing_where_there_is_nothing_to_call() {
    let call = "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>";
    let none = ChatOptions { tool_choice: ToolChoice::None, ..may_call(None) };
    for chat in [ChatOptions { parse: true, ..ChatOptions::default() }, none] {
        for (name, before, text) in [("qwen25", "", call), ("qwen3", "<think>\nHm.\n</think>\n\n", call)] {
            let answer = Family::new(name).read(&chat, &format!("{before}{text}"));
            assert_eq!((answer.text.as_str(), answer.tool_calls.len()), (text, 0), "{name}");
            assert_eq!(answer.reasoning.is_empty(), before.is_empty(), "{name}");
        }
    }
}

/// What is text although it looks like a call: of the thought before, nothing is lost, and nothing of it is text.
const TEXTS: &[(&str, &str, &[&str])] = &[
    (
        "llama3",
        "",
        &[
            "Use f(x) = {",
            "So: {\"a\": 1} and more.",
            "{\"a\": 1}",
            "```json\n{\"name\": \"get_weather\"}\n```",
            "{\"name\": \"get_wind\", \"parameters\": {\"city\": \"Paris\"}}",
        ],
    ),
    ("qwen25", "", TOOL_CALL_TEXTS),
    ("hermes", "", TOOL_CALL_TEXTS),
    ("qwen3", "<think>\nHm.\n</think>\n\n", TOOL_CALL_TEXTS),
    (
        "qwen3-coder",
        "",
        &[
            "Look. <tool_call>",
            "Use `<function=get_time>`, then.",
            "Use `<tool_call>`, then.",
            "<tool_call>\n<function=get_wind>\n</function>\n</tool_call>",
        ],
    ),
    (
        "mistral",
        "",
        &["Look. [TOOL_CALLS]", "A list: [{\"a\": 1}].", "Call [TOOL_", "[TOOL_CALLS][{\"name\": \"get_wind\"}]"],
    ),
    ("magistral", "[THINK]Hm.\n[/THINK]", &["Look. [TOOL_CALLS]", "Look. [TOOL_CALLS]get_wind[ARGS]{}", "Call [TOOL_"]),
    (
        "deepseek-r1",
        "Hm.\n</think>\n\n",
        &[
            "Look. <｜tool▁calls▁begin｜>",
            "So:\n```json\n{\"name\": \"get_time\"}\n```",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_wind\n",
        ],
    ),
    (
        "deepseek-v3",
        "Hm.\n</think>",
        &["Look. <｜tool▁calls▁begin｜>", "{\"a\": 1}", "{\"name\": \"get_wind\", \"arguments\": {}}"],
    ),
    (
        "gpt-oss",
        "<|channel|>analysis<|message|>Hm.\n<|end|><|start|>assistant<|channel|>final<|message|>",
        &["{\"city\": \"Paris\"}", "to=functions.get_time"],
    ),
    (
        "gemma3",
        "",
        &[
            "{\"a\": 1}",
            "{\"name\": \"get_wind\", \"arguments\": {}}",
            "```json\n{\"name\": \"get_time\", \"arguments\": {}}\n```",
            "{",
        ],
    ),
    (
        "gemma4",
        "<|channel>thought\nHm.\n<channel|>",
        &["Look. <|tool_call>", "Look. <|tool_call>call:get_wind{}<tool_call|>", "call:get_time{}"],
    ),
];

const TOOL_CALL_TEXTS: &[&str] = &[
    "Look. <tool_call>",
    "<tool_call>",
    "Look. <tool_c",
    "Use `<tool_call>` for {\"a\": 1}.",
    "```\n<tool_call>\n{\"name\": \"x\"}\n</tool_call>\n```",
    "{\"name\": \"get_time\", \"arguments\": {}}",
    "<tool_call>\n{\"name\": \"get_wind\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>",
];

#[test]
fn families_texts_that_look_like_calls_stay_texts() {
    for (name, before, texts) in TEXTS {
        let family = Family::new(name);
        for text in *texts {
            let answer = family.read(&may_call(Some(true)), &format!("{before}{text}"));
            assert_eq!((answer.text.as_str(), calls(&answer)), (*text, vec![]), "{name}");
            assert_eq!(answer.reasoning, if before.is_empty() { "" } else { "Hm.\n" }, "{name}: {text:?}");
        }
    }
}

/// The limit of tokens can be anywhere.
#[test]
fn families_answers_can_be_cut_off_anywhere() {
    for (name, thinking, rows) in ANSWERS {
        let family = Family::new(name);
        let (output, thought, text, wanted) = rows.last().expect("a row");
        let tokens = family.tokens(output);
        let mut told = 0;
        for len in (0..tokens.len()).step_by(5) {
            let answer = family.read_cut(&may_call(*thinking), &tokens[..len], FinishReason::Length, Cut::Tokens(3));
            assert!(thought.starts_with(&answer.reasoning), "{name}: {answer:?}");
            // What is only a call when it is complete was none.
            let plain = output.starts_with('{') && output.starts_with(&answer.text);
            assert!(text.starts_with(&answer.text) || plain, "{name}: {answer:?}");
            for ((name, arguments), wanted) in calls(&answer).into_iter().zip(*wanted) {
                assert!(name == wanted.0 && wanted.1.starts_with(arguments), "{name}({arguments}), not {wanted:?}");
                told += arguments.len();
            }
        }
        let late = wanted.is_empty() || ["gemma3", "deepseek-v3"].contains(name);
        assert!(told > 0 || late, "{name}: arguments are told before they are complete");
    }
}

/// What was told cannot be taken back: a call stays one, whatever follows it.
#[test]
fn families_calls_stay_calls() {
    let rows = [
        ("llama3", "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\"}} So.", ""),
        (
            "qwen25",
            "Look.<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>\nSo.",
            "Look.",
        ),
        // Nemo leaves the id out at times.
        ("mistral", "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}]", ""),
    ];
    for (name, output, text) in rows {
        let family = Family::new(name);
        let answer = family.read_cut(&may_call(None), &family.tokens(output), FinishReason::Eos, Cut::Characters);
        assert_eq!((answer.text.as_str(), calls(&answer)), (text, vec![PARIS]), "{name}");
    }
}

/// The answers to one prompt are read apart.
#[test]
fn families_parsers_are_made_once_and_copied() {
    for name in ["qwen25", "llama3"] {
        let family = Family::new(name);
        let prepared = family.prompts.prepare(&super::asked(may_call(None)), &|| true).expect("a prompt");
        let output = "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>";
        let text = family.written(&family.tokens(output), &prepared.shown);
        let mut first = prepared.parser.expect("a parser");
        let mut out = std::collections::VecDeque::new();
        first.push(&text[..text.len() / 2], &mut out).expect("it is read");
        let second = first.again().expect("a copy");
        let read = |parser| {
            let mut answer = super::read(Some(parser), &text, FinishReason::Eos, Cut::Whole);
            answer.tool_calls.iter_mut().for_each(|call| call.id.clear());
            answer
        };
        let fresh = family.prompts.prepare(&super::asked(may_call(None)), &|| true).expect("a prompt").parser;
        assert_eq!(read(second), read(fresh.expect("a parser")), "{name}");
    }
}

/// The engine leaves control tokens out of the text, but for those that the parser reads.
#[test]
fn families_marks_reach_the_parser() {
    let family = Family::new("magistral");
    let output = "[THINK]Hm.[/THINK]Rain.";
    let prepared = family.prompts.prepare(&super::asked(may_call(None)), &|| true).expect("a prompt");
    let lark: Vec<String> = family.tokens(output).iter().map(|id| format!("<[{id}]>")).collect();
    let form = crate::constrain::Constraint::Lark(format!("start: {}", lark.join(" ")));
    let spec =
        super::GenerateSpec { constraint: Some(form), ..super::GenerateSpec::new("m", super::Input::Raw("x".into())) };
    let form = family.prompts.prepare(&spec, &|| true).expect("a prompt").form.expect("a form");
    let filter = Some(family.prompts.filter(&form).expect("a filter"));
    let config = EngineConfig { label: "test".into(), queue: 1, ..EngineConfig::default() };
    let context = ContextParams { n_ctx: 256, ..ContextParams::default() };
    let (engine, _) =
        EngineHandle::start_llama(&family.model, None, AdapterSet::default(), context, 256, config).expect("an engine");
    let job = Job { prompt: vec![1], filter, shown: prepared.shown, ..Job::default() };
    let mut parser = prepared.parser.expect("a parser");
    let mut deltas = std::collections::VecDeque::new();
    for event in engine.submit(job).expect("it is queued") {
        match event.expect("it runs") {
            Event::Token { text, .. } => parser.push(&text, &mut deltas).expect("it is read"),
            Event::Done(summary) => parser.finish(summary.reason, &mut deltas).expect("it ends"),
            Event::Error(error) => panic!("{error}"),
        }
    }
    let mut answer = super::Answer::default();
    deltas.into_iter().for_each(|delta: Delta| assert!(answer.add(delta).is_none()));
    assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), ("Hm.", "Rain."));
}
