//! Whom to ask, as whom, and how patiently.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::library::places::hub_home;

/// The hub's public address; `HF_ENDPOINT` names a mirror.
const HUB: &str = "https://huggingface.co";
/// Ollama's public registry; `SHIMMY_OLLAMA_REGISTRY` names a mirror.
const OLLAMA_REGISTRY: &str = "https://registry.ollama.ai";

/// Most connections that one file is fetched over.
pub const MAX_CONNECTIONS: usize = 32;

#[derive(Clone)]
pub struct Settings {
    /// Where models are kept.
    pub root: PathBuf,
    /// The hub's address, without a slash at its end.
    pub hub: String,
    /// Sent to that address alone.
    pub token: Option<String>,
    pub registry: String,
    /// How many requests fetch parts of one file at the same time.
    pub connections: usize,
    /// Bytes of a part.
    pub piece: u64,
    /// How often a request is made again while nothing comes of it.
    pub retries: u32,
    /// The wait before the first of those; it doubles each time.
    pub backoff: Duration,
    /// A connection on which nothing comes for this long is given up.
    pub stall: Duration,
}

impl Settings {
    /// From the environment: `HF_ENDPOINT`, `HF_TOKEN` or the file that the hub's own tools keep it in,
    /// `SHIMMY_OLLAMA_REGISTRY`. Proxies (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`) are the HTTP client's to read.
    #[must_use]
    pub fn from_env(root: PathBuf) -> Self {
        let address = |key: &str, default: &str| {
            let set = env::var(key).ok().filter(|value| !value.trim().is_empty());
            set.as_deref().unwrap_or(default).trim().trim_end_matches('/').to_owned()
        };
        Self {
            root,
            hub: address("HF_ENDPOINT", HUB),
            token: token(),
            registry: address("SHIMMY_OLLAMA_REGISTRY", OLLAMA_REGISTRY),
            connections: 4,
            piece: 32 << 20,
            retries: 6,
            backoff: Duration::from_millis(500),
            stall: Duration::from_secs(30),
        }
    }
}

/// In the order of the hub's own tools.
fn token() -> Option<String> {
    let usable = |token: String| Some(token.trim().to_owned()).filter(|token| !token.is_empty());
    let set = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"].iter().find_map(|key| usable(env::var(key).ok()?));
    set.or_else(|| {
        let told = env::var_os("HF_TOKEN_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = told.or_else(|| Some(hub_home()?.join("token")));
        usable(fs::read_to_string(path?).ok()?)
    })
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "set");
        let Self { root, hub, registry, connections, .. } = self;
        f.debug_struct("Settings")
            .field("root", root)
            .field("hub", hub)
            .field("token", &token)
            .field("registry", registry)
            .field("connections", connections)
            .finish_non_exhaustive()
    }
}
