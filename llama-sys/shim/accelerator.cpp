// A ggml device that takes over the matrix products which gemm.cpp is faster at, the way ggml's own BLAS device does.
// It computes on the threads of the context that it belongs to.
#include <memory>
#include <mutex>
#include <unordered_map>

#include "accelerator.hpp"
#include "gemm.hpp"
#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"

namespace shim::accelerator {

namespace gemm = shim::gemm;

// A single column is not worth the way here and back (measured: 115 against 147 tokens a second; two, 208 against 168).
constexpr int64_t FEWEST_COLUMNS = 2;

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
    std::vector<uint8_t>                            graph_memory;

    ~Context() { ggml_backend_free(cpu); }
};

// Backends that llama.cpp made since the last call of `made`, on this thread.
static thread_local std::vector<ggml_backend_t> fresh;

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

static const char * get_name(ggml_backend_t) { return "GEMM"; }

static void free_backend(ggml_backend_t backend) {
    delete static_cast<Context *>(backend->context);
    delete backend;
}

// Turns the products into two steps each, quantising and multiplying, and runs those on the CPU backend's threads.
static ggml_status compute(ggml_backend_t backend, ggml_cgraph * graph) {
    Context &     context = *static_cast<Context *>(backend->context);
    const int     n       = ggml_graph_n_nodes(graph);
    const size_t  nodes   = 2 * size_t(n);
    const size_t  needed  = nodes * ggml_tensor_overhead() + ggml_graph_overhead_custom(nodes, false);
    context.products.clear();
    context.products.reserve(size_t(n));
    context.graph_memory.resize(std::max(context.graph_memory.size(), needed));

    ggml_context * steps = ggml_init({ context.graph_memory.size(), context.graph_memory.data(), /*no_alloc =*/true });
    if (steps == nullptr) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    ggml_cgraph *             work = ggml_new_graph_custom(steps, nodes, false);
    const ggml_tensor *       quantised = nullptr;
    size_t                    used      = 0;
    const gemm::Activations * latest    = nullptr;
    for (int i = 0; i < n; i++) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op != GGML_OP_MUL_MAT) {
            continue;
        }
        const ggml_tensor * weights = node->src[0];
        const ggml_tensor * from    = node->src[1];
        const bool          again   = from == quantised;
        if (!again) {
            if (used == context.activations.size()) {
                context.activations.push_back(std::make_unique<gemm::Activations>());
            }
            gemm::Activations & to = *context.activations[used++];
            to.resize(from->ne[1], from->ne[0]);
            latest    = &to;
            quantised = from;
        }
        context.products.push_back({ { static_cast<const uint8_t *>(weights->data), weights->nb[1], weights->ne[1] },
                                     latest, from, static_cast<float *>(node->data), node->nb[1] / sizeof(float) });
        Product * product = &context.products.back();
        if (!again) {
            ggml_build_forward_expand(work, ggml_custom_4d(steps, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, quantize, GGML_N_TASKS_MAX, product));
        }
        ggml_build_forward_expand(work, ggml_custom_4d(steps, GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, multiply, GGML_N_TASKS_MAX, product));
    }
    const ggml_status status = ggml_backend_graph_compute(context.cpu, work);
    ggml_free(steps);
    return status;
}

static void set_n_threads(ggml_backend_t backend, int n) {
    ggml_backend_cpu_set_n_threads(static_cast<Context *>(backend->context)->cpu, n);
}

// ---- the device

static const char * device_name(ggml_backend_dev_t) { return "GEMM"; }

static const char * device_description(ggml_backend_dev_t) { return "Q4_1 products with AVX-512 VNNI"; }

static void device_memory(ggml_backend_dev_t, size_t * free, size_t * total) { *free = *total = 0; }

static enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; }

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
    context->cpu = ggml_backend_cpu_init();
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

static ggml_backend_buffer_type_t buffer_type(ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); }

static ggml_backend_buffer_t buffer_from_host(ggml_backend_dev_t, void * data, size_t size, size_t) {
    return ggml_backend_cpu_buffer_from_ptr(data, size);
}

static bool is_plain(const ggml_tensor * tensor) {
    return tensor->ne[2] == 1 && tensor->ne[3] == 1 && tensor->nb[0] == ggml_type_size(tensor->type);
}

static bool supports_op(ggml_backend_dev_t, const ggml_tensor * op) {
    switch (op->op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
            return true;
        case GGML_OP_MUL_MAT: {
            const ggml_tensor * weights = op->src[0];
            const ggml_tensor * from    = op->src[1];
            return weights->type == GGML_TYPE_Q4_1 && from->type == GGML_TYPE_F32 && ggml_is_contiguous(weights) && is_plain(weights) &&
                   is_plain(from) && is_plain(op) && weights->ne[1] % gemm::ROWS == 0 && from->ne[1] >= FEWEST_COLUMNS &&
                   weights->nb[1] * gemm::ROWS < INT32_MAX;
        }
        default:
            return false;
    }
}

static bool supports_buft(ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return ggml_backend_buft_is_host(type); }

// ---- registration

static const char * reg_name(ggml_backend_reg_t) { return "GEMM"; }

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
    return std::string(name) == "ggml_backend_set_n_threads" ? reinterpret_cast<void *>(set_n_threads) : nullptr;
}

void install() {
    if (!gemm::supported()) {
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

std::vector<ggml_backend_t> made() {
    std::vector<ggml_backend_t> all;
    std::swap(all, fresh);
    return all;
}

void set_threadpool(ggml_backend_t backend, ggml_threadpool * pool) {
    ggml_backend_cpu_set_threadpool(static_cast<Context *>(backend->context)->cpu, pool);
}

} // namespace shim::accelerator
