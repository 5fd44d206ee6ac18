//! Model families: their templates, and what they answer, through all that stands between a request and its deltas.
//!
//! The templates in `tests/templates` are ours, with each family's marks in their order.

mod answers;
mod forced;
mod prompts;

use std::collections::VecDeque;
use std::path::Path;

use serde_json::json;

use super::delta::{Answer, Delta, OutputParser};
use super::prompt::Prompts;
use super::spec::{GenerateSpec, Input};
use crate::chat::{ChatOptions, Message, Role, TemplateChoice, Tool};
use crate::engine::{FinishReason, TokenId};
use crate::gguf::writer::{TINY_EMBD, tiny_llama};
use crate::llama::{Backend, Model, ModelParams, Token, Vocab};

/// Control tokens of each family.
const FAMILIES: &[(&str, &[&str])] = &[
    ("llama3", &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>"]),
    ("qwen25", &["<|im_start|>", "<|im_end|>"]),
    ("qwen3", &["<|im_start|>", "<|im_end|>"]),
    ("qwen3-coder", &["<|im_start|>", "<|im_end|>"]),
    ("hermes", &["<|im_start|>", "<|im_end|>"]),
    ("mistral", MISTRAL),
    ("magistral", MISTRAL),
    ("deepseek-r1", DEEPSEEK),
    ("deepseek-v3", DEEPSEEK),
    ("gpt-oss", &["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]),
    ("gemma3", &["<start_of_turn>", "<end_of_turn>"]),
    ("gemma4", GEMMA4),
];

const MISTRAL: &[&str] = &[
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[THINK]",
    "[/THINK]",
];

const DEEPSEEK: &[&str] = &[
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜end▁of▁sentence｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
];

const GEMMA4: &[&str] = &[
    "<|turn>",
    "<turn|>",
    "<|think|>",
    "<|channel>",
    "<channel|>",
    "<|tool>",
    "<tool|>",
    "<|tool_call>",
    "<tool_call|>",
    "<|tool_response>",
    "<tool_response|>",
    GEMMA_QUOTE,
];

/// A token of its own, but text: that is what llama.cpp makes of it, whatever the file says.
const GEMMA_QUOTE: &str = "<|\"|>";

/// A tiny model with these tokens and those that any text needs. `prefix` puts a space before each text, as Llama 2 does.
fn model(control: &[&str], prefix: bool) -> Model {
    let mut writer = tiny_llama();
    let mut tokens: Vec<(String, i32)> = vec![("<unk>".into(), 2), ("<s>".into(), 3), ("</s>".into(), 3)];
    tokens.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 6)));
    tokens.push(("▁".into(), 1));
    tokens.extend(control.iter().map(|name| ((*name).to_owned(), if *name == GEMMA_QUOTE { 4 } else { 3 })));
    let n = tokens.len();
    let (names, types): (Vec<String>, Vec<i32>) = tokens.into_iter().unzip();
    writer
        .strings("tokenizer.ggml.tokens", &names)
        .f32s("tokenizer.ggml.scores", &vec![0.0; n])
        .i32s("tokenizer.ggml.token_type", &types)
        .bool("tokenizer.ggml.add_space_prefix", prefix)
        .random("token_embd.weight", &[TINY_EMBD, n as u64], 0.0)
        .random("output.weight", &[TINY_EMBD, n as u64], 0.0);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    writer.write(file.path()).expect("it is written");
    let backend = Backend::init().expect("a backend");
    Model::load(backend, file.path(), &ModelParams::default(), &mut |_| true).expect("it loads")
}

struct Family {
    prompts: Prompts,
    vocab: Vocab,
    model: Model,
    control: &'static [&'static str],
}

impl Family {
    fn new(name: &str) -> Self {
        Self::with(name, false)
    }

    fn with(name: &str, prefix: bool) -> Self {
        let (_, control) = FAMILIES.iter().find(|(known, _)| *known == name).expect("a known family");
        let model = model(control, prefix);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/templates/{name}.jinja"));
        let template = TemplateChoice::new(&model, path.to_str()).expect("it parses");
        let vocab = model.vocab().expect("a vocabulary");
        Self { prompts: Prompts::new(vocab.clone(), template, Err(String::new()), [512; 2]), vocab, model, control }
    }

