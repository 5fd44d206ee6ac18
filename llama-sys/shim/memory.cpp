// KV cache and per-sequence state.
#include "guard.hpp"

using shim::fail;
using shim::guarded;

// Runs `body` with the context's memory; models that keep none (encoders) are refused.
template <typename Body> static int with_memory(llama_context * ctx, Body && body) noexcept {
    return guarded([&] {
        llama_memory_t memory = llama_get_memory(ctx);
        if (memory == nullptr) {
            return fail(SHIM_REFUSED, "this model keeps no KV cache");
        }
        return int(body(memory));
    });
}

extern "C" {

int shim_kv_clear(llama_context * ctx, bool data) noexcept {
    return with_memory(ctx, [&](llama_memory_t memory) {
        llama_memory_clear(memory, data);
        return SHIM_OK;
    });
}

int shim_kv_seq_rm(llama_context * ctx, llama_seq_id seq, llama_pos p0, llama_pos p1) noexcept {
    return with_memory(ctx, [&](llama_memory_t memory) {
        return llama_memory_seq_rm(memory, seq, p0, p1) ? int(SHIM_OK)
                                                        : fail(SHIM_REFUSED, "this memory cannot drop part of a sequence");
    });
}

int shim_kv_seq_cp(llama_context * ctx, llama_seq_id src, llama_seq_id dst, llama_pos p0, llama_pos p1) noexcept {
    return with_memory(ctx, [&](llama_memory_t memory) {
        llama_memory_seq_cp(memory, src, dst, p0, p1);
        return SHIM_OK;
    });
}

int shim_kv_seq_add(llama_context * ctx, llama_seq_id seq, llama_pos p0, llama_pos p1, llama_pos delta) noexcept {
    return with_memory(ctx, [&](llama_memory_t memory) {
        if (!llama_memory_can_shift(memory)) {
            return fail(SHIM_REFUSED, "this memory cannot shift positions");
        }
        llama_memory_seq_add(memory, seq, p0, p1, delta);
        return int(SHIM_OK);
    });
}

int shim_kv_seq_range(llama_context * ctx, llama_seq_id seq, llama_pos * first, llama_pos * last) noexcept {
    return with_memory(ctx, [&](llama_memory_t memory) {
        *first = llama_memory_seq_pos_min(memory, seq);
        *last  = llama_memory_seq_pos_max(memory, seq);
        return SHIM_OK;
    });
}

int shim_kv_can_shift(llama_context * ctx, bool * out) noexcept {
    return with_memory(ctx, [&](llama_memory_t memory) {
        *out = llama_memory_can_shift(memory);
        return SHIM_OK;
    });
}

static llama_state_seq_flags state_flags(bool partial) {
    return partial ? LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY : 0;
}

int shim_state_seq_size(llama_context * ctx, llama_seq_id seq, bool partial, size_t * size) noexcept {
    return guarded([&] {
        *size = llama_state_seq_get_size_ext(ctx, seq, state_flags(partial));
        return *size > 0 ? int(SHIM_OK) : fail(SHIM_REFUSED, "the sequence has no state to save");
    });
}

int shim_state_seq_get(llama_context * ctx, llama_seq_id seq, bool partial, uint8_t * data, size_t size) noexcept {
    return guarded([&] {
        const size_t written = llama_state_seq_get_data_ext(ctx, data, size, seq, state_flags(partial));
        return written == size ? int(SHIM_OK) : fail(SHIM_REFUSED, "the state could not be saved whole");
    });
}

int shim_state_seq_set(llama_context * ctx, llama_seq_id seq, bool partial, const uint8_t * data, size_t size) noexcept {
    return guarded([&] {
        const size_t read = llama_state_seq_set_data_ext(ctx, data, size, seq, state_flags(partial));
        return read == size ? int(SHIM_OK) : fail(SHIM_REFUSED, "the state could not be restored");
    });
}

} // extern "C"
