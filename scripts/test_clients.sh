#!/bin/bash
# Drives the server with other people's clients, in the versions of tests/clients/requirements.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="${XDG_CACHE_HOME:-$HOME/.cache}/shimmy"
# Compiled parts are for one Python on one kind of machine.
python=$(python3 -c 'import platform, sys; print(sys.implementation.cache_tag, platform.machine(), sep="-")')
packages="$cache/clients/$python-$(cksum <tests/clients/requirements.txt | cut -d ' ' -f 1)"
if [ ! -d "$packages" ]; then
    rm -rf "$packages.part"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check --target "$packages.part" \
        -r tests/clients/requirements.txt
    mv "$packages.part" "$packages"
fi

scripts/build.py -- cargo build
# The server is on this machine, whatever way leads out of it.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 PYTHONPATH="$packages"
for client in openai_chat openai_more anthropic_client ollama_client ollama_store; do
    python3 "tests/clients/$client.py" "${CARGO_TARGET_DIR:-target}/debug/shimmy" "$cache/models/smollm2-135m-instruct.q4_1.gguf"
done
