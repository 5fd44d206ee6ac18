#!/bin/bash
# Every check that is not a test: format, clippy for both feature sets, documentation, licences and sources.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --all --check
scripts/build.py -- cargo clippy --workspace --all-targets -- -D warnings
scripts/build.py -- cargo clippy -p shimmy --no-default-features --features stub --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" scripts/build.py -- cargo doc --no-deps --workspace

# Newest of those that bootstrap built; the user's own where there is none.
PATH="$(printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}"/shimmy/tools/cargo-deny-*/bin | sort -V | tail -n 1):$PATH"
cargo deny --locked --workspace check licenses bans sources
