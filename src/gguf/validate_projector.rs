//! Refuses projectors that end the process, or fill its memory, when llama.cpp reads them.

use super::error::GgufError;
use super::header::{Header, Value};
use super::validate::{check_epsilon, check_tensors};

/// Numbers that llama.cpp divides by or makes room for; each with whether it may be missing, and whether it may be nothing. Shapes
/// that do not fit each other it finds by itself.
const SIZES: [(&str, bool, bool); 15] = [
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
    ("preproc_min_tiles", true, false),
    ("preproc_max_tiles", true, false),
];
/// Kinds that have a position of its own for each patch, by a number that nothing compares with the table's length.
const COUNTED: [&str; 9] = ["mlp", "ldp", "ldpv2", "cogvlm", "adapter", "gemma3", "idefics3", "janus_pro", "llama4"];
/// Kinds whose windows of pixels hold whole patches.
const WINDOWED: [&str; 2] = ["qwen2.5vl_merger", "youtuvl"];
/// Side of a window where the file has none.
const WINDOW: u64 = 112;
/// Patches that such kinds read as one, on each side, where the file has none.
const MERGED: u64 = 2;
/// More than any projector has.
const MOST: u64 = 1 << 16;
const MAX_LAYERS: u64 = 512;
const MAX_TILES: u64 = 1024;

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
        let most = match size {
            "block_count" => MAX_LAYERS,
            "preproc_min_tiles" | "preproc_max_tiles" => MAX_TILES,
            _ => MOST,
        };
        let range = u64::from(!may_be_0)..=most;
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
    if number(header, "patch_size", 1) > number(header, "image_size", 1) {
        return fail("clip.vision.patch_size is more than clip.vision.image_size".into());
    }
    let key = "clip.vision.attention.layer_norm_epsilon";
    check_epsilon(key, header.get(key)).or_else(fail)?;
    check_kind(header).or_else(fail)?;
    check_tensors(header)
}

fn number(header: &Header, name: &str, otherwise: u64) -> u64 {
    header.get(&format!("clip.vision.{name}")).and_then(Value::as_u64).unwrap_or(otherwise)
}

/// What llama.cpp reads without a look.
fn check_kind(header: &Header) -> Result<(), String> {
    let kind = header.text("clip.projector_type").or_else(|| header.text("clip.vision.projector_type"));
    let kind = kind.unwrap_or_default();
    let has = |name: &str| header.tensor(name).is_some();
    let missing = match kind {
        "mlp" if has("mm.3.weight") && !has("mm.3.bias") => Some("mm.3.bias"),
        "mlp" if !has("mm.3.weight") && !has("mm.2.weight") => Some("mm.2.weight"),
        _ => None,
    };
    if let Some(missing) = missing {
        return Err(format!("{missing} is missing, which projectors of the kind {kind} have"));
    }
    let patch = number(header, "patch_size", 1);
    let side = number(header, "image_size", 1) / patch;
    let patches = side * side + u64::from(has("v.class_embd"));
    let table = header.tensor("v.position_embd.weight").and_then(|table| table.dims.get(1).copied());
    if let Some(rows) = table.filter(|rows| COUNTED.contains(&kind) && *rows < patches) {
        return Err(format!("v.position_embd.weight has {rows} rows, and an image {patches} patches"));
    }
    let (window, merged) =
        (number(header, "window_size", WINDOW), patch * number(header, "spatial_merge_size", MERGED));
    if WINDOWED.contains(&kind) && window < merged {
        return Err(format!("windows of {window} pixels hold no patches of {merged}"));
    }
    Ok(())
}
