//! The commands in the documentation: those of shimmy have the options that they are shown with, those of curl are answered.

use std::path::Path;

use shimmy::gguf::writer::lora;

use crate::support::{Server, shimmy, stderr};

const PAGES: &[&str] = &["README.md", "docs"];

/// The commands in a page's blocks of `sh` and `console`, with where they stand.
fn commands(page: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(page).unwrap();
    let (mut found, mut block, mut begun): (Vec<(String, String)>, _, String) = (Vec::new(), "", String::new());
    for (number, line) in text.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("```") {
            block = if ["sh", "console"].contains(&kind) { kind } else { "" };
            continue;
        }
        // What a console shows beside what was typed is output.
        let line = match (block, line.strip_prefix("$ ")) {
            ("console", Some(typed)) => typed,
            ("console", None) if !begun.is_empty() => line.trim_start_matches("> "),
            ("sh", _) => line,
            _ => continue,
        };
        begun.push_str(line);
        if begun.ends_with('\\') {
            begun.pop();
            continue;
        }
        found.push((format!("{}:{}", page.display(), number + 1), std::mem::take(&mut begun)));
    }
    found
}

fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for path in PAGES.iter().map(|name| root.join(name)) {
        if path.is_dir() {
            let mut files: Vec<_> = path.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            files.retain(|file| file.extension().is_some_and(|ending| ending == "md"));
            all.extend(files.iter().flat_map(|file| commands(file)));
        } else {
            all.extend(commands(&path));
        }
    }
    all
}

/// The words of each command of a pipeline, as a shell reads them, without comments and redirections.
fn pipeline(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars().chain([' ']) {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, '|') => commands.push(Vec::new()),
            (None, c) if c.is_whitespace() => commands.last_mut().unwrap().extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    for words in &mut commands {
        words.retain(|word| !word.starts_with("2>") && !word.starts_with('>'));
        let variables = words.iter().take_while(|word| word.split_once('=').is_some_and(|(name, _)| is_variable(name)));
        words.drain(..variables.count());
    }
    commands
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// The commands that begin with this word, without it.
fn all_of(program: &str) -> Vec<(String, Vec<String>)> {
    let of = |(place, line): (String, String)| {
        let commands = pipeline(&line).into_iter();
        let wanted = commands.filter(|words| words.first().is_some_and(|first| first == program));
        wanted.map(move |words| (place.clone(), words[1..].to_vec())).collect::<Vec<_>>()
    };
    pages().into_iter().flat_map(of).collect()
}

/// Asked for help, a command looks at all that stands before, and does nothing else.
#[test]
fn commands_of_shimmy_have_the_options_that_they_are_shown_with() {
    let commands = all_of("shimmy");
    assert!(commands.len() > 20, "{commands:?}");
    for (place, words) in commands {
        let output = shimmy().args(&words).arg("--help").output().unwrap();
        assert!(output.status.success(), "{place}: shimmy {words:?}: {}", stderr(&output));
    }
}

#[test]
fn commands_of_curl_are_answered() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let poet = folder.path().join("poet.gguf");
    lora("llama", "blk.0.attn_q.weight", [576, 576], 2.0).write(&poet).unwrap();
    // What stands for something of the reader's own.
    let own = |text: &str| {
        let named = text.replace("/NAME/", "/stub/").replace("smollm2-135m-instruct", "stub").replace("MODEL", "stub");
        named.replace("/data/lora/poet.gguf", poet.to_str().unwrap()).replace("$KEY", "a-key")
    };
    let commands = all_of("curl");
    assert!(commands.len() > 6, "{commands:?}");
    for (place, words) in commands {
        let (mut method, mut headers, mut body, mut url) = (None, Vec::new(), None, String::new());
        let mut words = words.iter().map(|word| own(word));
        while let Some(word) = words.next() {
            match word.as_str() {
                "-N" => {}
                "-X" => method = words.next(),
                "-d" => body = words.next(),
                "-H" => headers.push(words.next().unwrap()),
                _ => url = word,
            }
        }
        let (_, path) = url.strip_prefix("http://").and_then(|url| url.split_once('/')).expect(&place);
        let headers: Vec<(&str, &str)> = headers.iter().filter_map(|header| header.split_once(": ")).collect();
        let method = method.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.into());
        let answer = server.request(&method, &format!("/{path}"), &headers, &body.unwrap_or_default());
        assert_eq!(answer.status, 200, "{place}: {}", answer.text());
    }
}
