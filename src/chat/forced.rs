//! Calls that must happen: where a template puts the call of each tool, found out by letting it render one.

use super::message::{Message, Role, ToolCall};
use super::options::Tool;

/// Stands in a rendered call where the arguments go.
const ARGUMENT: &str = "shimmy_argument";
/// Stands in a rendered answer where its text goes.
const CONTENT: &str = "shimmy_content";

/// An assistant's turn that calls the tool.
#[must_use]
pub fn probe_call(tool: &Tool) -> Message {
    let call = ToolCall {
        // Some templates want exactly nine letters.
        id: "shimmycal".into(),
        name: tool.name.clone(),
        arguments: format!("{{\"{ARGUMENT}\": \"shimmy_value\"}}"),
    };
    Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") }
}

/// What of a rendered prompt stands before the arguments of its last call. `None` where they are not JSON.
#[must_use]
pub fn before_arguments(rendered: &str) -> Option<&str> {
    let key = rendered.rfind(&format!("\"{ARGUMENT}\""))?;
    let before = rendered[..key].trim_end();
    before.ends_with('{').then(|| &before[..before.len() - 1])
}

/// An assistant's turn with a text.
#[must_use]
pub fn probe_content() -> Message {
    Message::new(Role::Assistant, CONTENT)
}

/// What of a rendered prompt stands before the text of its last answer.
#[must_use]
pub fn before_content(rendered: &str) -> Option<&str> {
    rendered.rfind(CONTENT).map(|at| &rendered[..at])
}

/// The call of a tool in a form that every model can write.
#[must_use]
pub fn plain_call(tool: &Tool) -> String {
    format!("{{\"name\": {}, \"arguments\": ", serde_json::Value::from(tool.name.as_str()))
}

/// What a model is told about tools where its template does not do it.
#[must_use]
pub fn with_tools_told(messages: &[Message], tools_json: &str) -> Vec<Message> {
    let told = format!(
        "You can call these tools, described in JSON:\n{tools_json}\n\nTo call one, answer with nothing but a JSON object of this \
         form: {{\"name\": the tool's name, \"arguments\": an object of its parameters}}. If you need no tool, answer in \
         plain text."
    );
    let mut messages = messages.to_vec();
    match messages.first_mut().filter(|first| first.role == Role::System) {
        Some(system) => system.content = format!("{}\n\n{told}", system.content),
        None => messages.insert(0, Message::new(Role::System, told)),
    }
    // Calls and results of earlier turns become text, too.
    for message in &mut messages {
        for call in std::mem::take(&mut message.tool_calls) {
            let name = serde_json::Value::from(call.name);
            let text = format!("{{\"name\": {name}, \"arguments\": {}}}", call.arguments);
            message.content = if message.content.is_empty() { text } else { format!("{}\n{text}", message.content) };
        }
        if message.role == Role::Tool {
            message.role = Role::User;
            message.content = format!("Result of the tool: {}", message.content);
        }
    }
    messages
}

/// The longest common beginning.
#[must_use]
pub fn common<'a>(texts: &[&'a str]) -> &'a str {
    let Some((first, rest)) = texts.split_first() else { return "" };
    let shared = |a: &str, b: &str| a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map(|((at, _), _)| at);
    let len = rest.iter().map(|text| shared(first, text).unwrap_or(first.len().min(text.len()))).min();
    &first[..len.unwrap_or(first.len())]
}

#[cfg(test)]
mod tests {
    use super::{before_arguments, before_content, common, with_tools_told};
    use crate::chat::{Message, Role, ToolCall};

    #[test]
    fn arguments_are_found_in_the_forms_that_templates_give_them() {
        let rendered =
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"shimmy_argument\": \"shimmy_value\"}}\n</tool_call>";
        assert_eq!(before_arguments(rendered), Some("<tool_call>\n{\"name\": \"f\", \"arguments\": "));
        let spaced = "{\n  \"shimmy_argument\": \"shimmy_value\"\n}";
        assert_eq!(before_arguments(spaced), Some(""));
        assert_eq!(before_arguments("<parameter=shimmy_argument>\nshimmy_value"), None, "not JSON");
        assert_eq!(before_arguments(r#""{\"shimmy_argument\": 1}""#), None, "JSON within a string");
        assert_eq!(before_content("<|assistant|>shimmy_content<|end|>"), Some("<|assistant|>"));
    }

    #[test]
    fn the_common_beginning_ends_at_a_character() {
        assert_eq!(common(&["abé", "abè", "abéx"]), "ab");
        assert_eq!(common(&["ab", "abc"]), "ab");
        assert_eq!(common(&["x"]), "x");
    }

    #[test]
    fn a_template_without_tools_gets_them_as_text() {
        let call = ToolCall { id: "1".into(), name: "f".into(), arguments: "{\"a\":1}".into() };
        let asked = Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") };
        let told = with_tools_told(&[Message::new(Role::User, "x"), asked, Message::new(Role::Tool, "7")], "[]");
        let turns: Vec<_> = told[1..].iter().map(|m| (m.role, m.content.as_str())).collect();
        let call = "{\"name\": \"f\", \"arguments\": {\"a\":1}}";
        let result = "Result of the tool: 7";
        assert_eq!(turns, [(Role::User, "x"), (Role::Assistant, call), (Role::User, result)]);
        assert_eq!(told[0].role, Role::System);
    }
}
