//! From a schema or grammar to a filter, for one vocabulary.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::Constraint;
use super::filter::{Guide, TokenFilter};

/// Compiled grammars that are kept: what one client asks for again and again.
const KEPT: usize = 16;
/// Each takes about 2 kB, and they are kept as long as the grammar.
const LEXER_STATES: usize = 50_000;
/// Values in a schema, and patterns for names in one of its objects: llguidance compares each with each.
const SCHEMA_VALUES: usize = 20_000;
const NAME_PATTERNS: usize = 32;
/// Remainders of `multipleOf` in a schema, and its decimals. A million takes half a minute to compile.
const REMAINDERS: u64 = 10_000;
const DECIMALS: usize = 6;
/// White space between two parts of a JSON text: a space, or line breaks and what the next line is indented by. Small models
/// write it for as long as they may, so it is as short as in the grammars that llama.cpp makes of schemas.
const WHITE_SPACE: &str = r"\x20|(\x0D?\x0A){1,2}[\x20\x09]{0,20}";

/// A model's vocabulary, as bytes.
pub struct Words {
    /// What each token stands for. Control tokens have no text of their own: they are empty.
    pub words: Vec<Vec<u8>>,
    /// Tokens that end a text.
    pub ends: Vec<u32>,
}

#[cfg(any(test, feature = "stub"))]
impl Words {
    /// A token for each byte, and one that ends.
    #[must_use]
    pub fn bytes() -> Self {
        let words = (0..=u8::MAX).map(|byte| vec![byte]).chain([Vec::new()]).collect();
        Self { words, ends: vec![u32::from(u8::MAX) + 1] }
    }
}

/// Compiles constraints, and remembers those that it compiled.
pub struct Compiler {
    factory: ParserFactory,
    ends: Arc<[u32]>,
    kept: Mutex<VecDeque<(String, Matcher)>>,
    turn: Mutex<()>,
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
        // It cuts a text as no tokeniser does, and says so: then no particular tokens are forced where the text is.
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        let limits = factory.quiet().limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = LEXER_STATES;
        Ok(Self { factory, ends, kept: Mutex::default(), turn: Mutex::new(()) })
    }

    /// # Errors
    /// What of the schema or grammar cannot be honoured.
    pub fn compile(&self, constraint: &Constraint) -> Result<Box<dyn TokenFilter>, String> {
        let key = serde_json::to_string(constraint).map_err(|e| e.to_string())?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.iter().position(|(known, _)| *known == key)
            && let Some(found) = kept.remove(at)
        {
            // A plain clone would share its lexer, and with it a lock, a budget and any failure.
            let matcher = found.1.deep_clone();
            kept.push_front(found);
            return Ok(Box::new(Guide::new(matcher, Arc::clone(&self.ends))));
        }
        drop(kept);
        check_size(constraint)?;
        // One at a time: a hostile schema then keeps one core busy, not all.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let matcher = Matcher::new(self.factory.create_parser(grammar(constraint)?));
        if let Some(error) = matcher.get_error() {
            return Err(reason(&error));
        }
        // Some that nothing can match are noticed only with the first mask.
        let mut copy = matcher.deep_clone();
        copy.compute_mask_or_eos().map_err(|error| reason(&error.to_string()))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((key, copy));
        kept.truncate(KEPT);
        Ok(Box::new(Guide::new(matcher, Arc::clone(&self.ends))))
    }
}

/// What is wrong, in a line: the library repeats all of an expression, and goes on with a backtrace.
fn reason(error: &str) -> String {
    const MOST_CHARACTERS: usize = 300;
    if let Some(why) = error.lines().find_map(|line| line.trim_start().strip_prefix("error: ")) {
        return format!("the regular expression: {why}");
    }
    let first = error.lines().next().unwrap_or_default();
    if first == "NoExtensionBias" {
        return "no text has this form: what it is made of goes round in a circle".into();
    }
    match first.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}…", &first[..end]),
        None => first.to_owned(),
    }
}

/// What takes too long to compile is refused.
fn check_size(constraint: &Constraint) -> Result<(), String> {
    match constraint {
        Constraint::JsonSchema(schema) => check_schemas(vec![schema], NAME_PATTERNS),
        Constraint::Lark(lark) => {
            let schemas: Vec<Value> =
                lark.match_indices("%json").filter_map(|(at, mark)| first_value(&lark[at + mark.len()..])).collect();
            check_schemas(schemas.iter().collect(), 0)
        }
        _ => Ok(()),
    }
}

/// llguidance has a state for each remainder, of all divisors that meet in one number.
fn check_divisors(divisors: &BTreeSet<u64>) -> Result<(), String> {
    let states = divisors.iter().fold(1_u64, |product, divisor| product.saturating_mul(*divisor));
    if states <= REMAINDERS {
        return Ok(());
    }
    Err(format!(
        "multipleOf: the numbers that are given have a product of {states}; at most {REMAINDERS} is taken, without decimal points"
    ))
}

