/* What Rust may call of llama.cpp, where the original can throw or differs between revisions.
 *
 * Every function is noexcept. Those that can fail return a shim_status; the message is then read with
 * shim_last_error() on the same thread. Strings handed out are freed with shim_string_free().
 */
#ifndef SHIMMY_SHIM_H
#define SHIMMY_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llama.h"

#ifdef __cplusplus
#define SHIM_NOEXCEPT noexcept
extern "C" {
#else
#define SHIM_NOEXCEPT
#endif

enum shim_status {
    SHIM_OK        = 0,
    SHIM_EXCEPTION = 1, /* llama.cpp threw; the message is its what() */
    SHIM_NO_MEMORY = 2, /* std::bad_alloc */
    SHIM_REFUSED   = 3, /* llama.cpp returned its failure value (NULL, false); it wrote why to its log */
    SHIM_TOO_SMALL = 4, /* the output buffer is too small; the needed size was written */
    SHIM_TOO_LARGE = 5, /* a device cannot hold what it was to; the message says which and what */
};

const char * shim_last_error(void) SHIM_NOEXCEPT;
void         shim_string_free(char * text) SHIM_NOEXCEPT;

/* ---- core.cpp: backend, devices, model, context ---- */

/* Initialises llama.cpp and every backend that is compiled in. Call once. */
int shim_backend_init(void) SHIM_NOEXCEPT;
/* Loads a backend that is a shared library. To be called before shim_backend_init, which needs the CPU's. */
int shim_backend_load(const char * path) SHIM_NOEXCEPT;

struct shim_device {
    ggml_backend_dev_t handle;
    const char *       name;        /* e.g. "Vulkan0" */
    const char *       description; /* e.g. "NVIDIA H200" */
    const char *       backend;     /* name of the registered backend, e.g. "Vulkan" */
    const char *       id;          /* PCI bus id, or NULL */
    int32_t            type;        /* enum ggml_backend_dev_type */
    uint64_t           memory_free;  /* bytes */
    uint64_t           memory_total; /* bytes */
};

int shim_backend_count(size_t * count) SHIM_NOEXCEPT;
int shim_backend_name(size_t index, const char ** name) SHIM_NOEXCEPT;
int shim_device_count(size_t * count) SHIM_NOEXCEPT;
int shim_device_get(size_t index, struct shim_device * out) SHIM_NOEXCEPT;

struct shim_model_params {
    ggml_backend_dev_t *    devices;      /* NULL-terminated; NULL means "llama.cpp chooses" */
    int32_t                 n_gpu_layers; /* negative means all */
    int32_t                 split_mode;   /* enum llama_split_mode */
    int32_t                 main_gpu;     /* index into devices, for LLAMA_SPLIT_MODE_NONE */
    const float *           tensor_split; /* llama_max_devices() shares; NULL follows the free memory */
    const char * const *    cpu_tensors;  /* NULL-terminated regular expressions of tensors that stay on the CPU, or NULL */
    bool                    use_mmap;
    bool                    use_mlock;
    bool                    vocab_only;
    bool                    check_tensors;
    bool                    no_alloc; /* lay out only; then neither use_mmap nor use_mlock */
    llama_progress_callback progress;
    void *                  progress_data;
};

size_t shim_max_devices(void) SHIM_NOEXCEPT;

int shim_model_load(const char * path, const struct shim_model_params * params, struct llama_model ** out) SHIM_NOEXCEPT;
/* A metadata value as text, or NULL in *out where the key is absent. */
int shim_model_meta(const struct llama_model * model, const char * key, char ** out) SHIM_NOEXCEPT;
int shim_model_description(const struct llama_model * model, char ** out) SHIM_NOEXCEPT;

struct shim_context_params {
    uint32_t            n_ctx; /* cells in total, 0 = the model's training context */
    uint32_t            n_batch;
    uint32_t            n_ubatch;
    uint32_t            n_seq_max;
    uint32_t            n_outputs_max; /* rows of a batch that may ask for logits; 0 = n_batch */
    int32_t             n_threads;
    int32_t             n_threads_batch;
    int32_t             flash_attn; /* enum llama_flash_attn_type */
    int32_t             type_k;     /* enum ggml_type */
    int32_t             type_v;
    bool                embeddings;
    int32_t             pooling;    /* enum llama_pooling_type; unspecified takes the model's own */
    bool                offload_kqv;
    bool                kv_unified;
    bool                swa_full;
    bool                accelerate; /* use our own CPU kernels; for models whose layers are all on the CPU */
    ggml_abort_callback abort;
    void *              abort_data;
};

int shim_context_init(struct llama_model * model, const struct shim_context_params * params, struct llama_context ** out) SHIM_NOEXCEPT;
void shim_context_free(struct llama_context * ctx) SHIM_NOEXCEPT;
/* Gives the context compute threads that stay between two decodes. Between passes they wait actively for a while,
 * the longer the higher `poll` (0 to 100), then they sleep. Detach before the pool is freed, or free the context first. */
int  shim_threads_new(int32_t n_threads, uint32_t poll, struct ggml_threadpool ** out) SHIM_NOEXCEPT;
int  shim_threads_attach(struct llama_context * ctx, struct ggml_threadpool * pool) SHIM_NOEXCEPT;
void shim_threads_free(struct ggml_threadpool * pool) SHIM_NOEXCEPT;
/* *result is llama_decode's own return value: 0 done, 1 no cells free, 2 aborted, negative an error. */
int shim_decode(struct llama_context * ctx, struct llama_batch batch, int32_t * result) SHIM_NOEXCEPT;
int shim_encode(struct llama_context * ctx, struct llama_batch batch, int32_t * result) SHIM_NOEXCEPT;
int shim_logits(struct llama_context * ctx, int32_t row, const float ** out) SHIM_NOEXCEPT;
int shim_embeddings(struct llama_context * ctx, int32_t row, const float ** out) SHIM_NOEXCEPT;
int shim_embeddings_seq(struct llama_context * ctx, llama_seq_id seq, const float ** out) SHIM_NOEXCEPT;
/* Computes with exactly these from now on. `reserved_nodes` belongs to the context, 0 at first: for how many nodes of
 * adapters its graphs have room. Where that is too little, `short_of_nodes` becomes true, and
 * shim_reserve_for_adapters must be called before the next decode. Other adapters may be loaded or freed meanwhile. */
int shim_set_adapters(struct llama_context * ctx, struct llama_adapter_lora ** adapters, float * scales, size_t n,
                      uint32_t reserved_nodes, bool * short_of_nodes) SHIM_NOEXCEPT;
/* Reserves for all adapters of the model that are loaded. None must be loaded or freed meanwhile. */
int shim_reserve_for_adapters(struct llama_context * ctx, uint32_t * reserved_nodes) SHIM_NOEXCEPT;
int shim_adapter_load(struct llama_model * model, const char * path, struct llama_adapter_lora ** out) SHIM_NOEXCEPT;

/* Writes at most `capacity` tokens; SHIM_TOO_SMALL sets *count to the number needed. */
int shim_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens, int32_t capacity,
                  bool add_special, bool parse_special, int32_t * count) SHIM_NOEXCEPT;
