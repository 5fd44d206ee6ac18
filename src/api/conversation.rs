//! Messages as they are read out of a dialect that cuts turns otherwise than templates do.

use std::collections::HashMap;

use super::BadRequest;
use crate::chat::{Image, Message, Role};

/// Messages as far as they have been read.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub messages: Vec<Message>,
    /// Which tool each call asked for, by the call's id.
    called: HashMap<String, String>,
}

impl Conversation {
    /// Turns of one side that follow each other are one turn; many templates take no others.
    pub fn add(&mut self, message: Message) {
        self.called.extend(message.tool_calls.iter().map(|call| (call.id.clone(), call.name.clone())));
        match self.messages.last_mut() {
            Some(last) if last.role == message.role && message.role != Role::Tool => {
                last.append(&message.content, message.images);
                if let Some(more) = message.reasoning_content {
                    join(last.reasoning_content.get_or_insert_default(), &more);
                }
                last.tool_calls.extend(message.tool_calls);
            }
            _ => self.messages.push(message),
        }
    }

    /// What a tool answered to the call with this id. Templates want to know which tool that was.
    pub fn result(&mut self, call: String, said: Message) {
        let name = self.called.get(&call).cloned();
        self.add(Message { role: Role::Tool, tool_call_id: Some(call), name, ..said });
    }
}

/// An image in a turn of `role`: what `field` says of a part that stands at `at` in a request.
pub(super) fn image(role: Role, at: &str, field: &str, text: Option<&str>) -> Result<Image, BadRequest> {
    if !matches!(role, Role::User | Role::Tool) {
        return Err(BadRequest(format!("{at}: an image stands in a turn of the user")));
    }
    let text = text.ok_or_else(|| BadRequest(format!("{at}.{field} is missing")))?;
    Image::from_text(text).map_err(|why| BadRequest(format!("{at}.{field}: {why}")))
}

/// Puts `more` on a line of its own.
pub(super) fn join(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
}
