//! The config file: from text to settings, and back.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check;
use super::error::{ConfigError, Problem};
use super::keys::{LoadSettings, ModelSettings, SYNONYMS, SamplingSettings, ServerSettings};
use super::kinds::quoted;
use super::setting::{Origin, Section, Set};
use super::source::is_name;
use crate::library::{nearest, untagged};

/// What a config file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub server: ServerSettings,
    pub load: LoadSettings,
    pub sampling: SamplingSettings,
    /// By name, in the form in which names are compared.
    pub models: BTreeMap<String, Model>,
}

/// A section `[models.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// As the file spells it.
    pub name: Set<String>,
    pub own: ModelSettings,
    pub load: LoadSettings,
    pub sampling: SamplingSettings,
}

impl Settings {
    /// The section of a model by its name or an alias.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Model> {
        let name = untagged(name);
        let has_alias =
            |model: &&Model| model.own.alias.iter().flat_map(|set| &set.value).any(|alias| untagged(alias) == name);
        self.models.get(&name).or_else(|| self.models.values().find(has_alias))
    }
}

/// Reads the text of a config file. Does not look whether the files that it names are there.
///
/// # Errors
/// All that is wrong with it, each with line and column. Where the text is no TOML, only that.
pub fn parse(source: &str) -> Result<Settings, ConfigError> {
    let (table, errors) = DeTable::parse_recoverable(source);
    let mut reader = Reader { source, problems: Vec::new() };
    for error in errors {
        let end = source.len();
        reader.say(error.span().unwrap_or(end..end), format!("this is no TOML: {}", error.message()));
    }
    ConfigError::check(std::mem::take(&mut reader.problems))?;
    let settings = reader.file(table.get_ref());
    reader.problems.extend(check::contradictions(source, &settings));
    ConfigError::check(reader.problems)?;
    Ok(settings)
}

/// Where a table stands: it decides what to say of keys that do not belong there.
#[derive(Clone, Copy, PartialEq)]
enum Place<'a> {
    Top,
    Sampling,
    Model(&'a str),
    ModelSampling(&'a str),
}

struct Reader<'a> {
    source: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn say(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.problems.push(Problem::new(self.source, span, message));
    }

    fn file(&mut self, table: &DeTable<'_>) -> Settings {
        let mut file = Settings::default();
        self.table(table, &mut [&mut file.server, &mut file.load], &["sampling", "models"], Place::Top);
        if let Some(sampling) = self.subtable(table, "sampling", "a table: [sampling]") {
            self.table(sampling, &mut [&mut file.sampling], &[], Place::Sampling);
        }
        if let Some(models) = self.subtable(table, "models", "a table of models, e.g. [models.champion]") {
            for (name, section) in in_order(models) {
                self.model(name, section, &mut file);
            }
        }
        file
    }

    fn model(&mut self, name: &Spanned<Cow<'_, str>>, section: &Spanned<DeValue<'_>>, file: &mut Settings) {
        let spelled = name.get_ref().as_ref();
        let Some(table) = section.get_ref().as_table() else {
            return self.say(name.span(), format!("models.{spelled} must be a table: [models.{spelled}]"));
        };
        if !is_name(spelled) {
            self.say(name.span(), format!("{spelled:?} is no name for a model; it must be one without spaces"));
        }
        let mut model = Model {
            name: Set { value: spelled.to_owned(), origin: Origin::File(name.span()) },
            own: ModelSettings::default(),
            load: LoadSettings::default(),
            sampling: SamplingSettings::default(),
        };
        self.table(table, &mut [&mut model.own, &mut model.load], &["sampling"], Place::Model(spelled));
        if let Some(sampling) = self.subtable(table, "sampling", "a table: [models.NAME.sampling]") {
            self.table(sampling, &mut [&mut model.sampling], &[], Place::ModelSampling(spelled));
        }
        match file.models.entry(untagged(spelled)) {
            Entry::Vacant(place) => {
                place.insert(model);
            }
            Entry::Occupied(taken) => {
                let other = &taken.get().name.value;
                self.say(name.span(), format!("there is a model {other:?} already; names ignore case"));
            }
        }
    }

    fn subtable<'t>(&mut self, table: &'t DeTable<'_>, key: &str, expected: &str) -> Option<&'t DeTable<'t>> {
        let node = table.get(key)?;
        let found = node.get_ref().as_table();
        if found.is_none() {
            self.say(node.span(), format!("{key} must be {expected}"));
        }
        found
    }

    /// Reads a table whose settings are those of `sections`. Those of `tables` are read by somebody else.
    fn table(&mut self, table: &DeTable<'_>, sections: &mut [&mut dyn Section], tables: &[&str], place: Place<'_>) {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for (spanned, node) in in_order(table) {
            let spelled = spanned.get_ref().as_ref();
            if tables.contains(&spelled) {
                continue;
            }
            let key = SYNONYMS.iter().find(|(other, _)| *other == spelled).map_or(spelled, |(_, key)| key);
            let read = sections.iter_mut().find_map(|section| section.read(key, node));
            match (read, seen.insert(key, spelled)) {
                (Some(_), Some(other)) => {
                    let message = format!("`{spelled}` and `{other}` are two names of one setting; give one of them");
                    self.say(spanned.span(), message);
                }
                (Some(Ok(())), _) => {}
                (Some(Err(misfit)), _) => {
                    let message =
                        format!("{spelled}{} is {}; it must be {}", misfit.path, misfit.found, misfit.expected);
                    self.say(misfit.span, message);
                }
                (None, _) => {
                    let known = sections.iter().flat_map(|section| section.keys()).chain(tables).copied();
                    self.say(spanned.span(), unknown(spelled, known, place));
                }
            }
        }
    }
}

