//! GGUF files at plain addresses.

use std::path::Path;

use reqwest::Url;

use super::digest::Digest;
use super::download::Wanted;
use super::model_name::{LIBRARY, ModelName, NotAName, as_part};
use super::quant;
use super::source::shown;
use super::store::Store;
use crate::library::name_from_path;

/// Names of such models have this host.
pub(super) const WEB_HOST: &str = "url";

pub(super) fn wanted(url: &Url, digest: Option<&Digest>) -> Wanted {
    Wanted {
        url: url.clone(),
        authorization: None,
        what: file_name(url),
        digest: digest.cloned(),
        size: None,
        is_gguf: true,
    }
}

/// The file's name, with a number computed from its address where a file of another address has it.
pub(super) fn name(url: &Url, store: &Store) -> Result<ModelName, NotAName> {
    let (name, source) = (file_model(url)?, shown(url));
    let ModelName { host, namespace, model, tag } = &name;
    let own = ModelName::new(host, namespace, model, &format!("{tag}-{:08x}", crc32fast::hash(source.as_bytes())))?;
    let is_others = store.get(&name).is_some_and(|manifest| manifest.source() != Some(&source));
    Ok(if is_others || store.get(&own).is_some() { own } else { name })
}

/// The file's name, with its quantisation as the tag.
fn file_model(url: &Url) -> Result<ModelName, NotAName> {
    let file = file_name(url);
    let stem = file.strip_suffix(".gguf").unwrap_or(&file);
    let tag = quant::label(stem).unwrap_or_else(|| "latest".into());
    let model = name_from_path(Path::new(&format!("{stem}.gguf")));
    ModelName::new(WEB_HOST, LIBRARY, &as_part(&model), &as_part(&tag.to_lowercase()))
}

fn file_name(url: &Url) -> String {
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).filter(|last| !last.is_empty());
    last.or(url.host_str()).unwrap_or("model").to_owned()
}

#[cfg(test)]
mod tests {
    use super::file_model;

    #[test]
    fn a_file_at_an_address_is_named_after_itself() {
        for (url, expected) in [
            ("https://example.com/x/SmolLM2-135M.Q4_1.gguf?sig=a/b", "smollm2-135m:q4_1"),
            ("https://example.com/tiny.gguf", "tiny:latest"),
            ("https://example.com/%2e%2e%2fpasswd", "2e-2e-2fpasswd:latest"),
            ("https://example.com", "example.com:latest"),
        ] {
            let url = url.parse().expect("an address");
            assert_eq!(file_model(&url).expect(expected).to_string(), expected);
        }
    }
}
