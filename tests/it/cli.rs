//! The commands, as a second process.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{run, shimmy, smollm2, stderr, stdout};

#[test]
fn json_holds_text_usage_and_timings() {
    let path = smollm2();
    let output =
        run(&["generate", path.to_str().unwrap(), "--prompt", "Say hi.", "--max-tokens", "5", "--seed", "4", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["usage"]["completion_tokens"], 5);
    assert_eq!(report["done_reason"], "length");
    assert_eq!(report["seed"], 4);
    assert!(!report["text"].as_str().unwrap().is_empty());
    assert!(report["timings"]["prefill_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(report["placement"]["gpu_layers"], 0);
}

#[test]
fn the_prompt_can_come_from_stdin() {
    let path = smollm2();
    let mut child = shimmy()
        .args(["generate", path.to_str().unwrap(), "--prompt", "-", "--raw", "--temperature", "0", "--max-tokens", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"The capital of France is").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()).trim_end(), " Paris");
}

#[test]
fn names_paths_and_the_old_flag_mean_the_same_model() {
    let dir = smollm2().parent().unwrap().to_owned();
    for name in [&["smollm2-135m-instruct"][..], &["--name", "SmolLM2-135M-Instruct"]] {
        let output = shimmy()
            .args(["--model-dirs", dir.to_str().unwrap(), "generate"])
            .args(name)
            .args(["--prompt", "The capital of France is", "--raw", "--temperature", "0", "--max-tokens", "1"])
            .output()
            .unwrap();
        assert_eq!(stdout(&output).trim_end(), " Paris", "{}", stderr(&output));
    }
}

#[test]
fn the_base_model_of_the_environment_is_default_and_phi3_lora() {
    for name in ["default", "phi3-lora"] {
        let output = shimmy()
            .env("SHIMMY_BASE_GGUF", smollm2())
            .args([
                "generate",
                name,
                "--prompt",
                "The capital of France is",
                "--raw",
                "--temperature",
                "0",
                "--max-tokens",
                "1",
            ])
            .output()
            .unwrap();
        assert_eq!(stdout(&output).trim_end(), " Paris", "{}", stderr(&output));
    }
}

#[test]
fn list_is_a_table_names_or_json() {
    let dir = smollm2().parent().unwrap().to_owned();
    let list = |more: &[&str]| {
        stdout(&shimmy().args(["--model-dirs", dir.to_str().unwrap(), "list"]).args(more).output().unwrap())
    };
    assert!(list(&["--short"]).lines().any(|line| line == "smollm2:135m-instruct-q4_1"));
    let table = list(&[]);
    let row = table.lines().find(|line| line.starts_with("smollm2")).unwrap();
    assert!(
        row.contains("98.4 MB") && row.contains("135 M") && row.contains("Q4_1") && row.contains("8192"),
        "{table}"
    );
    let json: Value = serde_json::from_str(&list(&["--json"])).unwrap();
    assert!(json["models"].as_array().unwrap().iter().any(|model| model["name"] == "smollm2:135m-instruct-q4_1"));
}

#[test]
fn discover_says_where_it_looked_and_why() {
    let dir = smollm2().parent().unwrap().to_owned();
    let output = shimmy().env("SHIMMY_MODEL_PATHS", &dir).args(["discover", "--json"]).output().unwrap();
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let searched = report["searched"].as_array().unwrap();
    assert!(searched.iter().any(|place| place["because"] == "SHIMMY_MODEL_PATHS" && place["exists"] == true));
    assert!(report["models"].as_array().unwrap().iter().any(|model| model["architecture"] == "llama"));
}

#[test]
fn probe_reports_a_working_model() {
    let path = smollm2();
    let output = run(&["probe", path.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let (peak, predicted) =
        (report["peak_memory_mb"].as_u64().unwrap(), report["predicted_memory_mb"].as_u64().unwrap());
    assert!(predicted > 98 && peak > 98, "{report}");
    assert!(peak < 3 * predicted, "{report}");
    assert_eq!(report["placement"]["backend"], "cpu");
}

#[test]
fn bench_reports_both_speeds_with_their_spread() {
    let path = smollm2();
    let args = ["bench", path.to_str().unwrap(), "--prompt-tokens", "32", "--max-tokens", "8", "--repetitions", "2"];
    let report: Value = serde_json::from_str(&stdout(&run(&[&args[..], &["--json"]].concat()))).unwrap();
    for test in ["prompt", "generation"] {
        assert!(report[test]["tokens_per_second"].as_f64().unwrap() > 0.0, "{report}");
        assert_eq!(report[test]["runs"].as_array().unwrap().len(), 2);
    }
    let table = stdout(&run(&args));
    assert!(table.contains("pp32") && table.contains("tg8") && table.contains('±'), "{table}");
}

#[test]
fn a_base_model_without_a_template_gets_the_prompt_as_it_is() {
    let path = crate::support::cached("gemma3-270m.q4_k_m.gguf");
    let output = run(&["generate", path.to_str().unwrap(), "--prompt", "one two three", "--max-tokens", "1", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["usage"]["prompt_tokens"], 4, "three words and BOS: {}", stderr(&output));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let path = smollm2();
    let mut child = shimmy()
        .args(["generate", path.to_str().unwrap(), "--prompt", "Count to one hundred.", "--max-tokens", "200"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!stderr(&output).contains("error"), "{}", stderr(&output));
}

#[test]
fn help_has_examples() {
    for command in ["serve", "generate", "list", "discover", "probe", "bench", "gpu-info"] {
        let help = stdout(&run(&[command, "--help"]));
        assert!(help.contains("Example"), "{command}: {help}");
    }
}

/// Without llama.cpp there are no built-in templates to know.
#[test]
fn a_template_that_nobody_has_is_told_by_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let check = |template: &str| {
        let path = dir.path().join("config.toml");
        std::fs::write(&path, format!("template = '{template}'\n")).unwrap();
        run(&["--config", path.to_str().unwrap(), "config", "check"])
    };
    assert_eq!(check("chatml").status.code(), Some(0));
    let refused = check("nosuch");
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("1:12: nosuch: neither a file nor a known name; known are"),
        "{}",
        stderr(&refused)
    );
}

#[test]
fn values_may_begin_with_a_dash() {
    let smollm2 = smollm2();
    let args = [
        "generate",
        smollm2.to_str().unwrap(),
        "-p",
        "- one",
        "--frequency-penalty",
        "-0.5",
        "--stop",
        "---",
        "--max-tokens",
        "1",
    ];
    let output = run(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let refused = run(&["generate", smollm2.to_str().unwrap(), "-p", "x", "--temperature", "-1"]);
    assert!(stderr(&refused).contains("temperature is -1; it must be a number from 0 to 100"), "{}", stderr(&refused));
}
