#!/bin/sh
# Installs what the build needs and this machine lacks. Does nothing, fast, where nothing is missing.
#   scripts/bootstrap.sh        tools for building shimmy
#   scripts/bootstrap.sh lint   rustfmt, clippy and cargo-deny as well
#   scripts/bootstrap.sh browser   a Chromium as well
#   scripts/bootstrap.sh fuzz   cargo-fuzz as well
set -eu

say() { echo "bootstrap: $*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# bindgen loads libclang at run time, from these places.
have_libclang() {
    for file in "${LIBCLANG_PATH:-/nonexistent}"/libclang.* "${LIBCLANG_PATH:-/nonexistent}" \
        /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib64/libclang*.so* /usr/lib/libclang*.so* \
        /usr/lib64/llvm*/lib/libclang*.so* /usr/local/lib/libclang*.so* \
        /opt/homebrew/opt/llvm/lib/libclang.dylib /usr/local/opt/llvm/lib/libclang.dylib \
        /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
        case "$file" in *libclang-cpp*) continue ;; esac
        [ -f "$file" ] && return 0
    done
    return 1
}

have cargo || die "cargo is not in PATH; install Rust (rustup, or your distribution's package), then repeat"
have python3 || die "python3 is not in PATH; install Python 3, then repeat"

# One word for each missing tool, translated to package names below.
missing=""
have cmake || missing="$missing cmake"
have c++ || have g++ || have clang++ || missing="$missing cxx"
have ninja || missing="$missing ninja"
have ccache || have sccache || missing="$missing ccache"
have_libclang || missing="$missing libclang"
# Asking Python whether it has pip is slow to do on each run; importing the name is not.
python3 -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("pip") is None)' || missing="$missing pip"

if [ "${1:-}" = browser ]; then
    "$(dirname "$0")/find_chromium.sh" >/dev/null || missing="$missing chromium"
fi

packages_for() {
    for tool in $missing; do
        case "$1:$tool" in
            apt:cxx) echo g++ ;;
            apt:ninja) echo ninja-build ;;
            apt:libclang) echo libclang-dev ;;
            apt:pip) echo python3-pip ;;
            apt:chromium) echo chromium-headless-shell ;;
            dnf:cxx) echo gcc-c++ ;;
            dnf:ninja) echo ninja-build ;;
            dnf:libclang) echo clang-devel ;;
            dnf:pip) echo python3-pip ;;
            pacman:cxx) echo gcc ;;
            pacman:libclang) echo clang ;;
            pacman:pip) echo python-pip ;;
            brew:cxx | brew:libclang) echo llvm ;;
            brew:pip) echo python ;;
            *) echo "$tool" ;;
        esac
    done | sort -u | tr '\n' ' '
}

if [ -n "$missing" ]; then
    say "missing:$missing"
    if have apt-get; then
        packages=$(packages_for apt)
        sudo=""
        if [ "$(id -u)" -ne 0 ]; then
            have sudo || die "neither root nor sudo; as root run: apt-get install $packages"
            sudo="sudo"
        fi
        say "installing with apt: $packages"
        # An old package list names files that the mirrors no longer hold.
        $sudo apt-get update -q >&2 || die "apt-get update failed; its message is above"
        # shellcheck disable=SC2086 # The names are separate words.
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages >&2 ||
            die "apt-get could not install $packages; its message is above"
    else
        say "error: install these packages with your package manager, then repeat:"
        echo "  dnf install $(packages_for dnf)" >&2
        echo "  pacman -S $(packages_for pacman)" >&2
        echo "  brew install $(packages_for brew)" >&2
        exit 1
    fi
fi

# A version of our own, where `make clean` does not reach and the user's own tools stay as they are.
cargo_tool() {
    root="${XDG_CACHE_HOME:-$HOME/.cache}/shimmy/tools/$1-$2"
    [ -x "$root/bin/$1" ] && return
    say "building $1 $2 once"
    # Unoptimised: it does its work in a second anyway, and builds in a third of the time.
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 \
        cargo install --locked --debug --quiet --root "$root" --version "=$2" "$1" >&2 ||
        die "cargo could not install $1 $2; its message is above"
}

[ "${1:-}" != fuzz ] || cargo_tool cargo-fuzz 0.13.2
[ "${1:-}" = lint ] || exit 0

for component in rustfmt clippy; do
    tool="cargo-${component#rust}"
    "$tool" --version >/dev/null 2>&1 && continue
    have rustup || die "$tool is missing; install it from where your Rust came"
    rustup component add "$component" >&2 || die "rustup could not add $component; its message is above"
done

cargo_tool cargo-deny 0.20.2
