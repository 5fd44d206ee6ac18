// A ggml device that is llama.cpp's CPU backend, but for the operations that gemm.cpp and attention.cpp are faster at. It
// takes all that the CPU backend can do, so that a graph stays in one piece: going from one backend to another and back
// for single operations costs more than they gain.
#include <cstring>
#include <memory>
#include <new>
#include <set>
#include <utility>

#include "accelerator.hpp"
#include "attention.hpp"
#include "cpu.hpp"
#include "gemm.hpp"
#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace shim::accelerator {

namespace gemm = shim::gemm;

// One product of the pass under way.
struct Product {
    gemm::Weights             weights;
    const gemm::Activations * activations;
    const ggml_tensor *       from;
    float *                   out;
    size_t                    column_floats;
};

struct Context {
    ggml_backend_t                                  cpu = nullptr;
    std::vector<std::unique_ptr<gemm::Activations>> activations;
    std::vector<Product>                            products;
    std::vector<attention::Inputs>                  attentions;
    std::vector<ggml_tensor *>                      nodes;
    std::vector<uint8_t>                            memory;
    std::vector<float>                              scratch; // of one attention at a time
    int                                             n_threads = 0; // llama.cpp sets it before the first pass

    ~Context() { ggml_backend_free(cpu); }
};

// Backends that llama.cpp made for the context under creation on this thread.
static thread_local std::vector<ggml_backend_t> fresh;
static thread_local bool                        hidden = false;

// Buffers of the KV cache that the graphs of a context under creation use, where somebody wants to know.
static thread_local std::set<ggml_backend_buffer_t> caches;
static thread_local bool                            watching = false;

static void quantize(ggml_tensor *, int part, int parts, void * data) {
    const Product & product = *static_cast<const Product *>(data);
    auto &          to      = const_cast<gemm::Activations &>(*product.activations);
    for (int64_t column = part; column < to.n_columns; column += parts) {
        to.quantize(column, reinterpret_cast<const float *>(static_cast<const char *>(product.from->data) + size_t(column) * product.from->nb[1]));
    }
}

static void multiply(ggml_tensor *, int part, int parts, void * data) {
    const Product & p = *static_cast<const Product *>(data);
    gemm::multiply(p.weights, *p.activations, p.out, p.column_floats, part, parts);
}

static void attend(ggml_tensor *, int part, int parts, void * data) {
    attention::attend(*static_cast<const attention::Inputs *>(data), part, parts);
}

static void merge(ggml_tensor *, int part, int parts, void * data) {
    attention::merge(*static_cast<const attention::Inputs *>(data), part, parts);
}

static float op_param(const ggml_tensor * node, int index) {
    float value;
    std::memcpy(&value, &node->op_params[index], sizeof(value));
    return value;
}

static attention::Inputs inputs_of(const ggml_tensor * node) {
    const ggml_tensor * q    = node->src[0];
    const ggml_tensor * k    = node->src[1];
    const ggml_tensor * v    = node->src[2];
    const ggml_tensor * mask = node->src[3];
    attention::Inputs   in   = {};
    in.queries               = static_cast<const char *>(q->data);
    in.query_row             = q->nb[1];
    in.query_head            = q->nb[2];
    in.keys                  = static_cast<const char *>(k->data);
    in.key_cell              = k->nb[1];
    in.key_head              = k->nb[2];
    in.values                = static_cast<const char *>(v->data);
    in.value_cell            = v->nb[1];
    in.value_head            = v->nb[2];
    in.mask                  = static_cast<const char *>(mask->data);
    in.mask_row              = mask->nb[1];
    in.out                   = static_cast<char *>(node->data);
    in.out_row               = node->nb[2];
    in.out_head              = node->nb[1];
    in.head_size             = q->ne[0];
    in.n_rows                = q->ne[1];
    in.n_heads               = q->ne[2];
    in.n_kv_heads            = k->ne[2];
    in.n_cells               = k->ne[1];
    in.scale                 = op_param(node, 0);
    return in;
}

