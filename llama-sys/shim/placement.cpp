// Where a loaded model is, from llama.cpp's own accounts, and what cannot be there.
#include "placement.hpp"

#include "cpu.hpp"
#include "ggml-cpp.h"
#include "guard.hpp"
#include "llama-ext.h"
#include "llama-model.h"

#include <algorithm>
#include <cstring>
#include <set>

using shim::fail;
using shim::guarded;

std::string shim::oversized_cache(const llama_model & model, const llama_context_params & params) {
    const llama_hparams & hparams = model.hparams;
    // What is recurrent all through keeps states. What keeps nothing at all is asked for nothing that it could not hold.
    if (!params.offload_kqv || llama_model_is_recurrent(&model)) {
        return {};
    }
    const ggml_context_ptr scratch(ggml_init({ 2 * ggml_tensor_overhead(), nullptr, true }));
    // One pool of cells, or one for each sequence; llama.cpp rounds each up to this.
    const int64_t all   = params.n_ctx != 0 ? params.n_ctx : hparams.n_ctx_train;
    const int64_t pools = params.kv_unified ? 1 : std::max<int64_t>(params.n_seq_max, 1);
    const int64_t cells = pools * GGML_PAD(GGML_PAD(all, 256) / pools, 256);
    // Without flash attention values lie the other way round, all as wide as the widest.
    const bool turned = params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED;
    for (uint32_t layer = 0; layer < hparams.n_layer_all; ++layer) {
        // What slides has a window's cells only.
        if (!hparams.has_kv(layer) || (hparams.is_swa(layer) && !params.swa_full)) {
            continue;
        }
        ggml_backend_dev_t device = model.dev_layer(layer);
        const auto         fits   = [&](ggml_type type, uint32_t width) {
            ggml_reset(scratch.get());
            return ggml_backend_dev_supports_op(device, ggml_new_tensor_2d(scratch.get(), type, width, cells));
        };
        const uint32_t values = turned ? hparams.n_embd_v_gqa_max() : hparams.n_embd_v_gqa(layer);
        const bool     k_fits = fits(params.type_k, hparams.n_embd_k_gqa(layer));
        if (!k_fits || !(hparams.is_mla() || fits(params.type_v, values))) {
            return std::string(ggml_backend_dev_name(device)) + " cannot hold layer " + std::to_string(layer) + "'s KV cache of " +
                   std::to_string(cells) + " tokens in one piece; ask for fewer with --ctx-size, or for a smaller --cache-type-" +
                   (k_fits ? "v" : "k");
        }
    }
    return {};
}

std::string shim::torn_heads(const llama_model & model, ggml_type type_k) {
    const llama_hparams & hparams = model.hparams;
    const int64_t         block   = ggml_blck_size(type_k);
    for (uint32_t layer = 0; layer < hparams.n_layer(); ++layer) {
        const uint32_t width = hparams.n_embd_head_k(layer);
        if (hparams.has_kv(layer) && width % block != 0) {
            return "the model's heads of " + std::to_string(width) + " numbers cannot be kept as " + ggml_type_name(type_k) +
                   ", in blocks of " + std::to_string(block) + "; use --cache-type-k f16";
        }
    }
    return {};
}

// Bytes of the weights that lie in a mapped file. llama.cpp tells the whole stretch of the file between the first and the last of
// them, also what was written anew for the processor, elsewhere, and is never read here again.
static size_t mapped_weights(const llama_model & model, ggml_backend_buffer_type_t type) {
    std::set<const void *> seen;
    size_t                 bytes = 0;
    for (const auto & [name, tensor] : model.tensors_by_name) {
        if (tensor->buffer != nullptr && ggml_backend_buffer_get_type(tensor->buffer) == type && seen.insert(tensor->data).second) {
            bytes += ggml_nbytes(tensor);
        }
    }
    return bytes;
}

extern "C" {

uint32_t shim_layer_count(const llama_model * model) noexcept { return model->hparams.n_layer_all; }

int shim_layer_device(const llama_model * model, int32_t layer, const char ** name) noexcept {
    return guarded([&] {
        if (layer < 0 || uint32_t(layer) >= shim_layer_count(model)) {
            return fail(SHIM_REFUSED, "the model has no such layer");
        }
        *name = ggml_backend_dev_name(model->dev_layer(layer));
        return int(SHIM_OK);
    });
}

int shim_memory_use(const llama_context * ctx, shim_memory * out, size_t capacity, size_t * count) noexcept {
    return guarded([&] {
        const auto breakdown = llama_get_memory_breakdown(ctx);
        *count               = breakdown.size();
        if (breakdown.size() > capacity) {
            return fail(SHIM_TOO_SMALL, "more kinds of memory than there is room for");
        }
        for (const auto & [type, use] : breakdown) {
            // Memory of the host that a GPU can read is memory of the host.
            ggml_backend_dev_t device = ggml_backend_buft_is_host(type) ? shim::cpu_device() : ggml_backend_buft_get_device(type);
            const bool   mapped = strstr(ggml_backend_buft_name(type), "_Mapped") != nullptr;
            const size_t model  = mapped ? std::min(use.model, mapped_weights(*llama_get_model(ctx), type)) : use.model;
            *out++ = { device != nullptr ? ggml_backend_dev_name(device) : "", ggml_backend_buft_name(type), model, use.context, use.compute };
        }
        return int(SHIM_OK);
    });
}

} // extern "C"
