//! shimmy: a local inference server. GGUF models through llama.cpp, from the command line and over HTTP.
//!
//! Layers, each importing only those before it: `gguf`, [`library`], [`constrain`], [`llama`], { [`placement`], [`engine`], [`chat`] },
//! [`runner`], [`registry`], [`api`], { [`server`], [`cli`] }. See `ARCHITECTURE.md`.
#![deny(unsafe_code)]

pub mod api;
pub mod chat;
pub mod cli;
pub mod config;
pub mod constrain;
pub mod engine;
pub mod gguf;
pub mod library;
#[cfg(feature = "llama")]
pub mod llama;
pub mod logging;
pub mod placement;
pub mod registry;
pub mod runner;
pub mod server;
pub mod system;
