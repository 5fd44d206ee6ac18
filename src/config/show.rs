//! The settings that are in force, for people to read: a config file that says where each of its values comes from.

use std::fmt::Write;

use super::file::{Model, table_key};
use super::setting::{Entry, Fallback, Origin, Section};
use super::{Config, File};

/// Where the comments begin.
const COLUMN: usize = 44;

/// A config file with every setting, each with who set it. Keys of clients are not in it.
#[must_use]
pub fn show(config: &Config) -> String {
    let mut out = String::new();
    let file = &config.file;
    let settings = &file.settings;
    for entry in config.server().entries().iter().chain(&config.load().entries()) {
        line(&mut out, file, entry);
    }
    out.push_str("\n[sampling]\n");
    for entry in settings.sampling.entries() {
        line(&mut out, file, &entry);
    }
    for model in settings.models.values() {
        section(&mut out, config, model);
    }
    out
}

fn section(out: &mut String, config: &Config, model: &Model) {
    let name = table_key(&model.name.value);
    let _ = writeln!(out, "\n[models.{name}]");
    let is_set = |entry: &Entry| entry.set.is_some();
    for entry in model.own.entries().into_iter().filter(is_set) {
        line(out, &config.file, &entry);
    }
    let (mut load, mut sampling) = Default::default();
    for section in config.lineage(model).into_iter().rev() {
        load = super::LoadSettings::override_with(load, section.load.clone());
        sampling = section.sampling.clone().over(sampling);
    }
    let own = load.entries();
    let in_force = load.override_with(config.asked.load.clone()).entries();
    for (entry, _) in in_force.into_iter().zip(own).filter(|(now, own)| is_set(own) && is_set(now)) {
        line(out, &config.file, &entry);
    }
    let sampling: Vec<_> = sampling.entries().into_iter().filter(is_set).collect();
    if !sampling.is_empty() {
        let _ = writeln!(out, "\n[models.{name}.sampling]");
        sampling.iter().for_each(|entry| line(out, &config.file, entry));
    }
}

/// What is not set and has no value that could be written stands in a comment.
fn line(out: &mut String, file: &File, entry: &Entry) {
    let (setting, why) = match (&entry.set, entry.fallback) {
        (Some((_, origin)), _) if entry.is_secret => {
            (format!("# {}", entry.key), format!("set, and not shown: {}", file.describe(origin)))
        }
        (Some((toml, origin)), _) => (format!("{} = {toml}", entry.key), file.describe(origin)),
        (None, Fallback::Value(toml)) => (format!("{} = {toml}", entry.key), "default".into()),
        (None, Fallback::Words(what)) => (format!("# {}", entry.key), format!("default: {what}")),
    };
    let _ = writeln!(out, "{setting:<COLUMN$}# {why}");
}

impl File {
    /// Who set a value: an option, a variable, or a line of this file.
    #[must_use]
    pub fn describe(&self, origin: &Origin) -> String {
        match origin {
            Origin::Option(name) | Origin::Variable(name) => name.clone(),
            Origin::File(span) => {
                let name = self.path.as_ref().and_then(|path| path.file_name()).unwrap_or_default();
                let line = self.text.get(..span.start).map_or(0, |before| before.matches('\n').count()) + 1;
                format!("{}:{line}", name.to_string_lossy())
            }
        }
    }
}