/* The token's bytes, not always whole UTF-8. SHIM_TOO_SMALL sets *len to the number needed. */
int shim_token_to_piece(const struct llama_vocab * vocab, llama_token token, char * buffer, int32_t capacity, bool special,
                        int32_t * len) SHIM_NOEXCEPT;

/* ---- placement.cpp ---- */

/* Layers, with those that predict further tokens. */
uint32_t shim_layer_count(const struct llama_model * model) SHIM_NOEXCEPT;
/* Name of the device that a layer was placed on. It lives as long as the process. */
int shim_layer_device(const struct llama_model * model, int32_t layer, const char ** name) SHIM_NOEXCEPT;

/* Bytes of one buffer type. Memory of the host counts for the CPU, whoever allocated it. */
struct shim_memory {
    const char * device;
    const char * buffer_type;
    uint64_t     weights;
    uint64_t     context;
    uint64_t     compute;
};

/* SHIM_TOO_SMALL sets *count to the number needed. */
int shim_memory_use(const struct llama_context * ctx, struct shim_memory * out, size_t capacity, size_t * count) SHIM_NOEXCEPT;

/* ---- memory.cpp: KV cache and state ---- */

int shim_kv_clear(struct llama_context * ctx, bool data) SHIM_NOEXCEPT;
/* SHIM_REFUSED where this memory cannot drop part of a sequence. */
int shim_kv_seq_rm(struct llama_context * ctx, llama_seq_id seq, llama_pos p0, llama_pos p1) SHIM_NOEXCEPT;
int shim_kv_seq_cp(struct llama_context * ctx, llama_seq_id src, llama_seq_id dst, llama_pos p0, llama_pos p1) SHIM_NOEXCEPT;
int shim_kv_seq_add(struct llama_context * ctx, llama_seq_id seq, llama_pos p0, llama_pos p1, llama_pos delta) SHIM_NOEXCEPT;
/* First and last position held for the sequence, both -1 where it holds none. */
int shim_kv_seq_range(struct llama_context * ctx, llama_seq_id seq, llama_pos * first, llama_pos * last) SHIM_NOEXCEPT;
int shim_kv_can_shift(struct llama_context * ctx, bool * out) SHIM_NOEXCEPT;

