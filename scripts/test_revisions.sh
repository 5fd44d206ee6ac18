#!/bin/bash
# Builds against the pinned llama.cpp and a newer one, and runs what shows that the shim fits both.
set -euo pipefail
cd "$(dirname "$0")/.."

smoke=(--test it smoke)
newer=$(scripts/newer_revision.sh)
# Empty is the pin itself: with LLAMA_CPP_DIR set to it, what is built already would be built again.
for revision in "" "$newer"; do
    if [ -n "$revision" ]; then export LLAMA_CPP_DIR=$revision; else unset LLAMA_CPP_DIR; fi
    echo "== llama.cpp of ${revision:-vendor/llama.cpp}"
    scripts/build.py -- cargo test --no-run -p llama-sys
    cargo test -p llama-sys
    scripts/build.py -- cargo test --no-run "${smoke[@]:0:2}"
    cargo test "${smoke[@]}"
done