/// A divisor without its decimal point, `25` for `0.25`.
fn digits(divisor: &str) -> Result<u64, String> {
    let fraction = divisor.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let whole = divisor.replace('.', "").parse();
    whole
        .ok()
        .filter(|_| fraction <= DECIMALS)
        .ok_or_else(|| format!("multipleOf is {divisor}; numbers of at most {DECIMALS} decimals are taken"))
}

/// The JSON value that the text begins with, as llguidance reads it.
fn first_value(text: &str) -> Option<Value> {
    serde_json::Deserializer::from_str(text).into_iter().next()?.ok()
}

fn check_schemas(mut pending: Vec<&Value>, most_patterns: usize) -> Result<(), String> {
    let (mut values, mut divisors) = (0, BTreeSet::new());
    while let Some(value) = pending.pop() {
        values += 1;
        if values > SCHEMA_VALUES {
            return Err(format!("the schema has more than {SCHEMA_VALUES} values"));
        }
        match value {
            Value::Array(items) => pending.extend(items),
            Value::Object(fields) => {
                let patterns =
                    fields.get("patternProperties").and_then(Value::as_object).map_or(0, serde_json::Map::len);
                if patterns > most_patterns {
                    return Err(match most_patterns {
                        0 => "a schema within a grammar cannot have `patternProperties`".into(),
                        most => format!("patternProperties has {patterns} patterns; at most {most} are taken"),
                    });
                }
                if let Some(divisor) = fields.get("multipleOf").filter(|value| value.is_number()) {
                    divisors.insert(digits(&divisor.to_string())?);
                    check_divisors(&divisors)?;
                }
                pending.extend(fields.values());
            }
            _ => {}
        }
    }
    Ok(())
}

fn grammar(constraint: &Constraint) -> Result<TopLevelGrammar, String> {
    Ok(match constraint {
        Constraint::JsonObject => TopLevelGrammar::from_json_schema(with_options(json!({ "type": "object" }))),
        Constraint::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_options(schema.clone())),
        Constraint::Regex(regex) => TopLevelGrammar::from_regex(regex),
        Constraint::Lark(lark) => TopLevelGrammar::from_lark(lark.clone()),
        Constraint::Gbnf(gbnf) => TopLevelGrammar::from_lark(super::gbnf::to_lark(gbnf)?),
    })
}

