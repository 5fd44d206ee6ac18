// See accelerator.cpp.
#pragma once

#include <string>
#include <vector>

#include "ggml-backend.h"

struct ggml_threadpool;

namespace shim::accelerator {

// Registers the device where the processor has what it needs. Call once, after llama.cpp's own devices are there.
void install();

// The creation of a context on this thread, with the device or without it.
class Creation {
  public:
    explicit Creation(bool accelerated);
    ~Creation();
    Creation(const Creation &)             = delete;
    Creation & operator=(const Creation &) = delete;

    // The device's backends that llama.cpp made. They belong to llama.cpp.
    std::vector<ggml_backend_t> made();

    // Gives the pages of the new context's KV cache back to the system. llama.cpp has filled them with zeros, and zeros
    // they are again as soon as somebody looks, but only then do they take memory.
    void release_caches();
};

void set_threadpool(ggml_backend_t backend, ggml_threadpool * pool);

} // namespace shim::accelerator
