// See accelerator.cpp.
#pragma once

#include <string>
#include <vector>

#include "ggml-backend.h"

struct ggml_threadpool;

namespace shim::accelerator {

// Registers the device where the processor has what it needs. Call once, after llama.cpp's own devices are there.
void install();

// Whether contexts that are created on this thread do without it.
void hide(bool from_this_thread);

// The backends that llama.cpp created on this thread since the last call. They belong to llama.cpp.
std::vector<ggml_backend_t> made();

void set_threadpool(ggml_backend_t backend, ggml_threadpool * pool);

} // namespace shim::accelerator