// The common case of ggml's operation: 16-bit floats in the cache, no ALiBi, no soft cap, no sinks, few rows.
static bool is_ours(const ggml_tensor * node) {
    const ggml_tensor * q    = node->src[0];
    const ggml_tensor * k    = node->src[1];
    const ggml_tensor * v    = node->src[2];
    const ggml_tensor * mask = node->src[3];
    if (mask == nullptr || node->src[4] != nullptr) {
        return false;
    }
    const bool types   = q->type == GGML_TYPE_F32 && k->type == GGML_TYPE_F16 && v->type == GGML_TYPE_F16 && mask->type == GGML_TYPE_F16;
    const bool plain   = q->nb[0] == 4 && k->nb[0] == 2 && v->nb[0] == 2 && mask->nb[0] == 2 && node->nb[0] == 4;
    const bool one     = q->ne[3] == 1 && k->ne[3] == 1 && v->ne[3] == 1 && mask->ne[2] == 1 && mask->ne[3] == 1;
    const bool simple  = op_param(node, 1) == 0.0f && op_param(node, 2) == 0.0f;
    const bool heads   = k->ne[2] == v->ne[2] && k->ne[2] > 0 && q->ne[2] % k->ne[2] == 0 && q->ne[2] / k->ne[2] <= 16;
    const bool sizes   = k->ne[0] == q->ne[0] && v->ne[0] == q->ne[0] && k->ne[1] % 32 == 0;
    const bool few     = q->ne[1] < ATTENTION_TILE;
    const bool visible = mask->ne[0] >= k->ne[1] && mask->ne[1] >= q->ne[1] && v->ne[1] == k->ne[1];
    return visible && types && plain && one && simple && heads && sizes && few && attention::supported(q->ne[0]);
}

static const char * get_name(ggml_backend_t) { return "AVX512"; }

static void free_backend(ggml_backend_t backend) {
    delete static_cast<Context *>(backend->context);
    delete backend;
}

// A product that gemm.cpp can compute.
static bool is_product(const ggml_tensor * node) {
    const auto is_plain = [](const ggml_tensor * tensor) {
        return tensor->ne[2] == 1 && tensor->ne[3] == 1 && tensor->nb[0] == ggml_type_size(tensor->type);
    };
    const ggml_tensor * weights = node->src[0];
    const ggml_tensor * from    = node->src[1];
    return weights->type == GGML_TYPE_Q4_1 && from->type == GGML_TYPE_F32 && ggml_is_contiguous(weights) && is_plain(weights) &&
           is_plain(from) && is_plain(node) && weights->ne[1] % gemm::ROWS == 0 && weights->nb[1] * gemm::ROWS < INT32_MAX &&
           weights->buffer != nullptr && ggml_backend_buffer_is_host(weights->buffer);
}

