#!/bin/bash
# Holds the running stub against its own /openapi.json: is that valid, and does the server keep to it, whatever it is sent?
# Takes the binary of a build with the feature `stub`; builds one otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-}
if [ -z "$binary" ]; then
    scripts/build.py -- cargo build --no-default-features --features stub
    binary="${CARGO_TARGET_DIR:-target}/debug/shimmy"
fi

packages=$(scripts/python_packages.sh openapi tests/openapi/requirements.txt)
work=$(mktemp -d)
# A registry and hub that have nothing.
mkdir "$work/empty"
python3 -u -m http.server --bind 127.0.0.1 --directory "$work/empty" 0 >"$work/registry" 2>/dev/null &
registry=$!
trap 'kill "$registry" 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
    nothing=$(grep -o 'http://[0-9.:]*' "$work/registry" | head -n 1) && break
    sleep 0.1
done
# A home of its own: neither the developer's models nor settings.
env -i PATH="$PATH" HOME="$work" SHIMMY_THREADS=1 HF_ENDPOINT="$nothing" SHIMMY_OLLAMA_REGISTRY="$nothing" \
    "$binary" serve --bind 127.0.0.1:0 >"$work/out" 2>"$work/err" &
server=$!
trap 'kill "$server" "$registry" 2>/dev/null || true; wait "$server" || true; rm -rf "$work"' EXIT
for _ in $(seq 100); do
    address=$(grep -o 'http://[0-9.:]*' "$work/out" | head -n 1) && break
    sleep 0.1
done
[ -n "$address" ] || { cat "$work/err" >&2; exit 1; }

# The server is on this machine, whatever way leads out of it.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 PYTHONPATH="$packages:$PWD/tests/openapi" PYTHONDONTWRITEBYTECODE=1
python3 - "$address/openapi.json" <<'PYTHON'
import json, sys, urllib.request
from openapi_spec_validator import OpenAPIV31SpecValidator

with urllib.request.urlopen(sys.argv[1]) as answer:
    document = json.load(answer)
OpenAPIV31SpecValidator(document).validate()
print(f"valid OpenAPI {document['openapi']}: {sum(map(len, document['paths'].values()))} operations")
PYTHON
settings=$PWD/tests/openapi/schemathesis.toml
# It leaves notes of what it found where it stands.
cd "$work"
# One worker: CPython's parser is not safe on two threads (gh-106905), and Hypothesis reads its own lambdas with it.
SCHEMATHESIS_HOOKS=hooks python3 -m schemathesis.cli --config-file "$settings" --no-color \
    run "$address/openapi.json" --workers 1 --warnings off \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance
# A panic that was caught would have been a 500; one on another thread is only in the log.
if grep -n "panicked" "$work/err"; then
    exit 1
fi
kill -0 "$server"
