//! A server, and models that come and go while it runs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use shimmy::gguf::writer::tiny_llama;
use shimmy::library::pull::Digest;

use super::own::Machine;
use super::server::Fault;
use super::{files, model};
use crate::support::{Answer, Server, http_request};

pub fn serve(machine: &Machine) -> Server {
    serve_with(machine, &[])
}

fn serve_with(machine: &Machine, args: &[&str]) -> Server {
    let mut command = machine.command(&["serve", "--bind", "127.0.0.1:0"]);
    command.args(args).env("SHIMMY_MODEL_PATHS", machine.dir.path().join("mine"));
    command.env("HF_ENDPOINT", &machine.fake.address).env("SHIMMY_OLLAMA_REGISTRY", &machine.fake.address);
    command.env("NO_PROXY", "127.0.0.1");
    Server::spawn(command)
}

pub fn lines(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The statuses, each once in a row.
pub fn statuses(lines: &[Value]) -> Vec<&str> {
    let mut statuses: Vec<&str> = lines.iter().filter_map(|line| line["status"].as_str()).collect();
    statuses.dedup();
    statuses
}

/// Begins a pull, and reads its lines up to one that says that more than `bytes` are there.
fn begin(server: &Server, model: &str, bytes: u64) -> BufReader<TcpStream> {
    let body = json!({ "model": model }).to_string();
    let mut stream = server.connect();
    stream.write_all(&http_request(&server.address, "POST", "/api/pull", &[], body.as_bytes())).unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended");
        let completed = serde_json::from_str::<Value>(&line).ok().and_then(|line| line["completed"].as_u64());
        if completed.is_some_and(|completed| completed > bytes) {
            return reader;
        }
    }
}

/// Names without those of the stub.
pub fn names(server: &Server) -> Vec<String> {
    let listed = server.get("/api/tags").json();
    let names = listed["models"].as_array().unwrap().iter().map(|model: &Value| model["name"].as_str().unwrap());
    names.filter(|name| !name.starts_with("stub")).map(str::to_owned).collect()
}

#[test]
fn what_comes_and_goes_is_seen_without_a_restart() {
    let machine = Machine::new();
    let server = serve(&machine);
    assert!(names(&server).is_empty());
    machine.pull("first", &model(1, 1));
    assert_eq!(names(&server), ["first:latest"]);
    // In a folder that was not there, in a form that is not whole yet.
    let file = machine.dir.path().join("mine/deep/Tiny-1B-Q4_0.gguf");
    let bytes = tiny_llama().to_bytes();
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, &bytes[..1000]).unwrap();
    assert_eq!(names(&server), ["first:latest"]);
    fs::write(&file, &bytes).unwrap();
    assert_eq!(server.post("/api/show", &json!({ "model": "tiny-1b" })).status, 200, "asked for before it was listed");
    assert_eq!(names(&server), ["first:latest", "tiny:1b-q4_0"]);
    let ids = server.get("/v1/models").json();
    assert!(ids["data"].as_array().unwrap().iter().any(|model| model["id"] == "tiny:1b-q4_0"), "{ids}");
    assert_eq!(machine.run(&["rm", "first"]).0, Some(0));
    fs::remove_file(&file).unwrap();
    assert!(names(&server).is_empty());
    assert_eq!(server.post("/api/show", &json!({ "model": "first" })).status, 404);
    // Another program's.
    machine.ollama("theirs");
    assert_eq!(server.get("/v1/models/theirs").status, 200);
}

