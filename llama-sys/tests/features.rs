//! Each cargo feature must reach CMake: shimmy 1.x lost them on the way and never had a GPU backend.

#[path = "../build/cmake.rs"]
#[allow(dead_code)]
mod cmake_build;
#[path = "../build/source.rs"]
#[allow(dead_code)]
mod source;

use cmake_build::{BACKENDS, Features, defines};

fn value<'a>(all: &'a [(String, String)], key: &str) -> Option<&'a str> {
    all.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
}

#[test]
fn each_feature_sets_its_own_define_and_no_other() {
    for (feature, option) in BACKENDS {
        let all = defines(&Features::from_names(|name| name == *feature), None);
        for (_, other) in BACKENDS {
            let expected = if other == option { "ON" } else { "OFF" };
            assert_eq!(value(&all, other), Some(expected), "feature {feature}, option {other}");
        }
    }
}

#[test]
fn dynamic_backends_are_modules_for_any_machine() {
    let options = ["BUILD_SHARED_LIBS", "GGML_BACKEND_DL", "GGML_CPU_ALL_VARIANTS"];
    for (feature, expected) in [("dynamic_backends", "ON"), ("vulkan", "OFF")] {
        let all = defines(&Features::from_names(|name| name == feature), None);
        for option in options {
            assert_eq!(value(&all, option), Some(expected), "{option} with {feature}");
        }
        assert_eq!(value(&all, "GGML_NATIVE"), (expected == "ON").then_some("OFF"));
    }
    let cache = std::fs::read_to_string(llama_sys::CMAKE_CACHE).expect("CMakeCache.txt of the linked build");
    let linked = if cfg!(feature = "dynamic-backends") { "=ON" } else { "=OFF" };
    for option in options {
        let line = cache.lines().find(|line| line.starts_with(&format!("{option}:"))).unwrap_or_default();
        assert!(line.ends_with(linked), "{option}: CMake has {line:?}");
    }
}

#[test]
fn the_build_that_is_linked_here_was_configured_with_this_crates_features() {
    let cache = std::fs::read_to_string(llama_sys::CMAKE_CACHE).expect("CMakeCache.txt of the linked build");
    let enabled = [
        ("GGML_CUDA", cfg!(feature = "cuda")),
        ("GGML_VULKAN", cfg!(feature = "vulkan")),
        ("GGML_OPENCL", cfg!(feature = "opencl")),
        ("GGML_METAL", cfg!(feature = "metal")),
        ("GGML_RPC", cfg!(feature = "rpc")),
    ];
    for (option, on) in enabled {
        let line = cache.lines().find(|line| line.starts_with(&format!("{option}:"))).unwrap_or_default();
        assert!(line.ends_with(if on { "=ON" } else { "=OFF" }), "{option} should be {on}, CMake has {line:?}");
    }
    assert!(cache.lines().any(|line| line == "CMAKE_BUILD_TYPE:STRING=Release" || line.ends_with("BUILD_TYPE:UNINITIALIZED=Release")));
}

/// What throws or aborts must have no name in Rust: it goes through the shim.
#[test]
fn nothing_that_throws_is_bound() {
    let bindings = include_str!(concat!(env!("OUT_DIR"), "/bindings.rs"));
    let bound: Vec<&str> = bindings
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("pub fn "))
        .filter_map(|rest| rest.split('(').next())
        .collect();
    assert!(bound.contains(&"shim_decode"), "the bindings were read: {bound:?}");
    for prefix in
        ["llama_sampler_init", "llama_grammar", "llama_state", "llama_memory", "llama_batch", "ggml_", "gguf_"]
    {
        assert!(!bound.iter().any(|name| name.starts_with(prefix)), "{prefix}… is bound");
    }
    for name in [
        "llama_decode",
        "llama_encode",
        "llama_tokenize",
        "llama_detokenize",
        "llama_token_to_piece",
        "llama_vocab_get_text",
        "llama_vocab_get_attr",
        "llama_vocab_is_control",
        "llama_sampler_sample",
        "llama_sampler_accept",
        "llama_sampler_apply",
        "llama_set_adapters_lora",
        "llama_set_sampler",
        "llama_model_load_from_file",
        "llama_init_from_model",
        "llama_chat_apply_template",
    ] {
        assert!(!bound.contains(&name), "{name} is bound");
    }
}
