//! How long a model stays loaded when nobody uses it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// How long a model stays loaded after its last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepAlive {
    For(Duration),
    /// Until its place is needed, or somebody unloads it.
    #[default]
    Forever,
}

impl KeepAlive {
    /// Unloaded as soon as the answer is done.
    pub const NOT: Self = Self::For(Duration::ZERO);

    /// Negative stands for ever, as in Ollama; so does what no clock can count to.
    fn seconds(seconds: f64) -> Self {
        Duration::try_from_secs_f64(seconds).map_or(Self::Forever, Self::For)
    }
}

/// Neither a number of seconds nor a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is neither a number of seconds nor a duration like \"5m\"")]
pub struct BadKeepAlive(String);

impl FromStr for KeepAlive {
    type Err = BadKeepAlive;

    /// Seconds, or a duration as Go writes it, e.g. `5m`, `1h30m`; negative, or `forever`, for ever.
    fn from_str(text: &str) -> Result<Self, BadKeepAlive> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let (sign, amount) = match text.strip_prefix('-') {
            Some(rest) => (-1.0, rest),
            None => (1.0, text.strip_prefix('+').unwrap_or(text)),
        };
        seconds(amount).map(|n| Self::seconds(sign * n)).ok_or_else(|| BadKeepAlive(format!("{text:?}")))
    }
}

impl<'de> Deserialize<'de> for KeepAlive {
    /// As [`KeepAlive::from_str`], or a number of seconds.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let parsed = match &value {
            Value::Number(seconds) => seconds.as_f64().map(Self::seconds),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        parsed.ok_or_else(|| D::Error::custom(BadKeepAlive(value.to_string())))
    }
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(time) => write!(f, "{}s", time.as_secs_f64()),
            Self::Forever => f.write_str("forever"),
        }
    }
}

fn seconds(text: &str) -> Option<f64> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    if text.is_empty() {
        return None;
    }
    if text.chars().all(is_number) {
        return text.parse().ok();
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, next) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * seconds;
        rest = next;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::KeepAlive;

    fn parse(value: Value) -> Result<KeepAlive, String> {
        serde_json::from_value(value).map_err(|error: serde_json::Error| error.to_string())
    }

    #[test]
    fn numbers_and_durations_are_read() {
        let seconds = |n: f64| KeepAlive::For(Duration::from_secs_f64(n));
        for (value, expected) in [
            (json!(0), KeepAlive::NOT),
            (json!(0.0), KeepAlive::NOT),
            (json!("0"), KeepAlive::NOT),
            (json!("0h0m"), KeepAlive::NOT),
            (json!("-0s"), KeepAlive::NOT),
            (json!(300), seconds(300.0)),
            (json!("5m"), seconds(300.0)),
            (json!("+1h30m"), seconds(5400.0)),
            (json!("1.5s20ms"), seconds(1.52)),
            (json!(-1), KeepAlive::Forever),
            (json!("-1m"), KeepAlive::Forever),
            (json!("forever"), KeepAlive::Forever),
            (json!(1e300), KeepAlive::Forever),
        ] {
            assert_eq!(parse(value.clone()), Ok(expected), "{value}");
        }
    }

    #[test]
    fn anything_else_is_quoted_in_the_error() {
        for wrong in
            [json!(""), json!("-"), json!("m"), json!("5 m"), json!("5x"), json!("inf"), json!("1m5"), json!({})]
        {
            let error = parse(wrong.clone()).expect_err("no duration");
            assert!(error.starts_with(&wrong.to_string()), "{error}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for keep in [KeepAlive::NOT, KeepAlive::For(Duration::from_millis(1500)), KeepAlive::Forever] {
            assert_eq!(keep.to_string().parse(), Ok(keep));
        }
    }
}
