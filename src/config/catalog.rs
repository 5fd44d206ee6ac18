//! Which models there are, and how each is loaded: what was found on this machine, and the sections of the config file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::bytes;
use super::error::Problem;
use super::file::Model;
use super::keys::{LoadSettings, NONE, get};
use super::layers::Kept;
use super::source::is_from;
use super::{Config, as_file, drafts};
use crate::library::{Capability, Facts, Found, Seen, did_you_mean, examine, name_from_path, survey, untagged};
use crate::registry::{KeepAlive, Registry};
use crate::runner::{GenerateDefaults, LoadSpec, ModelSource, ProjectorSpec, StubSpeed};

/// A model that can be loaded, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub spec: LoadSpec,
    /// The model that is to draft for it, as the settings name it.
    pub draft: Option<String>,
    pub keep_alive: KeepAlive,
    pub size_bytes: u64,
    pub facts: Option<Facts>,
    /// SHA-256 of the manifest that it came with, where it came with one.
    pub manifest: Option<String>,
}

/// All models and aliases.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub models: BTreeMap<String, Planned>,
    /// With the names that they stand for.
    pub aliases: BTreeMap<String, String>,
    /// What models that were found answer to as well.
    pub spellings: BTreeMap<String, String>,
    /// LoRA adapters that were found for models.
    pub adapters: BTreeMap<String, Vec<PathBuf>>,
    /// What was found, by the names that it is listed under.
    pub found: BTreeMap<String, Arc<Found>>,
    /// Where was looked.
    pub(super) seen: Seen,
    /// Models that the file speaks of and that are nowhere.
    pub(super) problems: Vec<Problem>,
}

/// A model, before it is decided how to load it.
#[derive(Clone, Debug)]
struct Located {
    source: ModelSource,
    size_bytes: u64,
    facts: Option<Facts>,
    manifest: Option<String>,
    /// Adapters without which it is another model.
    adapters: Vec<(PathBuf, f32)>,
    aliases: Vec<String>,
    /// Adapters that fit it.
    found_adapters: Vec<PathBuf>,
    /// The projector that lies beside it.
    projector: Option<PathBuf>,
    /// What came with it.
    kept: Kept,
}

impl Located {
    fn at(source: ModelSource) -> Self {
        let (adapters, aliases, found_adapters) = (Vec::new(), Vec::new(), Vec::new());
        let kept = Kept::default();
        Self {
            source,
            size_bytes: 0,
            facts: None,
            manifest: None,
            adapters,
            aliases,
            found_adapters,
            projector: None,
            kept,
        }
    }

    fn file(path: &Path) -> Self {
        // Loading says what is wrong with a file that cannot be used.
        let bytes = || std::fs::metadata(path).map_or(0, |meta| meta.len());
        let unknown = || Self { size_bytes: bytes(), ..Self::at(ModelSource::Gguf { path: path.to_owned() }) };
        examine(path).map_or_else(|_| unknown(), |found| Self::found(&found))
    }

    fn found(model: &Found) -> Self {
        let adapters = model.ollama.iter().flat_map(|layers| &layers.adapters).map(|path| (path.clone(), 1.0));
        Self {
            size_bytes: model.size_bytes,
            facts: Some(model.facts.clone()),
            manifest: model.ollama.as_ref().map(|layers| layers.digest.clone()),
            adapters: adapters.collect(),
            aliases: model.aliases.clone(),
            found_adapters: model.adapters.clone(),
            projector: model.projector.clone().filter(|_| model.facts.can(Capability::Vision)),
            kept: kept(model),
            ..Self::at(ModelSource::Gguf { path: model.path.clone() })
        }
    }
}

/// What a model looks at images with: what the settings name, or what lies beside it.
fn projector(located: &Located, asked: Option<&str>) -> Option<ProjectorSpec> {
    match asked {
        Some(NONE) => None,
        Some(path) => Some(ProjectorSpec { path: path.into(), found: false }),
        None => located.projector.clone().map(|path| ProjectorSpec { path, found: true }),
    }
}

/// What Ollama keeps with a model. What of it cannot be used is told each time that the models are looked for.
fn kept(model: &Found) -> Kept {
    let Some(layers) = &model.ollama else { return Kept::default() };
    let kept = Kept::of(layers, model.facts.template.is_some());
    for problem in &kept.problems {
        tracing::warn!(model = model.name, "what its manifest says has no effect: {problem}");
    }
    kept
}

/// What a file's model is called.
pub(super) fn name_of(path: &Path) -> String {
    examine(path).map_or_else(|_| name_from_path(path), |found| found.name)
}

impl Planned {
    /// Puts it into a registry. Returns whether anything changed.
    pub(super) fn put(&self, name: &str, registry: &Registry) -> bool {
        registry.put(name, self.spec.clone(), self.keep_alive, self.size_bytes, self.facts.clone())
    }
}

