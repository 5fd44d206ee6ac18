// llama.cpp's CPU backend. It can be a module of its own, so its functions are asked for by name.
#pragma once

#include "ggml-backend.h"

namespace shim {

// Rows from which on its attention works in tiles.
constexpr int64_t ATTENTION_TILE = 64;

inline ggml_backend_dev_t cpu_device() { return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU); }

template <typename Function> Function * cpu_function(const char * name) {
    ggml_backend_dev_t cpu = cpu_device();
    if (cpu == nullptr) {
        return nullptr;
    }
    return reinterpret_cast<Function *>(ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name));
}

} // namespace shim