#[test]
fn a_pull_is_told_in_ollamas_words_and_the_model_is_there_at_once() {
    let machine = Machine::new();
    let (weights, server) = (model(1, 1), serve(&machine));
    machine.fake.ollama("library/tiny", "latest", &[("model", &weights), ("license", b"free")]);
    let answer = server.post("/api/pull", &json!({ "model": "tiny", "insecure": false }));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(answer.header("x-shimmy-ignored"), Some("insecure"));
    let told = lines(&answer);
    let digest = Digest::of(&weights);
    let pulling = format!("pulling {}", digest.short());
    let words = statuses(&told);
    assert_eq!(words[..3], ["pulling manifest", &pulling, "verifying sha256 digest"]);
    assert_eq!(words[words.len() - 2..], ["writing manifest", "success"]);
    let whole = json!({ "status": pulling, "digest": digest, "total": weights.len(), "completed": weights.len() });
    assert!(told.contains(&whole), "{told:?}");
    assert_eq!(names(&server), ["tiny:latest"]);
    let before = machine.fake.asked().len();
    assert_eq!(
        server.post("/api/pull", &json!({ "name": "tiny:latest", "stream": false })).json(),
        json!({ "status": "success" })
    );
    assert_eq!(machine.fake.asked().len(), before + 1, "the manifest may be another one now");

    machine.fake.repository("Org/M-GGUF", &[("M-Q8_0.gguf", &model(1, 2)), ("M-Q4_K_M.gguf", &model(1, 3))]);
    for (source, name) in [("hf.co/Org/M-GGUF", "hf.co/org/m-gguf"), ("hf:Org/M-GGUF:q8_0", "hf.co/Org/M-GGUF:Q8_0")] {
        let answer = server.post("/ollama/api/pull", &json!({ "model": source }));
        assert_eq!(lines(&answer).last(), Some(&json!({ "status": "success" })));
        assert_eq!(server.post("/api/show", &json!({ "model": name })).status, 200, "{name}");
    }
    // Others' models need no fetching.
    machine.ollama("theirs");
    let before = machine.fake.asked().len();
    assert_eq!(
        statuses(&lines(&server.post("/api/pull", &json!({ "model": "theirs" })))),
        ["pulling manifest", "success"]
    );
    assert_eq!(machine.fake.asked().len(), before);
}

#[test]
fn what_cannot_be_fetched_is_told_as_ollama_tells_it() {
    let machine = Machine::new();
    let server = serve(&machine);
    let whole = |name: &str| server.post("/api/pull", &json!({ "model": name, "stream": false }));
    let answer = server.post("/api/pull", &json!({ "model": "nothing" }));
    let told = lines(&answer);
    assert_eq!((answer.status, &told[0]["status"]), (200, &json!("pulling manifest")));
    assert_eq!(told.len(), 2, "nothing comes after an error: {told:?}");
    let error = &told[1]["error"];
    assert!(
        error.as_str().is_some_and(|error| error.starts_with("model 'nothing:latest' in the registry")),
        "{told:?}"
    );
    assert_eq!(whole("nothing").json()["error"], *error);
    assert_eq!(whole("nothing").status, 404);
    machine.fake.page("/api/models/Org/Gated/revision/main", 401, json!({ "error": "Access is restricted." }));
    let gated = whole("hf:Org/Gated");
    assert!(gated.status == 502 && gated.text().contains("restricted"), "{}", gated.text());
    for name in ["a b", "hf:org", "http://", "a/b/c/d"] {
        assert_eq!(whole(name).status, 400, "{name}");
    }
}

/// What a server can reach, its clients may not.
#[test]
fn a_server_asks_only_whom_it_is_allowed_to() {
    let machine = Machine::new();
    machine.fake.file("/x/tiny.gguf", &model(1, 1));
    let url = format!("{}/x/tiny.gguf", machine.fake.address);
    let ask = |server: &Server, name: &str| server.post("/api/pull", &json!({ "model": name, "stream": false })).status;
    let host = machine.fake.address.trim_start_matches("http://");
    let server = serve(&machine);
    for name in [&url, &format!("{host}/library/tiny"), "http://169.254.169.254/latest/meta-data", "file:///etc/passwd"]
    {
        assert!([400, 403].contains(&ask(&server, name)), "{name}");
    }
    assert_eq!(ask(&serve_with(&machine, &["--pull", "off"]), "tiny"), 403);
    assert!(machine.fake.asked().is_empty());
    assert_eq!(ask(&serve_with(&machine, &["--pull", "any"]), &url), 200);
}

