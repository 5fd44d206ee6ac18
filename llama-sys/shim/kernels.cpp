// Our own kernels by themselves, for tests.
#include "attention.hpp"
#include "gemm.hpp"
#include "guard.hpp"

#include <vector>

using shim::fail;
using shim::guarded;

extern "C" {

int shim_kernel_gemm(const uint8_t * weights, int64_t n_rows, int64_t length, const float * columns, int64_t n_columns, int parts,
                     float * out) noexcept {
    return guarded([&] {
        if (!shim::gemm::supported()) {
            return fail(SHIM_REFUSED, "this processor lacks AVX-512 VNNI");
        }
        shim::gemm::Activations activations;
        activations.resize(n_columns, length);
        for (int64_t column = 0; column < n_columns; column++) {
            activations.quantize(column, columns + column * length);
        }
        const shim::gemm::Weights all = { weights, size_t(length / shim::gemm::BLOCK * 20), n_rows };
        for (int part = 0; part < parts; part++) {
            shim::gemm::multiply(all, activations, out, size_t(n_rows), part, parts);
        }
        return int(SHIM_OK);
    });
}

int shim_kernel_attention(const float * queries, const uint16_t * keys, const uint16_t * values, const uint16_t * mask, int64_t head_size,
                          int64_t n_rows, int64_t n_heads, int64_t n_kv_heads, int64_t n_cells, float scale, int parts,
                          float * out) noexcept {
    return guarded([&] {
        if (!shim::attention::supported(head_size)) {
            return fail(SHIM_REFUSED, "no kernel for this processor or head size");
        }
        const size_t             head = size_t(head_size);
        shim::attention::Inputs in   = {};
        in.queries                   = reinterpret_cast<const char *>(queries);
        in.query_head                = 4 * head;
        in.query_row                 = 4 * head * size_t(n_heads);
        in.keys                      = reinterpret_cast<const char *>(keys);
        in.key_head                  = 2 * head;
        in.key_cell                  = 2 * head * size_t(n_kv_heads);
        in.values                    = reinterpret_cast<const char *>(values);
        in.value_head                = in.key_head;
        in.value_cell                = in.key_cell;
        in.mask                      = reinterpret_cast<const char *>(mask);
        in.mask_row                  = 2 * size_t(n_cells);
        in.out                       = reinterpret_cast<char *>(out);
        in.out_head                  = in.query_head;
        in.out_row                   = in.query_row;
        in.head_size                 = head_size;
        in.n_rows                    = n_rows;
        in.n_heads                   = n_heads;
        in.n_kv_heads                = n_kv_heads;
        in.n_cells                   = n_cells;
        in.scale                     = scale;
        std::vector<float> scratch(size_t(in.divide(parts)));
        in.scratch = scratch.data();
        for (int part = 0; part < parts; part++) {
            shim::attention::attend(in, part, parts);
        }
        for (int part = 0; in.split > 1 && part < parts; part++) {
            shim::attention::merge(in, part, parts);
        }
        return int(SHIM_OK);
    });
}

} // extern "C"
