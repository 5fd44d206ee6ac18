//! GGUF files at plain addresses.

use std::path::Path;

use reqwest::Url;

use super::digest::Digest;
use super::download::Wanted;
use super::model_name::{LIBRARY, ModelName, NotAName, as_part};
use super::quant;
use crate::library::name_from_path;

/// Names of such models have this host: two addresses of one file name are two versions of one model.
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

/// The file's name, with its quantisation as the tag.
pub(super) fn name(url: &Url) -> Result<ModelName, NotAName> {
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
    use super::name;

    #[test]
    fn a_file_at_an_address_is_named_after_itself() {
        for (url, expected) in [
            ("https://example.com/x/SmolLM2-135M.Q4_1.gguf?sig=a/b", "smollm2-135m:q4_1"),
            ("https://example.com/tiny.gguf", "tiny:latest"),
            ("https://example.com/%2e%2e%2fpasswd", "2e-2e-2fpasswd:latest"),
            ("https://example.com", "example.com:latest"),
        ] {
            let url = url.parse().expect("an address");
            assert_eq!(name(&url).expect(expected).to_string(), expected);
        }
    }
}
