#!/usr/bin/env python3
"""Writes a model that says what another one says and takes several times as long for it: behind the layers of MODEL.gguf come
more of them, whose last matrices are zeros, so that each adds nothing. For benchmarks of a draft model: MODEL.gguf guesses
for it and is always right.

    benches/compare/deep_model.py MODEL.gguf OUT.gguf [--times 8]
"""
import argparse
import math
import struct

from random_model import SIZES, STRING, skip, text

U32, ALIGNMENT = 4, 32
# What a layer adds comes out of these.
LAST = ("attn_output.weight", "ffn_down.weight")


def padded(n):
    return math.ceil(n / ALIGNMENT) * ALIGNMENT


def read(data):
    """The keys and values as they are in the file, and name, description and bytes of each tensor."""
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    keys, tensors, at = [], [], 24
    for _ in range(n_keys):
        begin, (length,) = at, struct.unpack_from("<Q", data, at)
        key, at = data[at + 8 : at + 8 + length].decode(), at + 8 + length
        (kind,) = struct.unpack_from("<I", data, at)
        at = skip(data, at + 4, kind)
        keys.append((key, data[begin:at]))
    for _ in range(n_tensors):
        end = skip(data, at, STRING)
        name, at = data[at + 8 : end].decode(), end
        (n_dims,) = struct.unpack_from("<I", data, at)
        about, at = data[at : at + 4 + 8 * n_dims + 4], at + 4 + 8 * n_dims + 4
        (offset,) = struct.unpack_from("<Q", data, at)
        at += 8
        tensors.append((name, about, offset))
    start = padded(at)
    ends = dict(zip(sorted(t[2] for t in tensors), sorted(t[2] for t in tensors)[1:] + [len(data) - start]))
    return keys, [(name, about, data[start + offset : start + ends[offset]]) for name, about, offset in tensors]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("model")
    arguments.add_argument("out")
    arguments.add_argument("--times", type=int, default=8)
    arguments = arguments.parse_args()
    keys, tensors = read(open(arguments.model, "rb").read())
    (block_key, entry), = [pair for pair in keys if pair[0].endswith(".block_count")]
    (layers,) = struct.unpack("<I", entry[-SIZES[U32] :])
    for extra in range(layers, layers * arguments.times):
        prefix = f"blk.{extra % layers}."
        for name, about, data in [t for t in tensors if t[0].startswith(prefix)]:
            last = name.removeprefix(prefix) in LAST
            tensors.append((f"blk.{extra}.{name.removeprefix(prefix)}", about, bytes(len(data)) if last else data))
    with open(arguments.out, "wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)))
        for key, entry in keys:
            out.write(text(key) + struct.pack("<II", U32, layers * arguments.times) if key == block_key else entry)
        offset = 0
        for name, about, data in tensors:
            out.write(text(name) + about + struct.pack("<Q", offset))
            offset += padded(len(data))
        out.write(bytes(padded(out.tell()) - out.tell()))
        for _, _, data in tensors:
            out.write(data + bytes(padded(len(data)) - len(data)))


if __name__ == "__main__":
    main()
