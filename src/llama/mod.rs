//! The safe wrapper over llama.cpp: one type per C object, and the only `unsafe` outside `llama-sys`.
//!
//! Ownership goes one way. A [`Model`] is shared; [`Context`], [`Vocab`] and [`Adapter`] each hold a clone of
//! it, so nothing can outlive what it points at. A [`Context`] stays on the thread that made it. Whatever would
//! make llama.cpp abort is refused here, before the call, with a [`LlamaError`].
#![allow(unsafe_code)]

mod adapter;
mod answer_parser;
mod backend;
mod batch;
mod callback;
mod chat_template;
mod context;
mod device;
mod driver;
mod error;
mod kv_cache;
mod logits;
mod memory_use;
mod model;
mod modules;
mod penalties;
mod projector;
mod sampler;
mod select;
mod state;
mod threads;
mod vocab;
mod writes;

pub use adapter::Adapter;
pub use answer_parser::{Answer, AnswerParser};
pub use backend::{Backend, revision};
pub use batch::{Batch, ImageBatch, Pos};
pub use callback::AbortFlag;
pub use chat_template::{ChatRequest, ChatTemplate, RenderedPrompt, builtin_template_names, render_builtin};
pub use context::{Context, ContextParams, FlashAttention, KvType, SeqId};
pub use device::{Device, DeviceKind};
pub use driver::{Driver, drivers};
pub use error::LlamaError;
pub use kv_cache::KvCache;
pub use logits::Logits;
pub use memory_use::MemoryUse;
pub use model::{Model, ModelParams, Offload, Pooling, Split};
pub use modules::{BACKEND_DIR, BackendModule, ModuleState};
pub use projector::{CutImage, ImagePart, ImageRows, Projector, ProjectorParams};
pub use sampler::{Sampler, SamplerConfig};
pub use state::{Extent, SeqState};
pub use vocab::{InfillTokens, PairMarks, Token, Vocab};
