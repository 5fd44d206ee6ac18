//! Refuses projectors that end the process, or fill its memory, when llama.cpp reads them.

use super::error::GgufError;
use super::header::{Header, Value};
use super::validate::check_tensors;

/// Numbers that llama.cpp divides by or makes room for; each with whether it may be missing, and whether it may be nothing. Shapes
/// that do not fit each other it finds by itself.
const SIZES: [(&str, bool, bool); 13] = [
    ("image_size", false, false),
    ("patch_size", false, false),
    ("embedding_length", false, false),
    ("feed_forward_length", false, true),
    ("projection_dim", false, true),
    ("block_count", false, true),
    ("attention.head_count", false, true),
    ("spatial_merge_size", true, false),
    ("window_size", true, false),
    ("preproc_image_size", true, false),
    ("projector.scale_factor", true, false),
    ("projector.query_side", true, false),
    ("projector.window_side", true, false),
];
/// More than any projector has.
const MOST: u64 = 1 << 16;
const MAX_LAYERS: u64 = 512;

/// # Errors
/// [`GgufError::Invalid`] or [`GgufError::Truncated`], with the key or tensor.
pub fn validate_projector(header: &Header) -> Result<(), GgufError> {
    let fail = |what: String| Err(GgufError::Invalid { path: header.path().to_owned(), what });
    if !header.is_projector() {
        return fail("is no projector (mmproj): it does not turn images into what a model reads".into());
    }
    if header.get("clip.has_vision_encoder") != Some(&Value::Bool(true)) {
        return fail("is a projector, but not one for images".into());
    }
    for (size, may_be_missing, may_be_0) in SIZES {
        let range = u64::from(!may_be_0)..=if size == "block_count" { MAX_LAYERS } else { MOST };
        let key = format!("clip.vision.{size}");
        match header.get(&key) {
            None if may_be_missing => {}
            None => return fail(format!("{key} is missing")),
            Some(found @ Value::U32(_)) if found.as_u64().is_some_and(|n| range.contains(&n)) => {}
            Some(other) => {
                let (least, most) = range.into_inner();
                return fail(format!("{key} is {other:?}; it must be a number from {least} to {most}"));
            }
        }
    }
    let number = |name: &str| header.get(&format!("clip.vision.{name}")).and_then(Value::as_u64).unwrap_or(1);
    if number("patch_size") > number("image_size") {
        return fail("clip.vision.patch_size is more than clip.vision.image_size".into());
    }
    check_tensors(header)
}
