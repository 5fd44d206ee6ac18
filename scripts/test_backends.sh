#!/bin/bash
# Builds shimmy with each GPU backend that compiles without the vendor's own toolkit, and runs the tests that
# show the backend in the binary: scripts/test_backends.sh [vulkan] [opencl] [rpc]
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- opencl rpc vulkan
for name in "$@"; do
    # A shell of its own: what one backend's environment needs must not set off rebuilds of the next.
    (
        case "$name" in
            vulkan) eval "$(scripts/vulkan_deps.sh)" ;;
            opencl) scripts/opencl_deps.sh ;;
            # The registry's copy of the pin leaves this backend out; the newer revision has it.
            rpc) LLAMA_CPP_DIR=$(scripts/newer_revision.sh) && export LLAMA_CPP_DIR ;;
            *) echo "test_backends: error: no backend \`$name\` here; there are opencl, rpc and vulkan" >&2; exit 1 ;;
        esac
        features=(--features "llama-$name")
        scripts/build.py -- cargo test --no-run -p llama-sys --features "$name"
        cargo test -p llama-sys --features "$name"
        scripts/build.py -- cargo test --no-run "${features[@]}" --test it
        cargo test "${features[@]}" --test it backends -- --nocapture
        if [ "$name" = vulkan ]; then
            # llama.cpp passes over software devices unless they are named. With it, a model runs through Vulkan here.
            echo "== the same on Vulkan's first device"
            GGML_VK_VISIBLE_DEVICES=0 cargo test "${features[@]}" --test it backends -- --nocapture
        fi
    )
done
