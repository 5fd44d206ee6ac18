// Backend, devices, model, context and tokens.
#include <cstdlib>
#include <cstring>

#include <mutex>
#include <unordered_map>

#include "accelerator.hpp"
#include "cpu.hpp"
#include "ggml-cpu.h"
#include "guard.hpp"
#include "placement.hpp"

namespace shim {

static thread_local char last_error[4096];

void set_error(const char * message) noexcept {
    const char * text = (message != nullptr && *message != '\0') ? message : "unknown error";
    std::strncpy(last_error, text, sizeof(last_error) - 1);
    last_error[sizeof(last_error) - 1] = '\0';
}

void clear_error() noexcept { last_error[0] = '\0'; }

char * copy_string(const std::string & text) {
    char * copy = static_cast<char *>(std::malloc(text.size() + 1));
    if (copy == nullptr) {
        throw std::bad_alloc();
    }
    std::memcpy(copy, text.c_str(), text.size() + 1);
    return copy;
}

} // namespace shim

using shim::fail;
using shim::guarded;

// Calls `get(buffer, size)`, which answers like snprintf, until the whole text fits.
template <typename Get> static bool read_text(Get && get, std::string & text) {
    text.resize(256);
    int32_t n = get(text.data(), text.size());
    if (n < 0) {
        return false;
    }
    if (size_t(n) >= text.size()) {
        text.resize(size_t(n) + 1);
        n = get(text.data(), text.size());
    }
    text.resize(n);
    return true;
}

// Which backends of ours a context has.
static std::mutex                                                        accelerators_mutex;
static std::unordered_map<llama_context *, std::vector<ggml_backend_t>> accelerators_of;

static void accelerators(llama_context * ctx, std::vector<ggml_backend_t> backends) {
    std::lock_guard lock(accelerators_mutex);
    if (ctx != nullptr) {
        accelerators_of[ctx] = std::move(backends);
    }
}

static std::vector<ggml_backend_t> accelerators(llama_context * ctx) {
    std::lock_guard lock(accelerators_mutex);
    const auto      found = accelerators_of.find(ctx);
    return found == accelerators_of.end() ? std::vector<ggml_backend_t>() : found->second;
}

static llama_load_mode load_mode(const shim_model_params & p) {
    if (p.use_mmap) {
        return p.use_mlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MMAP;
    }
    return p.use_mlock ? LLAMA_LOAD_MODE_MLOCK : LLAMA_LOAD_MODE_NONE;
}

extern "C" {

const char * shim_last_error(void) noexcept { return shim::last_error; }

void shim_string_free(char * text) noexcept { std::free(text); }

int shim_backend_init(void) noexcept {
    return guarded([] {
        llama_backend_init();
        ggml_backend_reg_count();
        shim::accelerator::install();
        return SHIM_OK;
    });
}

int shim_backend_load(const char * path) noexcept {
    return guarded([&] {
        return ggml_backend_load(path) != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "its backend did not start");
    });
}

int shim_backend_count(size_t * count) noexcept {
    return guarded([&] {
        *count = ggml_backend_reg_count();
        return SHIM_OK;
    });
}

int shim_backend_name(size_t index, const char ** name) noexcept {
    return guarded([&] {
        if (index >= ggml_backend_reg_count()) {
            return fail(SHIM_REFUSED, "no backend has this index");
        }
        *name = ggml_backend_reg_name(ggml_backend_reg_get(index));
        return int(SHIM_OK);
    });
}

int shim_device_count(size_t * count) noexcept {
    return guarded([&] {
        *count = ggml_backend_dev_count();
        return SHIM_OK;
    });
}

int shim_device_get(size_t index, shim_device * out) noexcept {
    return guarded([&] {
        if (index >= ggml_backend_dev_count()) {
            return fail(SHIM_REFUSED, "no device has this index");
        }
        ggml_backend_dev_t     device = ggml_backend_dev_get(index);
        ggml_backend_dev_props props  = {};
        ggml_backend_dev_get_props(device, &props);
        ggml_backend_reg_t backend = ggml_backend_dev_backend_reg(device);

        *out              = {};
        out->handle       = device;
        out->name         = props.name;
        out->description  = props.description;
        out->backend      = backend != nullptr ? ggml_backend_reg_name(backend) : nullptr;
        out->id           = props.device_id;
        out->type         = props.type;
        out->memory_free  = props.memory_free;
        out->memory_total = props.memory_total;
        return int(SHIM_OK);
    });
}

