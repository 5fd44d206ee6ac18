//! From llama.cpp's grammars (GBNF) to Lark. llama.cpp's own engine for them can hang, exhaust the stack or abort on short
//! grammars; llguidance has budgets for all that.

use std::collections::BTreeSet;
use std::fmt::Write;

/// Groups in groups.
const MOST_NESTED: usize = 64;
const MOST_BYTES: usize = 64 << 10;
/// llama.cpp's own limit for repetitions.
const MOST_TIMES: u64 = 2000;

/// # Errors
/// What cannot be read, and where.
pub(super) fn to_lark(gbnf: &str) -> Result<String, String> {
    if gbnf.len() > MOST_BYTES {
        return Err(format!("the grammar has {} bytes; at most {MOST_BYTES} are taken", gbnf.len()));
    }
    let mut reader = Reader { text: gbnf, at: 0, nested: 0, known: BTreeSet::new(), used: BTreeSet::new() };
    let rules = reader.rules()?;
    if !reader.known.contains("root") {
        return Err("the grammar has no rule `root`".into());
    }
    if let Some(missing) = reader.used.difference(&reader.known).next() {
        return Err(format!("the rule {missing:?} is used but not there"));
    }
    Ok(format!("start: {}\n{rules}", rule("root")))
}

/// Lark tells rules from tokens by their letters, and knows no hyphens.
fn rule(name: &str) -> String {
    let mut lark = String::from("r");
    for byte in name.bytes() {
        // Writing to a string does not fail.
        let _ = match byte {
            b'a'..=b'z' | b'0'..=b'9' => write!(lark, "{}", byte as char),
            other => write!(lark, "_{other:x}_"),
        };
    }
    lark
}

