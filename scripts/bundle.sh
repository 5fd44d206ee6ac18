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
# First as for use in place: that binary knows where its libraries are.
scripts/build.py -- cargo build --release --features "$features"
binary="${CARGO_TARGET_DIR:-target}/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}release/shimmy"
libraries=$(env -u SHIMMY_BACKEND_DIR "$binary" gpu-info --json | python3 -c '
import glob, json, os, sys
dirs = {os.path.dirname(module["path"]) for module in json.load(sys.stdin)["system"]["modules"]}
print(*[found for found in dirs if glob.glob(os.path.join(found, "libllama.*"))], sep="\n")')
SHIMMY_BUNDLE=1 scripts/build.py -- cargo build --release --features "$features"

# What an earlier bundle left would be loaded.
find "$dir" -maxdepth 1 -name 'lib*' -delete
install -m 755 "$binary" "$dir/"
find "$libraries" -maxdepth 1 \( -name 'lib*.so' -o -name 'lib*.dylib' \) -exec cp {} "$dir/" \;
echo "bundle: $dir holds shimmy and $(find "$dir" -maxdepth 1 -name 'lib*' | wc -l) libraries ($(du -sh "$dir" | cut -f1))"
