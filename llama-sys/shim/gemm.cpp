// See gemm.hpp. Nothing here depends on ggml, so that it can be tested by itself.
#include "gemm.hpp"

#include <algorithm>
#include <cmath>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SHIM_GEMM 1
#include <immintrin.h>
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c,fma")))
#endif

namespace shim::gemm {

// Bytes of a Q4_1 block: scale and minimum as 16-bit floats, then 32 values of 4 bits. Byte i holds value i in its
// lower and value i + 16 in its upper half.
constexpr int64_t BLOCK_BYTES = 20;
// Blocks of a row that are unpacked at once: with 16 rows they fit the first-level cache.
constexpr int64_t STRETCH = 32;
// Columns that meet the same unpacked weights.
constexpr int64_t COLUMNS = 64;

void Activations::resize(int64_t columns, int64_t length) {
    n_columns = columns;
    n_blocks  = length / BLOCK;
    quants.resize(size_t(columns * length));
    scales.resize(size_t(columns * n_blocks));
    sums.resize(size_t(columns * n_blocks));
}

#ifdef SHIM_GEMM

bool supported() noexcept {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
}

TARGET void Activations::quantize(int64_t column, const float * from) noexcept {
    int8_t * to    = quants.data() + column * n_blocks * BLOCK;
    float *  scale = scales.data() + column * n_blocks;
    float *  sum   = sums.data() + column * n_blocks;
    for (int64_t b = 0; b < n_blocks; b++) {
        const __m512  low     = _mm512_loadu_ps(from + b * BLOCK);
        const __m512  high    = _mm512_loadu_ps(from + b * BLOCK + 16);
        const float   largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
        // What is not a number must not come out as one.
        const bool    numbers = _mm512_cmp_ps_mask(low, high, _CMP_UNORD_Q) == 0;
        const float   d       = numbers ? largest / 127.0f : NAN;
        const __m512  inverse = _mm512_set1_ps(d > 0.0f ? 1.0f / d : 0.0f);
        const __m512i q_low   = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
        const __m512i q_high  = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to + b * BLOCK), _mm512_cvtepi32_epi8(q_low));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to + b * BLOCK + 16), _mm512_cvtepi32_epi8(q_high));
        scale[b] = d;
        sum[b]   = d * float(_mm512_reduce_add_epi32(_mm512_add_epi32(q_low, q_high)));
    }
}

// A stretch of 16 rows: for each block 8 registers with 4 values of each row, and the rows' scales and minima.
struct alignas(64) Unpacked {
    uint8_t quants[STRETCH][8][64];
    float   scales[STRETCH][ROWS];
    float   minima[STRETCH][ROWS];
};

// 16 bytes of each of the rows first, first + 4, first + 8 and first + 12.
TARGET static inline __m512i load_rows(const uint8_t * at, size_t row_bytes, int first) noexcept {
    const auto row = [&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(at + size_t(first + r) * row_bytes)); };
    __m512i    all = _mm512_castsi128_si512(row(0));
    all            = _mm512_inserti32x4(all, row(4), 1);
    all            = _mm512_inserti32x4(all, row(8), 2);
    return _mm512_inserti32x4(all, row(12), 3);
}

// Four 32-bit words of each of 16 rows, from row-wise to word-wise: to[i] has word i of all rows, in their order.
TARGET static inline void transpose(const uint8_t * at, size_t row_bytes, __m512i to[4]) noexcept {
    const __m512i r0 = load_rows(at, row_bytes, 0);
    const __m512i r1 = load_rows(at, row_bytes, 1);
    const __m512i r2 = load_rows(at, row_bytes, 2);
    const __m512i r3 = load_rows(at, row_bytes, 3);
    const __m512i a  = _mm512_unpacklo_epi32(r0, r1);
    const __m512i c  = _mm512_unpackhi_epi32(r0, r1);
    const __m512i e  = _mm512_unpacklo_epi32(r2, r3);
    const __m512i g  = _mm512_unpackhi_epi32(r2, r3);
    to[0]            = _mm512_unpacklo_epi64(a, e);
    to[1]            = _mm512_unpackhi_epi64(a, e);
    to[2]            = _mm512_unpacklo_epi64(c, g);
    to[3]            = _mm512_unpackhi_epi64(c, g);
}

