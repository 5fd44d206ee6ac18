//! What is wrong with a config file, and where.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
    /// The line and a mark below what is meant; `None` where the line may hold a key that nobody else should read.
    snippet: Option<String>,
}

impl Problem {
    /// `span` is in bytes; what lies outside of the text is taken for its end.
    pub(super) fn new(source: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        let start = source.floor_char_boundary(span.start.min(source.len()));
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let text = source[line_start..line_end].trim_end_matches('\r');
        let before = &source[line_start..start.min(line_start + text.len())];
        let line = source[..line_start].matches('\n').count() + 1;
        let end = source.floor_char_boundary(span.end.min(line_start + text.len()).max(start));
        let marked = source[start..end].chars().count().max(1);
        // Tabs stay tabs, so that the mark stands below what it means.
        let indent: String = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        let snippet = format!("{gutter} |\n{number} | {text}\n{gutter} | {indent}{}", "^".repeat(marked));
        Self {
            line,
            column: before.chars().count() + 1,
            message: message.into(),
            snippet: (!is_secret(&source[..line_end])).then_some(snippet),
        }
    }
}

/// Whether the last line speaks of keys, however that is spelled, or the setting that the text ends in is a list of them.
fn is_secret(text: &str) -> bool {
    let text = text.to_lowercase().replace('-', "_").replace("api_key_file", "");
    if text.lines().next_back().is_some_and(|line| line.contains("api_key")) {
        return true;
    }
    let names = text.lines().rev().filter_map(|line| line.split_once('=').map(|(name, _)| name.trim()));
    let mut settings = names.filter(|name| is_key(name));
    settings.next().is_some_and(|name| name.contains("api_key"))
}

/// Whether it is a name in TOML: words with dots between them, each as it is or between quotes.
fn is_key(text: &str) -> bool {
    let is_bare = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let unquoted =
        |word: &str, quote| word.strip_prefix(quote).and_then(|word| word.strip_suffix(quote)).is_some_and(is_bare);
    text.split('.').map(str::trim).all(|word| is_bare(word) || unquoted(word, '"') || unquoted(word, '\''))
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        self.snippet.as_ref().map_or(Ok(()), |snippet| write!(f, "\n{snippet}"))
    }
}

/// Why a config file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    Unreadable {
        path: PathBuf,
        why: String,
    },
    Invalid {
        /// Where the text came from, if it was a file.
        path: Option<PathBuf>,
        /// At least one, in their order in the text.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// Sorts the problems, if there are any.
    pub(super) fn check(mut problems: Vec<Problem>) -> Result<(), Self> {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if problems.is_empty() { Ok(()) } else { Err(Self::Invalid { path: None, problems }) }
    }

    pub(super) fn in_file(self, file: &Path) -> Self {
        match self {
            Self::Invalid { problems, .. } => Self::Invalid { path: Some(file.to_owned()), problems },
            other => other,
        }
    }

    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Invalid { problems, .. } => problems,
            Self::Unreadable { .. } => &[],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why } => write!(f, "{}: {why}", path.display()),
            Self::Invalid { path, problems } => {
                for (i, problem) in problems.iter().enumerate() {
                    let between = if i == 0 { "" } else { "\n" };
                    match path {
                        Some(path) => write!(f, "{between}{}:{problem}", path.display())?,
                        None => write!(f, "{between}{problem}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {}
