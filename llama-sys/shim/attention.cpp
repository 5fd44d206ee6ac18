// See attention.hpp. Nothing here depends on ggml.
#include "attention.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SHIM_ATTENTION 1
#include <immintrin.h>
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,f16c,fma")))
#endif

namespace shim::attention {

#ifdef SHIM_ATTENTION

// Cells that are looked at together: the lanes of a register.
constexpr int GROUP = 16;
// Largest number of heads that share keys and values.
constexpr int MOST_SHARING = 16;

bool supported(int64_t head_size) noexcept {
    return (head_size == 64 || head_size == 80 || head_size == 96 || head_size == 128 || head_size == 256) &&
           __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}

// e to the power of x, for x <= 0; good to about seven digits.
TARGET static inline __m512 exponential(__m512 x) noexcept {
    const __m512 power = _mm512_mul_ps(_mm512_max_ps(x, _mm512_set1_ps(-100.0f)), _mm512_set1_ps(1.44269504f));
    const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f     = _mm512_sub_ps(power, whole);
    __m512       p     = _mm512_set1_ps(1.54035304e-4f);
    for (const float coefficient : { 1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f }) {
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(coefficient));
    }
    return _mm512_scalef_ps(p, whole);
}

// Lane i of the result is the sum of v[i]'s lanes.
TARGET static inline __m512 sums(const __m512 * v) noexcept {
    __m512 pairs[8];
    for (int i = 0; i < 8; i++) {
        pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
    }
    __m512 fours[4];
    for (int i = 0; i < 4; i++) {
        const __m512d a = _mm512_castps_pd(pairs[2 * i]);
        const __m512d b = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i]        = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    // Each quarter of fours[i] has partial sums of v[4i] to v[4i + 3].
    const __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(fours[0], fours[1], 0x88), _mm512_shuffle_f32x4(fours[0], fours[1], 0xdd));
    const __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(fours[2], fours[3], 0x88), _mm512_shuffle_f32x4(fours[2], fours[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

// The cells that a row sees.
TARGET static void visible(const char * mask, int64_t n_cells, std::vector<int32_t> & cells) {
    cells.clear();
    const __m512i hidden = _mm512_set1_epi16(int16_t(0xfc00)); // minus infinity
    for (int64_t at = 0; at < n_cells; at += 32) {
        uint32_t seen = _mm512_cmpneq_epi16_mask(_mm512_loadu_si512(mask + 2 * at), hidden);
        for (; seen != 0; seen &= seen - 1) {
            cells.push_back(int32_t(at) + __builtin_ctz(seen));
        }
    }
}

// Keys or values of some cells, as 32-bit floats.
template <int N>
TARGET static inline void load(const char * base, size_t stride, const int32_t * cells, size_t count, __m512 (*to)[N]) noexcept {
    for (size_t i = 0; i < count; i++) {
        const char * at = base + size_t(cells[i]) * stride;
        for (int d = 0; d < N; d++) {
            to[i][d] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(at + 32 * d)));
        }
    }
}

