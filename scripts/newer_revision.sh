#!/bin/sh
# Prints the path of a writable copy of the newer llama.cpp that `make test-revisions` builds against.
exec python3 "$(dirname "$0")/vendor.py" newer
