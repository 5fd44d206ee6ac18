//! Messages as they are read out of a dialect that cuts turns otherwise than templates do.

use std::collections::HashMap;

use crate::chat::{Message, Role};

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
                join(&mut last.content, &message.content);
                if let Some(more) = message.reasoning_content {
                    join(last.reasoning_content.get_or_insert_default(), &more);
                }
                last.tool_calls.extend(message.tool_calls);
            }
            _ => self.messages.push(message),
        }
    }

    /// What a tool answered to the call with this id. Templates want to know which tool that was.
    pub fn result(&mut self, call: String, text: String) {
        let name = self.called.get(&call).cloned();
        self.add(Message { tool_call_id: Some(call), name, ..Message::new(Role::Tool, text) });
    }
}

/// Puts `more` on a line of its own.
pub(super) fn join(text: &mut String, more: &str) {
    if !text.is_empty() && !more.is_empty() {
        text.push('\n');
    }
    text.push_str(more);
}
