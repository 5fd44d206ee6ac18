//! Shapes of shimmy's own answers that no type has, for the API's document.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde_json::{Map, Value};

use crate::engine::{Timings, Usage};
use crate::placement::PlacementReport;
use crate::registry::{AdapterStatus, ModelStatus};

/// The data of the event `usage`, where it is asked for, before the end.
#[derive(JsonSchema)]
#[schemars(rename = "shimmy.StreamUsage")]
pub struct StreamUsage {
    /// `stop`, `length` or `cancelled`.
    pub done_reason: String,
    /// Gives the same tokens again with the same request.
    pub seed: u32,
    pub usage: Usage,
    pub timings: Timings,
}

#[derive(JsonSchema)]
#[schemars(rename = "shimmy.Adapters")]
pub struct Adapters {
    pub adapters: Vec<AdapterStatus>,
}

/// An adapter that is gone.
#[derive(JsonSchema)]
#[schemars(rename = "shimmy.UnloadedAdapter")]
pub struct UnloadedAdapter {
    pub name: String,
    pub model: String,
    /// Always true.
    pub unloaded: bool,
}

#[derive(JsonSchema)]
#[schemars(rename = "shimmy.Models")]
pub struct Models {
    pub models: Vec<ModelStatus>,
}

#[derive(JsonSchema)]
#[schemars(rename = "shimmy.Health")]
pub struct Health {
    pub status: HealthStatus,
    pub version: String,
    pub models: ModelsByState,
    /// Where each loaded model runs.
    pub placement: HashMap<String, PlacementReport>,
    pub uptime_seconds: u64,
}

/// What is told without a key, where one is needed.
#[derive(JsonSchema)]
#[schemars(rename = "shimmy.HealthInShort")]
pub struct HealthInShort {
    pub status: HealthStatus,
}

#[derive(JsonSchema)]
#[schemars(rename = "shimmy.HealthStatus", rename_all = "lowercase")]
pub enum HealthStatus {
    Ok,
    Draining,
    #[schemars(rename = "no models")]
    NoModels,
    Failed,
}

#[derive(JsonSchema)]
#[schemars(rename = "shimmy.ModelsByState")]
pub struct ModelsByState {
    /// How many there are.
    pub known: usize,
    pub loaded: Vec<String>,
    pub loading: Vec<String>,
    pub failed: Vec<String>,
}

/// What to attach to a bug report. Memory is in MB of 2^20 bytes.
#[derive(JsonSchema)]
#[schemars(rename = "shimmy.Diagnostics")]
pub struct Diagnostics {
    pub version: String,
    pub os: String,
    pub os_version: Option<String>,
    pub arch: String,
    pub target: String,
    pub profile: String,
    pub cores: Cores,
    pub memory_total_mb: u64,
    pub memory_available_mb: u64,
    /// Cargo features of this build.
    pub features: Vec<String>,
    /// The revision; null in a build without.
    pub llama_cpp: Option<String>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub devices: Option<Vec<crate::placement::DeviceReport>>,
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<String>>,
    /// Why the devices are not known.
    #[schemars(skip_serializing_if = "Option::is_none")]
    pub devices_error: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(rename = "shimmy.Cores")]
pub struct Cores {
    pub physical: usize,
    pub usable: usize,
}

/// The API's description, in the form of OpenAPI 3.1.
#[derive(JsonSchema)]
#[schemars(rename = "shimmy.Document")]
pub struct Document {
    #[schemars(extend("const" = "3.1.0"))]
    pub openapi: String,
    pub info: Map<String, Value>,
    pub tags: Vec<Value>,
    pub paths: Map<String, Value>,
    pub components: Map<String, Value>,
}
