//! Kinds of values: how one is read from TOML, what it must be, and how it is written.

use std::fmt::Display;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use toml::Spanned;
use toml::de::DeValue;

use crate::library::did_you_mean;
use crate::placement::GpuLayers;

/// A value that is not of its kind.
#[derive(Debug)]
pub(super) struct Misfit {
    pub span: Range<usize>,
    /// Which element of a list, e.g. `[1]`.
    pub path: String,
    pub found: String,
    /// What follows "it must be".
    pub expected: String,
}

impl Misfit {
    pub fn new(node: &Spanned<DeValue<'_>>, expected: impl Into<String>) -> Self {
        Self { span: node.span(), path: String::new(), found: shown(node.get_ref()), expected: expected.into() }
    }
}

/// How to read and write the values of one setting.
pub(super) trait Kind<T> {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<T, Misfit>;

    /// As TOML, on one line.
    fn write(&self, value: &T) -> String;

    /// Whether nobody should read it over somebody's shoulder.
    fn is_secret(&self) -> bool {
        false
    }
}

/// Whole numbers within bounds.
pub(super) struct Whole(i64, i64);

pub(super) const fn whole(min: i64, max: i64) -> Whole {
    Whole(min, max)
}

impl<T: TryFrom<i64> + Display> Kind<T> for Whole {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<T, Misfit> {
        let number = match node.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let within = number.filter(|number| (self.0..=self.1).contains(number)).and_then(|n| T::try_from(n).ok());
        within.ok_or_else(|| Misfit::new(node, format!("a whole number from {} to {}", self.0, self.1)))
    }

    fn write(&self, value: &T) -> String {
        value.to_string()
    }
}

/// Numbers within bounds.
pub(super) struct Number(f32, f32);

pub(super) const fn number(min: f32, max: f32) -> Number {
    Number(min, max)
}

impl Kind<f32> for Number {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<f32, Misfit> {
        let number: Option<f32> = match node.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        let (min, max) = (self.0, self.1);
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| Misfit::new(node, format!("a number from {min} to {max}")))
    }

    fn write(&self, value: &f32) -> String {
        format!("{value:?}")
    }
}

pub(super) struct Switch;

pub(super) const fn switch() -> Switch {
    Switch
}

