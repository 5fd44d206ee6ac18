#!/bin/bash
# Prints where the packages of a requirements file are, and installs them there once:
#   scripts/python_packages.sh NAME REQUIREMENTS [OPTION OF PIP …]
set -euo pipefail
cd "$(dirname "$0")/.."

# Compiled parts are for one Python on one kind of machine.
python=$(python3 -c 'import platform, sys; print(sys.implementation.cache_tag, platform.machine(), sep="-")')
packages="${XDG_CACHE_HOME:-$HOME/.cache}/shimmy/$1/$python-$(cksum <"$2" | cut -d ' ' -f 1)"
if [ ! -d "$packages" ]; then
    rm -rf "$packages.part"
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install -q --disable-pip-version-check --no-warn-conflicts --target "$packages.part" -r "$2" "${@:3}" >&2
    mv "$packages.part" "$packages"
fi
echo "$packages"