/// The schema, tightened, with our options; llguidance reads them out of the schema itself.
#[must_use]
pub fn with_options(schema: Value) -> Value {
    let mut schema = super::schema::tighten(schema);
    if schema == Value::Bool(true) {
        schema = json!({});
    }
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("x-guidance".into(), json!({ "whitespace_pattern": WHITE_SPACE }));
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::{Compiler, Constraint, TokenFilter, Words};
    use serde_json::json;

    fn compiler() -> Compiler {
        Compiler::new(Words::bytes()).expect("a vocabulary")
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
        assert_eq!(check("{\n\t\"n\" : 3\r\n}"), (13, true));
        assert_eq!(check(r#"{"n": 21"#), (7, false), "too large");
        assert_eq!(check(r#"{"m""#), (2, false), "another name");
        assert_eq!(check(r#"{"n": 1"#), (7, false), "not closed");
        for (spaces, allowed) in [("  ", 1), ("\t", 0), (" \n", 1), ("\n\n\n", 2), ("\r\r", 1)] {
            assert_eq!(check(&format!("{{{spaces}")).0, 1 + allowed, "white space comes to an end: {spaces:?}");
        }
        assert_eq!(check(&format!("{{\n\n{}", " ".repeat(60))).0, 23, "so does a line that is empty");
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

    /// The grammar of JSON in the way that llama.cpp's users write it.
    const JSON: &str = r#"
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws  # of anything
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"#;

    #[test]
    fn grammars_of_llama_cpp() {
        let compiler = compiler();
        let check = |gbnf: &str, text: &str| {
            follow(compiler.compile(&Constraint::Gbnf(gbnf.into())).expect(gbnf).as_mut(), text)
        };
        let text = "{\"a\": [1, -2.5e3, true, \"x\\u00e9\\n\"], \"b\": {}}";
        assert_eq!(check(JSON, text), (text.len(), true));
        assert_eq!(check(JSON, "{\"a\" 1").0, 5);
        // Nothing is taken as a whole that could be something else.
        assert_eq!(check("root ::= (\"true\" | [a-z]+) \"!\"", "trux!"), (5, true));
        assert_eq!(check("root ::= \"a\"* \"ab\"", "aaab"), (4, true));
        assert_eq!(check("root ::= [^a-c]{2,3} \"é\"", "xyzé"), (5, true));
        assert_eq!(check("root ::= my-rule-2 | \"\"\nmy-rule-2 ::= \"x\"", ""), (0, true));
        // Those hang or crash llama.cpp.
        assert_eq!(check(r#"root ::= ("a"?){100}"#, "aaa"), (3, true));
        assert_eq!(check("root ::= a root \"y\" | \"x\"\na ::= b\nb ::= \"\"", "xyy"), (3, true));
        assert!(check("root ::= \"x\" root \"y\" | \"x\" root \"z\" | \"z\"", "xxxxxxxxxxxxxxxxzyzyzyzyzyzyzyzyz").1);
        let mut doubling = String::from("root ::= r0\n");
        for n in 0..30 {
            doubling.push_str(&format!("r{n} ::= r{} | r{}\n", n + 1, n + 1));
        }
        assert_eq!(check(&format!("{doubling}r30 ::= \"a\"\n"), "a"), (1, true));
    }

    #[test]
    fn what_takes_too_long_is_refused() {
        let compiler = compiler();
        let refused = |schema| compiler.compile(&Constraint::JsonSchema(schema)).expect_err("too much");
        let patterns: serde_json::Map<_, _> = (0..100).map(|n| (format!("^a{n}"), json!({}))).collect();
        assert!(refused(json!({ "type": "object", "patternProperties": patterns })).contains("patternProperties"));
        let hidden = r#"start: %json { "type": "object", "\u0070atternProperties": { "^a": {} } }"#;
        let hidden = compiler.compile(&Constraint::Lark(hidden.into())).map(drop).expect_err("too slow");
        assert_eq!(hidden, "a schema within a grammar cannot have `patternProperties`");
        assert!(refused(json!({ "enum": (0..30_000).collect::<Vec<_>>() })).contains("values"));
    }

    /// They exhaust no stack, and what would take for ever is refused.
    #[test]
    fn hostile_expressions_and_grammars() {
        let compiler = compiler();
        let deep = |n: usize, letter: &str| format!("{}{letter}{}", "(".repeat(n), ")".repeat(n));
        let many = format!("({})", vec!["\\p{L}{200}"; 300].join("|"));
        let table = [
            (
                Constraint::Regex(deep(20_000, "a")),
                Some("the regular expression: exceed the maximum number of nested parentheses/brackets (250)"),
            ),
            (Constraint::Regex("((((((a{50}){50}){50}){50}){50}){50})".into()), None),
            (Constraint::Regex("(a|b|ab){1000000}".into()), None),
            (Constraint::Regex(many), None),
            (Constraint::Regex("(.*a){200}".into()), None),
            (Constraint::Regex("[".repeat(60_000)), Some("the regular expression: unclosed character class")),
            (
                Constraint::Lark(format!("start: {}", deep(20_000, "\"a\""))),
                Some("1(37): lark grammar too deeply nested (at \"(\" ('('))"),
            ),
            (
                Constraint::Lark("start: start start".into()),
                Some("no text has this form: what it is made of goes round in a circle"),
            ),
            (
                Constraint::JsonSchema(json!({ "$ref": "#" })),
                Some("no text has this form: what it is made of goes round in a circle"),
            ),
            (
                Constraint::JsonSchema(json!({ "type": "integer", "multipleOf": 1_000_003 })),
                Some(
                    "multipleOf: the numbers that are given have a product of 1000003; at most 10000 is taken, without decimal points",
                ),
            ),
            (
                Constraint::JsonSchema(json!({ "multipleOf": 1e-10 })),
                Some("multipleOf is 1e-10; numbers of at most 6 decimals are taken"),
            ),
            (
                Constraint::JsonSchema(json!({ "items": { "multipleOf": 0.25 }, "not-a-word": { "multipleOf": 5 } })),
                None,
            ),
            (
                Constraint::Lark(doubling()),
                Some("at 36(6): initial lexer configuration (grammar) too big (limit for this grammar: 1000000)"),
            ),
        ];
        let found = table
            .iter()
            .map(|(form, _)| compiler.compile(form).and_then(|mut filter| filter.allowed().map(drop)).err());
        let found: Vec<Option<String>> = found.collect();
        let expected: Vec<Option<&str>> = table.iter().map(|(_, why)| *why).collect();
        assert_eq!(found.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    }

    /// Each terminal is twice the one before.
    fn doubling() -> String {
        let rules: String = (0..60).map(|n| format!("T{n}: T{} T{}\n", n + 1, n + 1)).collect();
        format!("start: T0\n{rules}T60: \"a\"\n")
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        let compiler = compiler();
        let error = |constraint: Constraint| compiler.compile(&constraint).expect_err("it cannot be honoured");
        let unknown = error(Constraint::JsonSchema(json!({ "type": "array", "uniqueItems": true })));
        assert!(unknown.contains("uniqueItems"), "{unknown}");
        let impossible = error(Constraint::JsonSchema(json!({ "type": "string", "minLength": 5, "maxLength": 2 })));
        assert!(impossible.contains("nsatisfiable"), "{impossible}");
        assert_eq!(error(Constraint::Regex("[".into())), "the regular expression: unclosed character class");
        let unknown = error(Constraint::Lark("start: nothing".into()));
        assert!(unknown.contains("nothing"), "{unknown}");
        let long = error(Constraint::Lark(format!("start: {}", "nothing".repeat(1000))));
        assert!(long.len() < 400, "{long}");
    }

    #[test]
    fn a_vocabulary_without_an_end_is_refused() {
        let words = Words { words: vec![vec![b'a']], ends: Vec::new() };
        assert!(Compiler::new(words).is_err());
    }
}
