//! What a model makes of a text, in the shapes of llama.cpp's server: `/tokenize`, `/detokenize` and `/apply-template`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::BadRequest;
use super::openai::ChatRequest;
use crate::runner::{GenerateSpec, TokenId};

/// The body of `POST /tokenize`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "llama.TokenizeRequest", description = "A text to turn into tokens.")]
pub struct TokenizeRequest {
    #[serde(default = "default_model")]
    pub model: String,
    pub content: String,
    /// Put in front what a prompt begins with.
    #[serde(default)]
    pub add_special: bool,
    /// Read the names of control tokens as those tokens.
    #[serde(default = "yes")]
    pub parse_special: bool,
    /// Tell what each token stands for.
    #[serde(default)]
    pub with_pieces: bool,
    /// Paths of the fields that are passed over.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

/// The body of `POST /detokenize`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "llama.DetokenizeRequest", description = "Tokens to turn into a text.")]
pub struct DetokenizeRequest {
    #[serde(default = "default_model")]
    pub model: String,
    pub tokens: Vec<TokenId>,
    /// Paths of the fields that are passed over.
    #[serde(skip)]
    pub ignored: Vec<String>,
}

/// The answer of `POST /tokenize`.
#[derive(JsonSchema)]
#[schemars(rename = "llama.Tokens")]
pub struct Tokens {
    pub tokens: Vec<Token>,
}

/// A token, or a token with what it stands for.
#[derive(JsonSchema)]
#[schemars(rename = "llama.Token", untagged)]
pub enum Token {
    Id(TokenId),
    WithPiece { id: TokenId, piece: Piece },
}

/// Text, or bytes that are no text by themselves.
#[derive(JsonSchema)]
#[schemars(rename = "llama.Piece", untagged)]
pub enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

/// The answer of `POST /detokenize`.
#[derive(JsonSchema)]
#[schemars(rename = "llama.Content")]
pub struct Content {
    pub content: String,
}

/// The answer of `POST /apply-template`.
#[derive(JsonSchema)]
#[schemars(rename = "llama.Prompt")]
pub struct PromptText {
    pub prompt: String,
}

fn default_model() -> String {
    "default".into()
}

fn yes() -> bool {
    true
}

impl TokenizeRequest {
    /// # Errors
    /// The first field that is missing or of a wrong type.
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        let (request, ignored) = super::read_body::<Self>(&body)?;
        Ok(Self { ignored, ..request })
    }
}

impl DetokenizeRequest {
    /// # Errors
    /// As [`TokenizeRequest::from_value`].
    pub fn from_value(body: Value) -> Result<Self, BadRequest> {
        let (request, ignored) = super::read_body::<Self>(&body)?;
        Ok(Self { ignored, ..request })
    }
}

/// The body of `POST /apply-template` is one of OpenAI's chat completions, but that the model may be absent. With it come
/// the paths of the fields that are passed over.
///
/// # Errors
/// Those of a chat completion.
pub fn template_spec(mut body: Value) -> Result<(GenerateSpec, Vec<String>), BadRequest> {
    if body.get("model").is_none_or(Value::is_null) {
        body["model"] = default_model().into();
    }
    let request = ChatRequest::from_value(body)?;
    let ignored = request.ignored.clone();
    Ok((request.into_spec()?, ignored))
}

#[must_use]
pub fn tokens_body(tokens: &[TokenId]) -> Value {
    json!({ "tokens": tokens })
}

/// With `pieces`, one for each token. One that is no text by itself is told as its bytes.
#[must_use]
pub fn pieces_body(tokens: &[TokenId], pieces: &[Vec<u8>]) -> Value {
    let token = |(id, bytes): (&TokenId, &Vec<u8>)| match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "id": id, "piece": text }),
        Err(_) => json!({ "id": id, "piece": bytes }),
    };
    json!({ "tokens": tokens.iter().zip(pieces).map(token).collect::<Vec<_>>() })
}

/// The text of pieces that belong together.
#[must_use]
pub fn content_body(pieces: &[Vec<u8>]) -> Value {
    json!({ "content": String::from_utf8_lossy(&pieces.concat()) })
}

#[must_use]
pub fn prompt_body(prompt: &str) -> Value {
    json!({ "prompt": prompt })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{content_body, pieces_body};

    #[test]
    fn a_character_in_two_tokens_is_bytes_alone_and_text_together() {
        let pieces = [b"a".to_vec(), vec![0xc3], vec![0xa9]];
        let told = json!([{ "id": 1, "piece": "a" }, { "id": 2, "piece": [0xc3] }, { "id": 3, "piece": [0xa9] }]);
        assert_eq!(pieces_body(&[1, 2, 3], &pieces)["tokens"], told);
        assert_eq!(content_body(&pieces)["content"], "aé");
    }
}