// One row and one group of heads that share keys and values. N registers hold a head.
template <int N>
TARGET static void attend_one(const Inputs & in, int64_t row, int64_t kv_head, const std::vector<int32_t> & cells) noexcept {
    const int64_t sharing = in.n_heads / in.n_kv_heads;
    __m512        totals[MOST_SHARING][N];
    __m512        loaded[GROUP][N];
    float         largest[MOST_SHARING];
    float         weight[MOST_SHARING];
    alignas(64) float share[MOST_SHARING][GROUP];
    for (int64_t h = 0; h < sharing; h++) {
        largest[h] = -INFINITY;
        weight[h]  = 0.0f;
        for (int d = 0; d < N; d++) {
            totals[h][d] = _mm512_setzero_ps();
        }
    }
    for (size_t begin = 0; begin < cells.size(); begin += GROUP) {
        const size_t    count = std::min(size_t(GROUP), cells.size() - begin);
        const __mmask16 there = __mmask16((1u << count) - 1);
        load<N>(in.keys + kv_head * in.key_head, in.key_cell, cells.data() + begin, count, loaded);
        for (int64_t h = 0; h < sharing; h++) {
            const char * query = in.queries + row * in.query_row + (kv_head * sharing + h) * in.query_head;
            __m512       q[N];
            for (int d = 0; d < N; d++) {
                q[d] = _mm512_loadu_ps(query + 64 * d);
            }
            __m512 products[GROUP];
            for (size_t i = 0; i < GROUP; i++) {
                products[i] = _mm512_setzero_ps();
                if (i < count) {
                    products[i] = _mm512_mul_ps(loaded[i][0], q[0]);
                    for (int d = 1; d < N; d++) {
                        products[i] = _mm512_fmadd_ps(loaded[i][d], q[d], products[i]);
                    }
                }
            }
            const __m512 scores = _mm512_mul_ps(sums(products), _mm512_set1_ps(in.scale));
            const float  top    = std::max(largest[h], _mm512_mask_reduce_max_ps(there, scores));
            const __m512 powers = _mm512_maskz_mov_ps(there, exponential(_mm512_sub_ps(scores, _mm512_set1_ps(top))));
            // What was summed up so far was relative to a smaller maximum.
            const float shrink = largest[h] == top ? 1.0f : std::exp(largest[h] - top);
            largest[h]         = top;
            weight[h]          = weight[h] * shrink + _mm512_reduce_add_ps(powers);
            _mm512_store_ps(share[h], powers);
            if (shrink != 1.0f) {
                for (int d = 0; d < N; d++) {
                    totals[h][d] = _mm512_mul_ps(totals[h][d], _mm512_set1_ps(shrink));
                }
            }
        }
        load<N>(in.values + kv_head * in.value_head, in.value_cell, cells.data() + begin, count, loaded);
        for (int64_t h = 0; h < sharing; h++) {
            __m512 total[N];
            for (int d = 0; d < N; d++) {
                total[d] = totals[h][d];
            }
            for (size_t i = 0; i < count; i++) {
                const __m512 part = _mm512_set1_ps(share[h][i]);
                for (int d = 0; d < N; d++) {
                    total[d] = _mm512_fmadd_ps(loaded[i][d], part, total[d]);
                }
            }
            for (int d = 0; d < N; d++) {
                totals[h][d] = total[d];
            }
        }
    }
    for (int64_t h = 0; h < sharing; h++) {
        char *       out     = in.out + row * in.out_row + (kv_head * sharing + h) * in.out_head;
        const __m512 inverse = _mm512_set1_ps(weight[h] > 0.0f ? 1.0f / weight[h] : 0.0f);
        for (int d = 0; d < N; d++) {
            _mm512_storeu_ps(out + 64 * d, _mm512_mul_ps(totals[h][d], inverse));
        }
    }
}

void attend(const Inputs & in, int part, int parts) noexcept {
    thread_local std::vector<int32_t> cells;

    const int64_t items = in.n_rows * in.n_kv_heads;
    int64_t       known = -1;
    // In turn, since rows of a long prompt, which see many cells, lie side by side.
    for (int64_t item = part; item < items; item += parts) {
        const int64_t row = item / in.n_kv_heads;
        if (row != known) {
            visible(in.mask + row * in.mask_row, in.n_cells, cells);
            known = row;
        }
        switch (in.head_size) {
            case 64: attend_one<4>(in, row, item % in.n_kv_heads, cells); break;
            case 80: attend_one<5>(in, row, item % in.n_kv_heads, cells); break;
            case 96: attend_one<6>(in, row, item % in.n_kv_heads, cells); break;
            case 128: attend_one<8>(in, row, item % in.n_kv_heads, cells); break;
            default: attend_one<16>(in, row, item % in.n_kv_heads, cells); break;
        }
    }
}

#else

bool supported(int64_t) noexcept { return false; }

void attend(const Inputs &, int, int) noexcept {}

#endif

} // namespace shim::attention
