//! Saving and restoring what a context knows of one sequence.

use super::context::{Context, SeqId};
use super::error::{LlamaError, check};

const MAGIC: &[u8; 8] = b"shimmyS1";
/// Magic, model fingerprint, checksum of the data.
const HEADER: usize = 8 + 8 + 4;

/// How much of a sequence's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// Without the attention cells that [`super::KvCache::seq_cp`] can share: the state of a recurrent model.
    Partial,
}

/// What a context remembers of one sequence. llama.cpp accepts many damaged states without a word, so ours carries a checksum
/// and the model that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeqState {
    fingerprint: u64,
    extent: Extent,
    data: Vec<u8>,
}

impl SeqState {
    /// # Errors
    /// What llama.cpp says where it cannot.
    pub fn save(context: &mut Context, seq: SeqId, extent: Extent) -> Result<Self, LlamaError> {
        context.check_seq(seq)?;
        let partial = extent == Extent::Partial;
        let mut size = 0;
        // SAFETY: the sequence belongs to the context; writes one size_t.
        let status = unsafe { llama_sys::shim_state_seq_size(context.raw(), seq.raw(), partial, &raw mut size) };
        check("sizing a state", status, String::new())?;
        let mut data = vec![0; size];
        // SAFETY: the buffer has exactly the size that llama.cpp asked for.
        let status =
            unsafe { llama_sys::shim_state_seq_get(context.raw(), seq.raw(), partial, data.as_mut_ptr(), size) };
        check("saving a state", status, String::new())?;
        Ok(Self { fingerprint: fingerprint(context), extent, data })
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.data.len()
    }

    /// Puts the state in place of whatever `seq` held of that extent.
    ///
    /// # Errors
    /// [`LlamaError::State`] for another model's state.
    pub fn restore(&self, context: &mut Context, seq: SeqId) -> Result<(), LlamaError> {
        context.check_seq(seq)?;
        if context.model().is_simulated() {
            return Err(LlamaError::Simulated);
        }
        if self.fingerprint != fingerprint(context) {
            return Err(LlamaError::State("it was saved from another model or cache type"));
        }
        let partial = self.extent == Extent::Partial;
        // SAFETY: the data came out of `save` on an equal context, or passed `from_bytes`'s checksum.
        let status = unsafe {
            llama_sys::shim_state_seq_set(context.raw(), seq.raw(), partial, self.data.as_ptr(), self.data.len())
        };
        check("restoring a state", status, String::new())
    }

    /// For a file or another process. What is read back counts as [`Extent::Whole`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.data.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.fingerprint.to_le_bytes());
        bytes.extend_from_slice(&checksum(self.fingerprint, &self.data).to_le_bytes());
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// # Errors
    /// [`LlamaError::State`] for anything that `to_bytes` did not write.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LlamaError> {
        let (header, data) = bytes.split_at_checked(HEADER).ok_or(LlamaError::State("it is too short"))?;
        let (magic, rest) = header.split_at(8);
        let (fingerprint, sum) = rest.split_at(8);
        if magic != MAGIC {
            return Err(LlamaError::State("it does not begin with our mark"));
        }
        let fingerprint = u64::from_le_bytes(fingerprint.try_into().map_err(|_| LlamaError::State("it is too short"))?);
        if sum != checksum(fingerprint, data).to_le_bytes() {
            return Err(LlamaError::State("its checksum does not match: it is damaged"));
        }
        Ok(Self { fingerprint, extent: Extent::Whole, data: data.to_vec() })
    }
}

fn checksum(fingerprint: u64, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&fingerprint.to_le_bytes());
    hasher.update(data);
    hasher.finalize()
}

/// Tells models and cache shapes apart.
fn fingerprint(context: &Context) -> u64 {
    let model = context.model();
    let mut hasher = crc32fast::Hasher::new();
    for value in [model.size(), model.n_params(), u64::from(model.n_layer()), u64::from(model.n_tokens_vocab())] {
        hasher.update(&value.to_le_bytes());
    }
    hasher.update(model.header().path().as_os_str().as_encoded_bytes());
    (u64::from(hasher.finalize()) << 32) | (model.size() & 0xffff_ffff)
}