/// Reads GBNF as llama.cpp does, and writes it as Lark. A character is a token of its own there: a longer one would be
/// taken as a whole or not at all.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    nested: usize,
    known: BTreeSet<String>,
    used: BTreeSet<String>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let found = self.text[self.at..].starts_with(wanted);
        self.at += if found { wanted.len() } else { 0 };
        found
    }

    fn fail<T>(&self, expected: &str) -> Result<T, String> {
        Err(format!("expected {expected} at byte {} of the grammar", self.at))
    }

    fn space(&mut self, newlines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\r' | '\n' if newlines => self.at += 1,
                '#' => {
                    while self.peek().is_some_and(|c| !matches!(c, '\r' | '\n')) {
                        self.next();
                    }
                }
                _ => return,
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
        if end == 0 {
            return self.fail("a name");
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn rules(&mut self) -> Result<String, String> {
        let mut lark = String::new();
        self.space(true);
        while self.at < self.text.len() {
            let name = self.name()?;
            self.space(false);
            if !self.takes("::=") {
                return self.fail("`::=`");
            }
            self.space(true);
            let alternatives = self.alternatives()?;
            if self.peek().is_some_and(|c| !matches!(c, '\r' | '\n')) {
                return self.fail("a line's end");
            }
            let _ = writeln!(lark, "{}: {alternatives}", rule(&name));
            if !self.known.insert(name) {
                return self.fail("each rule once");
            }
            self.space(true);
        }
        Ok(lark)
    }

    fn alternatives(&mut self) -> Result<String, String> {
        let mut all = vec![self.sequence()?];
        while self.takes("|") {
            self.space(true);
            all.push(self.sequence()?);
        }
        Ok(all.join(" | "))
    }

    fn sequence(&mut self) -> Result<String, String> {
        let mut items: Vec<String> = Vec::new();
        while let Some(c) = self.peek() {
            let item = match c {
                '"' => self.literal()?,
                '[' => self.set()?,
                '(' => self.group()?,
                '<' => self.token()?,
                '.' => {
                    self.at += 1;
                    "/(?s:.)/".into()
                }
                '*' | '+' | '?' | '{' => {
                    let Some(last) = items.pop() else { return self.fail("something to repeat") };
                    format!("({last}){}", self.times()?)
                }
                c if c.is_ascii_alphanumeric() || c == '-' => {
                    let name = self.name()?;
                    let lark = rule(&name);
                    self.used.insert(name);
                    lark
                }
                _ => break,
            };
            items.push(item);
            self.space(self.nested > 0);
        }
        Ok(if items.is_empty() { "\"\"".into() } else { items.join(" ") })
    }

    fn group(&mut self) -> Result<String, String> {
        self.at += 1;
        self.nested += 1;
        if self.nested > MOST_NESTED {
            return self.fail(&format!("at most {MOST_NESTED} groups within each other"));
        }
        self.space(true);
        let alternatives = self.alternatives()?;
        self.nested -= 1;
        if !self.takes(")") {
            return self.fail("`)`");
        }
        Ok(format!("({alternatives})"))
    }

    fn literal(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut characters = Vec::new();
        while !self.takes("\"") {
            characters.push(format!("/\\x{{{:x}}}/", u32::from(self.character()?)));
        }
        Ok(if characters.is_empty() { "\"\"".into() } else { format!("({})", characters.join(" ")) })
    }

    fn set(&mut self) -> Result<String, String> {
        self.at += 1;
        let negated = self.takes("^");
        let mut ranges = String::new();
        while !self.takes("]") {
            let first = self.character()?;
            let range = self.text[self.at..].starts_with('-') && !self.text[self.at..].starts_with("-]");
            let last = if range {
                self.at += 1;
                self.character()?
            } else {
                first
            };
            if last < first {
                return self.fail("the smaller character of a range first");
            }
            let _ = write!(ranges, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(first), u32::from(last));
        }
        match (ranges.is_empty(), negated) {
            (true, true) => Ok("/(?s:.)/".into()),
            (true, false) => self.fail("a character in `[]`"),
            (false, negated) => Ok(format!("/[{}{ranges}]/", if negated { "^" } else { "" })),
        }
    }

    fn character(&mut self) -> Result<char, String> {
        let digits = match self.next() {
            None => return self.fail("the end of a literal"),
            Some('\\') => match self.next() {
                Some('x') => 2,
                Some('u') => 4,
                Some('U') => 8,
                Some('t') => return Ok('\t'),
                Some('r') => return Ok('\r'),
                Some('n') => return Ok('\n'),
                Some(plain @ ('\\' | '"' | '[' | ']')) => return Ok(plain),
                _ => return self.fail("a known escape"),
            },
            Some(plain) => return Ok(plain),
        };
        let code = self.text.get(self.at..self.at + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let Some(character) = code.and_then(char::from_u32) else { return self.fail("a character's number") };
        self.at += digits;
        Ok(character)
    }

    /// By its number; which token a name means is the vocabulary's to say.
    fn token(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        let end = rest.find('>').map_or(0, |end| end + 1);
        let number = rest[..end].strip_prefix("<[").and_then(|token| token.strip_suffix("]>"));
        if number.is_none_or(|number| number.parse::<u32>().is_err()) {
            return self.fail("a token by its number, `<[17]>`");
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn times(&mut self) -> Result<String, String> {
        match self.next() {
            Some('*') => return Ok("*".into()),
            Some('+') => return Ok("+".into()),
            Some('?') => return Ok("?".into()),
            _ => {}
        }
        self.space(true);
        let min = self.number()?;
        self.space(true);
        let max = if self.takes(",") {
            self.space(true);
            if self.peek().is_some_and(|c| c.is_ascii_digit()) { Some(self.number()?) } else { None }
        } else {
            Some(min)
        };
        self.space(true);
        if !self.takes("}") {
            return self.fail("`}`");
        }
        match max {
            Some(max) if max < min => self.fail("the smaller number of a repetition first"),
            Some(max) => Ok(format!("{{{min},{max}}}")),
            None => Ok(format!("{{{min},}}")),
        }
    }

    fn number(&mut self) -> Result<u64, String> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        match rest[..end].parse() {
            Ok(number) if number <= MOST_TIMES => {
                self.at += end;
                Ok(number)
            }
            _ => self.fail(&format!("a number up to {MOST_TIMES}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::to_lark;

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in [
            "root",
            "root ::= (",
            "root ::= \"a",
            "root ::= [a",
            "root ::= *",
            "root ::= \"a\" )",
            "::= \"a\"",
            "root ::= nothing",
            "other ::= \"a\"",
            "root ::= \"a\"{5,2}",
            "root ::= \"a\"{3000}",
            "root ::= \"a\"{0,99999999999999999999}",
            "root ::= \"\\q\"",
            "root ::= [z-a]",
            "root ::= <think>",
            "root ::= \"a\"\nroot ::= \"b\"",
        ] {
            assert!(to_lark(bad).is_err(), "{bad}: {:?}", to_lark(bad));
        }
        let deep = format!("root ::= {}\"a\"{}", "(\")\" ".repeat(20_000), ")".repeat(20_000));
        assert!(to_lark(&deep[..60_000]).expect_err("deep").contains("within each other"));
        assert!(to_lark(&format!("root ::= \"{}\"", "a".repeat(70_000))).expect_err("long").contains("bytes"));
    }
}
