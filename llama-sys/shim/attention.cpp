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

// A head's part of a row's cells adds up to weighted values, then the largest score and the weight of all. The first part
// also has the number of parts.
constexpr int64_t TAIL = 16;

// Most pieces of a lone row's cells, and how many cells make another one. The number of threads has no say in it: they can
// become fewer from one pass to the next, and a sum that is divided in another way is another sum.
constexpr int64_t MOST_PIECES = 32;
constexpr int64_t PIECE       = 128;

int64_t Inputs::divide(int parts) noexcept {
    split = n_rows == 1 ? MOST_PIECES : std::min<int64_t>(parts, (4 * parts + n_rows - 1) / n_rows);
    return (split > 1 ? n_rows * split : parts) * n_heads * (head_size + TAIL);
}

#ifdef SHIM_ATTENTION

// Cells that are looked at together: the lanes of a register.
constexpr int GROUP = 16;
// How many cells ahead the next ones are fetched.
constexpr size_t AHEAD = 2 * GROUP;
// Largest number of heads that share keys and values.
constexpr int MOST_SHARING = 16;

bool supported(int64_t head_size) noexcept {
    return (head_size == 64 || head_size == 80 || head_size == 96 || head_size == 128 || head_size == 256) &&
           __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq");
}

// e to the power of x, for x <= 0; good to about seven digits. What is not a number stays so: max gives its second.
TARGET static inline __m512 exponential(__m512 x) noexcept {
    const __m512 power = _mm512_mul_ps(_mm512_max_ps(_mm512_set1_ps(-100.0f), x), _mm512_set1_ps(1.44269504f));
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

// Keys or values that will be needed soon. The processor does not guess them: they lie apart, and in no regular order.
template <int N>
TARGET static inline void prefetch(const char * base, size_t stride, const int32_t * cells, size_t count) noexcept {
    for (size_t i = 0; i < count; i++) {
        for (int line = 0; line < 32 * N; line += 64) {
            _mm_prefetch(base + size_t(cells[i]) * stride + line, _MM_HINT_T0);
        }
    }
}

static float * partial(const Inputs & in, int64_t slot, int64_t head) noexcept {
    return in.scratch + (slot * in.n_heads + head) * (in.head_size + TAIL);
}

// One row over `n` cells, with the heads of the keys and values from `first` up to `last`. N registers hold a head.
template <int N>
TARGET static void attend_cells(const Inputs & in, int64_t row, int64_t slot, const int32_t * cells, size_t n, int64_t first,
                                int64_t last) noexcept {
    const int64_t sharing = in.n_heads / in.n_kv_heads;
    __m512        loaded[GROUP][N];
    alignas(64) float share[MOST_SHARING][GROUP];
    for (int64_t head = first * sharing; head < last * sharing; head++) {
        float * total = partial(in, slot, head);
        std::fill_n(total, in.head_size, 0.0f);
        total[in.head_size]     = -INFINITY;
        total[in.head_size + 1] = 0.0f;
    }
    for (size_t begin = 0; begin < n; begin += GROUP) {
        const size_t    count = std::min(size_t(GROUP), n - begin);
        const __mmask16 there = __mmask16((1u << count) - 1);
        for (int64_t kv_head = first; kv_head < last; kv_head++) {
            const char * keys   = in.keys + kv_head * in.key_head;
            const char * values = in.values + kv_head * in.value_head;
            if (begin + AHEAD < n) {
                const size_t coming = std::min(size_t(GROUP), n - begin - AHEAD);
                prefetch<N>(keys, in.key_cell, cells + begin + AHEAD, coming);
                prefetch<N>(values, in.value_cell, cells + begin + AHEAD, coming);
            }
            load<N>(keys, in.key_cell, cells + begin, count, loaded);
            for (int64_t h = 0; h < sharing; h++) {
                const int64_t head  = kv_head * sharing + h;
                const char *  query = in.queries + row * in.query_row + head * in.query_head;
                float *       total = partial(in, slot, head);
                __m512        q[N];
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
                const __m512 scores  = _mm512_mul_ps(sums(products), _mm512_set1_ps(in.scale));
                float &      largest = total[in.head_size];
                float &      weight  = total[in.head_size + 1];
                const float  top     = std::max(largest, _mm512_mask_reduce_max_ps(there, scores));
                const __m512 powers  = _mm512_maskz_mov_ps(there, exponential(_mm512_sub_ps(scores, _mm512_set1_ps(top))));
                _mm512_store_ps(share[h], powers);
                if (largest != top) {
                    // What was summed up so far was relative to a smaller maximum.
                    const float shrink = std::exp(largest - top);
                    for (int d = 0; d < N; d++) {
                        _mm512_storeu_ps(total + 16 * d, _mm512_mul_ps(_mm512_loadu_ps(total + 16 * d), _mm512_set1_ps(shrink)));
                    }
                    weight *= shrink;
                    largest = top;
                }
                weight += _mm512_reduce_add_ps(powers);
            }
            load<N>(values, in.value_cell, cells + begin, count, loaded);
            for (int64_t h = 0; h < sharing; h++) {
                float * total = partial(in, slot, kv_head * sharing + h);
                __m512  sum[N];
                for (int d = 0; d < N; d++) {
                    sum[d] = _mm512_loadu_ps(total + 16 * d);
                }
                for (size_t i = 0; i < count; i++) {
                    const __m512 part = _mm512_set1_ps(share[h][i]);
                    for (int d = 0; d < N; d++) {
                        sum[d] = _mm512_fmadd_ps(loaded[i][d], part, sum[d]);
                    }
                }
                for (int d = 0; d < N; d++) {
                    _mm512_storeu_ps(total + 16 * d, sum[d]);
                }
            }
        }
    }
}

static void attend_heads(const Inputs & in, int64_t row, int64_t slot, const int32_t * cells, size_t n, int64_t first, int64_t last) noexcept {
    switch (in.head_size) {
        case 64: return attend_cells<4>(in, row, slot, cells, n, first, last);
        case 80: return attend_cells<5>(in, row, slot, cells, n, first, last);
        case 96: return attend_cells<6>(in, row, slot, cells, n, first, last);
        case 128: return attend_cells<8>(in, row, slot, cells, n, first, last);
        default: return attend_cells<16>(in, row, slot, cells, n, first, last);
    }
}

// Puts together what the parts of a row's cells added up to.
static void merge_head(const Inputs & in, int64_t row, int64_t head, int64_t first_slot, int64_t slots) noexcept {
    float * out    = reinterpret_cast<float *>(in.out + row * in.out_row + head * in.out_head);
    float   top    = -INFINITY;
    float   weight = 0.0f;
    for (int64_t slot = first_slot; slot < first_slot + slots; slot++) {
        top = std::max(top, partial(in, slot, head)[in.head_size]);
    }
    std::fill_n(out, in.head_size, 0.0f);
    for (int64_t slot = first_slot; slot < first_slot + slots; slot++) {
        const float * total = partial(in, slot, head);
        if (total[in.head_size + 1] != 0.0f) {
            const float shrink = std::exp(total[in.head_size] - top);
            weight += shrink * total[in.head_size + 1];
            for (int64_t d = 0; d < in.head_size; d++) {
                out[d] += shrink * total[d];
            }
        }
    }
    const float inverse = weight != 0.0f ? 1.0f / weight : 0.0f;
    for (int64_t d = 0; d < in.head_size; d++) {
        out[d] *= inverse;
    }
}

void attend(const Inputs & in, int part, int parts) noexcept {
    thread_local std::vector<int32_t> cells;

    // In turn, since rows of a long prompt, which see many cells, lie side by side.
    int64_t known = -1;
    for (int64_t item = part; item < in.n_rows * in.split; item += parts) {
        const int64_t row   = item / in.split;
        const int64_t piece = item % in.split;
        if (row != known) {
            visible(in.mask + row * in.mask_row, in.n_cells, cells);
            known = row;
        }
        const int64_t slot  = in.split > 1 ? item : part;
        const int64_t most  = in.n_rows == 1 ? std::clamp<int64_t>(int64_t(cells.size()) / PIECE, 2, in.split) : in.split;
        if (piece >= most) {
            continue;
        }
        const size_t begin = cells.size() * size_t(piece) / size_t(most);
        const size_t n     = cells.size() * size_t(piece + 1) / size_t(most) - begin;
        // A lone row's cells come from far: all heads of a few of them at a time, since they lie side by side. Many rows
        // share cells that are near by then, and it is the sums that had better stay near.
        const int64_t together = in.split > 1 ? in.n_kv_heads : 1;
        for (int64_t first = 0; first < in.n_kv_heads; first += together) {
            attend_heads(in, row, slot, cells.data() + begin, n, first, first + together);
        }
        for (int64_t head = 0; in.split > 1 && piece == 0 && head < in.n_heads; head++) {
            partial(in, slot, head)[in.head_size + 2] = float(most);
        }
        for (int64_t head = 0; in.split == 1 && head < in.n_heads; head++) {
            merge_head(in, row, head, slot, 1);
        }
    }
}

void merge(const Inputs & in, int part, int parts) noexcept {
    for (int64_t item = part; item < in.n_rows * in.n_heads; item += parts) {
        const int64_t row  = item / in.n_heads;
        const int64_t head = item % in.n_heads;
        merge_head(in, row, head, row * in.split, int64_t(partial(in, row * in.split, head)[in.head_size + 2]));
    }
}

#else

bool supported(int64_t) noexcept { return false; }

void attend(const Inputs &, int, int) noexcept {}

void merge(const Inputs &, int, int) noexcept {}

#endif

} // namespace shim::attention
