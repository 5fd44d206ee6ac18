//! Refuses LoRA files that llama.cpp would abort on, when it loads them or at the first decode with them.

use super::error::GgufError;
use super::header::{Header, TensorInfo, Value};
use super::types::TensorType;
use super::validate::check_tensors;

/// Checks the adapter by itself and against its base model.
///
/// # Errors
/// [`GgufError::Invalid`] or [`GgufError::Truncated`], with the key or tensor and what to do.
pub fn validate_adapter(adapter: &Header, base: &Header) -> Result<(), GgufError> {
    let fail = |what: String| Err(GgufError::Invalid { path: adapter.path().to_owned(), what });
    check_keys(adapter, base).or_else(fail)?;
    check_tensors(adapter)?;
    if adapter.tensors().is_empty() {
        return fail("holds no tensors".into());
    }
    for tensor in adapter.tensors() {
        check_tensor(tensor, adapter, base).or_else(fail)?;
    }
    Ok(())
}

fn check_keys(adapter: &Header, base: &Header) -> Result<(), String> {
    // llama.cpp reads these with getters that abort on another type.
    for (key, expected) in
        [("general.type", Some("adapter")), ("adapter.type", Some("lora")), ("general.architecture", None)]
    {
        match (adapter.get(key), expected) {
            (Some(Value::String(found)), Some(expected)) if found != expected => {
                return Err(format!("{key} is {found:?}, not {expected:?}: this is no LoRA adapter"));
            }
            (Some(Value::String(_)), _) => {}
            (found, _) => return Err(format!("{key} must be a text, found {found:?}: this is no LoRA adapter")),
        }
    }
    if adapter.architecture() != base.architecture() {
        return Err(format!(
            "made for the architecture {:?}, but the base model is {:?}; use the base model that it was trained on",
            adapter.architecture(),
            base.architecture()
        ));
    }
    match adapter.get("adapter.lora.alpha") {
        None | Some(Value::F32(_)) => {}
        Some(other) => {
            return Err(format!("adapter.lora.alpha must be a 32-bit float, found {other:?}; convert it again"));
        }
    }
    match adapter.get("adapter.alora.invocation_tokens") {
        None | Some(Value::Array { kind: 4, .. }) => Ok(()),
        Some(other) => Err(format!("adapter.alora.invocation_tokens must be a list of 32-bit counts, found {other:?}")),
    }
}

fn check_tensor(tensor: &TensorInfo, adapter: &Header, base: &Header) -> Result<(), String> {
    let name = &tensor.name;
    // llama.cpp reads these and uses them for nothing.
    if name.ends_with("_norm.weight") {
        return Ok(());
    }
    let (target, other) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
        (Some(target), _) => (target, format!("{target}.lora_b")),
        (_, Some(target)) => (target, format!("{target}.lora_a")),
        _ => return Err(format!("the tensor {name:?} ends neither in .lora_a nor in .lora_b")),
    };
    if tensor.dims.len() != 2 {
        return Err(format!("the tensor {name:?} has {} dimensions; two are needed", tensor.dims.len()));
    }
    let kind = TensorType::from_id(tensor.type_id);
    if kind.is_none_or(TensorType::is_unfit_for_weights) {
        let found = kind.map_or("unknown", |kind| kind.name);
        return Err(format!("the tensor {name:?} is {found}; it must be float or quantised"));
    }
    let Some(partner) = adapter.tensor(&other) else {
        return Err(format!("{name:?} has no {other:?} beside it"));
    };
    let Some(weight) = base.tensor(target) else {
        // The tensor may be in another shard; llama.cpp then checks by name itself.
        return if base.split_count() > 1 {
            Ok(())
        } else {
            Err(format!("the base model has no tensor {target:?}; use the base that it was trained on"))
        };
    };
    if name.ends_with(".lora_a") && partner.dims.len() == 2 {
        check_shapes(target, weight, tensor, partner)?;
    }
    Ok(())
}

/// For a weight of [n_in, n_out] and rank r: A is [n_in, r], B is [r, n_out]. For token embeddings the two are flipped.
fn check_shapes(target: &str, weight: &TensorInfo, a: &TensorInfo, b: &TensorInfo) -> Result<(), String> {
    let fits = if weight.dims.len() < 2 {
        false
    } else if target.ends_with("token_embd.weight") {
        weight.dims[0] == b.dims[1] && weight.dims[1] == a.dims[1] && a.dims[0] == b.dims[0]
    } else {
        weight.dims[0] == a.dims[0] && weight.dims[1] == b.dims[1] && a.dims[1] == b.dims[0]
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "for {target:?} of shape {:?} the adapter brings {:?} and {:?}, which do not fit; use the base that it was trained on",
        weight.dims, a.dims, b.dims
    ))
}
