//! What is kept with a model, as `/api/show` tells it.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::library::OllamaLayers;

/// A parameter a line; a list has a line for each.
pub(super) fn parameters(parameters: &Map<String, Value>) -> String {
    let lines = parameters.iter().flat_map(|(name, value)| {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        values.iter().map(move |value| format!("{name:<30} {value}"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What would make this model.
pub(super) fn modelfile(from: &str, layers: Option<&OllamaLayers>) -> String {
    let mut file = format!("FROM {from}\n");
    let Some(layers) = layers else { return file };
    // Writing to a text does not fail.
    for adapter in &layers.adapters {
        let _ = writeln!(file, "ADAPTER {}", adapter.display());
    }
    for (word, text) in [("TEMPLATE", &layers.template), ("SYSTEM", &layers.system)] {
        if let Some(text) = text {
            let _ = writeln!(file, "{word} \"\"\"{text}\"\"\"");
        }
    }
    for (name, value) in &layers.parameters {
        for value in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
            let _ = writeln!(file, "PARAMETER {name} {value}");
        }
    }
    for turn in &layers.messages {
        let text = |field: &str| turn[field].as_str().unwrap_or_default().to_owned();
        let _ = writeln!(file, "MESSAGE {} \"\"\"{}\"\"\"", text("role"), text("content"));
    }
    for text in &layers.licenses {
        let _ = writeln!(file, "LICENSE \"\"\"{text}\"\"\"");
    }
    file
}

/// What the weights' file says gives way to what is kept with it.
pub(super) fn add(layers: &OllamaLayers, shown: &mut Value) {
    if let Some(template) = &layers.template {
        shown["template"] = template.as_str().into();
    }
    if !layers.licenses.is_empty() {
        shown["license"] = layers.licenses.join("\n").into();
    }
    if let Some(system) = &layers.system {
        shown["system"] = system.as_str().into();
    }
    if !layers.messages.is_empty() {
        shown["messages"] = layers.messages.clone().into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{OllamaLayers, add, modelfile, parameters};

    #[test]
    fn what_is_kept_is_told_in_ollamas_forms() {
        let layers = OllamaLayers {
            template: Some("{{ .Prompt }}".into()),
            system: Some("Be brief.".into()),
            parameters: json!({ "num_ctx": 64, "stop": ["a", "b"] }).as_object().expect("a map").clone(),
            messages: vec![json!({ "role": "user", "content": "Hi" })],
            licenses: vec!["free".into()],
            ..OllamaLayers::default()
        };
        assert_eq!(
            parameters(&layers.parameters),
            "num_ctx                        64\nstop                           \"a\"\nstop                           \"b\""
        );
        let file = modelfile("/m.gguf", Some(&layers));
        assert!(
            file.starts_with("FROM /m.gguf\nTEMPLATE \"\"\"{{ .Prompt }}\"\"\"\nSYSTEM \"\"\"Be brief.\"\"\"\n"),
            "{file}"
        );
        assert!(
            file.contains("PARAMETER stop \"b\"\nMESSAGE user \"\"\"Hi\"\"\"\nLICENSE \"\"\"free\"\"\"\n"),
            "{file}"
        );
        assert_eq!(modelfile("stub", None), "FROM stub\n");
        let mut shown = json!({ "template": "jinja", "license": "mit" });
        add(&layers, &mut shown);
        let expected = json!({ "template": "{{ .Prompt }}", "license": "free", "system": "Be brief.",
                               "messages": [{ "role": "user", "content": "Hi" }] });
        assert_eq!(shown, expected);
    }
}
