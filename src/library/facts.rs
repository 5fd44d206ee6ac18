//! What a model's header says about it. The one source of what lists, `show` and the APIs tell.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::gguf::{Header, POOLING_NONE, POOLING_RANK, Value};

/// Facts from a model's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ModelFacts")]
pub struct Facts {
    pub architecture: String,
    /// E.g. `Q4_K_M`.
    pub quantization: String,
    /// Tokens that the model was trained for; 0 where the file does not say.
    pub trained_context_tokens: u64,
    /// Weights of all shards.
    pub parameters: u64,
    /// What it can be asked for, in the order of [`Capability`].
    pub capabilities: Vec<Capability>,
    /// The name that its makers gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Its chat template, which is too long for lists.
    #[serde(skip)]
    pub template: Option<Arc<str>>,
}

/// What a model was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Goes on with a text.
    Completion,
    /// Has a chat template.
    Chat,
    /// Its template knows tools.
    Tools,
    /// Its template knows thoughts.
    Thinking,
    /// Looks at images, with its projector.
    Vision,
    /// Fills in the middle of a text.
    Fim,
    Embeddings,
    /// Ranks texts by how well they answer.
    Rerank,
}

impl Capability {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Chat => "chat",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Vision => "vision",
            Self::Fim => "fim",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
        }
    }
}

/// The tokens in front of what stands before a gap, in front of what stands behind it, and where the answer begins, as
/// llama.cpp knows them by their names.
const FIM_TOKENS: [&[&str]; 3] = [
    &[
        "<|fim_prefix|>",
        "<fim-prefix>",
        "<fim_prefix>",
        "<｜fim▁begin｜>",
        "<PRE>",
        "▁<PRE>",
        "<|code_prefix|>",
        "<|prefix|>",
    ],
    &[
        "<|fim_suffix|>",
        "<fim-suffix>",
        "<fim_suffix>",
        "<｜fim▁hole｜>",
        "<SUF>",
        "▁<SUF>",
        "<|code_suffix|>",
        "<|suffix|>",
    ],
    &[
        "<|fim_middle|>",
        "<fim-middle>",
        "<fim_middle>",
        "<｜fim▁end｜>",
        "<MID>",
        "▁<MID>",
        "<|code_middle|>",
        "<|middle|>",
    ],
];

impl Facts {
    #[must_use]
    pub fn of(header: &Header) -> Self {
        Self::of_shards(header, &[])
    }

    /// Of a model whose weights go on in `later` files.
    #[must_use]
    pub fn of_shards(first: &Header, later: &[Header]) -> Self {
        let counts = std::iter::once(first).chain(later).map(Header::parameter_count);
        let text = |key| first.text(key).map(str::to_owned);
        Self {
            architecture: first.architecture().to_owned(),
            quantization: quantization(first, later),
            trained_context_tokens: first.context_length().unwrap_or(0),
            parameters: counts.fold(0, u64::saturating_add),
            capabilities: capabilities(first),
            title: text("general.name"),
            license: text("general.license"),
            template: first.text("tokenizer.chat_template").map(Arc::from),
        }
    }

    #[must_use]
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// Whether it can, which what lies beside it may change.
    pub fn set(&mut self, capability: Capability, can: bool) {
        self.capabilities.retain(|known| *known != capability);
        if can {
            self.capabilities.push(capability);
            self.capabilities.sort_unstable();
        }
    }
}

/// A first shard may hold no weights.
fn quantization(first: &Header, later: &[Header]) -> String {
    let has_weights = |header: &&Header| header.tensors().iter().any(|tensor| tensor.dims.len() >= 2);
    let says = first.get("general.file_type").is_some() || has_weights(&first);
    let telling = if says { first } else { later.iter().find(has_weights).unwrap_or(first) };
    telling.quantization()
}

/// Read off the template: tools work with any model, but one that was trained for them has a template that knows them.
fn capabilities(header: &Header) -> Vec<Capability> {
    let of_architecture = |key| header.get_of_architecture(key);
    // Models that are made to embed say how they sum up a text, or that tokens see those behind them.
    match of_architecture("pooling_type").map(Value::as_u64) {
        Some(Some(POOLING_RANK)) => return vec![Capability::Rerank],
        Some(pooling) if pooling != Some(POOLING_NONE) => return vec![Capability::Embeddings],
        // It neither writes nor sums a text up.
        pooling if of_architecture("attention.causal") == Some(&Value::Bool(false)) => {
            return if pooling.is_none() { vec![Capability::Embeddings] } else { Vec::new() };
        }
        _ => {}
    }
    let template = header.text("tokenizer.chat_template").unwrap_or_default();
    let mentions = |words: &[&str]| words.iter().any(|word| template.contains(word));
    let found = [
        (Capability::Completion, true),
        (Capability::Chat, !template.is_empty()),
        (Capability::Tools, mentions(&["tools"])),
        (Capability::Thinking, mentions(&["<think>", "enable_thinking", "reasoning_effort", "reasoning_content"])),
        (Capability::Fim, fills_in(header)),
    ];
    found.into_iter().filter(|(_, has)| *has).map(|(capability, _)| capability).collect()
}

