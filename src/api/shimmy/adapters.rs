//! The request body of `POST /api/adapters`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::api::BadRequest;

/// An adapter to load. One that is known can be named without its `path`, to change what is given beside.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "shimmy.AdapterRequest")]
pub struct AdapterRequest {
    #[serde(default = "default_model")]
    pub model: String,
    /// Absent, the file's name.
    pub name: Option<String>,
    /// A GGUF file on the server's machine.
    pub path: Option<String>,
    /// How strong its effect is where a request does not say; 1 as it was trained.
    pub scale: Option<f32>,
    /// Use it for requests that name no adapters.
    pub default: Option<bool>,
    /// Paths of the fields that are passed over.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

fn default_model() -> String {
    "default".into()
}

impl AdapterRequest {
    /// # Errors
    /// The first field that is of a wrong type.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        let (request, ignored) = crate::api::read_body::<Self>(&body)?;
        Ok(Self { ignored, ..request })
    }
}
