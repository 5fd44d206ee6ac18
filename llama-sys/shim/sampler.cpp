// Sampler chains.
#include <memory>

#include "guard.hpp"

using shim::guarded;

using sampler_ptr = std::unique_ptr<llama_sampler, decltype(&llama_sampler_free)>;

static sampler_ptr new_chain() {
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf                    = true;
    return { llama_sampler_chain_init(params), llama_sampler_free };
}

static void add(const sampler_ptr & chain, llama_sampler * link) {
    if (link == nullptr) {
        throw std::bad_alloc();
    }
    llama_sampler_chain_add(chain.get(), link);
}

extern "C" {

int shim_samplers_init(const shim_sampling * p, shim_samplers * out) noexcept {
    return guarded([&] {
        sampler_ptr filters = new_chain();
        if (p->typical_p < 1.0f) {
            add(filters, llama_sampler_init_typical(p->typical_p, 1));
        }
        if (p->top_p < 1.0f) {
            add(filters, llama_sampler_init_top_p(p->top_p, 1));
        }
        if (p->min_p > 0.0f) {
            add(filters, llama_sampler_init_min_p(p->min_p, 1));
        }
        sampler_ptr dist = new_chain();
        add(dist, llama_sampler_init_dist(p->seed));
        *out = { filters.release(), dist.release() };
        return SHIM_OK;
    });
}

int shim_sampler_apply(llama_sampler * sampler, llama_token_data_array * candidates) noexcept {
    return guarded([&] {
        llama_sampler_apply(sampler, candidates);
        return SHIM_OK;
    });
}

} // extern "C"
