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
/* Floats in a register of the CPU's, as far as attention cares. */
int64_t shim_projector_lanes(void);
/* ggml_backend_sched_graph_compute, in which an assertion ends the process as ever: other threads are at it, too. */
enum ggml_status shim_projector_compute(ggml_backend_sched_t sched, struct ggml_cgraph * graph);

}

static inline ggml_tensor * shim_there(ggml_tensor * tensor) {
    if (tensor == nullptr) {
        throw std::runtime_error("a tensor that this kind of projector needs is missing");
    }
    return tensor;
}

/* Whether what a graph computes comes from weights in the CPU's memory. */
static inline bool shim_is_on_cpu(const ggml_tensor * tensor) {
    while (tensor != nullptr && tensor->buffer == nullptr) {
        tensor = tensor->src[0];
    }
    return tensor != nullptr && ggml_backend_buffer_is_host(tensor->buffer);
}

/* A copy in 16 bits of 32-bit floats, as attention's keys and values are. */
static inline bool shim_is_copy(const ggml_tensor * tensor) {
    return tensor->op == GGML_OP_CPY && tensor->type == GGML_TYPE_F16 && tensor->src[0]->type == GGML_TYPE_F32;
}

/* The same with zeros behind each head. 16-bit tensors cannot be given any, so that the copy is made behind that. */
static inline ggml_tensor * shim_widened(ggml_context * ctx, ggml_tensor * copy, int more) {
    return ggml_cast(ctx, ggml_pad(ctx, copy->src[0], more, 0, 0, 0), GGML_TYPE_F16);
}

/* ggml_flash_attn_ext. On the CPU it works in tiles of 64 rows only where a head fills whole registers; many projectors have heads of
 * 72, which take five times as long without on registers of 16 floats. Zeros add nothing to a product, and what comes of them is
 * cut off again. */
static inline ggml_tensor * shim_attention(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, ggml_tensor * mask,
                                           float scale, float max_bias, float softcap) {
    const int64_t lanes = shim_projector_lanes();
    const int     more  = int((lanes - v->ne[0] % lanes) % lanes);
    const bool    plain = q->type == GGML_TYPE_F32 && shim_is_copy(k) && shim_is_copy(v) && k->ne[0] == v->ne[0];
    if (more == 0 || q->ne[1] < 64 || !plain || !shim_is_on_cpu(q)) {
        return ggml_flash_attn_ext(ctx, q, k, v, mask, scale, max_bias, softcap);
    }
    ggml_tensor * wide = ggml_flash_attn_ext(ctx, ggml_pad(ctx, q, more, 0, 0, 0), shim_widened(ctx, k, more),
                                             shim_widened(ctx, v, more), mask, scale, max_bias, softcap);
    return ggml_cont(ctx, ggml_view_4d(ctx, wide, v->ne[0], wide->ne[1], wide->ne[2], wide->ne[3], wide->nb[1], wide->nb[2],
                                       wide->nb[3], 0));
}

/* The attention that shim_attention() made; any other tensor is itself. */
static inline ggml_tensor * shim_attention_of(ggml_tensor * made) {
    ggml_tensor * wide = made->op == GGML_OP_CONT ? made->src[0]->view_src : nullptr;
    return wide != nullptr && wide->op == GGML_OP_FLASH_ATTN_EXT ? wide : made;
}

#define ggml_flash_attn_ext                     shim_attention
#define ggml_flash_attn_ext_set_prec(a, prec)   ggml_flash_attn_ext_set_prec(shim_attention_of(a), prec)
/* Newer revisions say the same so. */
#define ggml_prec_set_acc(a, prec)              ggml_prec_set_acc(shim_attention_of(a), prec)
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
