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
