/* Read in front of each file of tools/mtmd. What a projector's file lacks is an exception there, and not a pointer to nothing; and
 * a projector goes to the device that it is told, not to the first GPU that ggml knows or an environment variable names. */
#pragma once

#include <stdexcept>

#include "ggml-backend.h"
#include "ggml.h"

extern "C" {

/* The CPU's backend, or for a GPU that of the calling thread's chosen device; NULL where that is the CPU. See projector.cpp. */
ggml_backend_t shim_projector_backend(enum ggml_backend_dev_type type, const char * params);
/* NULL: the environment chooses nothing. */
ggml_backend_t shim_projector_backend_by_name(const char * name, const char * params);
/* ggml_backend_sched_graph_compute, in which an assertion ends the process as ever: other threads are at it, too. */
enum ggml_status shim_projector_compute(ggml_backend_sched_t sched, struct ggml_cgraph * graph);

}

static inline ggml_tensor * shim_there(ggml_tensor * tensor) {
    if (tensor == nullptr) {
        throw std::runtime_error("a tensor that this kind of projector needs is missing");
    }
    return tensor;
}

/* Registers of the largest instruction set have room for so many floats. */
#define SHIM_LANES 16

/* Whether what a graph computes comes from weights in the CPU's memory. */
static inline bool shim_is_on_cpu(const ggml_tensor * tensor) {
    while (tensor != nullptr && tensor->buffer == nullptr) {
        tensor = tensor->src[0];
    }
    return tensor != nullptr && ggml_backend_buffer_is_host(tensor->buffer);
}

/* Zeros behind each head. Not every 16-bit tensor can be given any, so that one is made anew from what it is a copy of. */
static inline ggml_tensor * shim_widened(ggml_context * ctx, ggml_tensor * heads, int more) {
    if (heads->type == GGML_TYPE_F16) {
        return ggml_cast(ctx, ggml_pad(ctx, heads->src[0], more, 0, 0, 0), GGML_TYPE_F16);
    }
    return ggml_pad(ctx, heads, more, 0, 0, 0);
}

/* ggml_flash_attn_ext. On the CPU it works in tiles only where a head fills whole registers; many projectors have heads of 72, which
 * take about ten times as long without. Zeros add nothing to a product, and what comes of them is cut off again. */
static inline ggml_tensor * shim_attention(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, ggml_tensor * mask,
                                           float scale, float max_bias, float softcap) {
    const int  more    = int((SHIM_LANES - v->ne[0] % SHIM_LANES) % SHIM_LANES);
    const bool is_copy = k->op == GGML_OP_CPY && v->op == GGML_OP_CPY && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16;
    if (more == 0 || !is_copy || k->ne[0] != v->ne[0] || !shim_is_on_cpu(q)) {
        return ggml_flash_attn_ext(ctx, q, k, v, mask, scale, max_bias, softcap);
    }
    ggml_tensor * wide = ggml_flash_attn_ext(ctx, shim_widened(ctx, q, more), shim_widened(ctx, k, more), shim_widened(ctx, v, more), mask,
                                             scale, max_bias, softcap);
    return ggml_cont(ctx, ggml_view_4d(ctx, wide, v->ne[0], wide->ne[1], wide->ne[2], wide->ne[3], wide->nb[1], wide->nb[2],
                                       wide->nb[3], 0));
}

/* The attention that shim_attention() made. */
static inline ggml_tensor * shim_attention_of(ggml_tensor * made) {
    return made->op == GGML_OP_CONT ? made->src[0]->view_src : made;
}

#define ggml_flash_attn_ext                     shim_attention
#define ggml_flash_attn_ext_set_prec(a, prec)   ggml_flash_attn_ext_set_prec(shim_attention_of(a), prec)
#define ggml_flash_attn_ext_add_sinks(a, sinks) ggml_flash_attn_ext_add_sinks(shim_attention_of(a), sinks)

#define ggml_backend_init_by_type        shim_projector_backend
#define ggml_backend_init_by_name        shim_projector_backend_by_name
#define ggml_backend_sched_graph_compute shim_projector_compute

/* Those that are given tensors of the file. */
#define ggml_add(ctx, a, b)                   ggml_add(ctx, shim_there(a), shim_there(b))
#define ggml_sub(ctx, a, b)                   ggml_sub(ctx, shim_there(a), shim_there(b))
#define ggml_mul(ctx, a, b)                   ggml_mul(ctx, shim_there(a), shim_there(b))
#define ggml_mul_mat(ctx, a, b)               ggml_mul_mat(ctx, shim_there(a), shim_there(b))
#define ggml_get_rows(ctx, a, b)              ggml_get_rows(ctx, shim_there(a), shim_there(b))
#define ggml_concat(ctx, a, b, dim)           ggml_concat(ctx, shim_there(a), shim_there(b), dim)
#define ggml_conv_2d(ctx, a, b, ...)          ggml_conv_2d(ctx, shim_there(a), shim_there(b), __VA_ARGS__)
#define ggml_conv_2d_direct(ctx, a, b, ...)   ggml_conv_2d_direct(ctx, shim_there(a), shim_there(b), __VA_ARGS__)
#define ggml_conv_2d_dw(ctx, a, b, ...)       ggml_conv_2d_dw(ctx, shim_there(a), shim_there(b), __VA_ARGS__)
#define ggml_conv_2d_dw_direct(ctx, a, b, ...) ggml_conv_2d_dw_direct(ctx, shim_there(a), shim_there(b), __VA_ARGS__)
#define ggml_conv_2d_sk_p0(ctx, a, b)         ggml_conv_2d_sk_p0(ctx, shim_there(a), shim_there(b))
#define ggml_transpose(ctx, a)                ggml_transpose(ctx, shim_there(a))
#define ggml_permute(ctx, a, ...)             ggml_permute(ctx, shim_there(a), __VA_ARGS__)
#define ggml_cast(ctx, a, type)               ggml_cast(ctx, shim_there(a), type)
#define ggml_repeat_4d(ctx, a, ...)           ggml_repeat_4d(ctx, shim_there(a), __VA_ARGS__)
#define ggml_reshape_2d(ctx, a, ...)          ggml_reshape_2d(ctx, shim_there(a), __VA_ARGS__)
#define ggml_reshape_3d(ctx, a, ...)          ggml_reshape_3d(ctx, shim_there(a), __VA_ARGS__)
#define ggml_reshape_4d(ctx, a, ...)          ggml_reshape_4d(ctx, shim_there(a), __VA_ARGS__)
#define ggml_view_2d(ctx, a, ...)             ggml_view_2d(ctx, shim_there(a), __VA_ARGS__)
