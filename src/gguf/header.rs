//! What a GGUF file says about itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::error::GgufError;
use super::read::{Keep, looks_like_control};
use super::types::{TensorType, file_type_name};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    U64(u64),
    I64(i64),
    F64(f64),
    Strings(Vec<String>),
    /// An array of anything but strings, of which only type and length are kept, or a long list of strings of which
    /// [`Header::skim`] kept the control tokens. `kind` is GGUF's number of the element type.
    Array {
        kind: u32,
        len: u64,
        control_tokens: Vec<String>,
    },
}

impl Value {
    /// As a count: `None` for negative numbers and for what is no whole number.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::U8(n) => Some(u64::from(*n)),
            Self::U16(n) => Some(u64::from(*n)),
            Self::U32(n) => Some(u64::from(*n)),
            Self::U64(n) => Some(*n),
            Self::I8(n) => u64::try_from(*n).ok(),
            Self::I16(n) => u64::try_from(*n).ok(),
            Self::I32(n) => u64::try_from(*n).ok(),
            Self::I64(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Number of elements of an array.
    #[must_use]
    pub fn list_len(&self) -> Option<u64> {
        match self {
            Self::Strings(items) => Some(items.len() as u64),
            Self::Array { len, .. } => Some(*len),
            _ => None,
        }
    }
}

/// One tensor, as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    /// Innermost first, as ggml orders them. At most four.
    pub dims: Vec<u64>,
    pub type_id: u32,
    /// From the start of the data section.
    pub offset: u64,
}

impl TensorInfo {
    /// `None` where the product overflows.
    #[must_use]
    pub fn elements(&self) -> Option<u64> {
        self.dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim))
    }

    /// Bytes of its data. `None` for an unknown type, rows that are no whole blocks, or an overflow.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let kind = TensorType::from_id(self.type_id)?;
        let row = self.dims.first().copied().unwrap_or(1);
        if !row.is_multiple_of(kind.block) {
            return None;
        }
        (self.elements()? / kind.block).checked_mul(kind.bytes)
    }
}

/// The header of one file.
#[derive(Clone, Debug)]
pub struct Header {
    path: PathBuf,
    file_len: u64,
    metadata: HashMap<String, Value>,
    tensors: Vec<TensorInfo>,
    data_offset: u64,
    alignment: u64,
}

impl Header {
    /// Reads the header; the weights are not touched.
    ///
    /// # Errors
    /// Anything but a whole GGUF header of version 2 or 3.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        super::read::read(path, Keep::Strings)
    }

    /// As [`Header::open`], but several times faster: of a vocabulary only its length and the tokens that look like
    /// control tokens are kept, so that [`super::validate_model`] does not accept what comes of it.
    ///
    /// # Errors
    /// As [`Header::open`].
    pub fn skim(path: &Path) -> Result<Self, GgufError> {
        super::read::read(path, Keep::ControlTokens)
    }

    /// As [`Header::open`], of a file that is in memory.
    ///
    /// # Errors
    /// As [`Header::open`].
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        super::read::parse(bytes, Keep::Strings)
    }

    /// As [`Header::skim`], of a file that is in memory.
    ///
    /// # Errors
    /// As [`Header::open`].
    pub fn parse_skimming(bytes: &[u8]) -> Result<Self, GgufError> {
        super::read::parse(bytes, Keep::ControlTokens)
    }

    pub(super) fn new(
        path: PathBuf,
        file_len: u64,
        metadata: HashMap<String, Value>,
        tensors: Vec<TensorInfo>,
        data_offset: u64,
        alignment: u64,
    ) -> Self {
        Self { path, file_len, metadata, tensors, data_offset, alignment }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.file_len
    }

    #[must_use]
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// Where the tensors' data begins, from the start of the file.
    #[must_use]
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A value of this architecture, e.g. `block_count` for `llama.block_count`.
    #[must_use]
    pub fn get_of_architecture(&self, suffix: &str) -> Option<&Value> {
        self.get(&format!("{}.{suffix}", self.architecture()))
    }

    /// E.g. `llama`; empty where the file does not say.
    #[must_use]
    pub fn architecture(&self) -> &str {
        self.get("general.architecture").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is a LoRA adapter and not a model.
    #[must_use]
    pub fn is_adapter(&self) -> bool {
        self.text("general.type") == Some("adapter")
    }

    /// Whether it is a projector, which turns images or sound into a model's embeddings.
    #[must_use]
    pub fn is_projector(&self) -> bool {
        self.architecture() == "clip" || self.text("general.type") == Some("mmproj")
    }

    /// A value that is a text and not empty.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Tokens of the vocabulary that look like control tokens, e.g. `<|im_end|>`.
    pub fn control_tokens(&self) -> impl Iterator<Item = &str> {
        let tokens: &[String] = match self.get("tokenizer.ggml.tokens") {
            Some(Value::Strings(tokens) | Value::Array { control_tokens: tokens, .. }) => tokens,
            _ => &[],
        };
        tokens.iter().map(String::as_str).filter(|token| looks_like_control(token))
    }

    /// Tokens that the model was trained for.
    #[must_use]
    pub fn context_length(&self) -> Option<u64> {
        self.get_of_architecture("context_length")?.as_u64()
    }

    /// Number of shards of a split model, 1 for a whole one.
    #[must_use]
    pub fn split_count(&self) -> u64 {
        self.get("split.count").and_then(Value::as_u64).unwrap_or(1)
    }

    /// Elements of all tensors.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        self.tensors.iter().filter_map(TensorInfo::elements).fold(0, u64::saturating_add)
    }

    /// What the file says of its number formats, e.g. `Q4_K_M`; else the one that most of the weights have.
    #[must_use]
    pub fn quantization(&self) -> String {
        let said = self.get("general.file_type").and_then(Value::as_u64).and_then(file_type_name);
        said.map_or_else(|| self.commonest_type(), str::to_owned)
    }

    fn commonest_type(&self) -> String {
        let mut elements: HashMap<u32, u64> = HashMap::new();
        for tensor in self.tensors.iter().filter(|tensor| tensor.dims.len() >= 2) {
            let sum = elements.entry(tensor.type_id).or_default();
            *sum = sum.saturating_add(tensor.elements().unwrap_or(0));
        }
        let most = elements.into_iter().max_by_key(|(id, n)| (*n, *id)).map(|(id, _)| id);
        most.and_then(TensorType::from_id).map_or_else(|| "unknown".into(), |kind| kind.name.to_owned())
    }

    /// Numbers that the KV cache keeps for one token, all layers together. `None` where the file does not tell.
    #[must_use]
    pub fn kv_elements_per_token(&self) -> Option<u64> {
        let number = |suffix: &str| self.get_of_architecture(suffix).and_then(Value::as_u64);
        let layers = number("block_count")?;
        let heads = number("attention.head_count")?;
        let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
        let head = number("embedding_length")?.checked_div(heads)?;
        let key = number("attention.key_length").unwrap_or(head);
        let value = number("attention.value_length").unwrap_or(head);
        layers.checked_mul(kv_heads)?.checked_mul(key.checked_add(value)?)
    }
}
