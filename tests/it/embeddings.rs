//! Embeddings and scores: of all-MiniLM-L6-v2, whose vectors are known, and of generated models.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::tiny::{self, Files};
use crate::support::{Answer, Server, cached, shimmy};

fn server(writer: &shimmy::gguf::writer::Writer) -> (Files, Server) {
    let files = Files::new();
    let path = files.write("embedder.gguf", writer);
    let server = server_of(&path);
    (files, server)
}

fn server_of(path: &Path) -> Server {
    let mut command = shimmy();
    command.args(["--base-gguf", path.to_str().unwrap(), "serve", "--bind", "127.0.0.1:0"]);
    Server::spawn(command)
}

fn minilm() -> std::path::PathBuf {
    cached("all-minilm-l6-v2.f32.gguf")
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

/// The texts and cosines of sentence-transformers' own introduction. llama.cpp's GELU is a table of half-precision numbers.
#[test]
fn sentences_are_as_near_as_their_model_says() {
    let server = server_of(&minilm());
    let texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
    let answer = server.post("/v1/embeddings", &json!({ "model": "all-minilm-l6-v2", "input": texts }));
    let vectors = vectors(&answer);
    let cosine = |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(a, b)| a * b).sum::<f32>();
    for (a, b, expected) in [(0, 1, 0.6660), (0, 2, 0.1046), (1, 2, 0.1411), (0, 0, 1.0)] {
        assert!((cosine(a, b) - expected).abs() < 5e-4, "{a} and {b}: {} for {expected}", cosine(a, b));
    }
    assert_eq!(vectors[0].len(), 384);
    // With what stands around each: `[CLS] he drove to the stadium . [SEP]` and the like.
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 8 + 9 + 8);
}

/// Whatever number of tokens it is, and not only such that llama.cpp divides evenly among its sequences.
#[test]
fn texts_are_embedded_in_a_context_of_any_size() {
    for size in ["100", "511"] {
        let mut command = shimmy();
        command.args(["--base-gguf", minilm().to_str().unwrap(), "--ctx-size", size, "serve", "--bind", "127.0.0.1:0"]);
        let server = Server::spawn(command);
        let ask = |words: usize| {
            server.post("/v1/embeddings", &json!({ "model": "all-minilm-l6-v2", "input": "word ".repeat(words) }))
        };
        let size: usize = size.parse().unwrap();
        assert_eq!((ask(3).status, ask(size - 2).status, ask(size - 1).status), (200, 200, 400), "{size}");
    }
}

/// Its table of positions has 512 rows; llama.cpp would read behind it.
#[test]
fn no_text_is_longer_than_the_positions_that_the_model_learned() {
    let mut command = shimmy();
    command.args(["--base-gguf", minilm().to_str().unwrap(), "--ctx-size", "4096", "serve", "--bind", "127.0.0.1:0"]);
    let server = Server::spawn(command);
    let long = "word ".repeat(800);
    let ask = |path: &str, input: Value| server.post(path, &json!({ "model": "all-minilm-l6-v2", "input": input }));
    let refused = ask("/v1/embeddings", json!(long));
    assert!(refused.status == 400 && refused.text().contains("512"), "{}", refused.text());

    // Ollama's clients have texts cut off, which end in `[SEP]` all the same.
    let cut: Vec<f32> = serde_json::from_value(ask("/api/embed", json!(long)).json()["embeddings"][0].clone()).unwrap();
    let whole = server.post("/tokenize", &json!({ "model": "all-minilm-l6-v2", "content": long, "add_special": true }));
    let mut tokens: Vec<u32> = serde_json::from_value(whole.json()["tokens"].clone()).unwrap();
    tokens.truncate(511);
    let without = vectors(&ask("/v1/embeddings", json!(tokens)));
    tokens.push(102);
    let with = vectors(&ask("/v1/embeddings", json!(tokens)));
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart(&cut, &with[0]) < 1e-5, "{}", apart(&cut, &with[0]));
    assert!(apart(&cut, &without[0]) > 1e-4, "{}", apart(&cut, &without[0]));
}

