//! The config file with the real binary: what is said of a wrong one, who wins, and taking a changed one over.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use shimmy::gguf::writer::{lora, tiny_llama, tiny_lora};

use crate::support::{Server, shimmy, stderr, stdout};

/// A directory with a config file and what it names.
struct Home(tempfile::TempDir);

impl Home {
    fn new(config: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(home.config().parent().unwrap()).unwrap();
        tiny_llama().write(&home.file("base.gguf")).unwrap();
        tiny_lora().write(&home.file("champion.gguf")).unwrap();
        home.write(config);
        home
    }

    fn config(&self) -> PathBuf {
        self.0.path().join(".config/shimmy/config.toml")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.config().with_file_name(name)
    }

    fn write(&self, config: &str) {
        std::fs::write(self.config(), config).unwrap();
    }

    fn shimmy(&self, args: &[&str]) -> Command {
        let mut command = shimmy();
        command.env("HOME", self.0.path()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.shimmy(args).output().unwrap()
    }

    /// A server whose log goes into a file.
    fn serve(&self) -> Server {
        let log = std::fs::File::create(self.file("log")).unwrap();
        Server::spawn_with(self.shimmy(&["serve", "--bind", "127.0.0.1:0"]), log.into())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap()
    }

    /// Lets the server read the file again, and waits until the log says how that went.
    fn reload(&self, server: &Server, expected: &str) {
        let before = self.log().len();
        let status = Command::new("kill").args(["-HUP", &server.child.id().to_string()]).status().unwrap();
        assert!(status.success());
        for _ in 0..200 {
            if self.log()[before..].contains(expected) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("the log does not say {expected:?}:\n{}", self.log());
    }
}

fn generate(server: &Server, model: &str, prompt: &str) -> Value {
    server.post("/api/generate", &json!({ "model": model, "prompt": prompt, "stream": false })).json()
}

fn state(server: &Server, model: &str) -> Value {
    let models = server.get("/api/models").json();
    models["models"].as_array().unwrap().iter().find(|found| found["name"] == model).unwrap()["state"].clone()
}

#[test]
fn a_pair_of_base_and_adapter_is_served_from_three_lines() {
    let home = Home::new("[models.champion]\nbase = \"stub\"\nadapters = \"champion.gguf\"\n");
    let server = home.serve();
    let listed = server.get("/v1/models").text();
    assert!(listed.contains("\"champion\""), "{listed}");
    // The stub says which adapters it computes with.
    assert_eq!(generate(&server, "champion", "one two")["response"], "[champion@1] one two");
}

#[test]
fn a_models_defaults_count_where_the_request_says_nothing() {
    let home = Home::new(
        "[models.brief]\nbase = \"stub\"\nalias = [\"default\"]\n[models.brief.sampling]\nmax_tokens = 2\nstop = \"END\"\nsystem = \"a b c\"\n",
    );
    let server = home.serve();
    let answer = generate(&server, "default", "one two three");
    assert_eq!((&answer["response"], &answer["done_reason"]), (&json!("one two"), &json!("length")));
    assert_eq!(answer["prompt_eval_count"], 6, "with the system turn: {answer}");
    assert_eq!(generate(&server, "brief", "one END two")["response"], "one ", "a stop string");
    let body = json!({ "model": "brief", "messages": [{ "role": "system", "content": "x" }, { "role": "user", "content": "one two three END" }],
                       "max_tokens": 9, "stop": ["three"] });
    let answer = server.post("/v1/chat/completions", &body).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "one two ", "the request wins");
    assert_eq!(answer["usage"]["prompt_tokens"], 5);
    assert_eq!(generate(&server, "stub", "one two three")["response"], "one two three", "others have none of it");
}

#[test]
fn a_response_tells_what_it_was_sampled_with() {
    let home = Home::new("[models.cool]\nbase = \"stub\"\n[models.cool.sampling]\ntemperature = 0.25\n");
    let server = home.serve();
    let told = |model: &str, more: Value| {
        let mut body = json!({ "model": model, "input": "one" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = server.post("/v1/responses", &body).json();
        (answer["temperature"].clone(), answer["top_p"].clone())
    };
    assert_eq!(told("cool", json!({})), (json!(0.25), json!(0.95)));
    assert_eq!(told("cool", json!({ "temperature": 0.5, "top_p": 0.75 })), (json!(0.5), json!(0.75)));
    assert_eq!(told("stub", json!({})), (json!(0.8), json!(0.95)));
}

#[test]
fn a_wrong_file_is_refused_with_all_that_is_wrong() {
    let home = Home::new("parallel = 0\n[models.a]\npath = 1\n");
    let path = home.config().display().to_string();
    let expected = format!(
        "error: {path}:1:12: parallel is 0; it must be a whole number from 1 to 256
  |
1 | parallel = 0
  |            ^
{path}:3:8: path is 1; it must be a path, in quotes
  |
3 | path = 1
  |        ^
"
    );
    for args in [&["config", "check"][..], &["config", "show"], &["list"], &["serve", "--bind", "127.0.0.1:0"]] {
        let output = home.run(args);
        assert_eq!((output.status.code(), stderr(&output)), (Some(2), expected.clone()), "{args:?}");
    }
    assert_eq!(stdout(&home.run(&["config", "path"])), format!("{path}\n"), "a wrong file can be found");
    std::fs::remove_file(home.config()).unwrap();
    let output = home.run(&["config", "check"]);
    assert_eq!(stdout(&output), format!("{path}: not there, so every setting has its default\n"));
    assert_eq!(home.run(&["list"]).status.code(), Some(0), "the default file need not be there");
    let output = home.run(&["--config", "/nonexistent.toml", "list"]);
    assert_eq!(output.status.code(), Some(2), "one that was named must");
    assert!(stderr(&output).starts_with("error: /nonexistent.toml: No such file"), "{}", stderr(&output));
}

#[test]
fn files_that_do_not_fit_are_found_before_the_server_starts() {
    let home = Home::new("");
    lora("llama", "blk.0.attn_q.weight", [48, 48], 1.0).write(&home.file("other.gguf")).unwrap();
    std::fs::write(home.file("text.gguf"), "no model at all").unwrap();
    for (config, place, message) in [
        ("[models.a]\npath = 'none.gguf'", "2:8", "none.gguf: no such file"),
        ("[models.a]\npath = 'text.gguf'", "2:8", "text.gguf: not a GGUF file"),
        ("[models.a]\npath = 'champion.gguf'", "2:8", "is an adapter, not a model; it goes into `adapters`"),
        ("[models.a]\npath = 'base.gguf'\nadapters = ['base.gguf']", "3:12", "base.gguf is a model, not an adapter"),
        ("[models.a]\npath = 'base.gguf'\nadapters = ['other.gguf']", "3:12", "other.gguf: "),
        (
            "[models.a]\nadapters = ['champion.gguf']",
            "2:12",
            "adapters need a model, and none was found under the name \"a\"",
        ),
        (
            "[models.a]\nbase = 'stup'",
            "2:8",
            "there is no model \"stup\", neither in this file nor on this machine; did you mean \"stub\"?",
        ),
        (
            "[models.a]\nctx_size = 5",
            "1:9",
            "no model was found under the name \"a\"; say where it is with `path`, `source` or `base`",
        ),
        ("template = './none.jinja'", "1:12", "none.jinja: there is no such file"),
        ("draft_model = 'stup'", "1:15", "no model \"stup\" on this machine that could draft; did you mean \"stub\"?"),
        ("draft_model = './none.gguf'", "1:15", "none.gguf"),
    ] {
        home.write(config);
        for args in [&["config", "check"][..], &["serve", "--bind", "127.0.0.1:0"]] {
            let output = home.run(args);
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(2), "{config}: {said}");
            assert!(said.contains(&format!("config.toml:{place}: ")) && said.contains(message), "{config}: {said}");
        }
    }
    home.write("[models.a]\npath = 'base.gguf'\nadapters = [{ path = 'champion.gguf', scale = 0.5 }]");
    let output = home.run(&["config", "check"]);
    assert!(stdout(&output).ends_with("in order, with 1 section for models\n"), "{}", stderr(&output));
}

#[test]
fn a_source_that_was_not_fetched_says_how_to_fetch_it() {
    let home = Home::new("[models.a]\nsource = 'hf:owner/name'\n");
    let output = home.run(&["generate", "a", "--prompt", "x"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "hf:owner/name is not on this machine; fetch it with: shimmy pull hf:owner/name";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    // As hubs lay their caches out.
    let hub = home.0.path().join(".cache/huggingface/hub/models--owner--name/snapshots/1");
    std::fs::create_dir_all(&hub).unwrap();
    tiny_llama().write(&hub.join("x.gguf")).unwrap();
    let listed = home.run(&["list", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let path = listed["models"].as_array().unwrap().iter().find(|model| model["name"] == "a").unwrap()["path"].clone();
    assert!(path.as_str().unwrap().ends_with("snapshots/1/x.gguf"), "{path}");
}

#[test]
fn show_says_who_set_each_value() {
    let home = Home::new("queue = 7\nthreads = 3\nbind = '127.0.0.1:1'\n[models.a]\nbase = 'stub'\nqueue = 8\n");
    let mut command = home.shimmy(&["config", "show", "--drain", "5", "--queue", "9"]);
    let shown = stdout(&command.env("SHIMMY_THREADS", "2").output().unwrap());
    let lines: Vec<String> = shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "bind = \"127.0.0.1:1\" # config.toml:3",
        "drain = 5 # --drain",
        "threads = 2 # SHIMMY_THREADS",
        "lookup = 0 # default",
        "base = \"stub\" # config.toml:5",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} is not in\n{shown}");
    }
    assert_eq!(
        lines.iter().filter(|line| *line == "queue = 9 # --queue").count(),
        2,
        "also over the section:\n{shown}"
    );
    home.write(&shown);
    let output = home.run(&["config", "check"]);
    assert_eq!(output.status.code(), Some(0), "what is shown can be used: {}", stderr(&output));
}

#[test]
fn a_server_takes_a_changed_file_over_and_keeps_what_did_not_change() {
    let stays = "[models.stays]\nbase = 'stub'\n";
    let home =
        Home::new(&format!("{stays}[models.changes]\nbase = 'stub'\n[models.goes]\nbase = 'stub'\nalias = 'gone'\n"));
    let server = home.serve();
    for model in ["stays", "changes", "gone"] {
        assert_eq!(generate(&server, model, "one two three")["response"], "one two three");
    }
    // A stream that is under way while its model's settings change.
    let body = json!({ "model": "changes", "prompt": "word ".repeat(300), "stream": true });
    let mut stream = server.connect();
    let request = crate::support::http_request("localhost", "POST", "/api/generate", &[], body.to_string().as_bytes());
    std::io::Write::write_all(&mut stream, &request).unwrap();
    let mut first = [0; 64];
    assert!(std::io::Read::read(&mut stream, &mut first).unwrap() > 0);

    home.write(&format!(
        "bind = '127.0.0.1:1'\n{stays}[models.changes]\nbase = 'stub'\nsampling.max_tokens = 1\n[models.new]\nbase = 'stub'\nalias = 'gone'\n"
    ));
    home.reload(&server, "reloaded: added: new; changed: changes; removed: goes; other aliases");
    assert!(!home.log().contains("after a restart"), "--bind wins over the file's address, so nothing changed");
    assert_eq!(state(&server, "stays"), "loaded");
    assert_eq!(generate(&server, "changes", "one two three")["response"], "one");
    assert_eq!(generate(&server, "gone", "one two")["model"], "gone");
    assert_eq!(state(&server, "new"), "loaded", "the alias means another one now");
    assert_eq!(server.post("/api/generate", &json!({ "model": "goes", "prompt": "x" })).status, 404);
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest).into_owned();
    assert!(rest.contains("[DONE]"), "what runs goes on: {rest}");

    home.write("drain = 3\nparallel = 'many'\n");
    home.reload(&server, "config.toml:2:12: parallel is \"many\"; it must be a whole number from 1 to 256");
    assert!(home.log().contains("not reloaded, all stays as it was"), "{}", home.log());
    assert_eq!(generate(&server, "changes", "one two three")["response"], "one");

    home.write("drain = 3\n");
    home.reload(&server, "removed: changes, new, stays; other aliases; after a restart: drain");
    assert_eq!(generate(&server, "stub", "one two")["response"], "one two");
    home.reload(&server, "reloaded: no model changed; after a restart: drain");
    std::fs::remove_file(home.config()).unwrap();
    home.reload(&server, "reloaded: no model changed");
}

#[test]
fn keys_are_never_shown_and_a_file_that_all_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new("api_key = ['quite-a-long-secret']\nallow_host = 'example.com'\n");
    let key = "quite-a-long-secret";
    let mode = |mode| std::fs::set_permissions(home.config(), std::fs::Permissions::from_mode(mode)).unwrap();
    for (bits, warned) in [(0o644, true), (0o600, false)] {
        mode(bits);
        let output = home.run(&["config", "check"]);
        assert_eq!(output.status.code(), Some(0));
        let warning = stderr(&output);
        assert_eq!(warning.contains("every user of this machine can read it"), warned, "{warning}");
    }
    let output = home.shimmy(&["config", "show", "--api-key", "other-long-secret"]).output().unwrap();
    for shown in [stdout(&output), stdout(&home.run(&["config", "show"])), stderr(&output)] {
        assert!(!shown.contains(key) && !shown.contains("other-long"), "{shown}");
    }
    assert!(stdout(&output).contains("# set, and not shown: --api-key"), "{}", stdout(&output));
    let server = home.serve();
    assert_eq!(server.get("/v1/models").status, 401);
    let with_key = [("authorization", format!("Bearer {key}"))];
    let headers: Vec<(&str, &str)> = with_key.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(server.request("GET", "/v1/models", &headers, "").status, 200);
    home.write("api_key = 'secret");
    let output = home.run(&["config", "check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains(":1:18: this is no TOML") && !stderr(&output).contains("'secret"),
        "{}",
        stderr(&output)
    );
}

/// The example of the documentation is a config file, and says something of every key.
#[test]
fn the_documented_example_is_right_and_whole() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let example = text.rsplit("```toml\n").next().and_then(|rest| rest.split("```").next()).unwrap();
    let uncommented: String =
        example.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
    for text in [example, &uncommented] {
        shimmy::config::parse(text).unwrap_or_else(|error| panic!("{error}"));
    }
    use shimmy::config::{LoadSettings, ModelSettings, SamplingSettings, ServerSettings};
    let keys = [ServerSettings::KEYS, LoadSettings::KEYS, SamplingSettings::KEYS, ModelSettings::KEYS].concat();
    for key in keys {
        assert!(uncommented.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key} is not in the example");
        assert!(text.contains(&format!("`{key}`")), "{key} has no row in docs/configuration.md");
    }
}