    fn tokens(&self, text: &str) -> Vec<TokenId> {
        let tokens = self.vocab.tokenize(text, false, true).expect("tokens");
        tokens.into_iter().map(Token::index).collect()
    }

    /// The text that the engine makes of tokens: control tokens show nothing but where they are wanted.
    fn written(&self, tokens: &[TokenId], shown: &[TokenId]) -> String {
        let mut bytes = Vec::new();
        for id in tokens {
            let token = Token::new(*id).expect("a token");
            self.vocab.append_piece(token, shown.contains(id), &mut bytes).expect("a piece");
        }
        bytes.utf8_chunks().next().map(|whole| whole.valid().to_owned()).unwrap_or_default()
    }

    /// What becomes of an answer, however it is cut.
    fn read(&self, chat: &ChatOptions, output: &str) -> Answer {
        let cut = |cut| self.read_cut(chat, &self.tokens(output), FinishReason::Eos, cut);
        let whole = cut(Cut::Whole);
        for other in [Cut::Characters, Cut::Tokens(1), Cut::Tokens(2)] {
            assert_eq!(cut(other), whole, "{output:?} in {other:?}");
        }
        whole
    }

    fn read_cut(&self, chat: &ChatOptions, output: &[TokenId], reason: FinishReason, cut: Cut) -> Answer {
        let prepared = self.prompts.prepare(&asked(chat.clone()), &|| true).expect("a prompt");
        let text = self.written(output, &prepared.shown);
        let mut answer = read(prepared.parser, &text, reason, cut);
        for call in &mut answer.tool_calls {
            assert_eq!(call.id.len(), 9, "each call gets an id, once: {call:?}");
            call.id.clear();
        }
        answer
    }
}

/// How an answer comes.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Whole,
    Characters,
    /// Of some letters each, by this seed.
    Tokens(u64),
}

impl Cut {
    fn pieces(self, text: &str) -> Vec<String> {
        let characters: Vec<char> = text.chars().collect();
        let mut random = fastrand::Rng::with_seed(if let Self::Tokens(seed) = self { seed } else { 0 });
        let mut rest = characters.as_slice();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let len = match self {
                Self::Whole => rest.len(),
                Self::Characters => 1,
                Self::Tokens(_) => random.usize(1..8).min(rest.len()),
            };
            pieces.push(rest[..len].iter().collect());
            rest = &rest[len..];
        }
        pieces
    }
}

/// What a parser makes of a text.
fn read(parser: Option<Box<dyn OutputParser>>, text: &str, reason: FinishReason, cut: Cut) -> Answer {
    let mut deltas = VecDeque::new();
    match parser {
        Some(mut parser) => {
            for piece in cut.pieces(text) {
                parser.push(&piece, &mut deltas).expect("it is read");
            }
            parser.finish(reason, &mut deltas).expect("it ends");
        }
        None => deltas.push_back(Delta::Content(text.into())),
    }
    let mut answer = Answer::default();
    for delta in deltas {
        assert!(answer.add(delta).is_none(), "the end is not the parser's");
    }
    answer
}

fn tools() -> Vec<Tool> {
    let weather = json!({
        "type": "object",
        "properties": { "city": { "type": "string" }, "days": { "type": "integer" } },
        "required": ["city"],
    });
    let tool = |name: &str, parameters| Tool { name: name.into(), description: format!("{name} of it"), parameters };
    vec![tool("get_weather", weather), tool("get_time", json!({ "type": "object", "properties": {} }))]
}

/// Tools that may be called, also several in an answer.
fn may_call(thinking: Option<bool>) -> ChatOptions {
    ChatOptions { parse: true, tools: tools(), parallel_tool_calls: true, thinking, ..ChatOptions::default() }
}

fn asked(chat: ChatOptions) -> GenerateSpec {
    let messages = vec![Message::new(Role::User, "What is it like in Paris?")];
    GenerateSpec { chat, ..GenerateSpec::new("m", Input::Messages(messages)) }
}
