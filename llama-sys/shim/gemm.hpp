// Matrix products with Q4_1 weights, for processors with AVX-512 VNNI. llama.cpp unpacks such a weight again for every
// column; here a block of rows is unpacked once and multiplied with all columns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace shim::gemm {

// Rows that are multiplied together: the 32-bit lanes of a register.
constexpr int64_t ROWS = 16;
// Weights that share a scale.
constexpr int64_t BLOCK = 32;

// Whether this processor can run what follows.
bool supported() noexcept;

// Columns of activations as 8-bit integers with a scale for each block.
struct Activations {
    int64_t             n_columns = 0;
    int64_t             n_blocks  = 0; // of each column
    std::vector<int8_t> quants;
    std::vector<float>  scales;
    std::vector<float>  sums; // scale times the sum of the block's quants

    void resize(int64_t columns, int64_t length);
    // Column `column` from floats.
    void quantize(int64_t column, const float * from) noexcept;
};

// Q4_1 weights as they lie in memory.
struct Weights {
    const uint8_t * data;
    size_t          row_bytes;
    int64_t         n_rows;
};

// Part `part` of `parts` of out = weights * activations. `out` has `column_floats` from one column to the next.
void multiply(const Weights & weights, const Activations & activations, float * out, size_t column_floats, int part, int parts) noexcept;

} // namespace shim::gemm
