// Where a loaded model is, from llama.cpp's own accounts.
#include "cpu.hpp"
#include "guard.hpp"
#include "llama-ext.h"
#include "llama-model.h"

using shim::fail;
using shim::guarded;

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
            *out++ = { device != nullptr ? ggml_backend_dev_name(device) : "", ggml_backend_buft_name(type), use.model, use.context, use.compute };
        }
        return int(SHIM_OK);
    });
}

} // extern "C"
