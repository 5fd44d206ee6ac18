// LoRA adapters: loading them, and changing which of them a context computes with.
#include "guard.hpp"
#include "llama-adapter.h"
#include "llama-context.h"
#include "llama-model.h"

using shim::fail;
using shim::guarded;

#ifdef SHIM_CHEAP_SWITCH
namespace {

// llama.cpp reserves its graphs anew whenever the adapters change, which costs as much as several tokens. What it reserved
// serves as many nodes as all adapters had together that were loaded then; where those of the new set are no more, only the
// graph that it keeps from the latest pass must go. Both members are private; an explicit instantiation may name them all
// the same.
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
                      uint32_t reserved_nodes, bool * short_of_nodes) noexcept {
    return guarded([&] {
#ifdef SHIM_CHEAP_SWITCH
        bool &     due     = ctx->*access(ReserveDue());
        const bool was_due = due;
#endif
        if (llama_set_adapters_lora(ctx, adapters, n, scales) != 0) {
            return fail(SHIM_REFUSED, "llama.cpp refused the adapters");
        }
#ifdef SHIM_CHEAP_SWITCH
        if (due) {
            uint32_t nodes = 0;
            for (size_t i = 0; i < n; i++) {
                nodes += adapters[i]->get_n_nodes();
            }
            if (!was_due && nodes <= reserved_nodes) {
                (ctx->*access(LatestGraph()))->reset();
                due = false;
            } else {
                // Also where an earlier reservation failed: it must not be made up for in a decode, without the model's lock.
                *short_of_nodes = true;
            }
        }
#else
        (void) reserved_nodes;
        (void) short_of_nodes;
#endif
        return int(SHIM_OK);
    });
}

int shim_reserve_for_adapters(llama_context * ctx, uint32_t * reserved_nodes) noexcept {
    return guarded([&] {
#ifdef SHIM_CHEAP_SWITCH
        try {
            ctx->sched_reserve();
        } catch (...) {
            // What was reserved before is gone.
            ctx->*access(ReserveDue()) = true;
            *reserved_nodes            = 0;
            throw;
        }
        *reserved_nodes = 0;
        for (const auto * adapter : ctx->get_model().loras) {
            *reserved_nodes += adapter->get_n_nodes();
        }
#else
        (void) ctx;
        (void) reserved_nodes;
#endif
        return int(SHIM_OK);
    });
}

} // extern "C"
