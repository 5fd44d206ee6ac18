//! Images, with projectors that are made for it. Most of them read each patch of a colour as the embedding of one token, so that an
//! image must be answered exactly as the text of those tokens is.

use std::io::{Cursor, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::{Value, json};
use shimmy::gguf::writer::{Writer, tiny_llama};

use crate::support::tiny::Files;
use crate::support::vision::{self, picture, plain, tokens};
use crate::support::{Answer, Server, http_request, shimmy, stderr, stdout};

/// A model with its projector beside it.
struct Seeing {
    files: Files,
    model: PathBuf,
    server: Server,
}

fn seeing(model: Writer, projector: &Writer, more: &[&str]) -> Seeing {
    let files = Files::new();
    files.write("mmproj-sees.gguf", projector);
    let model = files.write("sees.gguf", &plain(model));
    let server = serve(&model, more);
    Seeing { files, model, server }
}

fn serve(model: &std::path::Path, more: &[&str]) -> Server {
    let mut command = shimmy();
    command.args(["serve", "--bind", "127.0.0.1:0", "--model", model.to_str().unwrap()]).args(more);
    Server::spawn(command)
}

fn base64(file: &[u8]) -> String {
    BASE64_STANDARD.encode(file)
}

fn data(file: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64(file))
}

fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The tokens of a text, as they stand inside a prompt.
fn tokenize(server: &Server, text: &str) -> Vec<u32> {
    let body = json!({ "model": "sees", "content": text, "add_special": false, "parse_special": true });
    serde_json::from_value(ok(&server.post("/tokenize", &body))["tokens"].clone()).unwrap()
}