#[test]
fn a_client_that_leaves_ends_its_pull_and_the_next_one_goes_on() {
    let machine = Machine::new();
    let (weights, server) = (model(4, 1), serve(&machine));
    machine.fake.ollama("library/tiny", "latest", &[("model", &weights)]);
    machine.fake.always(Some(Fault::Slow(Duration::from_millis(20))));
    drop(begin(&server, "tiny", 1 << 20));
    // Whoever fetches holds the file.
    let partial = machine.root().join("partial").join(Digest::of(&weights).file_name());
    let is_free = || fs::File::open(&partial).unwrap().try_lock().is_ok();
    for _ in 0..500 {
        if is_free() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(is_free(), "it is still being fetched");
    assert!(names(&server).is_empty());
    machine.fake.always(None);
    let told = lines(&server.post("/api/pull", &json!({ "model": "tiny" })));
    let first = told.iter().find_map(|line| line["completed"].as_u64()).unwrap();
    assert!(first > 0, "it began anew: {told:?}");
    assert_eq!(names(&server), ["tiny:latest"]);
    let blob = machine.root().join("blobs").join(Digest::of(&weights).file_name());
    assert_eq!(fs::read(blob).unwrap(), weights);
}

#[test]
fn clients_that_want_the_same_share_one_pull() {
    let machine = Machine::new();
    let (weights, server) = (model(4, 1), serve(&machine));
    machine.fake.ollama("library/tiny", "latest", &[("model", &weights)]);
    machine.fake.always(Some(Fault::Slow(Duration::from_millis(5))));
    let first = begin(&server, "tiny", 0);
    let others = [begin(&server, "ollama:tiny", 0), begin(&server, "registry.ollama.ai/library/tiny:latest", 0)];
    drop(first);
    for mut other in others {
        let mut rest = String::new();
        other.read_to_string(&mut rest).unwrap();
        assert!(rest.contains(r#"{"status":"success"}"#), "{rest}");
    }
    let asked = machine.fake.asked();
    assert_eq!(asked.iter().filter(|asked| asked.path.contains("/manifests/")).count(), 1);
    assert!(files(&machine.root(), "partial").is_empty());
}

#[test]
fn a_server_that_ends_does_not_wait_for_a_pull() {
    let machine = Machine::new();
    let mut server = serve(&machine);
    machine.fake.ollama("library/tiny", "latest", &[("model", &model(4, 1))]);
    machine.fake.always(Some(Fault::Slow(Duration::from_secs(5))));
    let mut stream = server.connect();
    let body = json!({ "model": "tiny" }).to_string();
    stream.write_all(&http_request(&server.address, "POST", "/api/pull", &[], body.as_bytes())).unwrap();
    let mut reader = BufReader::new(stream);
    let mut told = String::new();
    while !told.contains("pulling manifest") {
        assert!(reader.read_line(&mut told).unwrap() > 0);
    }
    server.terminate();
    reader.read_to_string(&mut told).unwrap();
    assert!(told.contains("the next pull goes on from here"), "{told}");
    assert_eq!(server.wait(Duration::from_secs(20)), Some(0), "the drain time is 30 seconds");
}

#[test]
fn models_are_deleted_and_copied_as_ollama_does_it() {
    let machine = Machine::new();
    machine.pull("first", &model(1, 1));
    machine.ollama("theirs");
    let server = serve(&machine);
    let copy = |from: &str, to: &str| server.post("/api/copy", &json!({ "source": from, "destination": to }));
    let delete = |name: &str| server.request("DELETE", "/api/delete", &[], &json!({ "model": name }).to_string());
    assert_eq!(copy("first", "Mine").status, 200);
    assert_eq!(names(&server), ["first:latest", "mine:latest", "theirs:latest"]);
    assert!(machine.listed().contains(&"mine:latest".to_owned()), "it outlives the server");
    assert_eq!(copy("nothing", "x").json(), json!({ "error": "model 'nothing' not found" }));
    for name in ["theirs", "library/theirs", "registry.ollama.ai/library/Theirs"] {
        assert_eq!(copy("first", name).status, 400, "whose it would hide: {name}");
    }
    assert_eq!(copy("first", "a/b/c/d").status, 400);
    assert_eq!(delete("first").status, 200);
    assert_eq!(delete("first").json(), json!({ "error": "model 'first' not found" }));
    for answer in [copy("mime", "x"), delete("mime")] {
        assert_eq!(answer.json(), json!({ "error": "model 'mime' not found; did you mean 'mine:latest'?" }));
    }
    assert_eq!(names(&server), ["mine:latest", "theirs:latest"]);
    assert_eq!(delete("MINE:latest").status, 200);
    assert!(files(&machine.root(), "blobs").is_empty());
    let refused = delete("theirs");
    assert!(refused.status == 403 && refused.text().contains("ollama/blobs"), "{}", refused.text());
    // A name for another program's model, for as long as the server runs.
    assert_eq!(copy("theirs", "borrowed").status, 200);
    assert!(names(&server).contains(&"borrowed:latest".to_owned()));
    assert_eq!((delete("borrowed").status, names(&server)), (200, vec!["theirs:latest".to_owned()]));
}

/// Whoever makes that.
#[test]
fn a_name_that_a_client_gave_gives_way_to_a_model_of_that_name() {
    let machine = Machine::new();
    machine.ollama("theirs");
    let server = serve(&machine);
    let copy = |from: &str, to: &str| server.post("/api/copy", &json!({ "source": from, "destination": to }));
    assert_eq!((copy("theirs", "own").status, copy("theirs", "made").status), (200, 200));
    machine.pull("own", &model(1, 2));
    let made = json!({ "model": "made", "from": "theirs", "system": "Be brief.", "stream": false });
    assert_eq!(server.post("/api/create", &made).status, 200);
    assert_eq!(names(&server), ["made:latest", "own:latest", "theirs:latest"]);
    let path = |name: &str| server.post("/api/show", &json!({ "model": name })).json()["modelfile"].clone();
    assert!(path("made").as_str().unwrap().contains("Be brief.") && path("own") != path("theirs"));
}

/// What is there is not what was asked for.
#[test]
fn the_only_one_of_a_family_is_not_taken_for_what_is_to_be_pulled() {
    let machine = Machine::new();
    let file = machine.dir.path().join("mine/tiny-1b-q4_0.gguf");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    tiny_llama().write(&file).unwrap();
    let config = machine.dir.path().join("shimmy.toml");
    fs::write(&config, "[models.far]\nsource = \"ollama:far\"\n").unwrap();
    let server = serve_with(&machine, &["--config", config.to_str().unwrap()]);
    let pull = |name: &str| server.post("/api/pull", &json!({ "model": name, "stream": false })).status;
    assert_eq!((pull("tiny"), pull("tiny:1b"), pull("far")), (404, 404, 404));
    assert_eq!((pull("tiny:1b-q4_0"), pull("Tiny-1B-Q4_0")), (200, 200), "that is there");
    for name in ["tiny", "far"] {
        machine.fake.ollama(&format!("library/{name}"), "latest", &[("model", &model(1, 1))]);
        assert_eq!(pull(name), 200);
    }
    assert_eq!(files(&machine.root(), "manifests").len(), 2);
    assert_eq!(server.post("/api/show", &json!({ "model": "far" })).status, 200);
}

/// Clients that try again after an answer got lost, and scripts, must not remove what comes next in the family.
#[test]
fn a_model_is_deleted_by_its_own_name_alone() {
    let machine = Machine::new();
    machine.pull("tiny", &model(1, 1));
    assert_eq!(machine.run(&["cp", "tiny", "tiny:8b"]).0, Some(0));
    let server = serve(&machine);
    let delete =
        |name: &str| server.request("DELETE", "/api/delete", &[], &json!({ "model": name }).to_string()).status;
    assert_eq!((delete("tiny:latest"), delete("tiny:latest"), delete("tiny"), delete("default")), (200, 404, 404, 404));
    assert_eq!(names(&server), ["tiny:8b"]);
    let (code, _, reason) = machine.run(&["rm", "tiny"]);
    assert!(code == Some(1) && reason.contains("registry.ollama.ai/library/tiny:8b, give its whole name"), "{reason}");
    assert_eq!(delete("library/Tiny:8B"), 200);
    assert!(names(&server).is_empty());
}

#[test]
fn blobs_are_taken_whole_and_as_they_are_called() {
    let machine = Machine::new();
    let server = serve(&machine);
    // More than any other body may have.
    let bytes = model(9, 1);
    let path = format!("/api/blobs/{}", Digest::of(&bytes));
    let send = |path: &str, body: &[u8]| {
        Answer::parse(&server.raw(&http_request(&server.address, "POST", path, &[], body))).status
    };
    let has = || server.request("HEAD", &path, &[], "").status;
    assert_eq!(has(), 404);
    assert_eq!(send(&path, b"something else"), 400);
    assert_eq!((send(&path, &bytes), has()), (201, 200));
    assert_eq!((send(&path, &bytes), has()), (200, 200));
    assert_eq!(send("/api/blobs/sha256:..%2F..%2Fx", b"x"), 400);
    // A client that leaves in the middle.
    let other = format!("/api/blobs/{}", Digest::of(b"other"));
    let mut stream = server.connect();
    stream.write_all(&http_request(&server.address, "POST", &other, &[("content-length", "1000")], b"")).unwrap();
    stream.write_all(&[0; 500]).unwrap();
    drop(stream);
    let huge = http_request(&server.address, "POST", &other, &[("content-length", "9000000000000000000")], b"");
    let answer = Answer::parse(&server.raw(&huge));
    assert!(answer.status == 507 && answer.text().contains("are free"), "{}", answer.text());
    for _ in 0..500 {
        if files(&machine.root(), "partial").is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(files(&machine.root(), "partial").is_empty());
    assert_eq!(files(&machine.root(), "blobs").len(), 1);
}
