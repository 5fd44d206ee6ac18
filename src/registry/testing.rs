//! Models for tests.

use super::{KeepAlive, MemoryBudget, Registry};
use crate::placement::PlacementSpec;
use crate::runner::{GenerateDefaults, LoadSpec, ModelSource, ServeSpec, StubSpeed};

/// How to load a stub.
pub fn stub(label: &str) -> LoadSpec {
    LoadSpec {
        source: ModelSource::Stub(StubSpeed::Fast),
        adapters: Vec::new(),
        draft: None,
        projector: None,
        template: None,
        placement: PlacementSpec::default(),
        context_tokens: None,
        threads: None,
        label: label.to_owned(),
        serve: ServeSpec::default(),
        defaults: GenerateDefaults::default(),
    }
}

/// A registry of stubs.
pub fn registry_of(names: &[&str]) -> Registry {
    let registry = Registry::new(MemoryBudget::default());
    for name in names {
        assert!(registry.put(name, stub(name), KeepAlive::default(), 0, None), "{name} is there already");
    }
    registry
}
