//! Refuses model files that llama.cpp would abort on, now or at the first decode.

use std::collections::HashSet;

use super::error::GgufError;
use super::header::{Header, TensorInfo, Value};
use super::types::TensorType;

/// llama.cpp's own fixed limits.
const MAX_LAYERS: u64 = 512;
const MAX_EXPERTS: u64 = 512;
/// Architectures that llama.cpp loads and that need another way to run than token after token.
const NOT_RUN: &[(&[&str], &str)] = &[
    (&["t5", "t5encoder"], "which reads with an encoder; that is not run here"),
    (&["dream", "llada", "llada-moe", "rnd1"], "which writes a text all at once, by diffusion; that is not run here"),
    (&["eagle3", "dflash"], "which guesses for one other model only, and has no text of its own"),
    (&["wavtokenizer-dec"], "which makes sound and no text"),
];
/// Rows of numbers that are looked up and not computed with.
const LOOKED_UP: &[&str] = &["ffn_gate_tid2eid.weight"];
/// llama.cpp's numbers for no pooling and for pooling by rank.
pub const POOLING_NONE: u64 = 0;
pub const POOLING_RANK: u64 = 4;

/// # Errors
/// [`GgufError::Invalid`] or [`GgufError::Truncated`], with the key or tensor and what to do.
pub fn validate_model(header: &Header) -> Result<(), GgufError> {
    let fail = |what: String| Err(GgufError::Invalid { path: header.path().to_owned(), what });
    validate_outline(header)?;
    check_experts(header).or_else(fail)?;
    check_rope(header).or_else(fail)?;
    check_epsilons(header).or_else(fail)?;
    check_lists(header).or_else(fail)?;
    check_vocabulary(header).or_else(fail)?;
    check_ranking(header).or_else(fail)?;
    super::shards::check_later(header)
}

/// The part of [`validate_model`] that tells a language model from other files and whole ones from cut ones: what a list of
/// models needs to know. Is satisfied with [`Header::skim`].
///
/// # Errors
/// As [`validate_model`].
pub fn validate_outline(header: &Header) -> Result<(), GgufError> {
    let fail = |what: String| Err(GgufError::Invalid { path: header.path().to_owned(), what });
    match header.get("general.architecture") {
        Some(Value::String(name)) if !name.is_empty() => {}
        Some(other) => return fail(format!("general.architecture is {other:?}; it must be a name")),
        None => return fail("no general.architecture: this is not a language model".into()),
    }
    if header.is_adapter() {
        return fail("is a LoRA adapter, not a model; give it with --lora beside its base model".into());
    }
    if header.is_projector() {
        return fail("is a projector for images (mmproj), not a language model".into());
    }
    if let Some((_, what)) = NOT_RUN.iter().find(|(names, _)| names.contains(&header.architecture())) {
        return fail(format!("is a model of the architecture {}, {what}", header.architecture()));
    }
    check_layers(header).or_else(fail)?;
    check_vocabulary_kind(header).or_else(fail)?;
    check_tensors(header)
}

/// Data that every file with tensors must satisfy: known types, whole rows, inside the file.
///
/// # Errors
/// As [`validate_model`].
pub fn check_tensors(header: &Header) -> Result<(), GgufError> {
    let fail = |what: String| Err(GgufError::Invalid { path: header.path().to_owned(), what });
    let mut names = HashSet::new();
    let mut end = header.data_offset();
    for tensor in header.tensors() {
        if !names.insert(tensor.name.as_str()) {
            return fail(format!("the tensor {:?} occurs twice", tensor.name));
        }
        let bytes = match check_tensor(tensor, header.alignment()) {
            Ok(bytes) => bytes,
            Err(what) => return fail(what),
        };
        let Some(tensor_end) =
            header.data_offset().checked_add(tensor.offset).and_then(|start| start.checked_add(bytes))
        else {
            return fail(format!("the tensor {:?} lies beyond any file's end", tensor.name));
        };
        end = end.max(tensor_end);
    }
    if end > header.file_len() {
        return Err(GgufError::Truncated { path: header.path().to_owned(), expected: end, found: header.file_len() });
    }
    Ok(())
}

