//! Embeddings of a generated model: no real one is small enough to travel with the tests.

use serde_json::{Value, json};

use crate::support::tiny::{self, Files};
use crate::support::{Answer, Server, shimmy};

fn server(writer: &shimmy::gguf::writer::Writer) -> (Files, Server) {
    let files = Files::new();
    let path = files.write("embedder.gguf", writer);
    let mut command = shimmy();
    command.args(["--base-gguf", path.to_str().unwrap(), "serve", "--bind", "127.0.0.1:0"]);
    (files, Server::spawn(command))
}

fn embed(server: &Server, input: Value, more: Value) -> Answer {
    let mut body = json!({ "model": "embedder", "input": input });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/v1/embeddings", &body)
}

fn vectors(answer: &Answer) -> Vec<Vec<f32>> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let vector = |entry: &Value| serde_json::from_value(entry["embedding"].clone()).unwrap();
    answer.json()["data"].as_array().unwrap().iter().map(vector).collect()
}

/// Whether two vectors point the same way, as far as rounding lets them: sums depend on what is computed together.
fn near(a: &[f32], b: &[f32]) -> bool {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    a.len() == b.len() && dot(a, b) / (dot(a, a) * dot(b, b)).sqrt() > 0.9999
}

#[test]
fn a_text_has_the_same_vector_alone_and_among_others() {
    for writer in [tiny::bidirectional(), tiny::embedder()] {
        let (_files, server) = server(&writer);
        let texts: Vec<String> = (0..70).map(|n| format!("text number {n} {}", "and more ".repeat(n % 7))).collect();
        let together = vectors(&embed(&server, json!(texts), json!({})));
        assert_eq!(together.len(), 70);
        for (text, vector) in texts.iter().zip(&together).step_by(13) {
            let length = vector.iter().map(|x| x * x).sum::<f32>();
            assert!((length - 1.0).abs() < 1e-4, "length {length}");
            assert!(near(&vectors(&embed(&server, json!(text), json!({})))[0], vector), "{text}");
        }
        assert!(!near(&together[0], &together[1]), "different texts differ");
        // Requests that come at the same time share passes.
        std::thread::scope(|scope| {
            for (text, vector) in texts.iter().zip(&together).take(8) {
                let server = &server;
                scope.spawn(move || assert!(near(&vectors(&embed(server, json!(text), json!({})))[0], vector)));
            }
        });
        let short = vectors(&embed(&server, json!(texts[3]), json!({ "dimensions": 4 })));
        let scale = together[3][..4].iter().map(|x| x * x).sum::<f32>().sqrt();
        let expected: Vec<f32> = together[3][..4].iter().map(|x| x / scale).collect();
        let length = short[0].iter().map(|x| x * x).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-4, "length {length}");
        assert!(near(&short[0], &expected), "{:?} for {expected:?}", short[0]);
    }
}

#[test]
fn what_cannot_be_embedded_is_refused() {
    let (_files, server) = server(&tiny::embedder());
    let refused = |input: Value, more: Value| {
        let answer = embed(&server, input, more);
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    assert!(refused(json!("x".repeat(600)), json!({})).contains("512"), "longer than the model's context");
    assert!(refused(json!("a"), json!({ "dimensions": 33 })).contains("32"));
}

/// Its scores mean nothing: no head for them can be made small. They come, and vectors do not.
#[test]
fn a_model_that_ranks_gives_scores_and_no_vectors() {
    let (_files, server) = server(&tiny::ranker());
    let ask = |documents: Value| {
        server.post("/v1/rerank", &json!({ "model": "embedder", "query": "what", "documents": documents }))
    };
    let ranked = ask(json!(["that"]));
    assert_eq!(ranked.status, 200, "{}", ranked.text());
    assert!(ranked.json()["results"][0]["relevance_score"].is_number(), "{}", ranked.text());
    assert_eq!(ask(json!(["x".repeat(600)])).status, 400, "longer than the model's context");
    let refused = embed(&server, json!("a"), json!({}));
    assert!(refused.status == 400 && refused.text().contains("/v1/rerank"), "{}", refused.text());
}
