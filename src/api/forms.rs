//! The forms that an answer can be asked to have, by the names that clients know them by.

use serde_json::Value;

use super::BadRequest;
use crate::constrain::Constraint;

/// Bytes of a regular expression or a grammar.
const MOST_BYTES: usize = 64 << 10;
/// Texts to choose from.
const MOST_CHOICES: usize = 1000;

/// The one form of those that are given, each with the field that it came in.
///
/// # Errors
/// Two forms, or one that is too large to be looked at.
pub(super) fn only(
    given: impl IntoIterator<Item = (&'static str, Option<Constraint>)>,
) -> Result<Option<(&'static str, Constraint)>, BadRequest> {
    let mut given = given.into_iter().filter_map(|(field, form)| Some((field, form?)));
    let Some((field, form)) = given.next() else { return Ok(None) };
    if let Some((other, _)) = given.next() {
        return Err(BadRequest(format!("give `{field}` or `{other}`, not both")));
    }
    check_size(field, &form)?;
    Ok(Some((field, form)))
}

pub(super) fn check_size(field: &str, form: &Constraint) -> Result<(), BadRequest> {
    let (Constraint::Regex(text) | Constraint::Lark(text) | Constraint::Gbnf(text)) = form else { return Ok(()) };
    if text.len() > MOST_BYTES {
        return Err(BadRequest(format!("{field} has {} bytes; at most {MOST_BYTES} are taken", text.len())));
    }
    Ok(())
}

/// A regular expression that the whole text matches. An empty one asks for nothing.
pub(super) fn regex(text: Option<String>) -> Option<Constraint> {
    text.filter(|text| !text.is_empty()).map(Constraint::Regex)
}

pub(super) fn lark(text: Option<String>) -> Option<Constraint> {
    text.filter(|text| !text.is_empty()).map(Constraint::Lark)
}

pub(super) fn gbnf(text: Option<String>) -> Option<Constraint> {
    text.filter(|text| !text.is_empty()).map(Constraint::Gbnf)
}

/// A grammar in either syntax: only GBNF has `::=`.
pub(super) fn grammar(text: Option<String>) -> Option<Constraint> {
    if text.as_ref().is_some_and(|text| text.contains("::=")) { gbnf(text) } else { lark(text) }
}

/// A JSON schema, or the text of one.
///
/// # Errors
/// A text that is no JSON.
pub(super) fn schema(field: &str, schema: Option<Value>) -> Result<Option<Constraint>, BadRequest> {
    match schema {
        None => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => {
            let schema = serde_json::from_str(&text).map_err(|error| BadRequest(format!("{field}: {error}")))?;
            Ok(Some(Constraint::JsonSchema(schema)))
        }
        Some(schema) => Ok(Some(Constraint::JsonSchema(schema))),
    }
}

/// One of these texts. None to choose from asks for nothing.
///
/// # Errors
/// Too many.
pub(super) fn choice(field: &str, texts: Vec<String>) -> Result<Option<Constraint>, BadRequest> {
    if texts.len() > MOST_CHOICES {
        return Err(BadRequest(format!("{field} has {} texts; at most {MOST_CHOICES} are taken", texts.len())));
    }
    let literal = |text: &String| {
        // `\<` and `\>` would be the ends of a word.
        let special = |c: char| c.is_ascii_punctuation() && !matches!(c, '<' | '>');
        let escape = |c: char| if special(c) { format!("\\{c}") } else { c.to_string() };
        text.chars().map(escape).collect::<String>()
    };
    let all: Vec<String> = texts.iter().map(literal).collect();
    Ok((!all.is_empty()).then(|| Constraint::Regex(format!("({})", all.join("|")))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{BadRequest, choice, gbnf, grammar, lark, only, regex, schema};
    use crate::constrain::{Compiler, Constraint, Words};

    #[test]
    fn one_form_at_most() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(only([("a", regex(None)), ("b", lark(text("")))]), Ok(None));
        let one = only([("a", None), ("b", regex(text("x")))]);
        assert_eq!(one, Ok(Some(("b", Constraint::Regex("x".into())))));
        let both = only([("a", gbnf(text("x"))), ("b", None), ("c", lark(text("y")))]);
        assert_eq!(both, Err(BadRequest("give `a` or `c`, not both".into())));
        let long = only([("a", regex(text(&"x".repeat(70_000))))]);
        assert_eq!(long, Err(BadRequest("a has 70000 bytes; at most 65536 are taken".into())));
    }

    #[test]
    fn grammars_tell_their_syntax_and_schemas_may_be_text() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(grammar(text("root ::= \"a\"")), Some(Constraint::Gbnf("root ::= \"a\"".into())));
        assert_eq!(grammar(text("start: \"a\"")), Some(Constraint::Lark("start: \"a\"".into())));
        let object = json!({ "type": "object" });
        for given in [object.clone(), object.to_string().into()] {
            assert_eq!(schema("s", Some(given)), Ok(Some(Constraint::JsonSchema(object.clone()))));
        }
        assert!(schema("s", Some("{".into())).is_err_and(|BadRequest(why)| why.starts_with("s: ")));
    }

    #[test]
    fn choices_are_taken_literally() {
        let found = choice("c", vec!["a.b".into(), "né (1)".into()]);
        assert_eq!(found, Ok(Some(Constraint::Regex(r"(a\.b|né \(1\))".into()))));
        assert_eq!(choice("c", Vec::new()), Ok(None));
        let all: String = (b'!'..=b'~').map(char::from).filter(char::is_ascii_punctuation).collect();
        let form = choice("c", vec![all.clone(), "x".into()]).expect("few").expect("a form");
        let compiler = Compiler::new(Words::bytes()).expect("a vocabulary");
        let mut filter = compiler.compile(&form).expect("a regular expression");
        all.bytes().for_each(|byte| filter.accept(byte.into()).expect("it is allowed"));
        assert_eq!(filter.allows(256), Ok(true));
        assert!(choice("c", vec![String::new(); 1001]).is_err());
    }
}