impl Catalog {
    fn add(&mut self, name: String, located: &Located, model: Planned) {
        if !located.found_adapters.is_empty() {
            self.adapters.insert(name.clone(), located.found_adapters.clone());
        }
        self.models.insert(name, model);
    }

    fn spell(&mut self, name: &str, located: &Located) {
        for alias in &located.aliases {
            self.spellings.entry(alias.clone()).or_insert_with(|| name.to_owned());
        }
    }

    pub(super) fn fill(&self, registry: &Registry) {
        for (name, model) in &self.models {
            model.put(name, registry);
        }
        for (alias, name) in &self.aliases {
            registry.add_alias(alias, name);
        }
        registry.set_spellings(self.spellings.clone());
        registry.set_found_adapters(&self.adapters);
    }

    /// The name under which a model is listed, by any of its names.
    pub(super) fn listed(&self, name: &str) -> Option<String> {
        let wanted = untagged(name);
        let aliased = self.aliases.iter().find(|(alias, _)| untagged(alias) == wanted).map(|(_, name)| name);
        let named = || self.models.keys().find(|name| untagged(name) == wanted);
        aliased.or_else(named).or_else(|| self.spellings.get(&wanted)).cloned()
    }
}

impl Config {
    /// Looks at what is on this machine and combines it with the settings.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        match self.asked.model.as_deref().and_then(as_file) {
            Some(path) => self.only(&path),
            None => {
                let library = survey(&self.search_paths());
                Catalog { seen: library.seen, ..self.catalog_of(library.models) }
            }
        }
    }

    /// As [`Config::catalog`], where somebody has looked already.
    #[must_use]
    pub fn catalog_of(&self, found: Vec<Found>) -> Catalog {
        let mut known: BTreeMap<String, Located> = BTreeMap::new();
        for model in &found {
            known.entry(model.name.clone()).or_insert_with(|| Located::found(model));
        }
        if cfg!(feature = "stub") {
            known.insert("stub".into(), Located::at(ModelSource::Stub(StubSpeed::Paced)));
            known.insert("stub-fast".into(), Located::at(ModelSource::Stub(StubSpeed::Fast)));
        }
        let mut catalog = Catalog::default();
        let (load, generate) = (self.load(), self.file.settings.sampling.defaults());
        for (name, located) in &known {
            let model = self.planned(name, located, &load, generate.clone(), Vec::new());
            catalog.add(name.clone(), located, model);
            catalog.spell(name, located);
        }
        // What a section is put in the place of is the section's model then.
        let sections = &self.file.settings.models;
        let has_section = |name: &str| sections.values().any(|section| section.name.value.eq_ignore_ascii_case(name));
        for model in found.iter().filter(|model| !has_section(&model.name)) {
            catalog.found.entry(model.name.clone()).or_insert_with(|| Arc::new(model.clone()));
        }
        self.add_base(&mut catalog);
        for model in self.file.settings.models.values() {
            self.add_section(model, &found, &known, &mut catalog);
        }
        if let Some(name) = self.asked.model.as_deref().and_then(|name| catalog.listed(name))
            && !self.asked.adapters.is_empty()
            && let Some(model) = catalog.models.get_mut(&name)
        {
            model.spec.adapters = self.asked_adapters();
        }
        catalog.find_drafts(None);
        catalog
    }

    /// A command that names a file knows no other model.
    fn only(&self, path: &Path) -> Catalog {
        let name = name_of(path);
        let generate = self.file.settings.sampling.defaults();
        let located = Located::file(path);
        let model = self.planned(&name, &located, &self.load(), generate, self.asked_adapters());
        let mut catalog = Catalog::default();
        catalog.spell(&name, &located);
        catalog.add(name, &located, model);
        let names_others = get(&self.load().draft_model).is_some_and(|wanted| !drafts::is_path(&wanted));
        let others = names_others.then(|| self.catalog_of(survey(&self.search_paths()).models));
        catalog.find_drafts(others.as_ref());
        catalog
    }

    fn asked_adapters(&self) -> Vec<(PathBuf, f32)> {
        self.asked.adapters.iter().map(|adapter| (adapter.path.clone(), adapter.scale)).collect()
    }

    fn planned(
        &self,
        name: &str,
        located: &Located,
        load: &LoadSettings,
        defaults: GenerateDefaults,
        adapters: Vec<(PathBuf, f32)>,
    ) -> Planned {
        let mut serve = load.serve();
        serve.needed_tokens = self.asked.needed_tokens;
        let projector = projector(located, get(&load.mmproj).as_deref());
        let spec = LoadSpec {
            projector: projector.clone(),
            source: located.source.clone(),
            adapters: located.adapters.iter().cloned().chain(adapters).collect(),
            draft: None,
            template: get(&load.template).or_else(|| located.kept.template.clone()),
            placement: load.placement(),
            context_tokens: get(&load.ctx_size).or(located.kept.context_tokens),
            threads: get(&load.threads),
            label: name.to_owned(),
            serve,
            defaults: defaults.over(located.kept.defaults.clone()),
        };
        let keep_alive = get(&load.keep_alive).unwrap_or_default();
        let draft = get(&load.draft_model).filter(|wanted| wanted != NONE);
        let Located { size_bytes, mut facts, manifest, .. } = located.clone();
        if let Some(facts) = &mut facts {
            facts.set(Capability::Vision, projector.is_some());
        }
        Planned { spec, draft, keep_alive, size_bytes, facts, manifest }
    }

    /// 1.x called this model `phi3-lora`, whatever it was.
    fn add_base(&self, catalog: &mut Catalog) {
        if let Some(base) = &self.asked.base {
            let adapters = self.asked.base_adapter.iter().map(|path| (path.clone(), 1.0)).collect();
            let name = name_of(base);
            let generate = self.file.settings.sampling.defaults();
            let located = Located::file(base);
            let model = self.planned(&name, &located, &self.load(), generate, adapters);
            catalog.spell(&name, &located);
            catalog.aliases.insert("phi3-lora".into(), name.clone());
            catalog.aliases.insert("default".into(), name.clone());
            catalog.add(name, &located, model);
        }
    }

    fn add_section(&self, model: &Model, found: &[Found], known: &BTreeMap<String, Located>, catalog: &mut Catalog) {
        let located = match self.locate(model, found, known) {
            Ok(located) => located,
            Err(problem) => return catalog.problems.push(problem),
        };
        let global = &self.file.settings;
        let (mut load, mut sampling) = (global.load.clone(), global.sampling.clone());
        for section in self.lineage(model).into_iter().rev() {
            load = load.override_with(section.load.clone());
            sampling = section.sampling.clone().over(sampling);
        }
        let load = load.override_with(self.asked.load.clone());
        let adapters = get(&model.own.adapters).unwrap_or_default();
        let adapters = adapters.into_iter().map(|adapter| (adapter.path, adapter.scale)).collect();
        let name = model.name.value.to_lowercase();
        for alias in model.own.alias.iter().flat_map(|set| &set.value) {
            catalog.aliases.insert(alias.to_lowercase(), name.clone());
        }
        let model = self.planned(&name, &located, &load, sampling.defaults(), adapters);
        catalog.add(name, &located, model);
    }

    /// The section, the section of its base, that of the base's base and so on.
    pub(super) fn lineage<'a>(&'a self, model: &'a Model) -> Vec<&'a Model> {
        let mut lineage = vec![model];
        // A chain that goes round was refused when the file was read.
        while let Some(base) = lineage.last().and_then(|model| model.own.base.as_ref())
            && let Some(next) = self.file.settings.find(&base.value)
        {
            lineage.push(next);
        }
        lineage
    }

    fn locate(&self, model: &Model, found: &[Found], known: &BTreeMap<String, Located>) -> Result<Located, Problem> {
        let lineage = self.lineage(model);
        let last = lineage.last().map_or(&model.own, |last| &last.own);
        if let Some(path) = &last.path {
            return Ok(Located::file(&path.value));
        }
        if let Some(source) = &last.source {
            let absent = || {
                let why = format!("{0} is not on this machine; fetch it with: shimmy pull {0}", source.value);
                Located::at(ModelSource::Absent { why })
            };
            return Ok(found.iter().find(|model| is_from(model, &source.value)).map_or_else(absent, Located::found));
        }
        let problem = |origin, message: String| Problem::new(&self.file.text, bytes(origin), message);
        // Neither a path nor a source: a model that was found, under the base's name or its own.
        let (wanted, asked_by) = match &last.base {
            Some(base) => (&base.value, Some(&base.origin)),
            None => (&lineage.last().map_or(&model.name, |last| &last.name).value, None),
        };
        let wanted_name = untagged(wanted);
        let has_name = |(name, located): &(&String, &Located)| {
            untagged(name) == wanted_name || located.aliases.contains(&wanted_name)
        };
        if let Some((_, located)) = known.iter().find(has_name) {
            return Ok(located.clone());
        }
        let near = did_you_mean(wanted, known.keys().map(String::as_str));
        Err(match (asked_by, &model.own.adapters) {
            (Some(origin), _) => {
                problem(origin, format!("there is no model {wanted:?}, neither in this file nor on this machine{near}"))
            }
            (None, Some(adapters)) => {
                let message = format!(
                    "adapters need a model, and none was found under the name {wanted:?}; say which with `path`, `source` or `base`{near}"
                );
                problem(&adapters.origin, message)
            }
            (None, None) => {
                let message = format!(
                    "no model was found under the name {wanted:?}; say where it is with `path`, `source` or `base`{near}"
                );
                problem(&model.name.origin, message)
            }
        })
    }
}
