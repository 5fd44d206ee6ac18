#!/bin/bash
# Everything there is to check, from a bare machine. Ends with the output of the last cargo test.
set -euo pipefail
cd "$(dirname "$0")/.."

begun=$SECONDS
previous=""
# Prints how long the step before took, so that nothing follows the last one's own output.
step() {
    [ -z "$previous" ] || echo "== $previous took $((SECONDS - started)) s"
    previous=$1
    started=$SECONDS
    echo "== $1 (at $((SECONDS - begun)) s)"
}

step "bootstrap";           scripts/bootstrap.sh lint
step "vendor";              scripts/vendor.py
step "models";              for model in smollm2 gemma3 minilm; do scripts/model.py $model; done
step "lint";                scripts/lint.sh
step "tests of the stub"
scripts/build.py -- cargo test --no-run --no-default-features --features stub
cargo test --no-default-features --features stub
step "the API against its own description"; scripts/test_openapi.sh "${CARGO_TARGET_DIR:-target}/debug/shimmy"
step "a browser"; scripts/test_browser.sh "${CARGO_TARGET_DIR:-target}/debug/shimmy"
step "what the comparison with other servers sees"
SHIMMY="${CARGO_TARGET_DIR:-target}/debug/shimmy" python3 -m unittest discover tests/differential
step "tests"
scripts/build.py -- cargo test --no-run --workspace
cargo test --workspace
step "other people's clients"; scripts/test_clients.sh
step "errors of builds that cannot work"; scripts/test_build_errors.sh
# The newer llama.cpp is under one of them; `make test-revisions` takes both revisions without a GPU's backend.
step "tests of the GPU backends and of the newer llama.cpp"; scripts/test_backends.sh