fn fills_in(header: &Header) -> bool {
    let names = [["fim_pre", "prefix"], ["fim_suf", "suffix"], ["fim_mid", "middle"]];
    let by_id =
        |keys: [&str; 2]| keys.iter().any(|key| header.get(&format!("tokenizer.ggml.{key}_token_id")).is_some());
    let by_name = |tokens: &[&str]| header.control_tokens().any(|token| tokens.contains(&token));
    names.into_iter().zip(FIM_TOKENS).all(|(keys, tokens)| by_id(keys) || by_name(tokens))
}

#[cfg(test)]
mod tests {
    use super::{Capability, Facts};
    use crate::gguf::{Header, writer::Writer, writer::tiny_llama};

    fn facts(change: impl Fn(&mut Writer)) -> Facts {
        let mut writer = tiny_llama();
        change(&mut writer);
        let bytes = writer.to_bytes();
        let whole = Facts::of(&Header::parse(&bytes).expect("a header"));
        let skimmed = Facts::of(&Header::parse_skimming(&bytes).expect("a header"));
        assert_eq!(whole, skimmed, "skimming changes no fact");
        whole
    }

    fn capabilities(change: impl Fn(&mut Writer)) -> Vec<&'static str> {
        facts(change).capabilities.into_iter().map(Capability::name).collect()
    }

    /// A vocabulary longer than what is kept of lists.
    fn long_vocabulary(writer: &mut Writer, special: &[&str]) {
        let words = (0..2000).map(|n| format!("word{n}"));
        let tokens: Vec<String> = words.chain(special.iter().map(|token| (*token).to_owned())).collect();
        writer.strings("tokenizer.ggml.tokens", &tokens);
    }

    #[test]
    fn capabilities_are_read_off_header_and_template() {
        let template = |text: &'static str| {
            move |w: &mut Writer| {
                w.string("tokenizer.chat_template", text);
            }
        };
        assert_eq!(capabilities(|_| {}), ["completion"]);
        assert_eq!(capabilities(template("{{ messages }}")), ["completion", "chat"]);
        let both = capabilities(template("{% if tools %}<think>"));
        assert_eq!(both, ["completion", "chat", "tools", "thinking"]);
        let number = |key: &'static str, value| {
            capabilities(move |w| {
                w.u32(key, value);
            })
        };
        assert_eq!(number("llama.pooling_type", 1), ["embeddings"]);
        assert_eq!(number("llama.pooling_type", 4), ["rerank"]);
        assert_eq!(number("llama.pooling_type", 0)[0], "completion");
        let bidirectional = capabilities(|w| {
            w.bool("llama.attention.causal", false);
        });
        assert_eq!(bidirectional, ["embeddings"]);
    }

    #[test]
    fn fill_in_the_middle_needs_all_tokens() {
        for marks in [
            ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
            ["▁<PRE>", "▁<SUF>", "▁<MID>"],
            ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
        ] {
            assert_eq!(capabilities(|w| long_vocabulary(w, &marks)), ["completion", "fim"]);
            assert_eq!(capabilities(|w| long_vocabulary(w, &marks[..2])), ["completion"]);
        }
        let by_id = capabilities(|w| {
            let ids = ["fim_pre", "suffix", "fim_mid"].map(|name| format!("tokenizer.ggml.{name}_token_id"));
            w.u32(&ids[0], 1).u32(&ids[1], 2).u32(&ids[2], 3);
        });
        assert_eq!(by_id, ["completion", "fim"]);
    }

    #[test]
    fn what_the_file_says_of_its_formats_goes_before_what_most_weights_have() {
        assert_eq!(facts(|_| {}).quantization, "F32");
        let said = facts(|w| {
            w.u32("general.file_type", 15);
        });
        assert_eq!(said.quantization, "Q4_K_M");
        let guessed = facts(|w| {
            w.u32("general.file_type", 1024 + 15);
        });
        assert_eq!(guessed.quantization, "F32");
    }
}