impl Kind<bool> for Switch {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<bool, Misfit> {
        node.get_ref().as_bool().ok_or_else(|| Misfit::new(node, "true or false"))
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// Any text, with what it is for in error messages.
pub(super) struct Text(&'static str);

pub(super) const fn text(what: &'static str) -> Text {
    Text(what)
}

impl Kind<String> for Text {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<String, Misfit> {
        let text = node.get_ref().as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| Misfit::new(node, self.0))
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

pub(super) struct FilePath;

pub(super) const fn path() -> FilePath {
    FilePath
}

impl Kind<PathBuf> for FilePath {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<PathBuf, Misfit> {
        let text = node.get_ref().as_str().filter(|text| !text.is_empty() && !text.contains('\0'));
        text.map(PathBuf::from).ok_or_else(|| Misfit::new(node, "a path, in quotes"))
    }

    fn write(&self, value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
}

/// One of some words.
pub(super) struct Word<T: 'static>(&'static [(&'static str, T)]);

pub(super) const fn word<T>(all: &'static [(&'static str, T)]) -> Word<T> {
    Word(all)
}

impl<T: Copy + PartialEq> Kind<T> for Word<T> {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<T, Misfit> {
        let known = |text: &str| self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        if let Some((_, value)) = node.get_ref().as_str().and_then(known) {
            return Ok(*value);
        }
        let names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        let near = node.get_ref().as_str().map_or_else(String::new, |text| did_you_mean(text, names.iter().copied()));
        Err(Misfit::new(node, format!("one of {}{near}", names.join(", "))))
    }

    fn write(&self, value: &T) -> String {
        quoted(self.0.iter().find(|(_, known)| known == value).map_or("", |(name, _)| name))
    }
}

pub(super) struct Layers;

pub(super) const fn layers() -> Layers {
    Layers
}

impl Kind<GpuLayers> for Layers {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<GpuLayers, Misfit> {
        let read = match node.get_ref() {
            DeValue::String(text) => text.parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok().map(GpuLayers::Count),
            _ => None,
        };
        read.ok_or_else(|| Misfit::new(node, "\"all\", \"auto\" or a number of layers"))
    }

    fn write(&self, value: &GpuLayers) -> String {
        match value {
            GpuLayers::All => quoted("all"),
            GpuLayers::Auto => quoted("auto"),
            GpuLayers::Count(n) => n.to_string(),
        }
    }
}

/// What the command line reads too, with what it may be. A whole number stands for its text.
pub(super) struct Parsed(&'static str);

pub(super) const fn parsed(what: &'static str) -> Parsed {
    Parsed(what)
}

impl<T: FromStr + Display> Kind<T> for Parsed {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<T, Misfit> {
        let read = match node.get_ref() {
            DeValue::String(text) => text.parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        read.ok_or_else(|| Misfit::new(node, self.0))
    }

    fn write(&self, value: &T) -> String {
        quoted(&value.to_string())
    }
}

/// A list, or one element that stands for a list of one.
pub(super) struct Many<K>(K);

pub(super) const fn many<K>(kind: K) -> Many<K> {
    Many(kind)
}

/// Longer lists are a mistake.
const MAX_ELEMENTS: usize = 1000;

impl<T, K: Kind<T>> Kind<Vec<T>> for Many<K> {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<Vec<T>, Misfit> {
        let Some(elements) = node.get_ref().as_array() else { return self.0.read(node).map(|only| vec![only]) };
        if elements.len() > MAX_ELEMENTS {
            return Err(Misfit::new(node, format!("a list of at most {MAX_ELEMENTS} elements")));
        }
        let read = |(i, element)| {
            self.0.read(element).map_err(|misfit| Misfit { path: format!("[{i}]{}", misfit.path), ..misfit })
        };
        elements.iter().enumerate().map(read).collect()
    }

    fn write(&self, value: &Vec<T>) -> String {
        format!("[{}]", value.iter().map(|element| self.0.write(element)).collect::<Vec<_>>().join(", "))
    }

    fn is_secret(&self) -> bool {
        self.0.is_secret()
    }
}

/// A LoRA adapter of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    pub path: PathBuf,
    pub scale: f32,
}

impl std::str::FromStr for Adapter {
    type Err = String;

    /// `PATH` or `PATH:SCALE`. A colon that no number follows is part of the path.
    fn from_str(text: &str) -> Result<Self, String> {
        let (path, scale) = match text.rsplit_once(':') {
            Some((path, number)) if number.parse::<f32>().is_ok() => (path, number.parse().unwrap_or(1.0)),
            _ => (text, 1.0),
        };
        if !f32::is_finite(scale) {
            return Err(format!("the scale of {path} is {scale}; it must be a finite number"));
        }
        Ok(Self { path: PathBuf::from(path), scale })
    }
}

pub(super) struct AdapterKind;

pub(super) const fn adapter() -> AdapterKind {
    AdapterKind
}

const SCALES: Number = number(-1000.0, 1000.0);

impl Kind<Adapter> for AdapterKind {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<Adapter, Misfit> {
        const EXPECTED: &str = "a path, or a table like { path = \"adapter.gguf\", scale = 0.5 }";
        let table = match node.get_ref() {
            DeValue::String(_) => return FilePath.read(node).map(|path| Adapter { path, scale: 1.0 }),
            DeValue::Table(table) => table,
            _ => return Err(Misfit::new(node, EXPECTED)),
        };
        let (mut path, mut scale) = (None, 1.0);
        for (key, value) in table {
            let within = |misfit: Misfit| Misfit { path: format!(".{}{}", key.get_ref(), misfit.path), ..misfit };
            match key.get_ref().as_ref() {
                "path" => path = Some(FilePath.read(value).map_err(within)?),
                "scale" => scale = SCALES.read(value).map_err(within)?,
                other => {
                    let found = format!("a table with `{other}`");
                    return Err(Misfit { span: key.span(), found, ..Misfit::new(node, EXPECTED) });
                }
            }
        }
        path.map(|path| Adapter { path, scale })
            .ok_or_else(|| Misfit { found: "a table without `path`".into(), ..Misfit::new(node, EXPECTED) })
    }

    fn write(&self, value: &Adapter) -> String {
        format!("{{ path = {}, scale = {} }}", FilePath.write(&value.path), SCALES.write(&value.scale))
    }
}

/// A key in plain text. It is never printed but by who made it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for ApiKey {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

pub(super) struct ApiKeyKind;

pub(super) const fn api_key() -> ApiKeyKind {
    ApiKeyKind
}

impl Kind<ApiKey> for ApiKeyKind {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<ApiKey, Misfit> {
        let text = node.get_ref().as_str().filter(|text| !text.is_empty());
        text.map(|text| ApiKey(text.to_owned()))
            .ok_or_else(|| Misfit { found: "no key".into(), ..Misfit::new(node, "a text in quotes") })
    }

    fn write(&self, value: &ApiKey) -> String {
        quoted(&value.0)
    }

    fn is_secret(&self) -> bool {
        true
    }
}

/// What the log shows, in the words of `RUST_LOG`.
pub(super) struct LogFilter;

pub(super) const fn log_filter() -> LogFilter {
    LogFilter
}

impl Kind<String> for LogFilter {
    fn read(&self, node: &Spanned<DeValue<'_>>) -> Result<String, Misfit> {
        let text = node.get_ref().as_str().filter(|text| tracing_subscriber::EnvFilter::try_new(text).is_ok());
        text.map(str::to_owned)
            .ok_or_else(|| Misfit::new(node, "a filter as RUST_LOG has it, e.g. \"warn,shimmy=debug\""))
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// A string in TOML, on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value in an error message.
fn shown(value: &DeValue<'_>) -> String {
    const LONGEST: usize = 40;
    match value {
        DeValue::String(text) if text.chars().count() > LONGEST => {
            format!("{:?}…", text.chars().take(LONGEST).collect::<String>())
        }
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
