//! Images in messages.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An image in a message: the bytes of its file, whatever its format.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Where it stands in the message's text, in bytes.
    pub at: usize,
    pub file: Arc<[u8]>,
}

impl Image {
    /// At the beginning of a message.
    #[must_use]
    pub fn new(file: Vec<u8>) -> Self {
        Self { at: 0, file: file.into() }
    }

    /// From base64, as all dialects send images, by itself or in a `data:` address.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let is_data = text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("data:"));
        let data = match text.split_once(',').filter(|_| is_data) {
            Some((head, data)) if head.to_ascii_lowercase().ends_with(";base64") => data,
            _ if is_data => return Err("the data: address is not in base64".into()),
            _ if text.contains("://") => {
                return Err("images are not fetched from elsewhere; send it in base64, or as a data: address".into());
            }
            _ => text,
        };
        let data: Cow<'_, str> = match data.contains(|c: char| c.is_ascii_whitespace()) {
            true => data.split_ascii_whitespace().collect::<String>().into(),
            false => data.into(),
        };
        let file = BASE64_STANDARD.decode(data.as_bytes()).map_err(|error| format!("it is not base64: {error}"))?;
        if file.is_empty() { Err("it is empty".into()) } else { Ok(Self::new(file)) }
    }
}

/// An image is long.
impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} bytes at {})", self.file.len(), self.at)
    }
}

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.at, BASE64_STANDARD.encode(&self.file)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Image;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an image in base64")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Image, E> {
                Image::from_text(text).map_err(E::custom)
            }

            /// As it is serialised.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Image, A::Error> {
                let missing = || A::Error::custom("an image is a place and a text");
                let at = list.next_element()?.ok_or_else(missing)?;
                let text: String = list.next_element()?.ok_or_else(missing)?;
                Image::from_text(&text).map(|image| Image { at, ..image }).map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_any(Form)
    }
}

impl JsonSchema for Image {
    fn schema_name() -> Cow<'static, str> {
        "Image".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "An image's file in base64, or as a data: address." })
    }
}

#[cfg(test)]
mod tests {
    use super::Image;

    #[test]
    fn base64_by_itself_and_in_addresses() {
        for text in ["aGk=", "data:image/png;base64,aGk=", "DATA:image/png;BASE64,aGk=", "aG\nk=\n"] {
            assert_eq!(&*Image::from_text(text).expect("base64").file, b"hi", "{text}");
        }
        for (text, why) in [
            ("https://x.org/a.png", "images are not fetched from elsewhere"),
            ("data:image/png,hi", "the data: address is not in base64"),
            ("not base64", "it is not base64"),
            ("", "it is empty"),
        ] {
            assert!(Image::from_text(text).expect_err("no image").starts_with(why), "{text}");
        }
    }

    #[test]
    fn it_crosses_a_pipe() {
        let image = Image { at: 3, ..Image::from_text("aGk=").expect("base64") };
        let json = serde_json::to_string(&image).expect("plain data");
        assert_eq!(serde_json::from_str::<Image>(&json).expect("its own form"), image);
        assert_eq!(serde_json::from_str::<Image>("\"aGk=\"").expect("as clients send it").at, 0);
    }
}
