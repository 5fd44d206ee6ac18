#!/bin/bash
# Runs the targets of fuzz/ with libFuzzer, each so many times, on the stable compiler: coverage needs no newer one, sanitizers do.
#   scripts/test_fuzz.sh [RUNS [TARGET …]]   100000 times each where nothing is said
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/bootstrap.sh fuzz
PATH="$(printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}"/shimmy/tools/cargo-fuzz-*/bin | sort -V | tail -n 1):$PATH"
# The versions that the project is built with.
cp Cargo.lock fuzz/Cargo.lock
targets=("${@:2}")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
for target in "${targets[@]}"; do
    cargo fuzz run --sanitizer none "$target" -- "-runs=${1:-100000}" -print_final_stats=1
done
