//! Writes small GGUF files, for tests and benchmarks that need a model of a certain shape.

use std::io;
use std::path::Path;

/// Collects metadata and tensors, then writes them.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    keys: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<Tensor>,
}

#[derive(Clone, Debug)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    type_id: u32,
    data: Vec<u8>,
}

const ALIGNMENT: usize = 32;

impl Writer {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key to raw bytes of the given GGUF type. A key that exists is replaced.
    pub fn raw(&mut self, key: &str, kind: u32, bytes: Vec<u8>) -> &mut Self {
        self.keys.retain(|(known, ..)| known != key);
        self.keys.push((key.into(), kind, bytes));
        self
    }

    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|(known, ..)| known != key);
        self
    }

    pub fn remove_tensor(&mut self, name: &str) -> &mut Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// Takes over the metadata of another file, without its tensors.
    pub fn take_keys(&mut self, other: &Self) -> &mut Self {
        self.keys.clone_from(&other.keys);
        self
    }

    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.raw(key, 4, value.to_le_bytes().to_vec())
    }

    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.raw(key, 6, value.to_le_bytes().to_vec())
    }

    pub fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.raw(key, 7, vec![u8::from(value)])
    }

    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.raw(key, 8, string_bytes(value))
    }

    pub fn strings(&mut self, key: &str, values: &[String]) -> &mut Self {
        let items = values.iter().flat_map(|value| string_bytes(value)).collect();
        self.list(key, 8, values.len(), items)
    }

    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Self {
        let items = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.list(key, 6, values.len(), items)
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        let items = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.list(key, 5, values.len(), items)
    }

    fn list(&mut self, key: &str, kind: u32, len: usize, items: Vec<u8>) -> &mut Self {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((len as u64).to_le_bytes());
        bytes.extend(items);
        self.raw(key, 9, bytes)
    }

    /// Adds a tensor, or replaces the one of this name. `dims` are innermost first.
    pub fn tensor(&mut self, name: &str, dims: &[u64], type_id: u32, data: Vec<u8>) -> &mut Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self.tensors.push(Tensor { name: name.into(), dims: dims.into(), type_id, data });
        self
    }

    /// A tensor of 32-bit floats, seeded by its name: small values around `center`.
    pub fn random(&mut self, name: &str, dims: &[u64], center: f32) -> &mut Self {
        let n: u64 = dims.iter().product();
        let mut state =
            name.bytes().fold(0x9e37_79b9_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let mut data = Vec::new();
        for _ in 0..n {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            #[allow(clippy::cast_precision_loss)]
            let unit = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            data.extend((center + 0.2 * unit).to_le_bytes());
        }
        self.tensor(name, dims, 0, data)
    }

    /// The values of a tensor of 32-bit floats; none where there is no such tensor.
    #[must_use]
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let tensor = self.tensors.iter().find(|tensor| tensor.name == name && tensor.type_id == 0);
        let bytes = tensor.map_or(&[][..], |tensor| &tensor.data).as_chunks().0;
        bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// A tensor of these 32-bit floats.
    pub fn values(&mut self, name: &str, dims: &[u64], values: &[f32]) -> &mut Self {
        self.tensor(name, dims, 0, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// The same model in `n` files: the first has the metadata, and each has its share of the tensors.
    #[must_use]
    pub fn split(&self, n: u16) -> Vec<Self> {
        let share = self.tensors.len().div_ceil(usize::from(n.max(1))).max(1);
        let mut shares = self.tensors.chunks(share);
        let part =
            |number: u16| {
                let keys = if number == 0 { self.keys.clone() } else { Vec::new() };
                let mut part = Self { keys, tensors: shares.next().unwrap_or_default().to_vec() };
                let all = i32::try_from(self.tensors.len()).unwrap_or(i32::MAX);
                part.raw("split.no", 2, number.to_le_bytes().to_vec())
                    .raw("split.count", 2, n.to_le_bytes().to_vec())
                    .raw("split.tensors.count", 5, all.to_le_bytes().to_vec());
                part
            };
        (0..n).map(part).collect()
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, kind, bytes) in &self.keys {
            out.extend(string_bytes(key));
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            out.extend(string_bytes(&tensor.name));
            out.extend(u32::try_from(tensor.dims.len()).unwrap_or(u32::MAX).to_le_bytes());
            for dim in &tensor.dims {
                out.extend(dim.to_le_bytes());
            }
            out.extend(tensor.type_id.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + tensor.data.len()).next_multiple_of(ALIGNMENT);
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        for tensor in &self.tensors {
            out.extend(&tensor.data);
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        }
        out
    }

    /// # Errors
    /// What writing the file fails with.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_bytes())
    }
}

fn string_bytes(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Width of the tiny model's embeddings.
pub const TINY_EMBD: u64 = 32;

/// A LLaMA of two layers and 16,000 weights, with random values, that llama.cpp can load and run. Its vocabulary has
/// every byte and some letters, so any text can be tokenised. Its text means nothing.
#[must_use]
pub fn tiny_llama() -> Writer {
    const FF: u64 = 64;
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend("▁abcdefghijklmnopqrstuvwxyz".chars().map(String::from));
    let n = tokens.len();
    // unknown, control, control, bytes, normal
    let types: Vec<i32> = (0..n).map(|id| [2, 3, 3].get(id).copied().unwrap_or(if id < 259 { 6 } else { 1 })).collect();

    let mut w = Writer::new();
    w.string("general.architecture", "llama")
        .string("general.name", "tiny")
        .u32("llama.block_count", 2)
        .u32("llama.context_length", 512)
        .u32("llama.embedding_length", 32)
        .u32("llama.feed_forward_length", 64)
        .u32("llama.attention.head_count", 4)
        .u32("llama.attention.head_count_kv", 2)
        .u32("llama.rope.dimension_count", 8)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .string("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &tokens)
        .f32s("tokenizer.ggml.scores", &vec![0.0; n])
        .i32s("tokenizer.ggml.token_type", &types)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 0);
    w.random("token_embd.weight", &[TINY_EMBD, n as u64], 0.0).random("output_norm.weight", &[TINY_EMBD], 1.0);
    w.random("output.weight", &[TINY_EMBD, n as u64], 0.0);
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        w.random(&name("attn_norm"), &[TINY_EMBD], 1.0)
            .random(&name("attn_q"), &[TINY_EMBD, 32], 0.0)
            .random(&name("attn_k"), &[TINY_EMBD, 16], 0.0)
            .random(&name("attn_v"), &[TINY_EMBD, 16], 0.0)
            .random(&name("attn_output"), &[32, TINY_EMBD], 0.0)
            .random(&name("ffn_norm"), &[TINY_EMBD], 1.0)
            .random(&name("ffn_gate"), &[TINY_EMBD, FF], 0.0)
            .random(&name("ffn_up"), &[TINY_EMBD, FF], 0.0)
            .random(&name("ffn_down"), &[FF, TINY_EMBD], 0.0);
    }
    w
}

/// A LoRA adapter of rank 2 for the first layer's query of [`tiny_llama`], strong enough to change its text.
#[must_use]
pub fn tiny_lora() -> Writer {
    lora("llama", "blk.0.attn_q.weight", [TINY_EMBD, 32], 3.0)
}

/// A LoRA adapter of rank 2 for one weight of shape `[n_in, n_out]`, with random values around `strength`.
#[must_use]
pub fn lora(architecture: &str, target: &str, [n_in, n_out]: [u64; 2], strength: f32) -> Writer {
    let mut w = Writer::new();
    w.string("general.architecture", architecture)
        .string("general.type", "adapter")
        .string("adapter.type", "lora")
        .f32("adapter.lora.alpha", 2.0)
        .random(&format!("{target}.lora_a"), &[n_in, 2], strength)
        .random(&format!("{target}.lora_b"), &[2, n_out], strength);
    w
}
