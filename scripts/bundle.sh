#!/bin/bash
# Builds shimmy with its backends as modules and puts all that it needs into one directory, which can be moved to
# another machine: scripts/bundle.sh DIR [FEATURE…], e.g. scripts/bundle.sh dist llama-vulkan llama-cuda
# BUNDLE_PROFILE is cargo's profile, release if it is not set.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: scripts/bundle.sh DIR [FEATURE...]" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."

features=$(IFS=,; echo "dynamic-backends${*:+,$*}")
# It looks for libraries beside itself only. In target/ it finds none; the next build there makes it as it was.
export SHIMMY_BUNDLE=1
build=(cargo build --profile "${BUNDLE_PROFILE:-release}" --bin shimmy --features "$features")
scripts/build.py -- "${build[@]}"
# Everything is built now, and cargo tells where.
mapfile -t made < <("${build[@]}" --message-format=json 2>/dev/null | python3 -c '
import json, sys
binary = libraries = None
for message in map(json.loads, sys.stdin):
    if message.get("executable") and message["target"]["name"] == "shimmy":
        binary = message["executable"]
    for path in message.get("linked_paths", []):
        if "llama-cpp" in path and path.endswith("/build/bin"):
            libraries = path.removeprefix("native=")
print(binary or "", libraries or "", sep="\n")')
binary=${made[0]:-} libraries=${made[1]:-}
[ -x "$binary" ] && [ -d "$libraries" ] || { echo "bundle: error: cargo does not tell where it put shimmy and llama.cpp's libraries" >&2; exit 1; }

# Modules of an earlier bundle would be loaded.
find "$dir" -maxdepth 1 -type f \( -name 'libggml*' -o -name 'libllama*' \) -delete
cp "$binary" "$dir/"
find "$libraries" -maxdepth 1 \( -name 'lib*.so' -o -name 'lib*.dylib' \) -exec cp {} "$dir/" \;
echo "bundle: $dir holds shimmy and $(find "$dir" -maxdepth 1 -name 'lib*' | wc -l) libraries ($(du -sh "$dir" | cut -f1))"
