//! Options of `serve` that say who may ask.

use std::path::PathBuf;

use clap::Args;

use super::said::Said;
use crate::config::{ApiKey, ServerSettings, Set};
use crate::library::pull::Allowed;
use crate::server::access::AccessOptions;

#[derive(Debug, Args)]
#[command(next_help_heading = "Access")]
pub(super) struct AccessArgs {
    /// API key that requests have to carry; repeatable. Other users of this machine can see it here: prefer the
    /// variable, or a key file.
    #[arg(long, env = "SHIMMY_API_KEY", hide_env_values = true, value_delimiter = ',', value_name = "KEY")]
    api_key: Vec<ApiKey>,
    /// File of keys, as `shimmy key` writes it [default: ~/.config/shimmy/keys, where it is].
    #[arg(long, env = "SHIMMY_API_KEY_FILE", value_name = "PATH")]
    api_key_file: Option<PathBuf>,
    /// Name that the server answers to, beside its own: example.com, example.com:8080, *.example.com, *; repeatable.
    #[arg(long, env = "SHIMMY_ALLOW_HOST", value_delimiter = ',', value_name = "HOST")]
    allow_host: Vec<String>,
    /// Web pages that may use the server: https://app.example.com, http://localhost:*, null, *; repeatable.
    #[arg(long, env = "SHIMMY_ALLOW_ORIGIN", value_delimiter = ',', value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Serve other machines without an API key.
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure: Option<bool>,
    /// What clients may have the server fetch: off (nothing), known (from the hub and Ollama's registry), or any (also from
    /// other registries and addresses, which the server may reach where its clients do not) [default: known].
    #[arg(long, env = "SHIMMY_PULL", value_name = "WHAT")]
    pull: Option<Allowed>,
}

impl AccessArgs {
    pub fn add_to(&self, server: &mut ServerSettings, said: &Said<'_>) {
        // A variable that is set to nothing.
        let filled = |list: &[String]| list.iter().filter(|text| !text.is_empty()).cloned().collect();
        server.api_key = said.list("api_key", self.api_key.clone());
        server.api_key_file = said.set("api_key_file", self.api_key_file.clone());
        server.allow_host = said.list("allow_host", filled(&self.allow_host));
        server.allow_origin = said.list("allow_origin", filled(&self.allow_origin));
        server.insecure = said.set("insecure", self.insecure);
        server.pull = said.set("pull", self.pull);
    }
}

/// What the settings say of access.
pub(super) fn options(settings: &ServerSettings) -> AccessOptions {
    let list = |set: &Option<Set<Vec<String>>>| set.as_ref().map(|set| set.value.clone()).unwrap_or_default();
    AccessOptions {
        keys: settings.api_key.as_ref().map(|set| set.value.clone()).unwrap_or_default(),
        key_file: settings.api_key_file.as_ref().map(|set| set.value.clone()),
        allow_hosts: list(&settings.allow_host),
        allow_origins: list(&settings.allow_origin),
        insecure: settings.insecure.as_ref().is_some_and(|set| set.value),
    }
}
