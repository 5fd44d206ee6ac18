// Attention of few rows over a cache that many sequences share, for processors with AVX-512. llama.cpp looks at the mask
// of every cell once for each head; here it is read once, and heads that share keys and values share their loading.
#pragma once

#include <cstddef>
#include <cstdint>

namespace shim::attention {

// Strides are in bytes. Queries are 32-bit floats, keys, values and the mask 16-bit ones; 0 in the mask lets a row see a
// cell, minus infinity hides it.
struct Inputs {
    const char * queries; // [head_size] for each row and head
    size_t       query_row;
    size_t       query_head;
    const char * keys; // [head_size] for each cell and head
    size_t       key_cell;
    size_t       key_head;
    const char * values;
    size_t       value_cell;
    size_t       value_head;
    const char * mask; // [n_cells] for each row
    size_t       mask_row;
    char *       out; // [head_size] for each row and head
    size_t       out_row;
    size_t       out_head;
    int64_t      head_size;
    int64_t      n_rows;
    int64_t      n_heads;
    int64_t      n_kv_heads; // each serves n_heads / n_kv_heads heads
    int64_t      n_cells;    // a multiple of 32
    float        scale;
    int64_t      split;   // pieces that the cells of a row are divided into, with few rows to share among threads
    float *      scratch;

    // Sets `split` for so many threads. Returns how many floats of scratch memory are needed.
    int64_t divide(int parts) noexcept;
};

// Whether this processor can run it, and whether there is code for heads of this size.
bool supported(int64_t head_size) noexcept;

// Part `part` of at most as many `parts` as the inputs were divided for. Where `split` is more than 1, merge comes after it.
void attend(const Inputs & inputs, int part, int parts) noexcept;
void merge(const Inputs & inputs, int part, int parts) noexcept;

} // namespace shim::attention