TARGET static inline __m512 lower_halves(__m512i words) noexcept { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)); }

TARGET static inline __m512 upper_halves(__m512i words) noexcept { return lower_halves(_mm512_srli_epi32(words, 16)); }

// The weights that follow, while these are computed: a row at a time they would come too late. `next` are the next rows,
// which lie behind these without a gap, so that it does not matter which part of them comes when.
TARGET static inline void prefetch(const uint8_t * next, int64_t first, int64_t blocks) noexcept {
    constexpr int64_t SIZE = BLOCK_BYTES * ROWS;
    for (int64_t at = first * SIZE; at < (first + blocks) * SIZE; at += 64) {
        _mm_prefetch(reinterpret_cast<const char *>(next + at), _MM_HINT_T0);
    }
}

TARGET static void unpack(const uint8_t * rows, size_t row_bytes, int64_t blocks, Unpacked & to) noexcept {
    const __m512i nibbles = _mm512_set1_epi8(0x0f);
    for (int64_t b = 0; b < blocks; b++) {
        const uint8_t * block = rows + b * BLOCK_BYTES;
        alignas(64) uint32_t both[ROWS];
        for (int64_t r = 0; r < ROWS; r++) {
            __builtin_memcpy(&both[r], block + size_t(r) * row_bytes, sizeof(both[r]));
        }
        const __m512i halves = _mm512_load_si512(both);
        _mm512_store_ps(to.scales[b], lower_halves(halves));
        _mm512_store_ps(to.minima[b], upper_halves(halves));

        __m512i packed[4];
        transpose(block + 4, row_bytes, packed);
        for (int j = 0; j < 4; j++) {
            _mm512_store_si512(to.quants[b][j], _mm512_and_si512(packed[j], nibbles));
            _mm512_store_si512(to.quants[b][4 + j], _mm512_and_si512(_mm512_srli_epi32(packed[j], 4), nibbles));
        }
    }
}

// Multiplies a stretch with N columns from `column` on, from block `first` of them, and adds to what `out` holds.
template <int N>
TARGET static void columns(const Unpacked & weights, int64_t first, int64_t blocks, const Activations & a, int64_t column, float * out,
                           size_t column_floats) noexcept {
    const int8_t * quants[N];
    const float *  scales[N];
    const float *  sums[N];
    __m512         total[N];
    for (int c = 0; c < N; c++) {
        const int64_t block = (column + c) * a.n_blocks + first;
        quants[c]           = a.quants.data() + block * BLOCK;
        scales[c]           = a.scales.data() + block;
        sums[c]             = a.sums.data() + block;
        total[c]            = first == 0 ? _mm512_setzero_ps() : _mm512_loadu_ps(out + c * column_floats);
    }
    for (int64_t b = 0; b < blocks; b++) {
        __m512i dot[N];
        for (int c = 0; c < N; c++) {
            dot[c] = _mm512_setzero_si512();
        }
        for (int j = 0; j < 8; j++) {
            const __m512i w = _mm512_load_si512(weights.quants[b][j]);
            for (int c = 0; c < N; c++) {
                int32_t four;
                __builtin_memcpy(&four, quants[c] + b * BLOCK + 4 * j, sizeof(four));
                dot[c] = _mm512_dpbusd_epi32(dot[c], w, _mm512_set1_epi32(four));
            }
        }
        const __m512 scale   = _mm512_load_ps(weights.scales[b]);
        const __m512 minimum = _mm512_load_ps(weights.minima[b]);
        for (int c = 0; c < N; c++) {
            const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(scales[c][b]));
            total[c]          = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c]), both, total[c]);
            total[c]          = _mm512_fmadd_ps(minimum, _mm512_set1_ps(sums[c][b]), total[c]);
        }
    }
    for (int c = 0; c < N; c++) {
        _mm512_storeu_ps(out + c * column_floats, total[c]);
    }
}

