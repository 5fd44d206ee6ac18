// LoRA adapters: loading them, and changing which of them a context computes with.
#include <algorithm>

#include "guard.hpp"
#include "llama-context.h"

using shim::fail;
using shim::guarded;

#ifdef SHIM_CHEAP_SWITCH
namespace {

// llama.cpp reserves its graphs anew whenever the adapters change, which costs as much as several tokens. What it reserved
// serves all adapters that were loaded then; only the graph that it keeps from the latest pass must go. Both members are
// private; an explicit instantiation may name them all the same.
template <typename Member> struct Access {
    template <typename Member::Type member> struct Grant {
        friend typename Member::Type access(Member) { return member; }
    };
};

struct ReserveDue {
    using Type = bool llama_context::*;
    friend Type access(ReserveDue);
};
template struct Access<ReserveDue>::Grant<&llama_context::sched_need_reserve>;

struct LatestGraph {
    using Type = llm_graph_result_ptr llama_context::*;
    friend Type access(LatestGraph);
};
template struct Access<LatestGraph>::Grant<&llama_context::gf_res_prev>;

void settle(llama_context * ctx, uint32_t * reserved_nodes) {
    bool &         due   = ctx->*access(ReserveDue());
    const uint32_t nodes = ctx->graph_max_nodes(std::min(llama_n_ctx(ctx), llama_n_ubatch(ctx)));
    if (nodes <= *reserved_nodes) {
        (ctx->*access(LatestGraph()))->reset();
        due = false;
        return;
    }
    try {
        ctx->sched_reserve();
    } catch (...) {
        // What was reserved before is gone.
        due             = true;
        *reserved_nodes = 0;
        throw;
    }
    *reserved_nodes = nodes;
}

} // namespace
#endif

extern "C" {

int shim_adapter_load(llama_model * model, const char * path, llama_adapter_lora ** out) noexcept {
    return guarded([&] {
        *out = llama_adapter_lora_init(model, path);
        return *out != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "llama.cpp could not load the adapter");
    });
}

int shim_set_adapters(llama_context * ctx, llama_adapter_lora ** adapters, float * scales, size_t n,
                      uint32_t * reserved_nodes) noexcept {
    return guarded([&] {
#ifdef SHIM_CHEAP_SWITCH
        const bool was_due = ctx->*access(ReserveDue());
#endif
        if (llama_set_adapters_lora(ctx, adapters, n, scales) != 0) {
            return fail(SHIM_REFUSED, "llama.cpp refused the adapters");
        }
#ifdef SHIM_CHEAP_SWITCH
        if (!was_due && ctx->*access(ReserveDue())) {
            settle(ctx, reserved_nodes);
        }
#else
        (void) reserved_nodes;
#endif
        return int(SHIM_OK);
    });
}

} // extern "C"
