//! `--gpu-backend`: what is asked for runs, or the load fails and says which of the reasons it is.

use serde_json::{Value, json};

use crate::support::{Server, run, shimmy, smollm2, stderr, stdout};

/// Command-line name, llama.cpp's name, and whether this build has it.
const BACKENDS: &[(&str, &str, bool)] = &[
    ("cuda", "CUDA", cfg!(feature = "llama-cuda")),
    ("vulkan", "Vulkan", cfg!(feature = "llama-vulkan")),
    ("opencl", "OpenCL", cfg!(feature = "llama-opencl")),
    ("metal", "MTL", cfg!(feature = "llama-metal")),
];

/// Part of the message about a backend that this build has not.
const WHY_NOT: &str = if cfg!(feature = "dynamic-backends") { "no libggml-" } else { "built without it" };

fn info() -> Value {
    let output = run(&["gpu-info", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

/// In 1.x the features never reached CMake, so no GPU backend was ever in the binary.
#[test]
fn backends_registered_are_exactly_those_of_the_features() {
    let info = info();
    let registered: Vec<&str> =
        info["system"]["registered"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    println!("registered backends: {}", registered.join(", "));
    for (name, registered_as, compiled) in BACKENDS {
        assert_eq!(registered.contains(registered_as), *compiled, "{name} in {registered:?}");
    }
    assert_eq!(registered.contains(&"RPC"), cfg!(feature = "llama-rpc"), "{registered:?}");
    assert!(registered.contains(&"CPU"));
}

#[test]
fn backends_not_compiled_in_are_an_error_that_says_so() {
    for (name, _, compiled) in BACKENDS {
        if !compiled {
            let output = run(&["--gpu-backend", name, "generate", smollm2().to_str().unwrap(), "--prompt", "x"]);
            assert_eq!(output.status.code(), Some(3));
            let message = stderr(&output);
            assert!(message.contains(WHY_NOT) && message.contains(&format!("llama-{name}")), "{message}");
        }
    }
}

/// The first GPU that a backend of this build finds, as `gpu-info` shows it.
fn first_gpu(registered_as: &str) -> Option<Value> {
    let info = info();
    let is_gpu = |device: &&Value| {
        device["backend"] == registered_as && device["kind"].as_str().is_some_and(|kind| kind.contains("gpu"))
    };
    info["system"]["devices"].as_array().unwrap().iter().find(is_gpu).cloned()
}

fn first_device(registered_as: &str) -> Option<String> {
    Some(first_gpu(registered_as)?["name"].as_str().unwrap().to_owned())
}

/// A GPU without the memory is a refusal before the load, not a driver that fails in the middle of it.
#[test]
fn a_gpu_with_too_little_memory_is_refused_and_auto_takes_what_fits() {
    for (name, registered_as, _) in BACKENDS {
        let Some(device) = first_gpu(registered_as) else { continue };
        let api = device["api"].as_str().unwrap_or_default();
        match *name {
            "vulkan" => assert!(api.starts_with("Vulkan 1."), "{device}"),
            "cuda" => assert!(api.starts_with("CUDA 1"), "{device}"),
            // Their free memory is no limit, so they refuse nothing.
            _ => continue,
        }
        // Each token takes 23 KB in 30 layers: a tenth more than there is.
        let tokens = (device["memory_free_mb"].as_u64().unwrap() << 20) / (30 * 3 * 64 * 2 * 2) / 10 * 11;
        let context = tokens.to_string();
        let probe = |layers: &str| {
            let asked = ["--gpu-backend", name, "--gpu-layers", layers, "--ctx-size", &context, "probe", "--json"];
            shimmy().args(asked).arg(smollm2()).output().unwrap()
        };
        let refused = probe("all");
        assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("MB free, and the model needs"), "{}", stderr(&refused));
        let fitted = probe("auto");
        assert!(fitted.status.success(), "{}", stderr(&fitted));
        let report: Value = serde_json::from_str(&stdout(&fitted)).unwrap();
        let layers = report["placement"]["gpu_layers"].as_u64().unwrap();
        assert!((1..30).contains(&layers), "{report}");
    }
}

/// The same over HTTP: the server runs, and says at the request what is wrong.
#[test]
fn backends_not_compiled_in_are_a_502_that_says_so() {
    for (name, _, compiled) in BACKENDS {
        if !compiled {
            let mut command = shimmy();
            command.args(["--gpu-backend", name, "--base-gguf", smollm2().to_str().unwrap()]);
            command.args(["serve", "--bind", "127.0.0.1:0"]);
            let server = Server::spawn(command);
            let answer = server.post("/api/generate", &json!({ "model": "default", "prompt": "x" }));
            assert_eq!(answer.status, 502, "{}", answer.text());
            assert!(answer.text().contains(WHY_NOT), "{}", answer.text());
        }
    }
}

/// The mistake of 1.x, as a test: a backend was asked for, and every layer went to the CPU. llama.cpp's own lines count
/// here, not our report alone.
#[test]
fn backends_hold_every_layer_that_they_were_asked_to() {
    let text = |args: &[&str]| {
        let mut command = shimmy();
        command.env("RUST_LOG", "llama.cpp=debug").args(args);
        command.args(["generate", smollm2().to_str().unwrap(), "--prompt", "1, 2, 3, 4, 5, 6, 7, 8,", "--raw"]);
        command.args(["--temperature", "0", "--max-tokens", "16", "--json"]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let answer: Value = serde_json::from_str(&stdout(&output)).unwrap();
        (answer["text"].as_str().unwrap().to_owned(), stderr(&output))
    };
    for (name, registered_as, compiled) in BACKENDS {
        let Some(device) = compiled.then(|| first_device(registered_as)).flatten() else {
            let named = *compiled && *name == "vulkan" && std::env::var_os("GGML_VK_VISIBLE_DEVICES").is_some();
            assert!(!named, "the device that GGML_VK_VISIBLE_DEVICES names is not there");
            continue;
        };
        let (on_gpu, log) = text(&["--gpu-backend", name]);
        for layer in 0..30 {
            let line = format!("load_tensors: layer {layer:3} assigned to device {device}");
            assert!(log.contains(&line), "no line {line:?} in {log}");
        }
        let (on_cpu, _) = text(&["--gpu-backend", "cpu"]);
        assert_eq!(on_gpu, on_cpu, "{name} and the CPU disagree");

        let placement = |args: &[&str]| {
            let output = run(&[args, &["probe", smollm2().to_str().unwrap(), "--json"]].concat());
            assert!(output.status.success(), "{}", stderr(&output));
            serde_json::from_str::<Value>(&stdout(&output)).unwrap()["placement"].take()
        };
        let all = placement(&["--gpu-backend", name, "--device", &device]);
        assert_eq!((&all["gpu_layers"], &all["devices"][0]["layers"]), (&json!(30), &json!(30)), "{all}");
        assert_eq!(all["devices"][0]["name"], device.as_str());
        for bytes in ["weights_bytes", "context_bytes", "compute_bytes"] {
            assert!(all["devices"][0][bytes].as_u64().is_some_and(|n| n > 1 << 20), "{bytes}: {all}");
        }
        let auto = placement(&["--gpu-backend", name, "--gpu-layers", "auto"]);
        assert_eq!(auto["gpu_layers"], 30, "{auto}");
        // The output goes first, then ten layers.
        let some = placement(&["--gpu-backend", name, "--gpu-layers", "11"]);
        assert_eq!((&some["gpu_layers"], &some["total_layers"]), (&json!(10), &json!(30)), "{some}");
    }
}

/// llama.cpp allocates a layer's keys as one tensor, and aborts where the device takes none of that size.
#[test]
fn a_context_beyond_what_a_gpu_allocates_in_one_piece_is_refused() {
    for (name, registered_as, _) in BACKENDS {
        let Some(device) = first_device(registered_as) else { continue };
        let with = |layers: &str, command: &[&str]| {
            let asked = ["--gpu-backend", name, "--gpu-layers", layers, "--ctx-size", "8000000"];
            shimmy().args(asked).args(command).arg(smollm2()).output().unwrap()
        };
        let plan = with("16", &["plan", "--json"]);
        assert!(plan.status.success(), "{}", stderr(&plan));
        let plan: Value = serde_json::from_str(&stdout(&plan)).unwrap();
        let Some(refusal) = plan["refusal"].as_str() else { continue };
        assert!(refusal.contains("in one piece") && refusal.contains(&device), "{plan}");
        assert_eq!(plan["fits"], false);
        assert!(plan["alternatives"][0]["options"].as_str().unwrap().starts_with("--ctx-size"), "{plan}");
        for layers in ["16", "auto"] {
            let refused = with(layers, &["probe"]);
            assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
            assert!(stderr(&refused).contains("in one piece"), "{}", stderr(&refused));
        }
    }
}

/// A machine may have the device or not; either way the answer is the truth.
#[test]
fn backends_compiled_in_run_on_their_device_or_say_that_there_is_none() {
    for (name, registered_as, compiled) in BACKENDS {
        if !compiled {
            continue;
        }
        let has_device = first_device(registered_as).is_some();
        let output = run(&["--gpu-backend", name, "probe", smollm2().to_str().unwrap(), "--json"]);
        if has_device {
            let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
            assert_eq!(report["placement"]["gpu_layers"], report["placement"]["total_layers"], "{report}");
        } else {
            assert_eq!(output.status.code(), Some(3));
            assert!(stderr(&output).contains("compiled in, but it finds no device"), "{}", stderr(&output));
        }
    }
}

#[test]
fn backends_cpu_and_auto_work_everywhere() {
    for backend in ["cpu", "auto"] {
        let output = run(&["--gpu-backend", backend, "probe", smollm2().to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        if backend == "cpu" {
            assert_eq!(report["placement"]["backend"], "cpu");
        }
    }
}

/// The variable is for services; the flag wins over it.
#[test]
fn backends_can_be_named_by_the_environment() {
    let output = shimmy().env("SHIMMY_GPU_BACKEND", "nonsense").args(["gpu-info"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let probe = |flag: &[&str]| {
        let mut command = shimmy();
        command.env("SHIMMY_GPU_BACKEND", "metal").args(flag).arg("probe").arg(smollm2());
        command.output().unwrap().status.code()
    };
    assert_eq!(probe(&[]), if cfg!(feature = "llama-metal") { Some(0) } else { Some(3) });
    assert_eq!(probe(&["--gpu-backend", "cpu"]), Some(0));
}

#[test]
fn gpu_info_says_what_would_be_used_and_why_not_a_gpu() {
    let cpu = run(&["--gpu-backend", "cpu", "gpu-info"]);
    assert_eq!(cpu.status.code(), Some(0));
    assert!(stdout(&cpu).contains("cpu uses        the CPU (--gpu-backend cpu)"), "{}", stdout(&cpu));
    assert!(stdout(&cpu).contains("Why is my GPU not used?"), "{}", stdout(&cpu));

    let nothing = run(&["--device", "CUDA99", "gpu-info", "--json"]);
    assert_eq!(nothing.status.code(), Some(3));
    let report: Value = serde_json::from_str(&stdout(&nothing)).unwrap();
    assert_eq!(report["selected"]["usable"], false);
    assert!(report["selected"]["why"].as_str().unwrap().contains("there is no such device"), "{report}");

    let loaded = run(&["--gpu-backend", "cpu", "gpu-info", "--json", "--model", smollm2().to_str().unwrap()]);
    assert_eq!(loaded.status.code(), Some(0), "{}", stderr(&loaded));
    let report: Value = serde_json::from_str(&stdout(&loaded)).unwrap();
    let cpu = &report["model"]["devices"][0];
    assert_eq!((&cpu["name"], &cpu["layers"]), (&json!("CPU"), &json!(30)), "{report}");
    let megabytes = |key: &str| cpu[key].as_u64().unwrap() >> 20;
    // The file has 94 MiB. Code for AMX writes them anew, and has the 29 of the table of tokens twice: as they are, and for the output.
    let [plain, amx] = [90..=98, 120..=128];
    assert!([plain, amx].iter().any(|held| held.contains(&megabytes("weights_bytes"))), "{report}");
    // 8,192 cells of 30 layers, 3 heads of 64 numbers, keys and values, 2 bytes each.
    assert_eq!(megabytes("context_bytes"), (8192 * 30 * 3 * 64 * 2 * 2) >> 20, "{report}");
    assert!(megabytes("compute_bytes") > 0, "{report}");
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    for (args, says) in [
        (&["--gpu-backend", "cpu", "--gpu-layers", "5"][..], "--gpu-backend cpu excludes --gpu-layers 5"),
        (&["--gpu-backend", "cpu", "--device", "Vulkan0"], "--gpu-backend cpu excludes --device Vulkan0"),
        (&["--device", "Nothing0"], "there is no such device"),
    ] {
        let output = run(&[args, &["probe", smollm2().to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}

/// The prediction is llama.cpp's own layout, so it is what a load takes.
#[test]
fn a_plan_predicts_what_a_load_takes() {
    for options in
        [&[][..], &["--ctx-size", "3000", "--parallel", "3"], &["--cache-type-k", "q8_0", "--flash-attn", "on"]]
    {
        let json = |command: &[&str]| {
            let output = run(&[options, &["--gpu-backend", "cpu"], command, &["--json"]].concat());
            assert!(output.status.success(), "{}", stderr(&output));
            serde_json::from_str::<Value>(&stdout(&output)).unwrap()
        };
        let model = smollm2();
        let plan = json(&["plan", model.to_str().unwrap()]);
        let report = json(&["probe", model.to_str().unwrap()]);
        assert_eq!(plan["fits"], true, "{plan}");
        let count = |report: &Value| report["devices"].as_array().unwrap().len();
        assert_eq!((count(&plan), count(&report["placement"])), (1, 1), "{plan} beside {report}");
        // Gemma's are partly written anew for the processor, where that has an order of its own for them.
        for model in [smollm2(), crate::support::cached("gemma3-270m.q4_k_m.gguf")] {
            let (plan, report) = (json(&["plan", model.to_str().unwrap()]), json(&["probe", model.to_str().unwrap()]));
            let weights = |report: &Value| report["devices"][0]["weights_bytes"].clone();
            assert_eq!(weights(&plan), weights(&report["placement"]), "{}", model.display());
        }
        for (planned, placed) in
            plan["devices"].as_array().unwrap().iter().zip(report["placement"]["devices"].as_array().unwrap())
        {
            assert_eq!(planned["name"], placed["name"]);
            let bytes = |of: &Value| -> f64 {
                ["weights_bytes", "context_bytes", "compute_bytes"].iter().map(|key| of[*key].as_f64().unwrap()).sum()
            };
            let ratio = bytes(planned) / bytes(placed);
            assert!((0.95..=1.05).contains(&ratio), "{options:?}: {planned} beside {placed}");
        }
    }
}

#[test]
fn a_plan_that_does_not_fit_says_what_would() {
    let model = smollm2();
    let output = run(&["--gpu-backend", "cpu", "--ctx-size", "8000000", "plan", model.to_str().unwrap(), "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let plan: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(plan["fits"], false, "{plan}");
    let options = plan["alternatives"][0]["options"].as_str().unwrap();
    let proposed: u64 = options.strip_prefix("--ctx-size ").expect("a smaller context comes first").parse().unwrap();
    // What is free changes while other programs run, so not the very edge is tried.
    for (tokens, fits) in [(proposed / 4 * 3, true), (proposed / 2 * 3, false)] {
        let tokens = tokens.to_string();
        let output = run(&["--gpu-backend", "cpu", "--ctx-size", &tokens, "plan", model.to_str().unwrap(), "--json"]);
        let plan: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert_eq!(plan["fits"], fits, "{proposed} proposed, {tokens} tried: {plan}");
    }
}
