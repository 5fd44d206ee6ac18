//! What a schema leaves open and small models do not end: further fields, and digits without a limit.
//!
//! JSON Schema allows any further field where `additionalProperties` is not given. Whoever writes a schema for a model
//! means the fields that stand there (Pydantic never writes the word), and llama.cpp, Ollama and vLLM read it so. Every answer
//! to the tightened schema is one to the schema itself.

use serde_json::{Map, Value, json};

/// Integers that name no limits have at most as many digits as 64 bits hold for certain.
const WIDEST: i64 = 1_000_000_000_000_000_000;

/// Words with which parts of a schema look at each other: closing one would forbid what another asks for, or let through what
/// two of `oneOf` allow.
const ENTANGLED: &[&str] =
    &["if", "then", "else", "not", "dependentSchemas", "unevaluatedProperties", "$dynamicRef", "$recursiveRef"];

/// The schema, with what it leaves open closed.
#[must_use]
pub fn tighten(mut schema: Value) -> Value {
    let mut entangled = false;
    each(&mut schema, &mut |fields| entangled |= is_entangled(fields));
    each(&mut schema, &mut |fields| {
        if !entangled {
            close(fields);
            limit(fields);
        }
    });
    schema
}

fn is_entangled(fields: &Map<String, Value>) -> bool {
    let several = fields.get("allOf").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    let beside = fields.contains_key("properties")
        && ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|word| fields.contains_key(*word));
    // With a discriminator they have a field that tells them apart.
    let exclusive = fields.contains_key("oneOf") && !fields.contains_key("discriminator");
    several || beside || exclusive || ENTANGLED.iter().any(|word| fields.contains_key(*word))
}

fn close(fields: &mut Map<String, Value>) {
    let Some(properties) = fields.get("properties").and_then(Value::as_object) else { return };
    let needs_more = fields
        .get("required")
        .and_then(Value::as_array)
        .is_some_and(|required| required.iter().filter_map(Value::as_str).any(|name| !properties.contains_key(name)));
    let told =
        ["additionalProperties", "patternProperties", "minProperties"].iter().any(|word| fields.contains_key(*word));
    if !needs_more && !told {
        fields.insert("additionalProperties".into(), Value::Bool(false));
    }
}

fn limit(fields: &mut Map<String, Value>) {
    let is_integer = match fields.get("type") {
        Some(Value::String(kind)) => kind == "integer",
        Some(Value::Array(kinds)) => kinds.contains(&json!("integer")) && !kinds.contains(&json!("number")),
        _ => false,
    };
    if !is_integer || ["enum", "const", "multipleOf"].iter().any(|word| fields.contains_key(*word)) {
        return;
    }
    let limits = [("minimum", "exclusiveMinimum", -WIDEST), ("maximum", "exclusiveMaximum", WIDEST)];
    // A limit beyond ours leaves the other side as it is.
    let wide = |word: &str| fields.get(word).and_then(Value::as_f64).is_some_and(|n| n.abs() >= WIDEST as f64);
    if limits.iter().any(|(limit, exclusive, _)| wide(limit) || wide(exclusive)) {
        return;
    }
    for (limit, exclusive, widest) in limits {
        if !fields.contains_key(limit) && !fields.contains_key(exclusive) {
            fields.insert(limit.into(), json!(widest));
        }
    }
}

/// Calls `found` for the schema and each one in it.
fn each(schema: &mut Value, found: &mut dyn FnMut(&mut Map<String, Value>)) {
    let Some(fields) = schema.as_object_mut() else { return };
    found(fields);
    for (word, value) in fields.iter_mut() {
        match (word.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                named.values_mut().for_each(|schema| each(schema, found));
            }
            ("items" | "prefixItems" | "allOf" | "anyOf" | "oneOf", Value::Array(list)) => {
                list.iter_mut().for_each(|schema| each(schema, found));
            }
            ("items" | "additionalItems" | "additionalProperties", schema) => each(schema, found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{WIDEST, tighten};
    use serde_json::{Value, json};

    #[test]
    fn objects_have_the_fields_that_are_named() {
        let name = json!({ "properties": { "properties": { "type": "string" } }, "required": ["properties"] });
        let closed = json!({ "properties": { "properties": { "type": "string" } }, "required": ["properties"], "additionalProperties": false });
        assert_eq!(tighten(name.clone()), closed);
        let within = |part: &Value| json!({ "$defs": { "a": part }, "anyOf": [part, { "type": "array", "items": part }], "allOf": [{ "$ref": "#/$defs/a" }] });
        assert_eq!(tighten(within(&name)), within(&closed));
        let told_apart =
            |part: &Value| json!({ "oneOf": [part, part], "discriminator": { "propertyName": "properties" } });
        assert_eq!(tighten(told_apart(&name)), told_apart(&closed));
        for open in [
            json!({ "type": "object" }),
            json!({ "properties": {}, "additionalProperties": true }),
            json!({ "properties": {}, "additionalProperties": { "type": "string" } }),
            json!({ "properties": {}, "patternProperties": { "^a": true } }),
            json!({ "properties": { "a": true }, "minProperties": 2 }),
            json!({ "properties": { "a": true }, "required": ["b"] }),
            json!({ "allOf": [{ "properties": { "a": true } }, { "properties": { "b": true } }] }),
            json!({ "properties": { "a": true }, "anyOf": [{ "properties": { "b": true } }] }),
            json!({ "properties": { "a": { "properties": {} } }, "if": { "properties": { "a": true } } }),
            json!({ "oneOf": [{ "properties": { "a": { "type": "integer" } } }, { "properties": { "b": true } }] }),
            json!({ "contains": { "properties": {} } }),
            json!({ "enum": [{ "properties": {} }] }),
            json!({ "default": { "properties": {} } }),
        ] {
            assert_eq!(tighten(open.clone()), open);
        }
    }

    #[test]
    fn integers_end() {
        let both = |more: Value| {
            let mut schema = json!({ "type": "integer" });
            schema.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            schema
        };
        let limits = json!({ "minimum": -WIDEST, "maximum": WIDEST });
        assert_eq!(tighten(both(json!({}))), both(limits.clone()));
        assert_eq!(tighten(both(json!({ "minimum": 0 }))), both(json!({ "minimum": 0, "maximum": WIDEST })));
        assert_eq!(
            tighten(both(json!({ "exclusiveMaximum": 5 }))),
            both(json!({ "exclusiveMaximum": 5, "minimum": -WIDEST }))
        );
        assert_eq!(tighten(json!({ "type": ["integer", "null"] }))["maximum"], WIDEST);
        for same in
            [both(json!({ "enum": [1] })), both(json!({ "minimum": 1e19 })), json!({ "type": ["integer", "number"] })]
        {
            assert_eq!(tighten(same.clone()), same);
        }
    }
}