/// What follows a prompt that is given as tokens, and how many they were.
fn continued(server: &Server, prompt: &[u32]) -> (String, u64) {
    let body = json!({ "model": "sees", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": true });
    let answer = ok(&server.post("/v1/completions", &body));
    (answer["choices"][0]["text"].as_str().unwrap().to_owned(), answer["usage"]["prompt_tokens"].as_u64().unwrap())
}

/// The answer to what a user said, in OpenAI's parts.
fn answered(server: &Server, content: &Value) -> (String, u64, u64) {
    let body = json!({ "model": "sees", "max_tokens": 12, "temperature": 0, "ignore_eos": true,
                       "messages": [{ "role": "user", "content": content }] });
    let answer = ok(&server.post("/v1/chat/completions", &body));
    let (text, usage) = (answer["choices"][0]["message"]["content"].as_str().unwrap(), &answer["usage"]);
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    (text.to_owned(), usage["prompt_tokens"].as_u64().unwrap(), cached)
}

const PATCHES: &str = "rgbrgbbgrrbgbbrg";

fn text(said: &str) -> Value {
    json!({ "type": "text", "text": said })
}

fn image(file: &[u8]) -> Value {
    json!({ "type": "image_url", "image_url": { "url": data(file) } })
}

/// Begin of a text, the image, what was said behind it.
fn as_text(server: &Server, before: &str, patches: &str, behind: &str) -> Vec<u32> {
    let mut all = vec![1];
    all.extend((!before.is_empty()).then(|| tokenize(server, before)).into_iter().flatten());
    all.extend(tokens(patches));
    all.extend(tokenize(server, behind));
    all
}

#[test]
fn an_image_is_answered_as_the_text_that_it_is_read_as() {
    let Seeing { server, model, files: _files } = seeing(tiny_llama(), &vision::colours(&tiny_llama()), &[]);
    let file = picture(4, PATCHES);
    let (expected, n) = continued(&server, &as_text(&server, "", PATCHES, "what is this"));
    assert!(n > 17 && !expected.is_empty());

    let (said, prompt_tokens, _) = answered(&server, &json!([image(&file), text("what is this")]));
    assert_eq!((&said, prompt_tokens), (&expected, n), "OpenAI");

    let options = json!({ "temperature": 0, "num_predict": 12 });
    let chat = json!({ "model": "sees", "stream": false, "options": options, "ignore_eos": true,
                       "messages": [{ "role": "user", "content": "what is this", "images": [base64(&file)] }] });
    let answer = ok(&server.post("/api/chat", &chat));
    let same = |said: &str| expected.starts_with(said) && !said.is_empty();
    assert!(same(answer["message"]["content"].as_str().unwrap()), "{answer}");
    assert_eq!(answer["prompt_eval_count"], n);
    let generate = json!({ "model": "sees", "stream": false, "options": options, "prompt": "what is this",
                           "images": [base64(&file)] });
    let answer = ok(&server.post("/api/generate", &generate));
    assert!(same(answer["response"].as_str().unwrap()), "{answer}");
    assert_eq!(answer["prompt_eval_count"], n);

    let source = json!({ "type": "base64", "media_type": "image/png", "data": base64(&file) });
    let turn = json!([{ "type": "image", "source": source }, text("what is this")]);
    let messages = json!({ "model": "sees", "max_tokens": 12, "temperature": 0,
                           "messages": [{ "role": "user", "content": turn }] });
    let answer = ok(&server.post("/v1/messages", &messages));
    assert!(same(answer["content"][0]["text"].as_str().unwrap()), "{answer}");
    let usage = |field: &str| answer["usage"][field].as_u64().unwrap();
    assert_eq!(usage("input_tokens") + usage("cache_read_input_tokens"), n);
    let mut count = messages;
    count.as_object_mut().unwrap().retain(|field, _| field == "model" || field == "messages");
    assert_eq!(ok(&server.post("/v1/messages/count_tokens", &count))["input_tokens"], n);

    let parts =
        json!([{ "type": "input_image", "image_url": data(&file) }, { "type": "input_text", "text": "what is this" }]);
    let body = json!({ "model": "sees", "max_output_tokens": 12, "temperature": 0,
                       "input": [{ "role": "user", "content": parts }] });
    let answer = ok(&server.post("/v1/responses", &body));
    assert!(same(answer["output"][0]["content"][0]["text"].as_str().unwrap()), "{answer}");
    assert_eq!(answer["usage"]["input_tokens"], n);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.png");
    std::fs::write(&path, &file).unwrap();
    let mut command = shimmy();
    command.arg("generate").arg(&model).args(["--prompt", "what is this", "--temperature", "0", "--max-tokens", "12"]);
    let output = command.arg("--image").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(same(stdout(&output).trim_end_matches('\n')), "{} is no beginning of {expected}", stdout(&output));
}

#[test]
fn images_stand_where_they_were_put_and_are_computed_once() {
    let Seeing { server, files: _files, .. } = seeing(tiny_llama(), &vision::colours(&tiny_llama()), &[]);
    let (one, two) = (picture(4, PATCHES), picture(4, "bbbbggggrrrrbgrb"));
    let content = json!([text("see"), image(&one), text("and"), image(&two), text("or")]);
    let mut prompt = as_text(&server, "see", PATCHES, "and");
    prompt.extend(tokens("bbbbggggrrrrbgrb"));
    prompt.extend(tokenize(&server, "or"));
    let (expected, n) = continued(&server, &prompt);
    let (said, prompt_tokens, cached) = answered(&server, &content);
    assert_eq!((&said, prompt_tokens), (&expected, n));
    assert!(cached < 10, "an image is no text that looks like it");
    let (again, _, cached) = answered(&server, &content);
    assert_eq!((again, cached), (expected.clone(), n - 1), "all but the last token was there");
    // The second image differs, the first is shared as a whole.
    let other = json!([text("see"), image(&one), text("and"), image(&one), text("or")]);
    let mut prompt = as_text(&server, "see", PATCHES, "and");
    let shared = prompt.len() as u64;
    prompt.extend(tokens(PATCHES));
    prompt.extend(tokenize(&server, "or"));
    let (said, _, cached) = answered(&server, &other);
    assert_eq!((said, cached), (continued(&server, &prompt).0, shared));
    // An image at the very end is computed again, for what follows it.
    let (last, prompt_tokens, _) = answered(&server, &json!([text("see"), image(&one)]));
    let prompt: Vec<u32> = as_text(&server, "see", PATCHES, "").into_iter().take(prompt_tokens as usize).collect();
    assert_eq!(last, continued(&server, &prompt).0);
    // Streams of text go on beside them.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(answered(&server, &content).0, expected));
            scope.spawn(|| drop(answered(&server, &json!("some text beside them"))));
        }
    });
}