size_t shim_max_devices(void) noexcept { return llama_max_devices(); }

int shim_model_load(const char * path, const shim_model_params * p, llama_model ** out) noexcept {
    return guarded([&] {
        llama_model_params params          = llama_model_default_params();
        params.devices                     = p->devices;
        params.n_gpu_layers                = p->n_gpu_layers;
        params.split_mode                  = llama_split_mode(p->split_mode);
        params.main_gpu                    = p->main_gpu;
        params.tensor_split                = p->tensor_split;
        std::vector<llama_model_tensor_buft_override> overrides;
        for (const char * const * pattern = p->cpu_tensors; pattern != nullptr && *pattern != nullptr; pattern++) {
            overrides.push_back({ *pattern, ggml_backend_cpu_buffer_type() });
        }
        if (!overrides.empty()) {
            overrides.push_back({ nullptr, nullptr });
            params.tensor_buft_overrides = overrides.data();
        }
        params.load_mode                   = load_mode(*p);
        params.vocab_only                  = p->vocab_only;
        params.check_tensors               = p->check_tensors;
        params.no_alloc                    = p->no_alloc;
        params.progress_callback           = p->progress;
        params.progress_callback_user_data = p->progress_data;
        *out                               = llama_model_load_from_file(path, params);
        return *out != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "llama.cpp could not load the model");
    });
}

int shim_model_meta(const llama_model * model, const char * key, char ** out) noexcept {
    return guarded([&] {
        std::string text;
        const bool  found = read_text([&](char * b, size_t n) { return llama_model_meta_val_str(model, key, b, n); }, text);
        *out              = found ? shim::copy_string(text) : nullptr;
        return SHIM_OK;
    });
}

int shim_model_description(const llama_model * model, char ** out) noexcept {
    return guarded([&] {
        std::string text;
        read_text([&](char * b, size_t n) { return llama_model_desc(model, b, n); }, text);
        *out = shim::copy_string(text);
        return SHIM_OK;
    });
}

int shim_context_init(llama_model * model, const shim_context_params * p, llama_context ** out) noexcept {
    return guarded([&] {
        llama_context_params params = llama_context_default_params();
        params.n_ctx                = p->n_ctx;
        params.n_batch              = p->n_batch;
        params.n_ubatch             = p->n_ubatch;
        params.n_seq_max            = p->n_seq_max;
        params.n_outputs_max        = p->n_outputs_max;
        params.n_threads            = p->n_threads;
        params.n_threads_batch      = p->n_threads_batch;
        params.flash_attn_type      = llama_flash_attn_type(p->flash_attn);
        params.type_k               = ggml_type(p->type_k);
        params.type_v               = ggml_type(p->type_v);
        params.embeddings           = p->embeddings;
        params.pooling_type         = static_cast<enum llama_pooling_type>(p->pooling);
        params.offload_kqv          = p->offload_kqv;
        params.kv_unified           = p->kv_unified;
        params.swa_full             = p->swa_full;
        params.abort_callback       = p->abort;
        params.abort_callback_data  = p->abort_data;
        params.no_perf              = true;
        // With "auto", llama.cpp gives flash attention up where it is not on its layer's own device, as it is with us.
        if (p->accelerate && params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_AUTO) {
            params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        }
        if (const std::string refusal = shim::oversized_cache(*model, params); !refusal.empty()) {
            return fail(SHIM_TOO_LARGE, refusal.c_str());
        }
        if (const std::string refusal = shim::torn_heads(*model, params.type_k); !refusal.empty()) {
            return fail(SHIM_REFUSED, refusal.c_str());
        }
        shim::accelerator::Creation creation(p->accelerate);
        *out = llama_init_from_model(model, params);
        if (*out != nullptr) {
            creation.release_caches();
            accelerators(*out, creation.made());
        }
        return *out != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "llama.cpp could not create the context");
    });
}

