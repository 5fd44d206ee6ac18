//! What a query and a text become for a model that ranks.

use super::error::RunnerError;

/// What is said of a model that does not.
pub(super) fn refusal() -> RunnerError {
    RunnerError::BadRequest("this model was not made to rank texts: its file does not name pooling by rank".into())
}

/// The template of a model with one of its own. What stands in a text is not looked for.
#[cfg(any(test, feature = "llama"))]
pub(super) fn fill(template: &str, query: &str, document: &str) -> String {
    let places = [("{query}", query), ("{document}", document)];
    let mut filled = String::with_capacity(template.len() + query.len() + document.len());
    let mut rest = template;
    let first = |rest: &str| {
        let found = places.iter().filter_map(|(name, text)| Some((rest.find(name)?, name.len(), *text)));
        found.min_by_key(|(at, ..)| *at)
    };
    while let Some((at, len, text)) = first(rest) {
        filled.push_str(&rest[..at]);
        filled.push_str(text);
        rest = &rest[at + len..];
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn a_template_is_filled_once() {
        let template = "<q>{query}</q><d>{document}</d>{query}";
        assert_eq!(fill(template, "{document}", "{query}"), "<q>{document}</q><d>{query}</d>{document}");
        assert_eq!(fill("nothing", "a", "b"), "nothing");
    }
}
