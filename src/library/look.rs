//! Looks into files that were found: what each is, and what its header says.

use crate::gguf::{self, GgufError, Header, Value};

use super::facts::Facts;
use super::shards::Group;

/// What a file turned out to be.
#[derive(Debug)]
pub(super) enum Look {
    Model(Box<Model>),
    Projector(Projector),
    /// Kept as it is, to be held against models.
    Adapter(Box<Header>),
    /// What is wrong with it.
    Unusable(String),
}

#[derive(Debug)]
pub(super) struct Model {
    pub facts: Facts,
    /// Width of its embeddings.
    pub width: Option<u64>,
    /// Names in its header.
    pub titles: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Projector {
    /// Width of what it gives.
    pub width: Option<u64>,
    /// Whether it takes images, and not sound alone.
    pub sees: bool,
    /// How much it is liked among others for the same model, most first.
    pub rank: usize,
}

/// Most liked first: a projector is small, more than 16 bits a weight gain nothing, and fewer lose a little.
pub(super) const PROJECTOR_FORMATS: [&str; 4] = ["F16", "BF16", "Q8_0", "F32"];

pub(super) fn look(group: &Group) -> Look {
    let path = &group.first().path;
    read(group).unwrap_or_else(|error| {
        let text = error.to_string();
        let prefix = format!("{}: ", path.display());
        Look::Unusable(text.strip_prefix(&prefix).map_or(text.clone(), str::to_owned))
    })
}

fn read(group: &Group) -> Result<Look, GgufError> {
    let first = Header::skim(&group.first().path)?;
    if first.is_adapter() {
        gguf::check_tensors(&first)?;
        return Ok(Look::Adapter(Box::new(first)));
    }
    if first.is_projector() {
        gguf::check_tensors(&first)?;
        return Ok(Look::Projector(projector(&first)));
    }
    gguf::validate_outline(&first)?;
    // Its own name may say less than its header.
    gguf::shards(&first)?;
    let later = group.files[1..].iter().map(|file| Header::skim(&file.path)).collect::<Result<Vec<_>, _>>()?;
    later.iter().try_for_each(gguf::check_tensors)?;
    Ok(Look::Model(Box::new(Model {
        facts: Facts::of_shards(&first, &later),
        width: first.get_of_architecture("embedding_length").and_then(Value::as_u64),
        titles: titles(&first, &["general.name", "general.basename", "general.base_model.0.name"]),
    })))
}

/// Values of these keys that are texts.
pub(super) fn titles(header: &Header, keys: &[&str]) -> Vec<String> {
    keys.iter().filter_map(|key| header.text(key)).map(str::to_owned).collect()
}

fn projector(header: &Header) -> Projector {
    let number = |key: &str| header.get(key).and_then(Value::as_u64);
    let liked = PROJECTOR_FORMATS;
    let format = header.quantization();
    Projector {
        width: number("clip.vision.projection_dim").or_else(|| number("clip.audio.projection_dim")),
        sees: header.get("clip.has_vision_encoder") != Some(&Value::Bool(false)),
        rank: liked.iter().position(|name| *name == format).unwrap_or(liked.len()),
    }
}
