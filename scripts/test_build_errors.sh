#!/bin/bash
# Builds that cannot work must say why, and how to mend it, in one error of our own.
set -euo pipefail
cd "$(dirname "$0")/.."

# A target directory in which llama-sys never was built, so that its build script runs in each case.
export CARGO_TARGET_DIR=target/build-errors
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The tools that a build needs beside the ones under test; each case adds to it or leaves it as it is.
mkdir "$scratch/bin"
for tool in cc c++ gcc g++ ld ar as sh env rustc cargo git make python3; do
    path=$(command -v "$tool") && ln -s "$path" "$scratch/bin/$tool"
done

failed=0
# expect NAME TEXT COMMAND…: the command must fail and its error must hold TEXT.
expect() {
    local name=$1 text=$2
    shift 2
    if "$@" >"$scratch/out" 2>&1; then
        echo "build errors: $name: the build went through" >&2
        failed=1
    elif ! grep -qF "$text" "$scratch/out"; then
        echo "build errors: $name: no \"$text\" in:" >&2
        tail -n 20 "$scratch/out" >&2
        failed=1
    else
        echo "build errors: $name: ok"
    fi
}

check="cargo check -q -p llama-sys"
expect "no sources" "point it at a llama.cpp checkout" env LLAMA_CPP_DIR=/nonexistent $check
mkdir "$scratch/empty"
expect "not llama.cpp" "no include/llama.h there" env LLAMA_CPP_DIR="$scratch/empty" $check
expect "no cmake" "cmake is not installed" env PATH="$scratch/bin" $check
expect "no C++ compiler" "no C++ compiler" env CXX=/nonexistent/c++ $check
expect "no libclang" "libclang is not installed" env LIBCLANG_PATH=/nonexistent $check
expect "metal elsewhere" "Metal exists on macOS only" $check --features metal
[ -x /usr/local/cuda/bin/nvcc ] || command -v nvcc >/dev/null ||
    expect "no CUDA compiler" "no CUDA compiler (nvcc)" $check --features cuda
[ -d vendor/llama.cpp/ggml/src/ggml-rpc ] || expect "no rpc sources" "has no ggml/src/ggml-rpc" $check --features rpc
mkdir -p "$scratch/sdk/include/vulkan" "$scratch/sdk/bin"
printf '#!/bin/sh\nexit 1\n' >"$scratch/sdk/bin/glslc" && chmod +x "$scratch/sdk/bin/glslc"
printf '#define VK_HEADER_VERSION 239\n' >"$scratch/sdk/include/vulkan/vulkan_core.h"
expect "old shader compiler" "cannot compile shaders with cooperative matrices" env VULKAN_SDK="$scratch/sdk" $check --features vulkan
expect "old Vulkan headers" "is too old (header version 239" env VULKAN_SDK="$scratch/sdk" $check --features vulkan
exit $failed
