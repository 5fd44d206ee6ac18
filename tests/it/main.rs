//! Integration tests: the real binary as a second process, a real model, real bytes.
//!
//! Without the feature `llama` only the contract tests remain; they run on the stub.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop where it is.

mod access;
mod adapters;
#[cfg(not(feature = "llama"))]
mod backpressure;
#[cfg(all(unix, not(feature = "llama")))]
mod config;
mod contract;
#[cfg(not(feature = "llama"))]
mod docs;
mod fuzzing;
mod library;
#[cfg(feature = "dynamic-backends")]
mod modules;
mod ollama;
mod openapi;
mod pull;
mod residency;
mod shutdown;
mod socket;
mod support;

#[cfg(feature = "llama")]
mod backends;
#[cfg(feature = "llama")]
mod bad_input;
#[cfg(feature = "llama")]
mod batching;
#[cfg(feature = "llama")]
mod cancel;
#[cfg(feature = "llama")]
mod cli;
#[cfg(feature = "llama")]
mod embeddings;
#[cfg(feature = "llama")]
mod forms;
#[cfg(feature = "llama")]
mod hazards;
#[cfg(feature = "llama")]
mod images;
#[cfg(feature = "llama")]
mod lora;
#[cfg(feature = "llama")]
mod projector;
#[cfg(feature = "llama")]
mod smoke;
#[cfg(feature = "llama")]
mod wrapper;
