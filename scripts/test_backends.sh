#!/bin/bash
# Builds shimmy with each GPU backend that compiles without the vendor's own toolkit, and runs the tests that
# show the backend in the binary: scripts/test_backends.sh [vulkan] [opencl]
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -gt 0 ] || set -- vulkan opencl
for name in "$@"; do
    # A shell of its own: VULKAN_SDK of the one must not set off rebuilds of the other.
    (
        case "$name" in
            vulkan) eval "$(scripts/vulkan_deps.sh)" ;;
            opencl) scripts/opencl_deps.sh ;;
            *) echo "test_backends: error: no backend \`$name\` here; there are vulkan and opencl" >&2; exit 1 ;;
        esac
        scripts/build.py -- cargo build --release --features "llama-$name"
        scripts/build.py -- cargo test --no-run --features "llama-$name" --test it
        cargo test --features "llama-$name" --test it backends
    )
done
