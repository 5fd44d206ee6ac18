// Images to embeddings: llama.cpp's tools/mtmd.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "clip.h"
#include "cpu.hpp"
#include "ggml-backend.h"
#include "guard.hpp"
#include "llama.h"
#include "mtmd.h"

using shim::fail;
using shim::guarded;

namespace {

// Where the projector goes that this thread is loading; NULL is the CPU.
thread_local ggml_backend_dev_t chosen = nullptr;

// Shapes that do not fit each other end the process in ggml, and nothing but building the graph tells whether those of a file do.
// While one is built by this thread, the end becomes an exception.
thread_local bool building = false;
std::mutex        builders_mutex;
int               builders = 0;

void on_abort(const char * message) {
    if (building) {
        throw std::runtime_error(message);
    }
    fprintf(stderr, "%s\n", message);
}

class Building {
  public:
    Building() {
        std::lock_guard lock(builders_mutex);
        if (builders++ == 0) {
            ggml_set_abort_callback(on_abort);
        }
        building = true;
    }
    ~Building() {
        std::lock_guard lock(builders_mutex);
        building = false;
        if (--builders == 0) {
            ggml_set_abort_callback(nullptr);
        }
    }
};

struct FreeClip {
    void operator()(clip_ctx * clip) const { clip_free(clip); }
};

using Clip = std::unique_ptr<clip_ctx, FreeClip>;

// What the file holds, laid out on the device without its numbers. Flash attention is for it to choose, as when it is loaded: without
// it a large image takes gigabytes.
struct Laid {
    Clip vision, audio;

    Laid(const char * path, ggml_backend_dev_t device) {
        chosen                     = device;
        clip_context_params params = {};
        params.use_gpu             = device != nullptr;
        params.flash_attn_type     = CLIP_FLASH_ATTN_TYPE_AUTO;
        params.image_min_tokens    = -1;
        params.image_max_tokens    = -1;
        params.warmup              = true;
        params.no_alloc            = true;
        const clip_init_result laid = clip_init(path, params);
        vision.reset(laid.ctx_v);
        audio.reset(laid.ctx_a);
    }

    // Floats of a row.
    int width() const { return vision ? clip_n_mmproj_embd(vision.get()) : 0; }
};

// On the CPU, attention works in tiles only where a head fills whole registers; many projectors have heads of 72, which take five
// times as long without on registers of 16 floats. Zeros behind a head add nothing to a product, and what comes of them is cut off.

// Floats in a register of the CPU's.
int64_t lanes() {
    static const int64_t found = [] {
        const auto list = shim::cpu_function<ggml_backend_feature *(ggml_backend_reg_t)>("ggml_backend_get_features");
        if (list != nullptr) {
            const auto * feature = list(ggml_backend_dev_backend_reg(shim::cpu_device()));
            for (; feature->name != nullptr; feature++) {
                if (std::strcmp(feature->name, "AVX512") == 0) {
                    return 16;
                }
            }
        }
        return 8; // What fills these fills smaller ones.
    }();
    return found;
}

// Whether what a graph computes comes from weights in the CPU's memory.
bool is_on_cpu(const ggml_tensor * tensor) {
    while (tensor != nullptr && tensor->buffer == nullptr) {
        tensor = tensor->src[0];
    }
    return tensor != nullptr && ggml_backend_buffer_is_host(tensor->buffer);
}

// A copy in 16 bits of 32-bit floats, as attention's keys and values are.
bool is_copy(const ggml_tensor * tensor) {
    return tensor->op == GGML_OP_CPY && tensor->type == GGML_TYPE_F16 && tensor->src[0]->type == GGML_TYPE_F32;
}

// The same with zeros behind each head. 16-bit tensors cannot be given any, so that the copy is made behind that.
ggml_tensor * widened(ggml_context * ctx, ggml_tensor * copy, int more) {
    return ggml_cast(ctx, ggml_pad(ctx, copy->src[0], more, 0, 0, 0), GGML_TYPE_F16);
}

} // namespace

