//! Turns in Anthropic's shape, and the messages that they become.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::api::conversation::{Conversation, image, join};
use crate::api::{BadRequest, schema};
use crate::chat::{Image, Message, Role, ToolCall};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.Turn")]
pub(super) struct Turn {
    role: TurnRole,
    content: Blocks,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "anthropic.Role")]
enum TurnRole {
    System,
    User,
    Assistant,
}

/// Text, which stands for one block of it, or a list of blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks(Vec<Block>);

/// The fields of all kinds of block, so that those that a block has beside them are told to have no effect.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.InputBlock", description = "A text, a thought, a call or the result of one.")]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    thinking: Option<String>,
    /// Of a thought. Ours is empty, so there is nothing to check.
    #[serde(rename = "signature")]
    _signature: Option<String>,
    id: Option<String>,
    name: Option<String>,
    input: Option<Map<String, Value>>,
    tool_use_id: Option<String>,
    content: Option<Blocks>,
    source: Option<Source>,
    is_error: Option<bool>,
}

/// Of an image.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "anthropic.ImageSource")]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    /// The bytes say it themselves.
    #[serde(rename = "media_type")]
    _media_type: Option<String>,
    data: Option<String>,
    #[serde(rename = "url")]
    _url: Option<String>,
}

impl JsonSchema for Blocks {
    fn schema_name() -> Cow<'static, str> {
        "anthropic.InputContent".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema::text_or(generator.subschema_for::<Vec<Block>>())
    }
}

// An untagged enum would lose the paths of what is wrong and of what is passed over.
impl<'de> Deserialize<'de> for Blocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrList;

        impl<'de> Visitor<'de> for TextOrList {
            type Value = Blocks;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of blocks")
            }

            fn visit_str<E>(self, text: &str) -> Result<Blocks, E> {
                Ok(Blocks(vec![Block { kind: "text".into(), text: Some(text.into()), ..Block::default() }]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Blocks, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Blocks)
            }
        }

        deserializer.deserialize_any(TextOrList)
    }
}

impl Blocks {
    /// The text of blocks that must not be anything else. `at` is their path.
    pub(super) fn into_text(self, at: &str) -> Result<String, BadRequest> {
        let text = |(index, block): (usize, Block)| {
            let at = format!("{at}.{index}");
            if block.kind == "text" { given(block.text, &at, "text") } else { Err(not_served(&block.kind, &at)) }
        };
        let texts: Vec<String> = self.0.into_iter().enumerate().map(text).collect::<Result<_, _>>()?;
        Ok(texts.join("\n"))
    }
}

fn given<T>(field: Option<T>, at: &str, name: &str) -> Result<T, BadRequest> {
    field.ok_or_else(|| BadRequest(format!("{at}.{name} is missing")))
}

fn not_served(kind: &str, at: &str) -> BadRequest {
    BadRequest(format!("{at}: blocks of type {kind:?} are not served by this version"))
}

fn misplaced(kind: &str, at: &str, role: &str) -> BadRequest {
    BadRequest(format!("{at}: a block of type {kind:?} has no place in a turn of the {role}"))
}

/// The messages that a conversation consists of.
pub(super) fn messages(system: Option<Blocks>, turns: Vec<Turn>) -> Result<Vec<Message>, BadRequest> {
    let mut read = Conversation::default();
    if let Some(text) = system.map(|blocks| blocks.into_text("system")).transpose()?.filter(|text| !text.is_empty()) {
        read.add(Message::new(Role::System, text));
    }
    for (index, turn) in turns.into_iter().enumerate() {
        let at = format!("messages.{index}.content");
        match turn.role {
            TurnRole::System => read.add(Message::new(Role::System, turn.content.into_text(&at)?)),
            TurnRole::User => user(&mut read, turn.content, &at)?,
            TurnRole::Assistant => assistant(&mut read, turn.content, &at)?,
        }
    }
    Ok(read.messages)
}

fn image_of(role: Role, source: Option<Source>, at: &str) -> Result<Image, BadRequest> {
    let source = given(source, at, "source")?;
    if source.kind != "base64" {
        let kind = source.kind;
        return Err(BadRequest(format!("{at}.source.type is {kind:?}; images are taken as \"base64\"")));
    }
    image(role, at, "source.data", source.data.as_deref())
}

/// Each result becomes a message of its own; the text of the turn comes after them.
fn user(read: &mut Conversation, blocks: Blocks, at: &str) -> Result<(), BadRequest> {
    if blocks.0.is_empty() {
        return Err(BadRequest(format!("{at} is empty")));
    }
    let mut said: Option<Message> = None;
    for (index, block) in blocks.0.into_iter().enumerate() {
        let at = format!("{at}.{index}");
        match block.kind.as_str() {
            "tool_result" => result(read, block, &at)?,
            "tool_use" | "thinking" | "redacted_thinking" => return Err(misplaced(&block.kind, &at, "user")),
            _ => add(said.get_or_insert_with(|| Message::new(Role::User, "")), block, &at)?,
        }
    }
    if let Some(message) = said {
        read.add(message);
    }
    Ok(())
}

/// Adds a text or an image.
fn add(message: &mut Message, block: Block, at: &str) -> Result<(), BadRequest> {
    match block.kind.as_str() {
        "text" => message.push_text(&given(block.text, at, "text")?),
        "image" => message.push_image(image_of(message.role, block.source, at)?),
        other => return Err(not_served(other, at)),
    }
    Ok(())
}

fn result(read: &mut Conversation, block: Block, at: &str) -> Result<(), BadRequest> {
    let id = given(block.tool_use_id, at, "tool_use_id")?;
    // No template has a place for this, and the model should know.
    let error = if block.is_error == Some(true) { "Error: " } else { "" };
    let mut said = Message::new(Role::Tool, "");
    for (index, block) in block.content.unwrap_or_default().0.into_iter().enumerate() {
        add(&mut said, block, &format!("{at}.content.{index}"))?;
    }
    said.images.iter_mut().for_each(|image| image.at += error.len());
    said.content.insert_str(0, error);
    read.result(id, said);
    Ok(())
}

fn assistant(read: &mut Conversation, blocks: Blocks, at: &str) -> Result<(), BadRequest> {
    let mut message = Message::new(Role::Assistant, "");
    for (index, block) in blocks.0.into_iter().enumerate() {
        let at = format!("{at}.{index}");
        match block.kind.as_str() {
            "text" => join(&mut message.content, &given(block.text, &at, "text")?),
            "thinking" => {
                let thought = given(block.thinking, &at, "thinking")?;
                join(message.reasoning_content.get_or_insert_default(), &thought);
            }
            // Only Anthropic can read it.
            "redacted_thinking" => {}
            "tool_use" => {
                let (id, name) = (given(block.id, &at, "id")?, given(block.name, &at, "name")?);
                let arguments = Value::Object(given(block.input, &at, "input")?).to_string();
                message.tool_calls.push(ToolCall { id, name, arguments });
            }
            "tool_result" => return Err(misplaced(&block.kind, &at, "assistant")),
            other => return Err(not_served(other, &at)),
        }
    }
    read.add(message);
    Ok(())
}