/// Bytes of the tensor.
fn check_tensor(tensor: &TensorInfo, alignment: u64) -> Result<u64, String> {
    let name = &tensor.name;
    let Some(kind) = TensorType::from_id(tensor.type_id) else {
        return Err(format!(
            "the tensor {name:?} has the unknown type {}; a newer llama.cpp may know it",
            tensor.type_id
        ));
    };
    if tensor.dims.is_empty() || tensor.dims.contains(&0) {
        return Err(format!("the tensor {name:?} has the shape {:?}", tensor.dims));
    }
    if tensor.elements().is_none_or(|n| n > i64::MAX as u64) {
        return Err(format!("the tensor {name:?} has the impossible shape {:?}", tensor.dims));
    }
    let Some(bytes) = tensor.bytes() else {
        return Err(format!(
            "the tensor {name:?} has rows of {} elements, which {} cannot store",
            tensor.dims[0], kind.name
        ));
    };
    if !tensor.offset.is_multiple_of(alignment) {
        return Err(format!("the tensor {name:?} begins at {}, which is no multiple of {alignment}", tensor.offset));
    }
    let is_norm = name.ends_with("norm.weight") || name.ends_with("norm.bias");
    if is_norm && !kind.is_float() {
        return Err(format!("the tensor {name:?} is {}; llama.cpp computes norms with floats only", kind.name));
    }
    let computed = name.ends_with(".weight") && !LOOKED_UP.iter().any(|end| name.ends_with(end));
    if computed && kind.is_unfit_for_weights() {
        return Err(format!("the tensor {name:?} is {}; llama.cpp computes no layer with that", kind.name));
    }
    Ok(bytes)
}

fn check_layers(header: &Header) -> Result<(), String> {
    let key = format!("{}.block_count", header.architecture());
    match header.get(&key) {
        None => Err(format!("no {key}: the number of layers is missing")),
        Some(value) => match value.as_u64() {
            Some(1..=MAX_LAYERS) => Ok(()),
            _ => Err(format!("{key} is {value:?}; it must be between 1 and {MAX_LAYERS}")),
        },
    }
}

fn check_experts(header: &Header) -> Result<(), String> {
    let number = |suffix: &str| header.get_of_architecture(suffix).and_then(Value::as_u64).unwrap_or(0);
    let (all, used) = (number("expert_count"), number("expert_used_count"));
    let (groups, groups_used) = (number("expert_group_count"), number("expert_group_used_count"));
    if all > MAX_EXPERTS || used > all || (all > 0 && used == 0) {
        return Err(format!(
            "{used} of {all} experts are used; at most {MAX_EXPERTS} are allowed, and at least one is needed"
        ));
    }
    let grouping_fits = match groups {
        0 | 1 => groups <= all,
        _ => groups < all && all % groups == 0 && groups_used > 0 && groups_used < groups,
    };
    if grouping_fits {
        Ok(())
    } else {
        Err(format!("{all} experts do not make {groups} groups of which {groups_used} are used"))
    }
}

/// llama.cpp reads one score a text behind the last pooled one, however many numbers a text was pooled to: without a head that
/// makes as many as there are labels, all scores but the first would be other numbers.
fn check_ranking(header: &Header) -> Result<(), String> {
    let by_rank = header.get_of_architecture("pooling_type").and_then(Value::as_u64) == Some(POOLING_RANK);
    // A head may lie in a later shard.
    if !by_rank || header.split_count() > 1 {
        return Ok(());
    }
    let labels = header.get_of_architecture("classifier.output_labels").and_then(Value::list_len).unwrap_or(0).max(1);
    let makes = |name: &str| header.tensor(name).map(|head| head.dims.get(1).copied().unwrap_or(1));
    match makes("cls.output.weight").or_else(|| makes("cls.weight")) {
        Some(found) if found == labels => Ok(()),
        Some(found) => Err(format!("its head makes {found} numbers (cls.output.weight or cls.weight) for {labels} scores of a text")),
        None => Err("pools by rank and has no head that makes a score (cls.output.weight); convert the model anew, with its head".into()),
    }
}

fn check_rope(header: &Header) -> Result<(), String> {
    match header.get_of_architecture("rope.scaling.type") {
        None => Ok(()),
        Some(Value::String(kind)) if ["none", "linear", "yarn", "longrope"].contains(&kind.as_str()) => Ok(()),
        Some(other) => Err(format!("rope.scaling.type is {other:?}; llama.cpp knows none, linear, yarn and longrope")),
    }
}

fn check_epsilons(header: &Header) -> Result<(), String> {
    for name in ["layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon"] {
        let key = format!("{}.attention.{name}", header.architecture());
        header.get(&key).map_or(Ok(()), |found| check_epsilon(&key, Some(found)))?;
    }
    Ok(())
}

/// llama.cpp aborts at the first pass with one that is less than 0 or no number.
pub(super) fn check_epsilon(key: &str, found: Option<&Value>) -> Result<(), String> {
    match found {
        Some(Value::F32(epsilon)) if epsilon.is_finite() && *epsilon >= 0.0 => Ok(()),
        Some(other) => Err(format!("{key} is {other:?}; it must be a number from 0 on")),
        None => Err(format!("{key} is missing")),
    }
}

