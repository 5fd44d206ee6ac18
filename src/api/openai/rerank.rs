//! `POST /v1/rerank`, in the shapes of Jina's and Cohere's services.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::BadRequest;
use crate::runner::{RankSpec, Ranks};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "openai.RerankFields")]
struct Fields {
    model: String,
    query: String,
    #[schemars(length(min = 1, max = 2048))]
    documents: Vec<Document>,
    /// Tell so many of the best only.
    #[schemars(range(min = 1))]
    top_n: Option<usize>,
    /// Tell the texts, too.
    #[serde(default)]
    return_documents: bool,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be a text, or an object with a `text`")]
#[schemars(rename = "openai.RerankDocument")]
enum Document {
    Text(String),
    Object { text: String },
}

/// Texts in one request.
const MAX_DOCUMENTS: usize = 2048;

/// A request, and what of it has no effect here.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "openai.RerankRequest", description = "Texts to rank by how well they answer a query.")]
pub struct RerankRequest {
    #[schemars(flatten)]
    fields: Fields,
    /// Paths of the fields that are passed over.
    #[schemars(skip)]
    pub ignored: Vec<String>,
}

impl RerankRequest {
    /// # Errors
    /// The first field that is missing, of a wrong type or out of range.
    pub fn from_value(mut body: Value) -> Result<Self, BadRequest> {
        crate::api::drop_nulls(&mut body, &[]);
        let (fields, ignored) = crate::api::from_value_noting_ignored::<Fields>(body)?;
        let documents = fields.documents.len();
        if !(1..=MAX_DOCUMENTS).contains(&documents) {
            return Err(BadRequest(format!("documents holds {documents} texts; it must be from 1 to {MAX_DOCUMENTS}")));
        }
        if fields.query.is_empty() {
            return Err(BadRequest("`query` is empty".into()));
        }
        if fields.top_n == Some(0) {
            return Err(BadRequest("top_n is 0; it must be at least 1".into()));
        }
        Ok(Self { fields, ignored })
    }

    /// What is asked, and how its answer is told.
    #[must_use]
    pub fn into_spec(self) -> (RankSpec, Told) {
        let Fields { model, query, documents, top_n, return_documents } = self.fields;
        let text = |document| match document {
            Document::Text(text) | Document::Object { text } => text,
        };
        let documents: Vec<String> = documents.into_iter().map(text).collect();
        let told = Told { most: top_n.unwrap_or(usize::MAX), texts: return_documents.then(|| documents.clone()) };
        (RankSpec { model, query, documents }, told)
    }
}

/// What of a ranking is told.
#[derive(Clone, Debug)]
pub struct Told {
    most: usize,
    texts: Option<Vec<String>>,
}

/// The answer, the best first.
#[must_use]
pub fn rerank_body(model: &str, found: &Ranks, told: &Told) -> Value {
    let mut order: Vec<usize> = (0..found.scores.len()).collect();
    // Equal ones stay in their order.
    order.sort_by(|a, b| found.scores[*b].total_cmp(&found.scores[*a]));
    let result = |index: usize| {
        let mut result = json!({ "index": index, "relevance_score": found.scores[index] });
        if let Some(texts) = &told.texts {
            result["document"] = json!({ "text": texts[index] });
        }
        result
    };
    json!({
        "object": "list",
        "model": model,
        "results": order.into_iter().take(told.most).map(result).collect::<Vec<_>>(),
        "usage": { "prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{RerankRequest, rerank_body};
    use crate::api::BadRequest;
    use crate::runner::Ranks;

    fn read(more: Value) -> Result<RerankRequest, String> {
        let mut body = json!({ "model": "m", "query": "q", "documents": ["a", { "text": "b" }, "c"] });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        RerankRequest::from_value(body).map_err(|BadRequest(why)| why)
    }

    #[test]
    fn the_best_come_first_and_equal_ones_in_their_order() {
        let body = |more| {
            let (spec, told) = read(more).expect("it is served").into_spec();
            assert_eq!(spec.documents, ["a", "b", "c"]);
            rerank_body("m", &Ranks { scores: vec![-1.0, 0.5, -1.0], prompt_tokens: 9 }, &told)
        };
        let order = |body: &Value| {
            let results = body["results"].as_array().expect("a list").iter();
            results.map(|result| result["index"].as_u64()).collect::<Option<Vec<_>>>()
        };
        assert_eq!(order(&body(json!({}))), Some(vec![1, 0, 2]));
        let best = body(json!({ "top_n": 1, "return_documents": true }));
        assert_eq!(best["results"], json!([{ "index": 1, "relevance_score": 0.5, "document": { "text": "b" } }]));
        assert_eq!(best["usage"]["total_tokens"], 9);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!(
            read(json!({ "documents": [] })).expect_err("none"),
            "documents holds 0 texts; it must be from 1 to 2048"
        );
        assert_eq!(read(json!({ "top_n": 0 })).expect_err("none"), "top_n is 0; it must be at least 1");
        assert_eq!(read(json!({ "query": "" })).expect_err("empty"), "`query` is empty");
        assert!(read(json!({ "documents": [1] })).expect_err("no text").starts_with("documents[0]: must be a text"));
        assert_eq!(read(json!({ "user": "me" })).expect("served").ignored, ["user"]);
    }
}
