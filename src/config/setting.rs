//! A setting, and where it was made.

use std::fmt;
use std::ops::Range;

/// Who set a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An option of the command line, e.g. `--parallel`.
    Option(String),
    /// A variable of the environment.
    Variable(String),
    /// The config file; these bytes of it.
    File(Range<usize>),
}

/// A value that somebody set.
#[derive(Clone, Debug)]
pub struct Set<T> {
    pub value: T,
    pub origin: Origin,
}

/// Where a value stands is no part of what it is.
impl<T: PartialEq> PartialEq for Set<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// What is taken where nobody sets anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A value, in TOML.
    Value(&'static str),
    /// What decides it.
    Words(&'static str),
}

/// A setting for people to read.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: &'static str,
    /// In TOML.
    pub set: Option<(String, Origin)>,
    pub fallback: Fallback,
    /// Whether the value must not be shown.
    pub is_secret: bool,
}

pub(super) const fn value(toml: &'static str) -> Fallback {
    Fallback::Value(toml)
}

pub(super) const fn words(what: &'static str) -> Fallback {
    Fallback::Words(what)
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(text) | Self::Words(text) => f.write_str(text),
        }
    }
}

/// Settings that stand in one table of the file.
pub(super) trait Section {
    fn keys(&self) -> &'static [&'static str];

    /// Takes the setting `key`. `None` where there is none of this name.
    fn read(
        &mut self,
        key: &str,
        node: &toml::Spanned<toml::de::DeValue<'_>>,
    ) -> Option<Result<(), super::kinds::Misfit>>;

    /// All settings, in their order.
    fn entries(&self) -> Vec<Entry>;
}

/// Declares a section: each setting's type, its kind of values in TOML, and what is taken where it is not set.
macro_rules! settings {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $key:ident: $type:ty = $kind:expr, $fallback:expr;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[$doc])* pub $key: Option<Set<$type>>,)*
        }

        impl $name {
            /// The keys, in the order in which they are shown.
            pub const KEYS: &[&str] = &[$(stringify!($key)),*];

            /// These settings, and where they say nothing, `lower`'s.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $($key: self.$key.or(lower.$key),)* }
            }
        }

        impl Section for $name {
            fn keys(&self) -> &'static [&'static str] {
                Self::KEYS
            }

            fn read(&mut self, key: &str, node: &Spanned<DeValue<'_>>) -> Option<Result<(), Misfit>> {
                match key {
                    $(stringify!($key) => Some(Kind::<$type>::read(&$kind, node).map(|value| {
                        self.$key = Some(Set { value, origin: Origin::File(node.span()) });
                    })),)*
                    _ => None,
                }
            }

            fn entries(&self) -> Vec<Entry> {
                vec![$(Entry {
                    key: stringify!($key),
                    set: self.$key.as_ref().map(|set| (Kind::<$type>::write(&$kind, &set.value), set.origin.clone())),
                    fallback: $fallback,
                    is_secret: Kind::<$type>::is_secret(&$kind),
                }),*]
            }
        }
    };
}

pub(super) use settings;
