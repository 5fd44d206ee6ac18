#!/bin/bash
# Drives the server with other people's clients, in the versions that are written here.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/shimmy"
# Prints a directory that holds a package of the Python registry and what it needs.
package() {
    local dir="$cache/clients/$1"
    if [ ! -e "$dir/complete" ]; then
        rm -rf "$dir"
        PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check --target "$dir" "$1" >&2
        touch "$dir/complete"
    fi
    echo "$dir"
}

scripts/build.py -- cargo build
shimmy="${CARGO_TARGET_DIR:-target}/debug/shimmy"
openai=$(package openai==3.57.0)
PYTHONPATH="$openai" python3 tests/clients/openai_chat.py "$shimmy" "$cache/models/smollm2-135m-instruct.q4_1.gguf"