#[test]
fn guesses_and_deterministic_passes_change_nothing() {
    let projector = vision::colours(&tiny_llama());
    let file = picture(4, PATCHES);
    let content = json!([image(&file), text("what is this"), image(&file), text("abababab")]);
    let plain = seeing(tiny_llama(), &projector, &[]);
    let expected = answered(&plain.server, &content).0;
    for more in [&["--lookup", "8"][..], &["--deterministic"], &["--draft-model", plain.model.to_str().unwrap()]] {
        // No model drafts for itself, so that this is another file.
        let other = plain.files.write("sees.gguf.copy.gguf", &crate::support::vision::plain(tiny_llama()));
        let server =
            serve(&other, &[more, &["--mmproj", plain.files.path("mmproj-sees.gguf").to_str().unwrap()]].concat());
        let body = json!({ "model": "default", "max_tokens": 12, "temperature": 0, "ignore_eos": true,
                           "messages": [{ "role": "user", "content": content }] });
        let answer = ok(&server.post("/v1/chat/completions", &body));
        assert_eq!(answer["choices"][0]["message"]["content"], expected.as_str(), "{more:?}");
    }
}

#[test]
fn a_large_image_is_read_in_tiles_with_their_marks() {
    let model = vision::tiled_model();
    let Seeing { server, files: _files, .. } = seeing(model.clone(), &vision::tiles(&model), &[]);
    let file = picture(8, &"g".repeat(64));
    let tile = |row, column| format!("<fake_token_around_image><row_{row}_col_{column}>");
    let [fake, global, lines] = [283, 284, 285];
    let mut prompt = vec![1];
    for row in 1..=2 {
        for column in 1..=2 {
            prompt.extend(tokenize(&server, &tile(row, column)));
            prompt.extend(tokens("gggg"));
        }
        // A byte's token.
        prompt.extend((row == 1).then_some(3 + u32::from(b'\n')));
    }
    prompt.extend([lines, fake, global]);
    prompt.extend(tokens("gggg"));
    prompt.push(fake);
    prompt.extend(tokenize(&server, "so"));
    let (expected, n) = continued(&server, &prompt);
    let (said, prompt_tokens, _) = answered(&server, &json!([image(&file), text("so")]));
    assert_eq!((said, prompt_tokens), (expected, n));
}

/// Whatever is cached, cut and gone on from, the positions of what follows an image are those of a server that sees it for the
/// first time.
#[test]
fn images_that_are_squares_among_the_positions() {
    let (model, projector) = vision::square();
    let first = seeing(model, &projector, &[]);
    let (one, two) = (picture(28, &"rgb".repeat(392)), picture(42, &"rrggbb".repeat(294)));
    let contents = [
        json!([image(&one), text("what is this")]),
        json!([image(&one), text("what was that"), image(&two), text("and that")]),
        json!([image(&two), text("what is this")]),
        json!([image(&one), text("what was that"), image(&two), text("and this")]),
        json!([image(&one), text("what is this")]),
    ];
    let mut cached = 0;
    for content in &contents {
        let fresh = serve(&first.model, &[]);
        let expected = answered(&fresh, content);
        let found = answered(&first.server, content);
        assert_eq!((&found.0, found.1), (&expected.0, expected.1), "{} cached", found.2);
        assert_eq!(expected.2, 0);
        cached += found.2;
    }
    assert!(cached > 100, "only {cached} tokens were shared");
}

#[test]
fn an_image_that_is_read_as_a_whole() {
    let first = seeing(tiny_llama(), &vision::whole(), &[]);
    let (one, two) = (picture(4, PATCHES), picture(4, "rgbrgbbgrrbgbbrb"));
    let ask = |server: &Server, file: &[u8]| answered(server, &json!([text("a"), image(file), text("what is this")]));
    let (said, n, _) = ask(&first.server, &one);
    // Four patches a row, and the marks around them, which this vocabulary writes in bytes.
    assert!(n > 30);
    let other = ask(&first.server, &two);
    let fresh = serve(&first.model, &[]);
    assert_eq!(ask(&fresh, &two).0, other.0);
    assert_eq!(ask(&fresh, &one).0, said);
    assert_eq!(ask(&first.server, &one), (said, n, n - 1));
}