/// Keys that may be lists, and of what. llama.cpp aborts on a list of another kind.
const LISTS: &[(&str, ListKind)] = &[
    ("feed_forward_length", ListKind::Whole),
    ("attention.head_count", ListKind::Whole),
    ("attention.head_count_kv", ListKind::Whole),
    ("attention.sliding_window_pattern", ListKind::Whole),
    ("attention.indexer.types", ListKind::Whole),
    ("attention.compress_ratios", ListKind::Whole),
    ("attention.recurrent_layers", ListKind::Whole),
    ("rope.dimension_sections", ListKind::Whole),
    ("deepstack_mapping", ListKind::Whole),
    ("target_layers", ListKind::Whole),
    ("swiglu_clamp_exp", ListKind::Float),
    ("swiglu_clamp_shexp", ListKind::Float),
    ("classifier.output_labels", ListKind::Text),
];

#[derive(Clone, Copy, PartialEq)]
enum ListKind {
    Whole,
    Float,
    Text,
}

fn check_lists(header: &Header) -> Result<(), String> {
    for (suffix, wanted) in LISTS {
        let found = match header.get_of_architecture(suffix) {
            Some(Value::Strings(_) | Value::Array { kind: 8, .. }) => ListKind::Text,
            Some(Value::Array { kind: 6, .. }) => ListKind::Float,
            // Lists of anything else are refused by llama.cpp itself.
            _ => *wanted,
        };
        if found != *wanted {
            let what = match wanted {
                ListKind::Whole => "whole numbers",
                ListKind::Float => "floats",
                ListKind::Text => "texts",
            };
            return Err(format!("{}.{suffix} must be a list of {what}", header.architecture()));
        }
    }
    Ok(())
}

fn check_vocabulary_kind(header: &Header) -> Result<(), String> {
    match header.get("tokenizer.ggml.model") {
        Some(Value::String(model)) if model != "none" => Ok(()),
        Some(Value::String(_)) | None => {
            Err("has no vocabulary, so text can be neither read nor written with it".into())
        }
        Some(other) => Err(format!("tokenizer.ggml.model is {other:?}; it must be a name")),
    }
}

fn check_vocabulary(header: &Header) -> Result<(), String> {
    let tokens = match header.get("tokenizer.ggml.tokens") {
        Some(Value::Strings(tokens)) if !tokens.is_empty() => tokens,
        other => return Err(format!("tokenizer.ggml.tokens must be a list of strings, found {}", shape(other))),
    };
    let mut seen = HashSet::with_capacity(tokens.len());
    // llama.cpp numbers the empty ones, so there may be many.
    if let Some(twice) = tokens.iter().filter(|token| !token.is_empty()).find(|token| !seen.insert(token.as_str())) {
        return Err(format!("the vocabulary holds {twice:?} twice"));
    }
    let n = tokens.len() as u64;
    for (key, kind) in [("scores", 6), ("token_type", 5)] {
        match header.get(&format!("tokenizer.ggml.{key}")) {
            None => {}
            Some(Value::Array { kind: found, len, .. }) if *found == kind && *len >= n => {}
            other => {
                return Err(format!(
                    "tokenizer.ggml.{key} must have one number for each of {n} tokens, found {}",
                    shape(other)
                ));
            }
        }
    }
    for (key, fits) in [
        ("merges", (|value| matches!(value, Value::Strings(_))) as fn(&Value) -> bool),
        ("precompiled_charsmap", |value| matches!(value, Value::Array { kind: 0 | 1, .. })),
        ("suppress_tokens", |value| matches!(value, Value::Array { kind: 4 | 5, .. })),
    ] {
        let key = format!("tokenizer.ggml.{key}");
        if let Some(found) = header.get(&key).filter(|value| !fits(value)) {
            return Err(format!("{key} is of a wrong kind: {}", shape(Some(found))));
        }
    }
    check_special_tokens(header, n)
}

/// BOS and EOS that are put in front and behind must exist. llama.cpp passes over other ids out of range by itself.
fn check_special_tokens(header: &Header, n: u64) -> Result<(), String> {
    for (flag, id) in [("add_bos_token", "bos_token_id"), ("add_eos_token", "eos_token_id")] {
        let adds = header.get(&format!("tokenizer.ggml.{flag}")) == Some(&Value::Bool(true));
        let token = header.get(&format!("tokenizer.ggml.{id}"));
        if adds && token.is_some_and(|token| token.as_u64().is_none_or(|token| token >= n)) {
            return Err(format!("tokenizer.ggml.{id} is {}, outside the vocabulary of {n} tokens", shape(token)));
        }
    }
    Ok(())
}

/// A value in few words.
fn shape(value: Option<&Value>) -> String {
    match value {
        None => "nothing".into(),
        Some(value) => match value.list_len() {
            Some(n) => format!("a list of {n}"),
            None => format!("{value:?}"),
        },
    }
}