struct shim_image {
    mtmd::input_chunks_ptr chunks;
};

extern "C" {

ggml_backend_t shim_projector_backend(enum ggml_backend_dev_type type, const char * params) {
    if (type == GGML_BACKEND_DEVICE_TYPE_CPU) {
        return ggml_backend_init_by_type(type, params);
    }
    return chosen != nullptr && type == GGML_BACKEND_DEVICE_TYPE_GPU ? ggml_backend_dev_init(chosen, params) : nullptr;
}

ggml_backend_t shim_projector_backend_by_name(const char *, const char *) { return nullptr; }

ggml_tensor * shim_projector_attention(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, ggml_tensor * v, ggml_tensor * mask,
                                       float scale, float max_bias, float softcap) {
    const int  more  = int((lanes() - v->ne[0] % lanes()) % lanes());
    const bool plain = q->type == GGML_TYPE_F32 && is_copy(k) && is_copy(v) && k->ne[0] == v->ne[0];
    if (more == 0 || q->ne[1] < shim::ATTENTION_TILE || !plain || !is_on_cpu(q)) {
        return ggml_flash_attn_ext(ctx, q, k, v, mask, scale, max_bias, softcap);
    }
    ggml_tensor * wide = ggml_flash_attn_ext(ctx, ggml_pad(ctx, q, more, 0, 0, 0), widened(ctx, k, more), widened(ctx, v, more), mask,
                                             scale, max_bias, softcap);
    return ggml_cont(ctx, ggml_view_4d(ctx, wide, v->ne[0], wide->ne[1], wide->ne[2], wide->ne[3], wide->nb[1], wide->nb[2],
                                       wide->nb[3], 0));
}

ggml_tensor * shim_projector_attention_of(ggml_tensor * made) {
    ggml_tensor * wide = made->op == GGML_OP_CONT ? made->src[0]->view_src : nullptr;
    return wide != nullptr && wide->op == GGML_OP_FLASH_ATTN_EXT ? wide : made;
}

enum ggml_status shim_projector_compute(ggml_backend_sched_t sched, ggml_cgraph * graph) {
    const bool before = building;
    building          = false;
    const auto status = ggml_backend_sched_graph_compute(sched, graph);
    building          = before;
    return status;
}

void shim_projector_log_set(ggml_log_callback log, void * data) noexcept { mtmd_log_set(log, data); }

int shim_projector_load(const char * path, const llama_model * model, ggml_backend_dev_t device, int32_t n_threads,
                        mtmd_context ** out) noexcept {
    return guarded([&] {
        const Building guard;
        chosen                     = device;
        mtmd_context_params params = mtmd_context_params_default();
        params.use_gpu             = device != nullptr;
        params.print_timings       = false;
        params.n_threads           = n_threads;
        *out                       = mtmd_init_from_file(path, model, params);
        return *out != nullptr ? int(SHIM_OK) : fail(SHIM_REFUSED, "llama.cpp could not load the projector");
    });
}

void shim_projector_free(mtmd_context * projector) noexcept {
    guarded([&] {
        mtmd_free(projector);
        return SHIM_OK;
    });
}

int shim_projector_measure(const char * path, ggml_backend_dev_t device, shim_projector_memory * out, size_t capacity, size_t * count,
                           int32_t * width) noexcept {
    return guarded([&] {
        const Building guard;
        const Laid     laid(path, device);
        std::map<ggml_backend_dev_t, size_t> bytes;
        for (const Clip * clip : { &laid.vision, &laid.audio }) {
            if (*clip) {
                for (const auto & [where, size] : clip_get_mem_usage(clip->get())) {
                    bytes[where] += size;
                }
            }
        }
        *count = bytes.size();
        *width = laid.width();
        if (bytes.empty()) {
            return fail(SHIM_REFUSED, "llama.cpp could not lay the projector out");
        }
        if (bytes.size() > capacity) {
            return fail(SHIM_TOO_SMALL, "more devices than there is room for");
        }
        for (const auto & [where, size] : bytes) {
            *out++ = { ggml_backend_dev_name(where), size };
        }
        return int(SHIM_OK);
    });
}

bool shim_projector_is_whole(const mtmd_context * projector) noexcept { return mtmd_decode_use_non_causal(projector, nullptr); }

int shim_image_read(mtmd_context * projector, const uint8_t * rgb, uint32_t nx, uint32_t ny, shim_image ** out) noexcept {
    return guarded([&] {
        const Building        guard;
        const mtmd::bitmap    bitmap(nx, ny, rgb);
        const mtmd_bitmap *   bitmaps[] = { bitmap.ptr.get() };
        const char *          marker    = mtmd_get_marker(projector);
        const mtmd_input_text text      = { marker, strlen(marker), false, true };
        auto                  image     = std::make_unique<shim_image>();
        image->chunks.reset(mtmd_input_chunks_init());
        if (mtmd_tokenize(projector, image->chunks.get(), &text, bitmaps, 1) != 0) {
            return fail(SHIM_REFUSED, "llama.cpp could not prepare the image");
        }
        *out = image.release();
        return int(SHIM_OK);
    });
}

void shim_image_free(shim_image * image) noexcept { delete image; }

size_t shim_image_parts(const shim_image * image) noexcept { return mtmd_input_chunks_size(image->chunks.get()); }

int shim_image_part_at(const shim_image * image, size_t index, shim_image_part * out) noexcept {
    return guarded([&] {
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(image->chunks.get(), index);
        if (chunk == nullptr) {
            return fail(SHIM_REFUSED, "the image has no such part");
        }
        *out             = {};
        out->tokens      = mtmd_input_chunk_get_tokens_text(chunk, &out->n);
        out->n           = mtmd_input_chunk_get_n_tokens(chunk);
        out->n_positions = size_t(mtmd_input_chunk_get_n_pos(chunk));
        return int(SHIM_OK);
    });
}

int shim_image_places(const shim_image * image, size_t index, uint32_t * out, size_t n) noexcept {
    return guarded([&] {
        const mtmd_input_chunk *  chunk  = mtmd_input_chunks_get(image->chunks.get(), index);
        const mtmd_image_tokens * tokens = chunk != nullptr ? mtmd_input_chunk_get_tokens_image(chunk) : nullptr;
        if (tokens == nullptr || mtmd_input_chunk_get_n_tokens(chunk) != n) {
            return fail(SHIM_REFUSED, "the image has no such part");
        }
        for (size_t i = 0; i < n; i++) {
            const mtmd_decoder_pos here  = mtmd_image_tokens_get_decoder_pos(tokens, 0, i);
            const mtmd_decoder_pos later = mtmd_image_tokens_get_decoder_pos(tokens, 1, i);
            // A part that stands later in its text must be the same, moved.
            if (later.t != here.t + 1 || later.x != here.x + 1 || later.y != here.y + 1) {
                return fail(SHIM_REFUSED, "this projector's images have places of their own in a text, which is not supported");
            }
            // In the order in which a batch has them.
            out[4 * i]     = here.t;
            out[4 * i + 1] = here.y;
            out[4 * i + 2] = here.x;
            out[4 * i + 3] = 0;
        }
        return int(SHIM_OK);
    });
}

int shim_image_encode(mtmd_context * projector, const shim_image * image, size_t index, float * out, size_t len) noexcept {
    return guarded([&] {
        const Building           guard;
        const mtmd_input_chunk * chunk = mtmd_input_chunks_get(image->chunks.get(), index);
        if (chunk == nullptr || mtmd_input_chunk_get_type(chunk) != MTMD_INPUT_CHUNK_TYPE_IMAGE) {
            return fail(SHIM_REFUSED, "the image has no such part");
        }
        if (mtmd_encode_chunk(projector, chunk) != 0) {
            return fail(SHIM_REFUSED, "llama.cpp could not encode the image");
        }
        memcpy(out, mtmd_get_output_embd(projector), len * sizeof(float));
        return int(SHIM_OK);
    });
}

} // extern "C"
