#!/bin/bash
# Installs what `--features llama-vulkan` needs on Debian 12 or newer and prints the line that sets VULKAN_SDK:
#   eval "$(scripts/vulkan_deps.sh)"
# Includes a software device, so that the tests find one on a machine without a GPU.
set -euo pipefail

say() { echo "vulkan: $*" >&2; }
die() { say "error: $*"; exit 1; }

sdk="${XDG_CACHE_HOME:-$HOME/.cache}/shimmy/vulkan-sdk"
# llama.cpp uses VK_EXT_layer_settings, which the headers have since 1.3.272; Debian 12 has 1.3.239.
recent_enough() { grep -qs VK_EXT_layer_settings "$1/vulkan/vulkan_core.h"; }

if recent_enough "${VULKAN_SDK:-/nonexistent}/include"; then
    echo "export VULKAN_SDK='$VULKAN_SDK'"
    exit
fi
if [ -e "$sdk/complete-3" ] && [ -x "$sdk/bin/glslc" ] && [ -e "$sdk/lib/libvulkan.so" ] && compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null; then
    echo "export VULKAN_SDK='$sdk'"
    exit
fi
command -v apt-get >/dev/null || die "no apt here; install a Vulkan SDK of 1.4 or newer with glslc and SPIRV-Headers, and set VULKAN_SDK"

sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
missing=()
ldconfig -p | grep -q 'libvulkan\.so\.1' || missing+=(libvulkan1)
compgen -G '/usr/share/vulkan/icd.d/*.json' >/dev/null || missing+=(mesa-vulkan-drivers)
if [ ${#missing[@]} -gt 0 ]; then
    say "installing with apt: ${missing[*]}"
    $sudo apt-get update -q >&2 || die "apt-get update failed; its message is above"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >&2 ||
        die "apt-get could not install ${missing[*]}; its message is above"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# apt downloads as its own user.
chmod 755 "$scratch"
options=()
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
version=$(apt-cache policy libvulkan-dev | sed -n 's/ *Candidate: //p')
packages=(libvulkan-dev spirv-headers)
if dpkg --compare-versions "${version:-0}" lt 1.3.272; then
    # The headers and the shader compiler of the next release, unpacked beside the system and never installed. Its sources
    # are this machine's own with the release's name replaced.
    [ "$codename" = bookworm ] || die "libvulkan-dev here is ${version:-missing}, 1.3.272 is needed; set VULKAN_SDK to a newer SDK"
    say "the Vulkan headers of $codename ($version) and its glslc are too old; taking those of trixie"
    mkdir -p "$scratch/parts" "$scratch/lists/partial" "$scratch/cache/archives/partial"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ ! -f "$file" ] || sed -nE "/^deb .* $codename /s/ $codename / trixie /p" "$file"
    done >"$scratch/parts/next.list"
    for file in /etc/apt/sources.list.d/*.sources; do
        [ ! -f "$file" ] || awk -v RS= -v ORS='\n\n' "/(^|\n)Suites:[^\n]* $codename( |\n|\$)/ { sub(/Suites:[^\n]*/, \"Suites: trixie\"); print }" "$file"
    done >"$scratch/parts/next.sources"
    options=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$scratch/parts"
        -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch/cache" -o APT::Get::List-Cleanup=0)
    apt-get "${options[@]}" update -q >&2 || die "apt-get could not read the sources of trixie; its message is above"
    # With the C library that it was made for, and all between.
    packages+=($(apt-get "${options[@]}" -o Dir::State::status=/dev/null -s install --no-install-recommends glslc | sed -n 's/^Inst \([^ ]*\) .*/\1/p'))
elif ! command -v glslc >/dev/null; then
    $sudo apt-get install -y -q --no-install-recommends glslc >&2 || die "apt-get could not install glslc; its message is above"
fi
say "unpacking to $sdk: ${packages[*]}"
(cd "$scratch" && apt-get "${options[@]}" -o APT::Sandbox::User=root download -q "${packages[@]}" >&2) ||
    die "apt-get could not download ${packages[*]}; its message is above"
for package in "$scratch"/*.deb; do
    dpkg -x "$package" "$scratch/root"
done
recent_enough "$scratch/root/usr/include" || die "the downloaded libvulkan-dev has no VK_EXT_layer_settings; set VULKAN_SDK to a newer SDK"

# The layout of an SDK: CMake's FindVulkan and llama.cpp look in include, lib, bin and share.
rm -rf "$sdk"
mkdir -p "$sdk/lib" "$sdk/bin"
mv "$scratch/root/usr/include" "$scratch/root/usr/share" "$sdk/"
ln -s "$(ldconfig -p | sed -n 's/.*libvulkan\.so\.1 .*=> //p' | head -n 1)" "$sdk/lib/libvulkan.so"
if [ -x "$scratch/root/usr/bin/glslc" ]; then
    mkdir "$sdk/next-release"
    mv "$scratch/root/usr/bin" "$scratch/root/usr/lib" "$sdk/next-release/"
    libc=$(dirname "$(find "$sdk/next-release/lib" -name libc.so.6)")
    cat >"$sdk/bin/glslc" <<GLSLC
#!/bin/sh
# llama.cpp asks with these files what shaders it may compile.
case "\$SHIMMY_PLAIN_SHADERS:\$*" in
    1:*/feature-tests/coopmat.comp*) echo "extension not supported: GL_KHR_cooperative_matrix" >&2; exit 1 ;;
    1:*/feature-tests/coopmat2*.comp*) echo "extension not supported: GL_NV_cooperative_matrix2, extension not supported: GL_NV_cooperative_matrix_decode_vector" >&2; exit 1 ;;
esac
# Its own loader finds its own C library.
exec "$(find "$libc" -name 'ld-linux*')" --library-path "$libc" "$sdk/next-release/bin/glslc" "\$@"
GLSLC
    chmod +x "$sdk/bin/glslc"
else
    ln -s "$(command -v glslc)" "$sdk/bin/glslc"
fi
"$sdk/bin/glslc" --version >/dev/null || die "$sdk/bin/glslc does not run"
touch "$sdk/complete-3"
echo "export VULKAN_SDK='$sdk'"