/* `partial` leaves out the attention cells that seq_cp can share, and takes only the state that it cannot. */
int shim_state_seq_size(struct llama_context * ctx, llama_seq_id seq, bool partial, size_t * size) SHIM_NOEXCEPT;
int shim_state_seq_get(struct llama_context * ctx, llama_seq_id seq, bool partial, uint8_t * data, size_t size) SHIM_NOEXCEPT;
int shim_state_seq_set(struct llama_context * ctx, llama_seq_id seq, bool partial, const uint8_t * data, size_t size) SHIM_NOEXCEPT;

/* ---- sampler.cpp ---- */

struct shim_sampling {
    float    top_p;     /* 1 = off */
    float    min_p;     /* 0 = off */
    float    typical_p; /* 1 = off */
    uint32_t seed;
};

/* Two chains, so that the temperature between them can change from token to token. */
struct shim_samplers {
    struct llama_sampler * filters; /* typical, top-p, min-p */
    struct llama_sampler * dist;    /* draws; the only one that selects */
};

int shim_samplers_init(const struct shim_sampling * params, struct shim_samplers * out) SHIM_NOEXCEPT;
int shim_sampler_apply(struct llama_sampler * sampler, llama_token_data_array * candidates) SHIM_NOEXCEPT;

/* ---- kernels.cpp: our own CPU kernels by themselves, for tests. SHIM_REFUSED where this processor cannot run them ---- */

/* `weights` are rows of Q4_1 blocks; out[column][row]. */
int shim_kernel_gemm(const uint8_t * weights, int64_t n_rows, int64_t length, const float * columns, int64_t n_columns, int parts,
                     float * out) SHIM_NOEXCEPT;
/* queries and out: [row][head][head_size]; keys and values: [cell][kv_head][head_size] as 16-bit floats; mask: [row][cell]. */
int shim_kernel_attention(const float * queries, const uint16_t * keys, const uint16_t * values, const uint16_t * mask, int64_t head_size,
                          int64_t n_rows, int64_t n_heads, int64_t n_kv_heads, int64_t n_cells, float scale, int parts,
                          float * out) SHIM_NOEXCEPT;

/* ---- chat.cpp: llama.cpp's common/ library ---- */

struct shim_chat;

/* Parses the Jinja template: `source`, or the model's own where `source` is NULL. */
int  shim_chat_init(const struct llama_model * model, const char * source, struct shim_chat ** out) SHIM_NOEXCEPT;
void shim_chat_free(struct shim_chat * chat) SHIM_NOEXCEPT;
/* JSON is in OpenAI's form. */
struct shim_chat_request {
    const char *         messages; /* an array */
    const char *         tools;    /* an array, or NULL */
    const char *         outlines; /* the same tools for the parser: their schemas become a grammar, whatever they hold */
    bool                 allow_calls;
    bool                 parallel_calls;
    bool                 thinking; /* for templates that can be told */
    bool                 parse;    /* make a parser, where the answer can hold more than text */
    bool                 answer;   /* open the assistant's turn */
    const char * const * names;  /* variables of the template */
    const char * const * values; /* JSON */
    size_t               n_variables;
};

struct shim_chat_parser;

/* *prompt is the text, *stops a JSON array of extra stop strings. *parser is NULL where all of the answer is text. */
int shim_chat_render(const struct shim_chat * chat, const struct shim_chat_request * request, char ** prompt, char ** stops,
                     struct shim_chat_parser ** parser) SHIM_NOEXCEPT;
/* Whether the template knows what tools are. */
int shim_chat_knows_tools(const struct shim_chat * chat, bool * out) SHIM_NOEXCEPT;

/* Text of an answer; not terminated by a NUL. It lives until the parser is used again. */
struct shim_text {
    const char * data;
    size_t       len;
};

