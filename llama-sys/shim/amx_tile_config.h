/* Given to the compiler before each file of llama.cpp where Intel's AMX may be used.
 *
 * GCC 12 tells its optimiser of 8 of the 64 bytes that `ldtilecfg` reads. Where llama.cpp fills a local structure for it, the
 * rest is dropped as dead, and the next instruction on a tile is illegal. */
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

static inline void shimmy_tile_loadconfig(const void * config) {
    __asm__ volatile("ldtilecfg %0" ::"m"(*(const char(*)[64]) config));
}
#undef _tile_loadconfig
#define _tile_loadconfig shimmy_tile_loadconfig
#endif
