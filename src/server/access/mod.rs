//! Who may ask: API keys, the names that the server answers to, and the pages that may use it.

mod address;
mod credentials;
mod error;
mod guard;
mod hosts;
mod key;
mod key_file;
mod keys;
mod origins;

use std::path::PathBuf;

pub use error::AccessError;
pub(super) use guard::{Caller, OPEN, WRONG_KEY, protect};
pub use hosts::Bound;
pub use key::{ApiKey, KeyHash};
pub use key_file::{KeyFile, KeyFileError, KeyName, NamedKey};

use hosts::AllowedHosts;
use keys::Keys;
use origins::AllowedOrigins;

/// What the user says about access. The default is what is right for this machine alone.
#[derive(Clone, Debug, Default)]
pub struct AccessOptions {
    pub keys: Vec<ApiKey>,
    /// A file of names and hashes that has to be there. `None` takes [`default_key_file`] where it is.
    pub key_file: Option<PathBuf>,
    /// Names that the server answers to, beside its own: `example.com`, `example.com:8080`, `*.example.com`, `*`.
    pub allow_hosts: Vec<String>,
    /// Pages that may use the server: `https://app.example.com`, `http://localhost:*`, `https://*.example.com`, `null`, `*`.
    pub allow_origins: Vec<String>,
    /// Serve other machines without a key, too.
    pub insecure: bool,
}

/// `keys` in the user's configuration directory. `None` where the environment names no home.
#[must_use]
pub fn default_key_file() -> Option<PathBuf> {
    Some(crate::system::config_dir()?.join("keys"))
}

/// The rules that a running server holds requests to.
#[derive(Debug)]
pub struct Access {
    keys: Keys,
    hosts: AllowedHosts,
    origins: AllowedOrigins,
}

impl Access {
    /// # Errors
    /// Where other machines could ask without a key, the key file is broken, or a pattern is none.
    pub fn new(options: &AccessOptions, bound: Bound<'_>) -> Result<Self, AccessError> {
        let keys = Keys::new(&options.keys, options.key_file.as_deref(), default_key_file())?;
        let has_keys = keys.are_required();
        if !has_keys && !bound.is_local() {
            if !options.insecure {
                let file = keys.file().map(PathBuf::from);
                return Err(AccessError::Unprotected { asked: bound.asked.to_owned(), file });
            }
            tracing::warn!(address = bound.asked, "--insecure: whoever reaches this address may use the server");
        }
        let hosts = AllowedHosts::new(&options.allow_hosts, bound, has_keys)?;
        Ok(Self { keys, hosts, origins: AllowedOrigins::new(&options.allow_origins)? })
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, AccessError, AccessOptions, Bound};

    #[test]
    fn other_machines_need_a_key_unless_that_is_waived() {
        let dir = tempfile::tempdir().unwrap();
        let no_keys = dir.path().join("keys");
        std::fs::write(&no_keys, "").unwrap();
        let none = AccessOptions { key_file: Some(no_keys.clone()), ..AccessOptions::default() };
        let key = AccessOptions { keys: vec!["long-enough-not-to-be-guessed".to_owned().into()], ..none.clone() };
        let waived = AccessOptions { insecure: true, ..none.clone() };
        for (asked, options, fits) in [
            ("127.0.0.1:1", &none, true),
            ("[::1]:1", &none, true),
            ("0.0.0.0:1", &none, false),
            ("[::]:1", &none, false),
            ("192.168.0.1:1", &none, false),
            ("0.0.0.0:1", &key, true),
            ("0.0.0.0:1", &waived, true),
        ] {
            let addresses = [asked.parse().unwrap()];
            let access = Access::new(options, Bound { asked, addresses: &addresses });
            assert_eq!(access.is_ok(), fits, "{asked} {options:?}");
            if let Err(error) = access {
                assert!(matches!(error, AccessError::Unprotected { .. }), "{error}");
                let text = error.to_string();
                assert!(text.starts_with(asked) && text.contains(&no_keys.display().to_string()), "{text}");
            }
        }
    }
}