void shim_context_free(llama_context * ctx) noexcept {
    guarded([&] {
        {
            std::lock_guard lock(accelerators_mutex);
            accelerators_of.erase(ctx);
        }
        llama_free(ctx);
        return SHIM_OK;
    });
}

int shim_threads_new(int32_t n_threads, uint32_t poll, ggml_threadpool ** out) noexcept {
    return guarded([&] {
        const auto create = shim::cpu_function<decltype(ggml_threadpool_new)>("ggml_threadpool_new");
        if (create == nullptr) {
            return fail(SHIM_REFUSED, "the CPU backend has no thread pools");
        }
        ggml_threadpool_params params = ggml_threadpool_params_default(n_threads);
        params.poll                   = poll;
        *out                          = create(&params);
        return *out != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "the thread pool could not be created");
    });
}

int shim_threads_attach(llama_context * ctx, ggml_threadpool * pool) noexcept {
    return guarded([&] {
        llama_attach_threadpool(ctx, pool, nullptr);
        for (ggml_backend_t backend : accelerators(ctx)) {
            shim::accelerator::set_threadpool(backend, pool);
        }
        return SHIM_OK;
    });
}

void shim_threads_free(ggml_threadpool * pool) noexcept {
    guarded([&] {
        if (const auto destroy = shim::cpu_function<decltype(ggml_threadpool_free)>("ggml_threadpool_free")) {
            destroy(pool);
        }
        return SHIM_OK;
    });
}

int shim_decode(llama_context * ctx, llama_batch batch, int32_t * result) noexcept {
    return guarded([&] {
        *result = llama_decode(ctx, batch);
        if (*result == 0) {
            // A GPU would still be at it; the engine plans by how long a pass takes.
            llama_synchronize(ctx);
        }
        return SHIM_OK;
    });
}

int shim_encode(llama_context * ctx, llama_batch batch, int32_t * result) noexcept {
    return guarded([&] {
        *result = llama_encode(ctx, batch);
        return SHIM_OK;
    });
}

void shim_set_causal(llama_context * ctx, bool causal) noexcept { llama_set_causal_attn(ctx, causal); }

int shim_logits(llama_context * ctx, int32_t row, const float ** out) noexcept {
    return guarded([&] {
        *out = llama_get_logits_ith(ctx, row);
        return *out != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "this row of the batch has no logits");
    });
}

int shim_embeddings(llama_context * ctx, int32_t row, const float ** out) noexcept {
    return guarded([&] {
        *out = llama_get_embeddings_ith(ctx, row);
        return *out != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "this row of the batch has no embedding");
    });
}

int shim_embeddings_seq(llama_context * ctx, llama_seq_id seq, const float ** out) noexcept {
    return guarded([&] {
        *out = llama_get_embeddings_seq(ctx, seq);
        return *out != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "this sequence has no pooled embedding");
    });
}

int shim_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens, int32_t capacity,
                  bool add_special, bool parse_special, int32_t * count) noexcept {
    return guarded([&] {
        const int32_t n = llama_tokenize(vocab, text, text_len, tokens, capacity, add_special, parse_special);
        if (n == INT32_MIN) {
            return fail(SHIM_REFUSED, "the text has more tokens than an int32 can count");
        }
        *count = n < 0 ? -n : n;
        return n < 0 ? fail(SHIM_TOO_SMALL, "the token buffer is too small") : int(SHIM_OK);
    });
}

int shim_token_to_piece(const llama_vocab * vocab, llama_token token, char * buffer, int32_t capacity, bool special,
                        int32_t * len) noexcept {
    return guarded([&] {
        const int32_t n = llama_token_to_piece(vocab, token, buffer, capacity, 0, special);
        *len            = n < 0 ? -n : n;
        return n < 0 ? fail(SHIM_TOO_SMALL, "the text buffer is too small") : int(SHIM_OK);
    });
}

} // extern "C"