// Runs the graph on the CPU backend, with nodes of ours in place of those that we compute ourselves.
static ggml_status compute(ggml_backend_t backend, ggml_cgraph * graph) try {
    Context &    context = *static_cast<Context *>(backend->context);
    const size_t n       = size_t(graph->n_nodes);
    context.products.clear();
    context.products.reserve(n);
    context.attentions.clear();
    context.attentions.reserve(n);
    context.nodes.clear();
    context.memory.resize(std::max(context.memory.size(), 2 * n * ggml_tensor_overhead()));

    const std::unique_ptr<ggml_context, decltype(&ggml_free)> steps(
        ggml_init({ context.memory.size(), context.memory.data(), /*no_alloc =*/true }), ggml_free);
    if (steps == nullptr) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    const auto add = [&](ggml_custom_op_t function, void * data) {
        ggml_tensor * node = ggml_custom_4d(steps.get(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, function, GGML_N_TASKS_MAX, data);
        node->flags |= GGML_TENSOR_FLAG_COMPUTE;
        context.nodes.push_back(node);
    };
    const ggml_tensor * quantised = nullptr;
    size_t              used      = 0;
    int64_t             scratch   = 0;
    for (int i = 0; i < graph->n_nodes; i++) {
        ggml_tensor * node   = graph->nodes[i];
        const bool    wanted = (node->flags & GGML_TENSOR_FLAG_COMPUTE) != 0;
        if (wanted && node->op == GGML_OP_FLASH_ATTN_EXT && is_ours(node)) {
            context.attentions.push_back(inputs_of(node));
            attention::Inputs & inputs = context.attentions.back();
            scratch                    = std::max(scratch, inputs.divide(std::max(context.n_threads, 1)));
            add(attend, &inputs);
            if (inputs.split > 1) {
                add(merge, &inputs);
            }
        } else if (wanted && node->op == GGML_OP_MUL_MAT && is_product(node)) {
            const ggml_tensor * weights = node->src[0];
            const ggml_tensor * from    = node->src[1];
            // Queries, keys and values come from the same.
            const bool again = from == quantised;
            if (!again) {
                if (used == context.activations.size()) {
                    context.activations.push_back(std::make_unique<gemm::Activations>());
                }
                context.activations[used++]->resize(from->ne[1], from->ne[0]);
                quantised = from;
            }
            context.products.push_back({ { static_cast<const uint8_t *>(weights->data), weights->nb[1], weights->ne[1] },
                                         context.activations[used - 1].get(), from, static_cast<float *>(node->data),
                                         node->nb[1] / sizeof(float) });
            if (!again) {
                add(quantize, &context.products.back());
            }
            add(multiply, &context.products.back());
        } else {
            context.nodes.push_back(node);
        }
    }
    context.scratch.resize(std::max(context.scratch.size(), size_t(scratch)));
    for (attention::Inputs & inputs : context.attentions) {
        inputs.scratch = context.scratch.data();
    }
    // What else the graph knows, the uses of its nodes among it, holds for those that are left.
    ggml_cgraph ours = *graph;
    ours.nodes       = context.nodes.data();
    ours.n_nodes     = int(context.nodes.size());
    ours.size        = ours.n_nodes;
    ours.uid         = 0;
    return ggml_backend_graph_compute(context.cpu, &ours);
} catch (const std::bad_alloc &) {
    return GGML_STATUS_ALLOC_FAILED;
}

static void set_n_threads(ggml_backend_t backend, int n) {
    Context & context = *static_cast<Context *>(backend->context);
    // llama.cpp says it before each pass.
    if (n == context.n_threads) {
        return;
    }
    if (const auto set = cpu_function<void(ggml_backend_t, int)>("ggml_backend_set_n_threads")) {
        set(context.cpu, n);
        context.n_threads = n;
    }
}

static void set_abort_callback(ggml_backend_t backend, ggml_abort_callback callback, void * data) {
    if (const auto set = cpu_function<void(ggml_backend_t, ggml_abort_callback, void *)>("ggml_backend_set_abort_callback")) {
        set(static_cast<Context *>(backend->context)->cpu, callback, data);
    }
}

// ---- the device

static const char * device_name(ggml_backend_dev_t) { return "AVX512"; }

static const char * device_description(ggml_backend_dev_t) { return "CPU with products and attention of its own for AVX-512"; }

static void device_memory(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = 0; }

// Contexts take all accelerators that there are; one that should not have this must not see it as such.
static enum ggml_backend_dev_type device_type(ggml_backend_dev_t) {
    return hidden ? GGML_BACKEND_DEVICE_TYPE_CPU : GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

static void device_props(ggml_backend_dev_t device, ggml_backend_dev_props * props) {
    *props                           = {};
    props->name                      = device_name(device);
    props->description               = device_description(device);
    props->type                      = device_type(device);
    props->caps.buffer_from_host_ptr = true;
}

static ggml_backend_t init_backend(ggml_backend_dev_t device, const char *) {
    static ggml_guid guid = { 0x73, 0x68, 0x69, 0x6d, 0x6d, 0x79, 0x2d, 0x67, 0x65, 0x6d, 0x6d, 0x2d, 0x71, 0x34, 0x5f, 0x31 };

    auto context = std::make_unique<Context>();
    context->cpu = ggml_backend_dev_init(cpu_device(), nullptr);
    if (context->cpu == nullptr) {
        return nullptr;
    }
    auto backend                 = std::make_unique<ggml_backend>();
    backend->guid                = &guid;
    backend->iface.get_name      = get_name;
    backend->iface.free          = free_backend;
    backend->iface.graph_compute = compute;
    backend->device              = device;
    backend->context             = context.release();
    fresh.push_back(backend.get());
    return backend.release();
}

static ggml_backend_buffer_type_t buffer_type(ggml_backend_dev_t) { return ggml_backend_dev_buffer_type(cpu_device()); }

static ggml_backend_buffer_t buffer_from_host(ggml_backend_dev_t, void * data, size_t size, size_t largest) {
    return ggml_backend_dev_buffer_from_host_ptr(cpu_device(), data, size, largest);
}

static bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) {
    for (int i = 0; watching && i < GGML_MAX_SRC && op->src[i] != nullptr; i++) {
        const ggml_tensor * root = op->src[i]->view_src != nullptr ? op->src[i]->view_src : op->src[i];
        if (root->buffer != nullptr && std::strncmp(root->name, "cache_", 6) == 0) {
            caches.insert(root->buffer);
        }
    }
    // llama.cpp gives these up where they are not on their layer's own device, and asks when it creates a context.
    for (const char * fused : { "GATED_DELTA_NET", "LIGHTNING_INDEXER", "DSV4_HC" }) {
        if (watching && std::strncmp(ggml_op_name(op->op), fused, std::strlen(fused)) == 0) {
            return false;
        }
    }
    return ggml_backend_dev_supports_op(cpu_device(), op);
}

static bool supports_buft(ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
    return ggml_backend_dev_supports_buft(cpu_device(), type);
}

// ---- registration

static const char * reg_name(ggml_backend_reg_t) { return "AVX512"; }

static size_t device_count(ggml_backend_reg_t) { return 1; }

static ggml_backend_dev_t get_device(ggml_backend_reg_t reg, size_t) {
    static ggml_backend_device device = [&] {
        ggml_backend_device d        = {};
        d.iface.get_name             = device_name;
        d.iface.get_description      = device_description;
        d.iface.get_memory           = device_memory;
        d.iface.get_type             = device_type;
        d.iface.get_props            = device_props;
        d.iface.init_backend         = init_backend;
        d.iface.get_buffer_type      = buffer_type;
        d.iface.buffer_from_host_ptr = buffer_from_host;
        d.iface.supports_op          = supports_op;
        d.iface.supports_buft        = supports_buft;
        d.reg                        = reg;
        return d;
    }();
    return &device;
}

static void * get_proc_address(ggml_backend_reg_t, const char * name) {
    if (std::strcmp(name, "ggml_backend_set_n_threads") == 0) {
        return reinterpret_cast<void *>(set_n_threads);
    }
    return std::strcmp(name, "ggml_backend_set_abort_callback") == 0 ? reinterpret_cast<void *>(set_abort_callback) : nullptr;
}

void install() {
    if (!gemm::supported() || cpu_device() == nullptr) {
        return;
    }
    static ggml_backend_reg reg = [] {
        ggml_backend_reg r       = {};
        r.api_version            = GGML_BACKEND_API_VERSION;
        r.iface.get_name         = reg_name;
        r.iface.get_device_count = device_count;
        r.iface.get_device       = get_device;
        r.iface.get_proc_address = get_proc_address;
        return r;
    }();
    ggml_backend_register(&reg);
}

Creation::Creation(bool accelerated) {
    fresh.clear();
    caches.clear();
    hidden   = !accelerated;
    watching = accelerated;
}

Creation::~Creation() {
    hidden   = false;
    watching = false;
}

void Creation::release_caches() {
#ifdef __linux__
    const size_t page = size_t(sysconf(_SC_PAGESIZE));
    for (ggml_backend_buffer_t buffer : caches) {
        if (!ggml_backend_buffer_is_host(buffer)) {
            continue;
        }
        const uintptr_t base  = reinterpret_cast<uintptr_t>(ggml_backend_buffer_get_base(buffer));
        const uintptr_t begin = (base + page - 1) / page * page;
        const uintptr_t end   = (base + ggml_backend_buffer_get_size(buffer)) / page * page;
        if (begin < end) {
            // It does no harm where this fails.
            madvise(reinterpret_cast<void *>(begin), end - begin, MADV_DONTNEED);
        }
    }
#endif
}

std::vector<ggml_backend_t> Creation::made() { return std::exchange(fresh, {}); }

void set_threadpool(ggml_backend_t backend, ggml_threadpool * pool) {
    if (const auto set = cpu_function<void(ggml_backend_t, ggml_threadpool *)>("ggml_backend_cpu_set_threadpool")) {
        set(static_cast<Context *>(backend->context)->cpu, pool);
    }
}

} // namespace shim::accelerator
