//! Model names from file names.

use std::path::Path;

/// The file's name in lower case, without `.gguf`, shard number and quantisation:
/// `SmolLM2-135M-Instruct.Q4_1.gguf` is `smollm2-135m-instruct`.
#[must_use]
pub fn name_from_path(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let whole = strip_shard(&stem);
    match whole.rfind(['.', '-']).filter(|at| *at > 0) {
        Some(at) if is_quantisation(&whole[at + 1..]) => whole[..at].to_owned(),
        _ => whole.to_owned(),
    }
}

/// Whether this file is a later part of a model in shards. The first part stands for all.
pub(super) fn is_later_shard(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    shard(&stem).is_some_and(|(_, number)| number != "00001")
}

fn strip_shard(stem: &str) -> &str {
    shard(stem).map_or(stem, |(front, _)| front)
}

/// Splits `name-00002-of-00004` into its name and number.
fn shard(stem: &str) -> Option<(&str, &str)> {
    let (front, total) = stem.rsplit_once("-of-")?;
    let (name, number) = front.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (digits(total) && digits(number)).then_some((name, number))
}

/// `q4_k_m`, `iq2_xxs`, `f16`, `bf16`, `mxfp4`, `tq1_0` and their like.
fn is_quantisation(tag: &str) -> bool {
    let after_letters = tag.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let letters = &tag[..tag.len() - after_letters.len()];
    ["q", "iq", "tq", "f", "bf", "mxfp", "nvfp"].contains(&letters)
        && after_letters.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_later_shard, name_from_path};

    #[test]
    fn names_leave_quantisation_and_shard_out() {
        for (file, name) in [
            ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
            ("Qwen2.5-7B-Instruct-IQ2_XXS.gguf", "qwen2.5-7b-instruct"),
            ("llama-3-70b-Q4_K_M-00001-of-00004.gguf", "llama-3-70b"),
            ("gemma-3-270m-bf16.gguf", "gemma-3-270m"),
            ("phi-3.gguf", "phi-3"),
            ("tiny.gguf", "tiny"),
            ("flan-t5-f.gguf", "flan-t5-f"),
        ] {
            assert_eq!(name_from_path(Path::new(file)), name);
        }
    }

    #[test]
    fn only_the_first_shard_stands_for_the_model() {
        assert!(!is_later_shard(Path::new("a-00001-of-00004.gguf")));
        assert!(is_later_shard(Path::new("a-00002-of-00004.gguf")));
        assert!(!is_later_shard(Path::new("a-of-b.gguf")));
    }
}
