#!/bin/bash
# Builds shimmy with each GPU backend that compiles without the vendor's own toolkit, and runs the tests that
# show the backend in the binary: scripts/test_backends.sh [vulkan] [opencl] [rpc] [dynamic]
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- opencl dynamic vulkan rpc
for name in "$@"; do
    # A shell of its own: what one backend's environment needs must not set off rebuilds of the next.
    (
        case "$name" in
            # The software device has no cooperative matrices, and compiling the shaders for them takes minutes.
            vulkan | dynamic) eval "$(scripts/vulkan_deps.sh)"; export SHIMMY_PLAIN_SHADERS=1 ;;
            opencl) scripts/opencl_deps.sh ;;
            # The registry's copy of the pin leaves this backend out; the newer revision has it. What shows that the
            # shim fits that revision runs in the same build.
            rpc) LLAMA_CPP_DIR=$(scripts/newer_revision.sh) && export LLAMA_CPP_DIR ;;
            *) echo "test_backends: error: no backend \`$name\` here; there are opencl, rpc, vulkan and dynamic" >&2; exit 1 ;;
        esac
        features="llama-$name" sys="$name"
        # Backends as modules: the CPU's for each instruction set, and Vulkan's.
        [ "$name" != dynamic ] || { features=dynamic-backends,llama-vulkan sys=dynamic-backends,vulkan; }
        scripts/build.py -- cargo test --no-run -p llama-sys --features "$sys"
        cargo test -p llama-sys --features "$sys"
        scripts/build.py -- cargo test --no-run --features "$features" --test it
        tests=(backends modules)
        [ "$name" != rpc ] || tests+=(images projector smoke)
        cargo test --features "$features" --test it -- --nocapture "${tests[@]}"
        if [ "$name" = vulkan ] || [ "$name" = dynamic ]; then
            # llama.cpp passes over software devices unless they are named. With it, a model runs through Vulkan here.
            echo "== the same on Vulkan's first device"
            GGML_VK_VISIBLE_DEVICES=0 cargo test --features "$features" --test it -- --nocapture backends modules
        fi
        if [ "$name" = dynamic ]; then
            scripts/build.py -- cargo clippy --workspace --all-targets --features "$features" -- -D warnings
            cargo test --lib --features "$features" modules
            dist=$(mktemp -d)
            trap 'rm -rf "$dist"' EXIT
            # What was built above, linked anew: the release profile would compile all of it again.
            BUNDLE_PROFILE=dev scripts/bundle.sh "$dist" llama-vulkan
            "$dist/shimmy" --gpu-backend cpu gpu-info
        fi
    )
done
