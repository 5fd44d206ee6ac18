//! What the command line and the environment say about models, before anything is loaded.

use std::path::PathBuf;
use std::sync::Arc;

use crate::placement::PlacementSpec;
use crate::registry::{LoadDefaults, Registry, discover, search_paths};
use crate::runner::ServeSpec;

/// Options that every command shares.
#[derive(Clone, Debug)]
pub struct Config {
    pub placement: PlacementSpec,
    pub model_dirs: Vec<PathBuf>,
    pub context_tokens: Option<u32>,
    pub threads: Option<u32>,
    pub template: Option<String>,
    /// LoRA adapters with their scales, from `--lora`.
    pub adapters: Vec<(PathBuf, f32)>,
    pub serve: ServeSpec,
    /// `SHIMMY_BASE_GGUF`.
    pub base: Option<PathBuf>,
    /// `SHIMMY_LORA_GGUF`, the base's adapter.
    pub base_adapter: Option<PathBuf>,
}

impl Config {
    /// A registry with everything that can be found, not yet loaded.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        let registry = self.empty_registry();
        self.add_base(&registry);
        registry.add_found(discover(&search_paths(&self.model_dirs)));
        if cfg!(feature = "stub") {
            registry.add_stub();
            registry.add_fast_stub();
        }
        Arc::new(registry)
    }

    /// A registry with one model: `name` is a file, or a name that has to be looked up. Returns the name to use.
    #[must_use]
    pub fn registry_for(&self, name: &str) -> (Arc<Registry>, String) {
        let path = PathBuf::from(name);
        if path.is_file() || path.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("gguf")) {
            let registry = self.empty_registry();
            let name = registry.add_file(&path, self.adapters.clone());
            return (Arc::new(registry), name);
        }
        let registry = self.registry();
        // An adapter on the command line is for the model that the command line names.
        if !self.adapters.is_empty()
            && let Some(path) = registry.status(name).ok().and_then(|status| status.path)
        {
            let name = registry.add_file(&PathBuf::from(path), self.adapters.clone());
            return (registry, name);
        }
        (registry, name.to_owned())
    }

    fn empty_registry(&self) -> Registry {
        Registry::new(LoadDefaults {
            placement: self.placement.clone(),
            context_tokens: self.context_tokens,
            threads: self.threads,
            template: self.template.clone(),
            serve: self.serve.clone(),
        })
    }

    /// 1.x called this model `phi3-lora`, whatever it was.
    fn add_base(&self, registry: &Registry) {
        if let Some(base) = &self.base {
            let adapters = self.base_adapter.iter().map(|path| (path.clone(), 1.0)).collect();
            let name = registry.add_file(base, adapters);
            registry.add_alias("phi3-lora", &name);
            registry.add_alias("default", &name);
        }
    }
}