#[test]
fn what_cannot_be_seen_is_refused_in_words() {
    let Seeing { server, files, model } = seeing(tiny_llama(), &vision::colours(&tiny_llama()), &[]);
    let refused = |server: &Server, content: Value| {
        let body = json!({ "model": "sees", "messages": [{ "role": "user", "content": content }] });
        let answer = server.post("/v1/chat/completions", &body);
        assert_eq!(answer.status, 400, "{}", answer.text());
        answer.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    let said = refused(&server, json!([image(b"no image")]));
    assert!(said.contains("image 1: it is in no format that is read: PNG, JPEG, WebP, GIF and BMP are"), "{said}");
    let said = refused(&server, json!([image(&picture(4, PATCHES)), image(&picture(4, PATCHES)[..60])]));
    assert!(said.contains("image 2: it cannot be read: "), "{said}");
    let mut narrow = Cursor::new(Vec::new());
    DynamicImage::from(RgbImage::new(2600, 1)).write_to(&mut narrow, ImageFormat::Png).unwrap();
    let said = refused(&server, json!([image(&narrow.into_inner())]));
    assert!(said.contains("image 1: 2600 times 1 pixels are too narrow"), "{said}");
    // It would not fit.
    let many: Vec<Value> = (0..40).map(|_| image(&picture(4, PATCHES))).collect();
    assert!(refused(&server, json!(many)).contains("512 tokens and the context holds 512"));

    // A place that a client makes up loses nothing.
    let made_up = json!([[99, base64(&picture(4, PATCHES))], [0, base64(&picture(4, PATCHES))]]);
    let count = |images: Value| {
        let body = json!({ "model": "sees", "stream": false, "options": { "num_predict": 1 },
                           "messages": [{ "role": "user", "content": "hello", "images": images }] });
        ok(&server.post("/api/chat", &body))["prompt_eval_count"].as_u64().unwrap()
    };
    assert_eq!(count(made_up), count(json!([])) + 32);

    // What is wrong is not said back whole, as it may be an image.
    let text =
        json!({ "model": "sees", "messages": [{ "role": "user", "content": "x", "images": "eA".repeat(9999) }] });
    let answer = server.post("/api/chat", &text);
    assert!(answer.status == 400 && answer.text().contains("messages[0].images") && answer.text().len() < 1000);

    let blind = serve(&model, &["--mmproj", "none"]);
    let said = refused(&blind, json!([image(&picture(4, PATCHES))]));
    assert!(
        said.contains("this model takes no images: no projector (mmproj) that could be used lies beside it"),
        "{said}"
    );

    let forgetful = files.write("forgets.gguf", tiny_llama().string("tokenizer.chat_template", "{{ 'hello' }}"));
    let server = serve(&forgetful, &["--mmproj", files.path("mmproj-sees.gguf").to_str().unwrap()]);
    let body =
        json!({ "model": "default", "messages": [{ "role": "user", "content": [image(&picture(4, PATCHES))] }] });
    let answer = server.post("/v1/chat/completions", &body);
    assert!(answer.text().contains("the model's chat template leaves image 1 out of the prompt"), "{}", answer.text());
}

/// A request that would be refused for its place is refused before anybody looks at its image, which is none here.
#[test]
fn a_full_queue_comes_before_the_images() {
    let more = ["--parallel", "1", "--queue", "0", "--ctx-size", "100000"];
    let Seeing { server, files: _files, .. } = seeing(tiny_llama(), &vision::colours(&tiny_llama()), &more);
    let endless =
        json!({ "model": "sees", "prompt": "on and on", "stream": true, "max_tokens": 90_000, "ignore_eos": true });
    let mut client = server.connect();
    client
        .write_all(&http_request("localhost", "POST", "/v1/completions", &[], endless.to_string().as_bytes()))
        .unwrap();
    server.settles("shimmy_sequences", "decoding", 1.0);
    let none = json!({ "model": "sees", "messages": [{ "role": "user", "content": [image(b"no image")] }] });
    let answer = server.post("/v1/chat/completions", &none);
    assert_eq!(answer.status, 503, "{}", answer.text());
    drop(client);
    server.settles("shimmy_sequences", "decoding", 0.0);
    assert_eq!(server.post("/v1/chat/completions", &none).status, 400);
}

#[test]
fn what_a_command_line_lacks_is_told() {
    let files = Files::new();
    let model = files.write("sees.gguf", &plain(tiny_llama()));
    let fails = |args: &[&str]| {
        let output = shimmy().args(args).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        stderr(&output)
    };
    let said = fails(&["serve", "--bind", "127.0.0.1:0", "--mmproj", model.to_str().unwrap()]);
    assert!(said.contains("--mmproj needs to know its model: shimmy serve --model NAME --mmproj PATH"), "{said}");
    for (image, why) in [("/dev/zero", "reading /dev/zero: file too large"), ("absent.png", "reading absent.png: ")] {
        let said = fails(&["generate", model.to_str().unwrap(), "--prompt", "hi", "--image", image]);
        assert!(said.contains(why), "{said}");
    }
}

/// The file that is named must be one that works; one that was only found is left, and said so.
#[test]
fn a_projector_that_cannot_be_used() {
    let files = Files::new();
    let model = files.write("sees.gguf", &plain(tiny_llama()));
    let mut wide = vision::colours(&tiny_llama());
    wide.random("mm.1.weight", &[32, 48], 0.0).random("mm.1.bias", &[48], 0.0);
    let mut torn = vision::colours(&tiny_llama());
    torn.random("mm.0.weight", &[31, 32], 0.0);
    let mut nothing = vision::colours(&tiny_llama());
    nothing.u32("clip.vision.patch_size", 0);
    let mut unknown = vision::colours(&tiny_llama());
    unknown.string("clip.projector_type", "newer");
    let mut mlp = vision::colours(&tiny_llama());
    mlp.string("clip.projector_type", "mlp");
    let mut headless = vision::whole();
    headless.remove_tensor("v.patch_embd.weight");
    let unmarked = vision::tiles(&tiny_llama());
    let mut vague = vision::whole();
    vague.f32("clip.vision.attention.layer_norm_epsilon", f32::NAN);
    let mut short = vision::whole();
    short.random("v.position_embd.weight", &[32, 15], 0.0);
    let mut cut = vision::colours(&tiny_llama()).to_bytes();
    cut.truncate(cut.len() - 100);
    std::fs::write(files.path("cut.gguf"), cut).unwrap();
    for (name, writer, why) in [
        ("wide.gguf", Some(&wide), "the projector makes rows of 48 numbers, and the model reads rows of 32"),
        ("mlp.gguf", Some(&mlp), "mm.2.weight is missing"),
        ("headless.gguf", Some(&headless), "a tensor that this kind of projector needs is missing"),
        ("unmarked.gguf", Some(&unmarked), "lacks the tokens that its projector puts around images"),
        ("vague.gguf", Some(&vague), "layer_norm_epsilon is F32(NaN); it must be a number from 0 on"),
        ("short.gguf", Some(&short), "v.position_embd.weight has 15 rows, and an image 16 patches"),
        ("torn.gguf", Some(&torn), "GGML_ASSERT"),
        ("nothing.gguf", Some(&nothing), "clip.vision.patch_size is U32(0); it must be a number from 1 to 65536"),
        ("unknown.gguf", Some(&unknown), "unknown projector type: newer"),
        ("cut.gguf", None, "truncated: "),
        ("sees.gguf", None, "is no projector (mmproj)"),
        ("absent.gguf", None, "no such file"),
    ] {
        if let Some(writer) = writer {
            files.write(name, writer);
        }
        let mut command = shimmy();
        command.arg("generate").arg(&model).args(["--prompt", "hi", "--max-tokens", "2", "--mmproj"]);
        let output = command.arg(files.path(name)).output().unwrap();
        assert!(output.status.code().is_some(), "{name}: the process was ended: {}", stderr(&output));
        assert!(!output.status.success(), "{name}");
        assert!(stderr(&output).contains(why), "{name}: {}", stderr(&output));
    }
    std::fs::rename(files.path("torn.gguf"), files.path("mmproj-torn.gguf")).unwrap();
    let mut command = shimmy();
    command.arg("generate").arg(&model).args(["--prompt", "hi", "--max-tokens", "2"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("takes no images"), "{}", stderr(&output));
}

#[test]
fn what_a_model_can_see_and_what_that_takes_is_told() {
    let Seeing { server, files, model } = seeing(tiny_llama(), &vision::colours(&tiny_llama()), &[]);
    let shown = ok(&server.post("/api/show", &json!({ "model": "sees" })));
    assert_eq!(shown["capabilities"], json!(["completion", "vision"]));
    answered(&server, &json!("hi"));
    let info = ok(&server.get("/api/models"))["models"][0]["info"].clone();
    let projector = files.path("mmproj-sees.gguf");
    assert_eq!(info["projector"], projector.to_str().unwrap());
    let held = info["placement"]["devices"][0]["projector_bytes"].as_u64().unwrap();
    assert!(held >= std::fs::metadata(&projector).unwrap().len() / 2, "{held} bytes");
    let plan = |more: &[&str]| {
        let output = shimmy().arg("plan").arg(&model).arg("--json").args(more).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()["devices"][0]["needed_bytes"].as_u64().unwrap()
    };
    assert_eq!(plan(&[]) - plan(&["--mmproj", "none"]), held, "the plan is what the load takes");
}
