//! How much work a GBNF grammar is at each step, found out before llama.cpp sees it: it tries all ways to go on, and some
//! short grammars have millions.

use std::collections::HashMap;

/// Ways to go on from one place. llama.cpp compares each with each, for every token that it looks at.
const MOST_WAYS: u64 = 32;
/// llama.cpp's own limit for repetitions.
const MOST_TIMES: u64 = 2000;

/// Ways to come to a character, and to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ways {
    some: u64,
    none: u64,
}

impl Ways {
    const CHARACTER: Self = Self { some: 1, none: 0 };
    const NOTHING: Self = Self { some: 0, none: 1 };

    fn or(self, other: Self) -> Self {
        Self { some: self.some.saturating_add(other.some), none: self.none.saturating_add(other.none) }
    }

    fn then(self, next: Self) -> Self {
        let some = self.some.saturating_add(self.none.saturating_mul(next.some));
        Self { some, none: self.none.saturating_mul(next.none) }
    }
}

#[derive(Debug)]
enum Item {
    Character,
    Rule(String),
    Group(Vec<Vec<Element>>),
}

/// An item, from `min` to `max` times.
#[derive(Debug)]
struct Element {
    item: Item,
    min: u64,
    max: Option<u64>,
}

/// # Errors
/// What cannot be read, or a rule with too many ways to go on.
pub(super) fn check(gbnf: &str) -> Result<(), String> {
    let rules = Reader { text: gbnf.as_bytes(), at: 0 }.rules()?;
    let mut known = HashMap::new();
    for (name, alternatives) in &rules {
        let mut most = 0;
        of_alternatives(alternatives, &rules, &mut known, &mut most);
        if most > MOST_WAYS {
            return Err(format!("there are more than {MOST_WAYS} ways to go on within the rule {name:?}"));
        }
    }
    Ok(())
}

type Rules = HashMap<String, Vec<Vec<Element>>>;
type Known = HashMap<String, Option<Ways>>;

/// `most` becomes the largest number of ways from any place within.
fn of_alternatives(alternatives: &[Vec<Element>], rules: &Rules, known: &mut Known, most: &mut u64) -> Ways {
    let mut all = Ways::default();
    for sequence in alternatives {
        // From behind, since from each place on what follows counts.
        let mut rest = Ways::NOTHING;
        for element in sequence.iter().rev() {
            rest = of_element(element, rest, rules, known, most);
            *most = (*most).max(rest.some);
        }
        all = all.or(rest);
    }
    *most = (*most).max(all.some);
    all
}

/// The element, and then `rest`. llama.cpp writes a repetition as so many copies, of which each of the optional ones
/// holds the next.
fn of_element(element: &Element, rest: Ways, rules: &Rules, known: &mut Known, most: &mut u64) -> Ways {
    let once = match &element.item {
        Item::Character => Ways::CHARACTER,
        Item::Group(alternatives) => of_alternatives(alternatives, rules, known, most),
        Item::Rule(name) => of_rule(name, rules, known, most),
    };
    let mut optional = Ways::NOTHING;
    let copies = element.max.map_or(1, |max| max.saturating_sub(element.min));
    for _ in 0..copies.min(MOST_TIMES) {
        optional = once.then(optional).or(Ways::NOTHING);
    }
    let mut all = if copies == 0 { rest } else { optional.then(rest) };
    *most = (*most).max(all.some);
    for _ in 0..element.min.min(MOST_TIMES) {
        all = once.then(all);
        *most = (*most).max(all.some);
    }
    all
}

fn of_rule(name: &str, rules: &Rules, known: &mut Known, most: &mut u64) -> Ways {
    match known.get(name) {
        Some(Some(ways)) => return *ways,
        // It begins with itself, which llama.cpp refuses.
        Some(None) => return Ways::default(),
        None => {}
    }
    let Some(alternatives) = rules.get(name) else { return Ways::default() };
    known.insert(name.to_owned(), None);
    let ways = of_alternatives(alternatives, rules, known, most);
    known.insert(name.to_owned(), Some(ways));
    ways
}

