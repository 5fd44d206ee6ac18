#!/bin/bash
# Builds shimmy with its backends as modules and puts all that it needs into one directory, which can be moved to
# another machine: scripts/bundle.sh DIR [FEATURE…], e.g. scripts/bundle.sh dist llama-vulkan llama-cuda
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: scripts/bundle.sh DIR [FEATURE...]" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."

features=$(IFS=,; echo "dynamic-backends${*:+,$*}")
scripts/build.py -- cargo build --release --features "$features"
binary="${CARGO_TARGET_DIR:-target}/release/shimmy"
# What it would load is what it needs. Those libraries that it is linked with lie in the same directory.
libraries=$("$binary" gpu-info --json | python3 -c '
import json, os, sys
print(os.path.dirname(json.load(sys.stdin)["system"]["modules"][0]["path"]))')
install -m 755 "$binary" "$libraries"/*.so "$dir/"
echo "bundle: $dir holds shimmy and $(ls "$libraries"/*.so | wc -l) libraries ($(du -sh "$dir" | cut -f1))"
