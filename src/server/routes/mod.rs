//! Request handlers, one file a topic.

pub(super) mod adapters;
pub(super) mod anthropic;
pub(super) mod diag;
pub(super) mod generate;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod models;
pub(super) mod ollama;
pub(super) mod openai;
pub(super) mod responses;
pub(super) mod socket;
pub(super) mod utility;
