//! SHA-256 digests, as Ollama's manifests and file names write them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// 64 lower-case hexadecimal digits. Nothing else can be one, so that a digest is safe in a path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// A text that is no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a SHA-256 digest: `sha256:` and 64 hexadecimal digits are needed")]
pub struct NotADigest(String);

impl Digest {
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    /// Reads all of a file. `progress` hears how many bytes are read, and stops it with `false`: then there is no digest.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn of_file(file: &File, mut progress: impl FnMut(u64) -> bool) -> std::io::Result<Option<Self>> {
        let mut file = file;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        let mut done = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(Some(Self::from_hash(hash)));
            }
            hash.update(&buffer[..read]);
            done += read as u64;
            if !progress(done) {
                return Ok(None);
            }
        }
    }

    pub(super) fn from_hash(hash: Sha256) -> Self {
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as progress is told.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// The name of the blob's file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("sha256-{}", self.0)
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    /// `sha256:`, or `sha256-` as in the names of files, may be left out.
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let hex = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-")).unwrap_or(text);
        if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(hex.to_ascii_lowercase()))
        } else {
            Err(NotADigest(text.chars().take(100).collect()))
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Self, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::Digest;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn digests_are_those_of_the_standard_and_survive_their_file_name() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), format!("sha256:{EMPTY}"));
        assert_eq!(digest.file_name().parse(), Ok(digest.clone()));
        assert_eq!(EMPTY.to_uppercase().parse::<Digest>(), Ok(digest));
    }

    #[test]
    fn nothing_that_could_be_a_path_is_a_digest() {
        let long = format!("sha256:{EMPTY}0");
        let climbing = format!("sha256:../../../{}", &EMPTY[9..]);
        for text in ["", "sha256:", "../../etc/passwd", "sha512:00", &long, &climbing, &EMPTY.replace('e', "/")] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
