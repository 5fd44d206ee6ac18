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
/* ggml_flash_attn_ext, with heads that fill the CPU's registers where it runs there. */
struct ggml_tensor * shim_projector_attention(struct ggml_context * ctx, struct ggml_tensor * q, struct ggml_tensor * k,
                                              struct ggml_tensor * v, struct ggml_tensor * mask, float scale, float max_bias,
                                              float softcap);
/* The attention that it made; any other tensor is itself. */
struct ggml_tensor * shim_projector_attention_of(struct ggml_tensor * made);
/* ggml_backend_sched_graph_compute, in which an assertion ends the process as ever: other threads are at it, too. */
enum ggml_status shim_projector_compute(ggml_backend_sched_t sched, struct ggml_cgraph * graph);

}

static inline ggml_tensor * shim_there(ggml_tensor * tensor) {
    if (tensor == nullptr) {
        throw std::runtime_error("a tensor that this kind of projector needs is missing");
    }
    return tensor;
}

#define ggml_flash_attn_ext                     shim_projector_attention
#define ggml_flash_attn_ext_set_prec(a, prec)   ggml_flash_attn_ext_set_prec(shim_projector_attention_of(a), prec)
/* Newer revisions say the same so. */
#define ggml_prec_set_acc(a, prec)              ggml_prec_set_acc(shim_projector_attention_of(a), prec)
#define ggml_flash_attn_ext_add_sinks(a, sinks) ggml_flash_attn_ext_add_sinks(shim_projector_attention_of(a), sinks)

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
