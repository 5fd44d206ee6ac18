//! What a model is called, from where it lies: `Qwen2.5-Coder-0.5B-Q4_K_M.gguf` is `qwen2.5-coder:0.5b-q4_k_m`.

use std::path::Path;

use super::hub::InRepository;
use super::shards::ShardName;

/// What a model would like to be called, all in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub name: String,
    /// What goes in front of the name where another model has it: a publisher or a folder.
    pub qualifier: Option<String>,
    /// Aliases that mean this model and no other, e.g. the file's name.
    pub exact: Vec<String>,
    /// shimmy 1.x's name, which several may have: it means the first.
    pub old: Option<String>,
    /// Aliases that hold where no other model has the same.
    pub short: Vec<String>,
}

/// The name that shimmy 1.x gave: the file's in lower case, without `.gguf`, shard number and quantisation.
/// `SmolLM2-135M-Instruct.Q4_1.gguf` is `smollm2-135m-instruct`.
#[must_use]
pub fn name_from_path(path: &Path) -> String {
    split_quantisation(&stem(path)).0.to_owned()
}

/// The wishes of a file that was found below `root`.
pub(super) fn of_file(path: &Path, root: &Path) -> Wishes {
    let file = stem(path);
    let place = InRepository::of(path);
    let (subject, quantisation) = subject(path, root, place.as_ref(), &file);
    let (family, variant) = split_size(&subject);
    let tag = [variant, quantisation.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("-");
    let with_tag = |tag: &str| if tag.is_empty() { family.to_owned() } else { format!("{family}:{tag}") };
    let name = with_tag(&tag);

    let mut exact = vec![file];
    let mut short = vec![family.to_owned()];
    if let Some(variant) = variant {
        let size = variant.split(['-', '_']).next().unwrap_or(variant);
        short.extend([with_tag(variant), with_tag(size)]);
    }
    if let Some(place) = &place {
        let repository = place.repository.to_lowercase();
        exact.extend(quantisation.map(|quantisation| format!("{repository}:{quantisation}")));
        short.push(repository);
    }
    Wishes { name, qualifier: qualifier(path, root, place.as_ref()), exact, old: Some(name_from_path(path)), short }
}

/// The wishes of a model that has a name with a tag already.
pub(super) fn of_tagged(name: &str, longer: Vec<String>) -> Wishes {
    let host = longer.last().and_then(|full| full.split('/').next()).map(str::to_owned);
    let family = |name: &String| name.rsplit_once(':').map(|(family, _)| family.to_owned());
    let name = name.to_owned();
    let short = std::iter::once(&name).chain(&longer).filter_map(family).collect();
    Wishes { name, qualifier: host, exact: longer, old: None, short }
}

/// The file's name in lower case, without ending and shard number.
fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let front = ShardName::parse(&stem).map(|shard| shard.front.to_owned());
    front.unwrap_or(stem)
}

/// What the model is, and its quantisation. A file's name that says neither is passed over for its folder's.
fn subject(path: &Path, root: &Path, place: Option<&InRepository>, file: &str) -> (String, Option<String>) {
    const NOTHING_SAID: &[&str] = &["", "model", "ggml-model", "gguf", "ggml", "unsloth", "consolidated", "weights"];
    let (front, quantisation) = split_quantisation(file);
    // `Q4_K_M.gguf` alone.
    let (front, quantisation) =
        if quantisation.is_none() && is_quantisation(front) { ("", Some(front)) } else { (front, quantisation) };
    let folder = || {
        let repository = place.map(|place| place.repository.rsplit('/').next().unwrap_or_default().to_lowercase());
        let parent = path.parent().filter(|parent| *parent != root).and_then(Path::file_name);
        repository.or_else(|| parent.map(|name| name.to_string_lossy().to_lowercase()))
    };
    let from_folder = if NOTHING_SAID.contains(&front) { folder() } else { None };
    let subject = match &from_folder {
        Some(folder) => split_quantisation(folder.strip_suffix("-gguf").unwrap_or(folder)).0,
        None => front,
    };
    let subject = tidy(subject);
    (if subject.is_empty() { "model".into() } else { subject }, quantisation.map(tidy))
}

/// A hub's owner, or the outermost folder that tells files of one name apart.
fn qualifier(path: &Path, root: &Path, place: Option<&InRepository>) -> Option<String> {
    let owner = place.and_then(|place| Some(place.repository.split_once('/')?.0.to_owned()));
    let below = || {
        let below = path.strip_prefix(root).ok()?;
        let folder = below.parent()?.iter().next().or_else(|| root.file_name())?;
        Some(folder.to_string_lossy().into_owned())
    };
    owner.or_else(below).map(|name| tidy(&name.to_lowercase())).filter(|name| !name.is_empty())
}

/// Only letters, digits, `.`, `_` and `-`, none of the signs at an end: `:` and `/` have a meaning in names.
fn tidy(text: &str) -> String {
    let kept = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '-' };
    text.chars().map(kept).collect::<String>().trim_matches(['.', '_', '-']).to_owned()
}

/// `llama-2-7b-chat` is the family `llama-2` in the variant `7b-chat`.
fn split_size(subject: &str) -> (&str, Option<&str>) {
    for (at, _) in subject.match_indices(['-', '_']).filter(|(at, _)| *at > 0) {
        let variant = &subject[at + 1..];
        if is_size(variant.split(['-', '_']).next().unwrap_or_default()) {
            return (&subject[..at], Some(variant));
        }
    }
    (subject, None)
}

