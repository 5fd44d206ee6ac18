//! `keep_alive`: how long a model stays loaded after an answer.

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Models are not timed out here: one that is kept at all stays until it is unloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    Stays,
    /// Unloaded when the answer is done.
    Leaves,
}

impl<'de> Deserialize<'de> for KeepAlive {
    /// A number of seconds, or a duration as Go writes it, e.g. `5m`, `1h30m`. Negative means for ever.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let amount = match &value {
            Value::Number(seconds) => seconds.as_f64(),
            Value::String(text) => amount(text),
            _ => None,
        };
        match amount {
            Some(0.0) => Ok(Self::Leaves),
            Some(_) => Ok(Self::Stays),
            None => Err(D::Error::custom(format!("{value} is neither a number of seconds nor a duration like \"5m\""))),
        }
    }
}

/// Seconds, without the sign.
fn amount(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if unsigned.is_empty() {
        return None;
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    if unsigned.chars().all(is_number) {
        return unsigned.parse().ok();
    }
    let (mut rest, mut total) = (unsigned, 0.0);
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
    use serde_json::json;

    use super::{KeepAlive, amount};

    #[test]
    fn only_nothing_unloads() {
        for (value, expected) in [
            (json!(0), KeepAlive::Leaves),
            (json!(0.0), KeepAlive::Leaves),
            (json!("0"), KeepAlive::Leaves),
            (json!("0s"), KeepAlive::Leaves),
            (json!("0h0m"), KeepAlive::Leaves),
            (json!(300), KeepAlive::Stays),
            (json!(-1), KeepAlive::Stays),
            (json!("-1"), KeepAlive::Stays),
            (json!("-1m"), KeepAlive::Stays),
            (json!("5m"), KeepAlive::Stays),
        ] {
            assert_eq!(serde_json::from_value::<KeepAlive>(value.clone()).expect("a duration"), expected, "{value}");
        }
        assert_eq!(amount("1h30m"), Some(5400.0));
        assert_eq!(amount("1.5s20ms"), Some(1.52));
        for wrong in
            [json!(""), json!("-"), json!("m"), json!("5 m"), json!("5x"), json!("inf"), json!("1m5"), json!({})]
        {
            let error = serde_json::from_value::<KeepAlive>(wrong.clone()).expect_err("no duration").to_string();
            assert!(error.starts_with(&wrong.to_string()), "{error}");
        }
    }
}
