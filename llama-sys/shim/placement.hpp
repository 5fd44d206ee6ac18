// What llama.cpp does not check of a placement before it aborts.
#pragma once

#include <string>

#include "llama.h"

namespace shim {

// Why a layer's part of the KV cache cannot be a tensor of the layer's device; empty where all can. llama.cpp allocates
// it as one tensor, whatever its size, and aborts when it looks for a backend that can use it.
std::string oversized_cache(const llama_model & model, const llama_context_params & params);

// Why a quantised cache cannot hold the model's keys; empty where it can. llama.cpp looks with flash attention only, and else
// reads each head from the middle of a block.
std::string torn_heads(const llama_model & model, ggml_type type_k);

} // namespace shim
