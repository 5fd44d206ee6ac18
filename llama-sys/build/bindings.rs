//! Runs bindgen over the shim's header, with a list of what Rust may see.

use std::path::Path;

/// llama.cpp functions that neither throw nor differ between revisions. All others go through `shim_*`.
const PLAIN_FUNCTIONS: &[&str] = &[
    "llama_log_set",
    "llama_model_free",
    "llama_model_get_vocab",
    "llama_model_n_ctx_train",
    "llama_model_n_embd",
    "llama_model_n_embd_inp",
    "llama_model_n_embd_out",
    "llama_model_n_cls_out",
    "llama_model_n_layer",
    "llama_model_n_swa",
    "llama_model_size",
    "llama_model_n_params",
    "llama_model_has_encoder",
    "llama_model_has_decoder",
    "llama_model_is_recurrent",
    "llama_model_is_hybrid",
    "llama_model_chat_template",
    "llama_model_rope_type",
    "llama_vocab_type",
    "llama_vocab_n_tokens",
    "llama_vocab_bos",
    "llama_vocab_eos",
    "llama_vocab_eot",
    "llama_vocab_is_eog",
    "llama_vocab_get_add_bos",
    "llama_vocab_get_add_eos",
    "llama_vocab_get_add_sep",
    "llama_vocab_sep",
    "llama_vocab_get_suppress_tokens",
    "llama_vocab_fim_pre",
    "llama_vocab_fim_suf",
    "llama_vocab_fim_mid",
    "llama_vocab_fim_rep",
    "llama_vocab_fim_sep",
    "llama_n_ctx",
    "llama_n_ctx_seq",
    "llama_n_batch",
    "llama_n_ubatch",
    "llama_n_seq_max",
    "llama_get_memory",
    "llama_set_n_threads",
    "llama_sampler_free",
    "llama_adapter_lora_free",
];

const TYPES: &[&str] = &[
    "ggml_log_level",
    "ggml_backend_dev_type",
    "ggml_type",
    "llama_batch",
    "llama_flash_attn_type",
    "llama_split_mode",
    "llama_pooling_type",
    "llama_rope_type",
    "llama_vocab_type",
    "llama_token_data_array",
    "shim_.*",
];

pub fn generate(source: &Path, out_dir: &Path) -> Result<(), String> {
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("shim");
    let header = shim.join("shim.h");
    println!("cargo::rerun-if-changed={}", shim.display());
    println!("cargo::rerun-if-changed={}", shim.with_file_name("cmake").display());
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");

    let mut builder = bindgen::Builder::default()
        .header(header.display().to_string())
        .clang_arg(format!("-I{}", source.join("include").display()))
        .clang_arg(format!("-I{}", source.join("ggml/include").display()))
        .allowlist_function("shim_.*")
        .allowlist_recursively(true)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .merge_extern_blocks(true)
        .generate_comments(false);
    for function in PLAIN_FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    // bindgen panics, with a long text, where libclang is not to be found.
    let bindings = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || builder.generate()))
        .map_err(|_| {
            "libclang is not installed and bindgen needs it to read llama.h\n\
             install it: `apt-get install libclang-dev`, `dnf install clang-devel`, `pacman -S clang` or `brew install llvm`, or set LIBCLANG_PATH; `make bootstrap` does it on Debian"
                .to_owned()
        })?
        .map_err(|e| format!("bindgen could not read {}: {e}", header.display()))?;
    let file = out_dir.join("bindings.rs");
    bindings.write_to_file(&file).map_err(|e| format!("{}: {e}", file.display()))
}
