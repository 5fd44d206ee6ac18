/* Read in front of tools/mtmd/clip.cpp. There a projector takes the first GPU that ggml knows, or the one that an environment
 * variable names; here it takes the device that it is told, and no other. */
#pragma once

#include "ggml-backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The CPU's backend, or for a GPU that of the calling thread's chosen device; NULL where that is the CPU. See projector.cpp. */
ggml_backend_t shim_projector_backend(enum ggml_backend_dev_type type, const char * params);
/* NULL: the environment chooses nothing. */
ggml_backend_t shim_projector_backend_by_name(const char * name, const char * params);

#ifdef __cplusplus
}
#endif

#define ggml_backend_init_by_type shim_projector_backend
#define ggml_backend_init_by_name shim_projector_backend_by_name