#[test]
fn what_a_model_was_not_made_for_is_refused_and_hurts_nobody_else() {
    let server = server_of(&minilm());
    let model = "all-minilm-l6-v2";
    let others: Vec<_> = std::thread::scope(|scope| {
        let unknown =
            scope.spawn(|| server.post("/v1/embeddings", &json!({ "model": model, "input": [[30521], [30522]] })));
        let texts = |n: usize| json!({ "model": model, "input": format!("text {n} {}", "and more ".repeat(40)) });
        let others: Vec<_> = (0..8)
            .map(|n| {
                scope.spawn({
                    let server = &server;
                    move || server.post("/v1/embeddings", &texts(n)).status
                })
            })
            .collect();
        let unknown = unknown.join().unwrap();
        assert!(unknown.status == 400 && unknown.text().contains("no token 30522"), "{}", unknown.text());
        others.into_iter().map(|other| other.join().unwrap()).collect()
    });
    assert_eq!(others, [200; 8]);
    for (path, body) in [
        ("/v1/chat/completions", json!({ "messages": [{ "role": "user", "content": "a" }] })),
        ("/v1/completions", json!({ "prompt": "a" })),
        ("/api/generate", json!({ "prompt": "a" })),
        ("/v1/messages", json!({ "messages": [{ "role": "user", "content": "a" }], "max_tokens": 2 })),
    ] {
        let mut body = body;
        body["model"] = json!(model);
        let refused = server.post(path, &body);
        assert!(refused.status == 400 && refused.text().contains("/v1/embeddings"), "{path}: {}", refused.text());
    }
}

/// MiniLM as a model that ranks: the score is the first number of its pooler, which the base model was trained with.
fn ranker(path: &Path) {
    let source = minilm();
    let header = shimmy::gguf::Header::open(&source).unwrap();
    let mut file = std::fs::read(&source).unwrap();
    let mut data = file.split_off(header.data_offset() as usize);
    let find =
        |file: &[u8], text: &[u8]| file.windows(text.len()).rposition(|bytes| bytes == text).unwrap() + text.len();
    // Behind the key, the type of its value: a u32.
    let at = find(&file, b"bert.pooling_type\x04\0\0\0");
    assert_eq!(file[at], 1, "by mean");
    file[at] = 4;
    let last = header.tensors().last().unwrap();
    file.truncate(find(&file, last.name.as_bytes()) + 4 + 8 * last.dims.len() + 4 + 8);
    file[8..16].copy_from_slice(&(header.tensors().len() as u64 + 1).to_le_bytes());
    let name = "cls.output.weight";
    file.extend([&(name.len() as u64).to_le_bytes(), name.as_bytes(), &2_u32.to_le_bytes()].concat());
    file.extend([384_u64, 1].map(u64::to_le_bytes).as_flattened());
    file.extend([&0_u32.to_le_bytes()[..], &(data.len() as u64).to_le_bytes()].concat());
    file.resize(file.len().next_multiple_of(32), 0);
    data.extend(1_f32.to_le_bytes());
    data.resize(data.len() + 383 * 4, 0);
    std::fs::write(path, [file, data].concat()).unwrap();
}

/// The expected scores were computed from the published weights in 64 bits by a program of its own, of
/// `[CLS] query [SEP] text [SEP]` with the first segment's vector for all of it, as llama.cpp knows no other.
#[test]
fn scores_are_those_of_the_pair_between_its_marks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ranker.gguf");
    ranker(&path);
    let server = server_of(&path);
    let ask = |documents: Value| {
        let body = json!({ "model": "ranker", "query": "What is the capital of France?", "documents": documents });
        server.post("/v1/rerank", &body)
    };
    let answer = ask(json!(["Two and two.", "Berlin is a city in Germany.", "Paris is the capital."]));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let results = answer.json()["results"].as_array().unwrap().clone();
    for (result, (index, score)) in results.iter().zip([(2, 0.059_05), (0, 0.022_42), (1, -0.018_00)]) {
        assert_eq!(result["index"], index, "{}", answer.text());
        assert!((result["relevance_score"].as_f64().unwrap() - score).abs() < 1e-3, "{} for {score}", answer.text());
    }
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 15 + 14 + 17);

    assert_eq!(ask(json!(["x ".repeat(600)])).status, 400, "longer than the model's context");
    let refused = server.post("/v1/embeddings", &json!({ "model": "ranker", "input": "a" }));
    assert!(refused.status == 400 && refused.text().contains("/v1/rerank"), "{}", refused.text());
}
