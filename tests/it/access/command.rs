//! `shimmy key`.

use serde_json::Value;

use super::{KEY, key_command};
use crate::support::{run, shimmy, stderr, stdout};

#[test]
fn keys_are_made_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shimmy/keys");
    let key = |args: &[&str]| shimmy().env("XDG_CONFIG_HOME", dir.path()).arg("key").args(args).output().unwrap();

    let none = key(&["list"]);
    assert_eq!((none.status.code(), stdout(&none)), (Some(0), String::new()));
    assert!(stderr(&none).contains("make one with `shimmy key new NAME`"), "{}", stderr(&none));

    let made = key(&["new", "laptop"]);
    let text = stdout(&made);
    assert!(text.starts_with("sk-shimmy-") && text.trim_end().len() == 53, "{text}");
    assert!(stderr(&made).contains(file.to_str().unwrap()) && !stderr(&made).contains(text.trim_end()));
    let held = std::fs::read_to_string(&file).unwrap();
    assert!(held.starts_with("laptop ") && !held.contains(text.trim_end()), "the file has the hash alone: {held}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }

    let made: Value = serde_json::from_str(&stdout(&key(&["new", "phone", "--json"]))).unwrap();
    assert!(made["key"].as_str().unwrap().starts_with("sk-shimmy-") && made["name"] == "phone", "{made}");
    let listed: Value = serde_json::from_str(&stdout(&key(&["list", "--json"]))).unwrap();
    assert_eq!(listed["keys"][0]["name"], "laptop");
    assert_eq!(listed["keys"][1]["sha256"].as_str().unwrap().len(), 64);
    let table = stdout(&key(&["list"]));
    assert!(table.lines().nth(1).unwrap().starts_with("laptop  "), "{table}");

    for (args, code, expected) in [
        (&["new", "phone"][..], 1, "has a key named phone already"),
        (&["rm", "tablet"], 1, "has no key named tablet; it has laptop, phone"),
        (&["new", "two words"], 2, "a name is 1 to 64"),
        (&["new", "sk-shimmy-oops"], 2, "looks like a key"),
        (&["new"], 2, "<NAME>"),
    ] {
        let output = key(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
    assert_eq!(key(&["rm", "laptop"]).status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
}

#[test]
fn without_a_home_a_file_must_be_named() {
    let output = shimmy().env_remove("HOME").args(["key", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--api-key-file PATH"), "{}", stderr(&output));
    let dir = tempfile::tempdir().unwrap();
    assert!(key_command(&dir.path().join("keys"), &["new", "a"]).starts_with("sk-shimmy-"));
}

/// Bug reports hold the help's output.
#[test]
fn help_shows_no_key() {
    let help = shimmy().env("SHIMMY_API_KEY", KEY).args(["serve", "--help"]).output().unwrap();
    assert!(stdout(&help).contains("SHIMMY_API_KEY") && !stdout(&help).contains(KEY), "{}", stdout(&help));
    assert!(stdout(&run(&["key", "--help"])).contains("Example"));
}
