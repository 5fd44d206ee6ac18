//! From a schema or grammar to a filter, for one vocabulary.

use std::collections::VecDeque;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::Constraint;
use super::filter::{Guide, TokenFilter};

/// Compiled grammars that are kept: what one client asks for again and again.
const KEPT: usize = 32;
/// White space between two parts of a JSON text. Without an end to it small models write nothing else.
const WHITE_SPACE: &str = r"[\x20\x0A\x0D\x09]{0,40}";

/// Cuts a text into tokens.
pub type Tokenize = Box<dyn Fn(&str) -> Vec<u32> + Send + Sync>;

/// A model's vocabulary, as bytes.
pub struct Words {
    /// What each token stands for. Control tokens have no text of their own: they are empty.
    pub words: Vec<Vec<u8>>,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
    pub tokenize: Tokenize,
}

/// Compiles constraints, and remembers those that it compiled.
pub struct Compiler {
    factory: ParserFactory,
    ends: Arc<[u32]>,
    kept: Mutex<VecDeque<(String, Matcher)>>,
}

impl Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Compiler {
    /// # Errors
    /// A vocabulary that nothing can be built from.
    pub fn new(words: Words) -> Result<Self, String> {
        let ends: Arc<[u32]> = words.ends.into();
        let end = *ends.first().ok_or("the model has no token that ends a text, so that no form can be kept to")?;
        let size = u32::try_from(words.words.len()).map_err(|_| "the vocabulary is too large")?;
        let trie = TokTrie::from(&TokRxInfo::new(size, end), &words.words).with_eos_tokens(&ends);
        let env: TokEnv = Arc::new(Tokens { trie, tokenize: words.tokenize });
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory, ends, kept: Mutex::default() })
    }

    /// # Errors
    /// What of the schema or grammar cannot be honoured.
    pub fn compile(&self, constraint: &Constraint) -> Result<Box<dyn TokenFilter>, String> {
        let key = serde_json::to_string(constraint).map_err(|e| e.to_string())?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(known, _)| *known == key)
            && let Some(found) = kept.remove(at)
        {
            let matcher = found.1.clone();
            kept.push_front(found);
            return Ok(Box::new(Guide::new(matcher, Arc::clone(&self.ends))));
        }
        drop(kept);
        let matcher = Matcher::new(self.factory.create_parser(grammar(constraint)?));
        if let Some(error) = matcher.get_error() {
            return Err(error.lines().next().unwrap_or_default().to_owned());
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((key, matcher.clone()));
        kept.truncate(KEPT);
        Ok(Box::new(Guide::new(matcher, Arc::clone(&self.ends))))
    }
}

fn grammar(constraint: &Constraint) -> Result<TopLevelGrammar, String> {
    Ok(match constraint {
        Constraint::JsonObject => TopLevelGrammar::from_json_schema(with_options(json!({ "type": "object" }))),
        Constraint::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_options(schema.clone())),
        Constraint::Regex(regex) => TopLevelGrammar::from_regex(regex),
        Constraint::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
        Constraint::Gbnf(_) => return Err("a GBNF grammar is llama.cpp's to compile".into()),
    })
}

/// The schema with our options; llguidance reads them out of the schema itself.
#[must_use]
pub fn with_options(mut schema: Value) -> Value {
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("x-guidance".into(), json!({ "whitespace_pattern": WHITE_SPACE }));
    }
    schema
}

struct Tokens {
    trie: TokTrie,
    tokenize: Tokenize,
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(bytes, |text| (self.tokenize)(text))
    }
}

#[cfg(test)]
mod tests {
    use super::{Compiler, Constraint, TokenFilter, Words};
    use serde_json::json;

    /// A token for each byte, and one that ends.
    fn compiler() -> Compiler {
        let mut words: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        words.push(Vec::new());
        let tokenize = Box::new(|text: &str| text.bytes().map(u32::from).collect());
        Compiler::new(Words { words, ends: vec![256], tokenize }).expect("a vocabulary")
    }

    /// How much of the text is allowed, and whether it may end there.
    fn follow(filter: &mut dyn TokenFilter, text: &str) -> (usize, bool) {
        for (at, byte) in text.bytes().enumerate() {
            let bits = filter.allowed().expect("a mask").to_vec();
            let allowed = bits[usize::from(byte) / 32] >> (byte % 32) & 1 == 1;
            assert_eq!(
                filter.allows(byte.into()).expect("an answer"),
                allowed,
                "both say the same of {text:?} at {at}"
            );
            if !allowed {
                return (at, filter.allows(256).expect("an answer"));
            }
            filter.accept(byte.into()).expect("it is allowed");
        }
        let may_end = filter.allows(256).expect("an answer");
        let bits = filter.allowed().expect("a mask");
        assert_eq!(bits[8] & 1 == 1, may_end, "both say the same of the end of {text:?}");
        if may_end {
            filter.accept(256).expect("it may end");
        }
        (text.len(), may_end)
    }

    #[test]
    fn a_schema_allows_what_it_describes_and_an_end_only_there() {
        let compiler = compiler();
        let schema = json!({ "type": "object", "properties": { "n": { "type": "integer", "maximum": 20 } },
            "required": ["n"], "additionalProperties": false });
        let check = |text: &str| {
            let mut filter = compiler.compile(&Constraint::JsonSchema(schema.clone())).expect("a schema");
            follow(filter.as_mut(), text)
        };
        assert_eq!(check(r#"{"n": 17}"#), (9, true));
        assert_eq!(check("{ \n \"n\" : 3 }"), (13, true));
        assert_eq!(check(r#"{"n": 21"#), (7, false), "too large");
        assert_eq!(check(r#"{"m""#), (2, false), "another name");
        assert_eq!(check(r#"{"n": 1"#), (7, false), "not closed");
        let spaces = format!("{{{}", " ".repeat(60));
        assert_eq!(check(&spaces).0, 41, "white space comes to an end");
    }

    #[test]
    fn regex_lark_and_any_object() {
        let compiler = compiler();
        let check = |constraint: Constraint, text: &str| {
            follow(compiler.compile(&constraint).expect("it compiles").as_mut(), text)
        };
        assert_eq!(check(Constraint::Regex("[ab]+c".into()), "abac"), (4, true));
        assert_eq!(check(Constraint::Regex("[ab]+c".into()), "abx"), (2, false));
        assert_eq!(check(Constraint::Lark("start: \"x\" (\"y\" | \"z\")+".into()), "xyz"), (3, true));
        assert_eq!(check(Constraint::JsonObject, r#"{"a": [1, null]}"#), (16, true));
        assert_eq!(check(Constraint::JsonObject, "[1]"), (0, false));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let compiler = compiler();
        let error = |constraint: Constraint| compiler.compile(&constraint).expect_err("it cannot be honoured");
        let unknown = error(Constraint::JsonSchema(json!({ "type": "array", "uniqueItems": true })));
        assert!(unknown.contains("uniqueItems"), "{unknown}");
        let impossible = error(Constraint::JsonSchema(json!({ "type": "string", "minLength": 5, "maxLength": 2 })));
        assert!(impossible.contains("nsatisfiable"), "{impossible}");
        assert!(error(Constraint::Regex("[".into())).contains("regex"), "{}", error(Constraint::Regex("[".into())));
        assert!(!error(Constraint::Lark("start: nothing".into())).is_empty());
    }

    #[test]
    fn a_vocabulary_without_an_end_is_refused() {
        let words = Words { words: vec![vec![b'a']], ends: Vec::new(), tokenize: Box::new(|_| Vec::new()) };
        assert!(Compiler::new(words).is_err());
    }
}