/// `7b`, `0.5b`, `270m`, `8x7b`, `e4b`.
fn is_size(word: &str) -> bool {
    let Some(number) = word.strip_suffix(['b', 'm']) else { return false };
    let number = number.strip_prefix('e').unwrap_or(number);
    let is_number = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_digit())
            && text.ends_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    };
    number.split('x').all(is_number)
}

/// The quantisation that a name in lower case ends in, or is.
pub(super) fn quantisation_of(stem: &str) -> Option<&str> {
    let last = &stem[stem.rfind(['.', '-']).map_or(0, |at| at + 1)..];
    is_quantisation(last).then_some(last)
}

fn split_quantisation(stem: &str) -> (&str, Option<&str>) {
    match stem.rfind(['.', '-']).filter(|at| *at > 0) {
        Some(at) if is_quantisation(&stem[at + 1..]) => (&stem[..at], Some(&stem[at + 1..])),
        _ => (stem, None),
    }
}

/// `q4_k_m`, `iq2_xxs`, `f16`, `bf16`, `mxfp4`, `tq1_0` and their like.
fn is_quantisation(tag: &str) -> bool {
    let after_letters = tag.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let letters = &tag[..tag.len() - after_letters.len()];
    ["q", "iq", "tq", "f", "fp", "bf", "mxfp", "nvfp"].contains(&letters)
        && after_letters.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::{name_from_path, of_file, of_tagged};

    fn name(path: &str) -> String {
        of_file(Path::new(path), Path::new("/root")).name
    }

    #[test]
    fn names_have_family_and_tag() {
        for (file, expected) in [
            ("qwen2.5-coder-0.5b-q4_k_m.gguf", "qwen2.5-coder:0.5b-q4_k_m"),
            ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2:135m-instruct-q4_1"),
            ("gemma3-270m.q4_k_m.gguf", "gemma3:270m-q4_k_m"),
            ("Mixtral-8x7B-Instruct-v0.1-IQ2_XXS.gguf", "mixtral:8x7b-instruct-v0.1-iq2_xxs"),
            ("llama-3-70b-Q4_K_M-00001-of-00004.gguf", "llama-3:70b-q4_k_m"),
            ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "qwen3:30b-a3b-ud-q4_k_xl"),
            ("gemma-3n-E4B-it-bf16.gguf", "gemma-3n:e4b-it-bf16"),
            ("phi-3-mini-4k-instruct-q4.gguf", "phi-3-mini-4k-instruct:q4"),
            ("phi-3.gguf", "phi-3"),
            ("tiny.gguf", "tiny"),
            ("7b-q4_0.gguf", "7b:q4_0"),
            ("My Model: new.gguf", "my-model--new"),
            ("---.gguf", "model"),
        ] {
            assert_eq!(name(&format!("/root/{file}")), expected, "{file}");
        }
    }

    #[test]
    fn a_folder_speaks_for_a_file_that_says_nothing() {
        for (path, expected) in [
            ("/root/me/Foo-7B-GGUF/ggml-model-q4_0.gguf", "foo:7b-q4_0"),
            ("/root/Foo-7B-Q8_0/model.gguf", "foo:7b"),
            ("/root/models--me--Foo-7B-GGUF/snapshots/abc/Q4_K_M.gguf", "foo:7b-q4_k_m"),
            ("/root/model.gguf", "model"),
        ] {
            assert_eq!(name(path), expected, "{path}");
        }
    }

    #[test]
    fn aliases_are_the_names_that_people_know() {
        let root = Path::new("/root");
        let wishes = of_file(Path::new("/root/lab/SmolLM2-135M-Instruct.Q4_1.gguf"), root);
        assert_eq!(wishes.exact, ["smollm2-135m-instruct.q4_1"]);
        assert_eq!(wishes.old.as_deref(), Some("smollm2-135m-instruct"));
        assert_eq!(wishes.short, ["smollm2", "smollm2:135m-instruct", "smollm2:135m"]);
        assert_eq!(wishes.qualifier.as_deref(), Some("lab"));
        let hub = of_file(Path::new("/root/models--Me--Foo-7B-GGUF/snapshots/abc/foo-7b-q8_0.gguf"), root);
        assert_eq!(hub.exact, ["foo-7b-q8_0", "me/foo-7b-gguf:q8_0"]);
        assert_eq!(hub.short.last().map(String::as_str), Some("me/foo-7b-gguf"));
        assert_eq!(hub.qualifier.as_deref(), Some("me"));
        let stored = of_tagged("llama3:8b", vec!["library/llama3:8b".into(), "host/library/llama3:8b".into()]);
        assert_eq!(stored.qualifier.as_deref(), Some("host"));
        assert_eq!(stored.short, ["llama3", "library/llama3", "host/library/llama3"]);
    }

    #[test]
    fn old_names_leave_quantisation_and_shard_out() {
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

    proptest! {
        #[test]
        fn any_path_gives_a_name_of_one_form(path in "[^\\x00]{0,40}", file in "[^\\x00/]{0,40}") {
            let path = format!("/root/{path}/{file}.gguf");
            let name = name(&path);
            let allowed = |c: char| c.is_alphanumeric() || "._-:".contains(c);
            prop_assert!(!name.is_empty() && name.chars().all(allowed), "{:?}", name);
            prop_assert!(name.matches(':').count() <= 1, "{:?}", name);
            prop_assert!(!name.starts_with(':') && !name.ends_with(':'), "{:?}", name);
            prop_assert_eq!(name.to_lowercase(), name);
        }
    }
}
