#!/bin/bash
# Open WebUI, in the version of tests/open_webui/requirements.txt, against a server with a real model, also in a browser.
#   scripts/test_open_webui.sh [SHIMMY]   a binary with llama.cpp in it, built here where none is named
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/bootstrap.sh browser
binary=${1:-}
if [ -z "$binary" ]; then
    scripts/build.py -- cargo build
    binary="${CARGO_TARGET_DIR:-target}/debug/shimmy"
fi
# All that it needs is listed: its own list has what a server without models of its own for documents and speech does not use.
OPEN_WEBUI=$(scripts/python_packages.sh open-webui tests/open_webui/requirements.txt --no-deps)
packages=$(scripts/python_packages.sh browser tests/browser/requirements.txt)
CHROMIUM=$(scripts/find_chromium.sh)
export OPEN_WEBUI CHROMIUM SHIMMY="$binary" MODEL="${XDG_CACHE_HOME:-$HOME/.cache}/shimmy/models/smollm2-135m-instruct.q4_1.gguf"
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 PYTHONPATH="$packages:tests/clients:tests/browser" PYTHONDONTWRITEBYTECODE=1
exec python3 tests/open_webui/test_open_webui.py