/// Reads GBNF as llama.cpp does.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn fail<T>(&self, expected: &str) -> Result<T, String> {
        Err(format!("expected {expected} at byte {}", self.at))
    }

    fn space(&mut self, newlines: bool) {
        loop {
            match self.peek() {
                b' ' | b'\t' => self.at += 1,
                b'\r' | b'\n' if newlines => self.at += 1,
                b'#' => {
                    while !matches!(self.peek(), 0 | b'\r' | b'\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn is_word(&self) -> bool {
        matches!(self.peek(), b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-')
    }

    fn name(&mut self) -> Result<String, String> {
        let start = self.at;
        while self.is_word() {
            self.at += 1;
        }
        if start == self.at {
            return self.fail("a name");
        }
        Ok(String::from_utf8_lossy(&self.text[start..self.at]).into_owned())
    }

    fn rules(mut self) -> Result<Rules, String> {
        let mut rules = Rules::new();
        self.space(true);
        while self.at < self.text.len() {
            let name = self.name()?;
            self.space(false);
            if !self.text[self.at..].starts_with(b"::=") {
                return self.fail("`::=`");
            }
            self.at += 3;
            self.space(true);
            let alternatives = self.alternatives(false)?;
            rules.insert(name, alternatives);
            if !matches!(self.peek(), 0 | b'\r' | b'\n') {
                return self.fail("a line's end");
            }
            self.space(true);
        }
        Ok(rules)
    }

    fn alternatives(&mut self, nested: bool) -> Result<Vec<Vec<Element>>, String> {
        let mut all = vec![self.sequence(nested)?];
        while self.peek() == b'|' {
            self.at += 1;
            self.space(true);
            all.push(self.sequence(nested)?);
        }
        Ok(all)
    }

    fn sequence(&mut self, nested: bool) -> Result<Vec<Element>, String> {
        let mut sequence: Vec<Element> = Vec::new();
        loop {
            let item = match self.peek() {
                b'"' => {
                    // Only the last character of a literal would be repeated; an empty one is nothing.
                    if self.quoted(b'"')? == 0 {
                        self.space(nested);
                        continue;
                    }
                    Item::Character
                }
                b'[' => {
                    self.quoted(b']')?;
                    Item::Character
                }
                b'!' | b'<' => {
                    self.token()?;
                    Item::Character
                }
                b'.' => {
                    self.at += 1;
                    Item::Character
                }
                b'(' => {
                    self.at += 1;
                    self.space(true);
                    let group = self.alternatives(true)?;
                    if self.peek() != b')' {
                        return self.fail("`)`");
                    }
                    self.at += 1;
                    Item::Group(group)
                }
                b'*' | b'+' | b'?' | b'{' => {
                    let (min, max) = self.times()?;
                    self.space(nested);
                    let Some(last) = sequence.pop() else { return self.fail("something to repeat") };
                    // A repetition of a repetition: the inner one becomes a group.
                    let item =
                        if (last.min, last.max) == (1, Some(1)) { last.item } else { Item::Group(vec![vec![last]]) };
                    sequence.push(Element { item, min, max });
                    continue;
                }
                _ if self.is_word() => Item::Rule(self.name()?),
                _ => return Ok(sequence),
            };
            self.space(nested);
            sequence.push(Element { item, min: 1, max: Some(1) });
        }
    }

    /// A literal or a set of characters; how many bytes it has.
    fn quoted(&mut self, end: u8) -> Result<usize, String> {
        self.at += 1;
        let start = self.at;
        while self.peek() != end {
            match self.peek() {
                0 => return self.fail("the end of a literal"),
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Ok(self.at - 1 - start)
    }

    fn token(&mut self) -> Result<(), String> {
        while !matches!(self.peek(), 0 | b'>') {
            self.at += 1;
        }
        if self.peek() == 0 {
            return self.fail("`>`");
        }
        self.at += 1;
        Ok(())
    }

    fn times(&mut self) -> Result<(u64, Option<u64>), String> {
        let kind = self.peek();
        self.at += 1;
        match kind {
            b'*' => return Ok((0, None)),
            b'+' => return Ok((1, None)),
            b'?' => return Ok((0, Some(1))),
            _ => {}
        }
        // Within braces llama.cpp takes line breaks in groups only; to take them everywhere refuses nothing.
        self.space(true);
        let min = self.number()?;
        self.space(true);
        let max = match self.peek() {
            b'}' => Some(min),
            b',' => {
                self.at += 1;
                self.space(true);
                if self.peek().is_ascii_digit() { Some(self.number()?) } else { None }
            }
            _ => return self.fail("`,` or `}`"),
        };
        self.space(true);
        if self.peek() != b'}' {
            return self.fail("`}`");
        }
        self.at += 1;
        // llama.cpp counts down from one to the other, and below zero where they are the wrong way round.
        if max.is_some_and(|max| max < min) || min > MOST_TIMES || max.is_some_and(|max| max > MOST_TIMES) {
            return self.fail(&format!("a repetition from few to at most {MOST_TIMES} times"));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<u64, String> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        let digits = String::from_utf8_lossy(&self.text[start..self.at]);
        digits.parse().or_else(|_| self.fail("a number"))
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    /// The grammar of JSON that llama.cpp shows its users.
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
    fn usual_grammars_pass() {
        check(JSON).expect("JSON");
        check("root ::= \"yes\" | \"no\"").expect("a choice");
        check("root ::= [a-z]{1,200} (\" \" [a-z]+){0,30} \"\"").expect("words");
        check("root ::= <[12]> !<[13]>* .").expect("tokens");
    }

    #[test]
    fn grammars_that_hang_are_refused() {
        let mut doubling = String::from("root ::= r0\n");
        for n in 0..30 {
            doubling.push_str(&format!("r{n} ::= r{} | r{}\n", n + 1, n + 1));
        }
        doubling.push_str("r30 ::= \"a\"\n");
        for bad in [
            r#"root ::= ("a"?){100}"#,
            r#"root ::= (("a"?){10}){10}"#,
            r#"root ::= "b" ("a"? "c"?){40} "d""#,
            r#"root ::= (("a"?){0,20}){0,20}"#,
            &doubling,
        ] {
            assert!(check(bad).expect_err(bad).contains("ways"), "{bad}");
        }
        assert!(check(r#"root ::= "a"{5,2}"#).is_err(), "llama.cpp would count down from 2^64");
        assert!(check(r#"root ::= "a"{0,99999999999999999999}"#).is_err());
        assert!(check(r#"root ::= "a"{3000}"#).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in ["root", "root ::= (", "root ::= \"a", "root ::= [a", "root ::= *", "root ::= a )", "::= a"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