/// A table's keys and values as they stand in the text.
fn in_order<'a, 't>(table: &'a DeTable<'t>) -> Vec<(&'a Spanned<Cow<'t, str>>, &'a Spanned<DeValue<'t>>)> {
    let mut all: Vec<_> = table.iter().collect();
    all.sort_by_key(|(key, _)| key.span().start);
    all
}

/// What to say of a key that no setting has here.
fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>, place: Place<'_>) -> String {
    if ServerSettings::KEYS.contains(&key) {
        return format!("`{key}` is the server's: it belongs to the top of the file, in front of the first [section]");
    }
    if SamplingSettings::KEYS.contains(&key) {
        let name = if let Place::Model(name) = place { format!("models.{name}.sampling") } else { "sampling".into() };
        return format!("`{key}` belongs into the section [{name}]");
    }
    if LoadSettings::KEYS.contains(&key) {
        let place = if let Place::ModelSampling(name) = place {
            format!("into the section [models.{name}]")
        } else {
            "to the top of the file, in front of the first [section], or into a model's section".into()
        };
        return format!("`{key}` is no matter of sampling: it belongs {place}");
    }
    if ModelSettings::KEYS.contains(&key) {
        return format!("`{key}` belongs into a model's section, [models.NAME]");
    }
    match nearest(key, known).first() {
        Some(near) => format!("there is no setting `{key}` here; did you mean `{near}`?"),
        None => format!("there is no setting `{key}`; `shimmy config show` shows all that there are"),
    }
}

/// The text of a config file that says the same.
#[must_use]
pub fn print(settings: &Settings) -> String {
    let mut out = String::new();
    let mut section = |header: Option<String>, sections: &[&dyn Section]| {
        let set = sections.iter().flat_map(|section| section.entries());
        let lines: Vec<_> =
            set.filter_map(|entry| entry.set.map(|(toml, _)| format!("{} = {toml}\n", entry.key))).collect();
        if let Some(header) = header.filter(|header| !lines.is_empty() || !header.ends_with("sampling]")) {
            out.push_str(&format!("\n{header}\n"));
        }
        lines.iter().for_each(|line| out.push_str(line));
    };
    section(None, &[&settings.server, &settings.load]);
    section(Some("[sampling]".into()), &[&settings.sampling]);
    for model in settings.models.values() {
        let name = table_key(&model.name.value);
        section(Some(format!("[models.{name}]")), &[&model.own, &model.load]);
        section(Some(format!("[models.{name}.sampling]")), &[&model.sampling]);
    }
    out
}

/// A name as a part of a section's header.
pub(super) fn table_key(name: &str) -> String {
    let is_bare = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if is_bare && !name.is_empty() { name.to_owned() } else { quoted(name) }
}