struct shim_chat_answer {
    struct shim_text reasoning;
    struct shim_text content;
    size_t           n_calls;
    bool             complete; /* nothing is missing at its end, and nothing is left */
};

struct shim_chat_call {
    struct shim_text name;
    struct shim_text arguments;
};

/* Reads the answer again with `more` at its end. `partial` says that more will follow; else what does not fit the template's
 * form is SHIM_EXCEPTION. */
int shim_chat_parse(struct shim_chat_parser * parser, const char * more, size_t len, bool partial, struct shim_chat_answer * out) SHIM_NOEXCEPT;
/* A JSON array of what tells the parts of an answer apart. Control tokens in it are to be part of the text. */
int shim_chat_marks(const struct shim_chat_parser * parser, char ** marks) SHIM_NOEXCEPT;
int shim_chat_call(const struct shim_chat_parser * parser, size_t index, struct shim_chat_call * out) SHIM_NOEXCEPT;
/* A parser of the same form that has read nothing yet. */
int shim_chat_parser_again(const struct shim_chat_parser * parser, struct shim_chat_parser ** out) SHIM_NOEXCEPT;
void shim_chat_parser_free(struct shim_chat_parser * parser) SHIM_NOEXCEPT;
/* One of llama.cpp's own templates by name. roles and contents hold n entries each. */
int shim_chat_render_builtin(const char * name, const char * const * roles, const char * const * contents, size_t n,
                             bool add_generation_prompt, char ** prompt) SHIM_NOEXCEPT;
/* A JSON array of the names shim_chat_render_builtin knows. */
int shim_chat_builtin_names(char ** names) SHIM_NOEXCEPT;

/* ---- projector.cpp: llama.cpp's tools/mtmd, which turns images into embeddings ---- */

struct mtmd_context; /* a projector, for one model */
struct shim_image;   /* an image as one projector cuts it */

void shim_projector_log_set(ggml_log_callback log, void * data) SHIM_NOEXCEPT;
/* `device` NULL is the CPU. The model must outlive the projector, and read rows as wide as it makes them: llama.cpp loses a projector
 * whole that it finds too wide. */
int  shim_projector_load(const char * path, const struct llama_model * model, ggml_backend_dev_t device, int32_t n_threads,
                         struct mtmd_context ** out) SHIM_NOEXCEPT;
void shim_projector_free(struct mtmd_context * projector) SHIM_NOEXCEPT;

struct shim_projector_memory {
    const char * device; /* lives as long as the process */
    uint64_t     bytes;  /* weights and compute buffers */
};

/* What loading takes, and how many floats a row of an image has. It is laid out for that, without its numbers, and takes as much for
 * a moment. SHIM_TOO_SMALL sets *count to the number needed. */
int shim_projector_measure(const char * path, ggml_backend_dev_t device, struct shim_projector_memory * out, size_t capacity,
                           size_t * count, int32_t * width) SHIM_NOEXCEPT;
/* The rows of an image see those behind them, so that it is computed in one pass. */
bool shim_projector_is_whole(const struct mtmd_context * projector) SHIM_NOEXCEPT;

/* Resizes and cuts an image of nx * ny * 3 bytes. From any thread. */
int    shim_image_read(struct mtmd_context * projector, const uint8_t * rgb, uint32_t nx, uint32_t ny, struct shim_image ** out) SHIM_NOEXCEPT;
void   shim_image_free(struct shim_image * image) SHIM_NOEXCEPT;
size_t shim_image_parts(const struct shim_image * image) SHIM_NOEXCEPT;

struct shim_image_part {
    const llama_token * tokens;      /* what stands around images; NULL for an image. It lives as long as the image */
    size_t              n;           /* tokens, or rows of embeddings */
    size_t              n_positions; /* that it takes up in a text */
};

int shim_image_part_at(const struct shim_image * image, size_t index, struct shim_image_part * out) SHIM_NOEXCEPT;
/* Four numbers for each of the `n` rows of an image: where it is, counted from the image's first position. */
int shim_image_places(const struct shim_image * image, size_t index, uint32_t * out, size_t n) SHIM_NOEXCEPT;
/* Computes the embeddings: `len` floats. One thread at a time for each projector. */
int shim_image_encode(struct mtmd_context * projector, const struct shim_image * image, size_t index, float * out, size_t len) SHIM_NOEXCEPT;
/* Whether rows see those before them only, as text does; from the next decode on. */
void shim_set_causal(struct llama_context * ctx, bool causal) SHIM_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
