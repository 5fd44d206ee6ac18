//! `--gpu-backend`: what is asked for runs, or the load fails and says which of the reasons it is.

use serde_json::Value;

use crate::support::{run, shimmy, smollm2, stderr, stdout};

/// Command-line name, llama.cpp's name, and whether this build has it.
const BACKENDS: &[(&str, &str, bool)] = &[
    ("cuda", "CUDA", cfg!(feature = "llama-cuda")),
    ("vulkan", "Vulkan", cfg!(feature = "llama-vulkan")),
    ("opencl", "OpenCL", cfg!(feature = "llama-opencl")),
    ("metal", "MTL", cfg!(feature = "llama-metal")),
];

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
            assert_eq!(output.status.code(), Some(1));
            let message = stderr(&output);
            assert!(message.contains("built without it") && message.contains(&format!("llama-{name}")), "{message}");
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
        let has_device = info()["system"]["devices"].as_array().unwrap().iter().any(|device| {
            device["backend"] == *registered_as && device["kind"].as_str().is_some_and(|kind| kind.contains("gpu"))
        });
        let output = run(&["--gpu-backend", name, "probe", smollm2().to_str().unwrap(), "--json"]);
        if has_device {
            let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
            assert_eq!(report["placement"]["gpu_layers"], report["placement"]["total_layers"], "{report}");
        } else {
            assert_eq!(output.status.code(), Some(2));
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
    assert_eq!(probe(&[]), if cfg!(feature = "llama-metal") { Some(0) } else { Some(2) });
    assert_eq!(probe(&["--gpu-backend", "cpu"]), Some(0));
}
