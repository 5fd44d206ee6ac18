#!/bin/sh
# Installs what `--features llama-opencl` needs to build: headers and the loader. No driver: llama.cpp's OpenCL
# backend only takes Adreno and Intel GPUs, so a software device (270 MB) would show the tests nothing.
set -eu

[ -f /usr/include/CL/cl.h ] && [ -n "$(find /usr/lib /usr/lib64 -name libOpenCL.so -print -quit 2>/dev/null)" ] && exit 0
packages="opencl-headers ocl-icd-opencl-dev"
if ! command -v apt-get >/dev/null; then
    echo "opencl: error: no apt here; install the OpenCL headers and the ICD loader (dnf: opencl-headers ocl-icd-devel, pacman: opencl-headers ocl-icd)" >&2
    exit 1
fi
sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
echo "opencl: installing with apt: $packages" >&2
$sudo apt-get update -q >&2
# shellcheck disable=SC2086 # The names are separate words.
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages >&2
