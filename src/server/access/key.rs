//! API keys and their hashes.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

pub use crate::config::ApiKey;

/// What keys of ours begin with, so that people and secret scanners know one when they see it.
pub const PREFIX: &str = "sk-shimmy-";

const RANDOM_BYTES: usize = 32;

/// Below this many characters, guessing one is thinkable.
pub(super) const SHORT: usize = 16;

impl ApiKey {
    /// 256 bits, in letters that a header, a WebSocket subprotocol and a shell take as they are.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self::from(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))))
    }

    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.reveal().as_bytes())
    }

    /// Why no request could carry it.
    pub(super) fn problem(&self) -> Option<&'static str> {
        if self.reveal().is_empty() {
            Some("is empty; give it a value, or leave it out")
        } else if !self.reveal().bytes().all(|byte| byte.is_ascii_graphic()) {
            Some("has a space or another character that a header cannot carry; use printable ASCII")
        } else {
            None
        }
    }

    pub(super) fn is_short(&self) -> bool {
        self.reveal().len() < SHORT
    }
}

/// SHA-256 of a key. A key of 256 random bits needs no salt and no slow hash.
///
/// Not `PartialEq`: comparing takes the same time whatever the difference.
#[derive(Clone, Copy)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    #[must_use]
    pub fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyHash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::{ApiKey, KeyHash, PREFIX};

    #[test]
    fn random_keys_have_256_bits_and_differ() {
        let (one, other) = (ApiKey::random().unwrap(), ApiKey::random().unwrap());
        assert_ne!(one, other);
        let random = one.reveal().strip_prefix(PREFIX).unwrap();
        assert_eq!(random.len(), 43);
        assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{random}");
        assert_eq!(one.problem(), None);
    }

    #[test]
    fn the_hash_is_sha256_in_hexadecimal() {
        let hash = KeyHash::of(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let read = KeyHash::parse(&hash.to_string().to_uppercase()).unwrap();
        assert!(bool::from(read.is(&hash)));
        assert!(!bool::from(read.is(&KeyHash::of(b"abd"))));
        for text in ["", "ba78", &"g".repeat(64), &"0".repeat(66)] {
            assert!(KeyHash::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_key_is_not_printed_by_accident() {
        assert_eq!(format!("{:?}", ApiKey::from("secret".to_owned())), "ApiKey(…)");
    }

    #[test]
    fn keys_that_no_header_carries_are_told() {
        for (key, fits) in [("sk-a", true), ("", false), ("a b", false), ("a\n", false), ("schlüssel", false)] {
            assert_eq!(ApiKey::from(key.to_owned()).problem().is_none(), fits, "{key}");
        }
    }
}
