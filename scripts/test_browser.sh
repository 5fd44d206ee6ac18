#!/bin/bash
# Opens the page of the API, and pages of other sites, in a real browser: Chromium, headless. CHROMIUM names another one.
# Takes the binary of a build with the feature `stub`; builds one otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/bootstrap.sh browser
binary=${1:-}
if [ -z "$binary" ]; then
    scripts/build.py -- cargo build --no-default-features --features stub
    binary="${CARGO_TARGET_DIR:-target}/debug/shimmy"
fi
packages=$(scripts/python_packages.sh browser tests/browser/requirements.txt)
CHROMIUM=$(scripts/find_chromium.sh)
# The server is on this machine, whatever way leads out of it.
export CHROMIUM SHIMMY="$binary" NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 PYTHONPATH="$packages:tests/clients" PYTHONDONTWRITEBYTECODE=1
exec python3 tests/browser/test_browser.py