// 16 rows times a single column, for which it does not pay to unpack them into memory first. Takes the blocks of a row
// four at a time, which are 20 words, and leaves the last ones that are fewer. Returns how many blocks it took.
TARGET static int64_t single(const uint8_t * rows, size_t row_bytes, const Activations & a, float * out) noexcept {
    const __m512i nibbles = _mm512_set1_epi8(0x0f);
    __m512        totals[4] = {};
    int64_t       b         = 0;
    for (; b + 4 <= a.n_blocks; b += 4) {
        prefetch(rows + ROWS * row_bytes, b, 4);
        __m512i words[20];
#pragma GCC unroll 5
        for (int i = 0; i < 5; i++) {
            transpose(rows + b * BLOCK_BYTES + 16 * i, row_bytes, words + 4 * i);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const int8_t * quants = a.quants.data() + (b + i) * BLOCK;
            __m512i        low    = _mm512_setzero_si512();
            __m512i        high   = _mm512_setzero_si512();
            for (int j = 0; j < 4; j++) {
                const __m512i word = words[5 * i + 1 + j];
                int32_t       first, second;
                __builtin_memcpy(&first, quants + 4 * j, sizeof(first));
                __builtin_memcpy(&second, quants + 16 + 4 * j, sizeof(second));
                low  = _mm512_dpbusd_epi32(low, _mm512_and_si512(word, nibbles), _mm512_set1_epi32(first));
                high = _mm512_dpbusd_epi32(high, _mm512_and_si512(_mm512_srli_epi32(word, 4), nibbles), _mm512_set1_epi32(second));
            }
            const __m512 scale = _mm512_mul_ps(lower_halves(words[5 * i]), _mm512_set1_ps(a.scales[size_t(b + i)]));
            totals[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(low, high)), scale, totals[i]);
            totals[i] = _mm512_fmadd_ps(upper_halves(words[5 * i]), _mm512_set1_ps(a.sums[size_t(b + i)]), totals[i]);
        }
    }
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_add_ps(totals[0], totals[1]), _mm512_add_ps(totals[2], totals[3])));
    return b;
}

TARGET void multiply(const Weights & weights, const Activations & a, float * out, size_t column_floats, int part, int parts) noexcept {
    thread_local Unpacked unpacked;

    const int64_t groups = (a.n_columns + COLUMNS - 1) / COLUMNS;
    const int64_t items  = weights.n_rows / ROWS * groups;
    for (int64_t item = items * part / parts; item < items * (part + 1) / parts; item++) {
        const int64_t row   = item / groups * ROWS;
        const int64_t begin = item % groups * COLUMNS;
        const int64_t end   = std::min(begin + COLUMNS, a.n_columns);
        int64_t       first = 0;
        if (a.n_columns == 1) {
            first = single(weights.data + size_t(row) * weights.row_bytes, weights.row_bytes, a, out + row);
        }
        for (; first < a.n_blocks; first += STRETCH) {
            const int64_t blocks = std::min(STRETCH, a.n_blocks - first);
            unpack(weights.data + size_t(row) * weights.row_bytes + first * BLOCK_BYTES, weights.row_bytes, blocks, unpacked);
            for (int64_t c = begin; c < end;) {
                float * at = out + size_t(c) * column_floats + row;
                if (end - c >= 8) {
                    columns<8>(unpacked, first, blocks, a, c, at, column_floats);
                    c += 8;
                } else if (end - c >= 4) {
                    columns<4>(unpacked, first, blocks, a, c, at, column_floats);
                    c += 4;
                } else {
                    columns<1>(unpacked, first, blocks, a, c, at, column_floats);
                    c += 1;
                }
            }
        }
    }
}

#else

bool supported() noexcept { return false; }

void Activations::quantize(int64_t, const float *) noexcept {}

void multiply(const Weights &, const Activations &, float *, size_t, int, int) noexcept {}

#endif

} // namespace shim::gemm
