#!/usr/bin/env python3
"""Writes a model of random Q4_0 weights in the shape of a Llama 8B, with the tokenizer of another GGUF file. What it says is
noise; how fast it says it is what a model of this size does. The same seed gives the same file.

    benches/compare/random_model.py TOKENIZER.gguf OUT.gguf [--layers 32] [--seed 1]
"""
import argparse
import struct

WIDTH, FEED, HEADS, KV_HEADS = 4096, 14336, 32, 8
F32, Q4_0, ALIGNMENT = 0, 2, 32
# GGUF's value types: size in bytes, by number.
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
U32, FLOAT, STRING, ARRAY = 4, 6, 8, 9


def skip(data, at, kind):
    if kind == STRING:
        return at + 8 + struct.unpack_from("<Q", data, at)[0]
    if kind == ARRAY:
        item, count = struct.unpack_from("<IQ", data, at)
        at += 12
        if item != STRING:
            return at + SIZES[item] * count
        for _ in range(count):
            at = skip(data, at, STRING)
        return at
    return at + SIZES[kind]


def tokenizer(path):
    """The tokenizer's keys as they are in the file, and how many tokens it has."""
    data = open(path, "rb").read()
    keys, tokens, at = [], 0, 24
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        begin, (length,) = at, struct.unpack_from("<Q", data, at)
        key = data[at + 8 : at + 8 + length].decode()
        at += 8 + length
        (kind,) = struct.unpack_from("<I", data, at)
        end = skip(data, at + 4, kind)
        if key.startswith("tokenizer."):
            keys.append(data[begin:end])
        if key == "tokenizer.ggml.tokens":
            (tokens,) = struct.unpack_from("<Q", data, at + 8)
        at = end
    return keys, tokens


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def main():
    import numpy  # Whoever only reads needs none.

    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("tokenizer")
    arguments.add_argument("out")
    arguments.add_argument("--layers", type=int, default=32)
    arguments.add_argument("--seed", type=int, default=1)
    arguments = arguments.parse_args()

    keys, tokens = tokenizer(arguments.tokenizer)
    keys += [text("general.architecture") + struct.pack("<I", STRING) + text("llama")]
    for key, value in {"block_count": arguments.layers, "embedding_length": WIDTH, "feed_forward_length": FEED,
                       "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "context_length": 131072,
                       "rope.dimension_count": WIDTH // HEADS, "vocab_size": tokens}.items():
        keys.append(text(f"llama.{key}") + struct.pack("<II", U32, value))
    for key, value in {"attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 5e5}.items():
        keys.append(text(f"llama.{key}") + struct.pack("<If", FLOAT, value))

    tensors = [("token_embd.weight", (WIDTH, tokens)), ("output_norm.weight", (WIDTH,)), ("output.weight", (WIDTH, tokens))]
    for layer in range(arguments.layers):
        kv = WIDTH // HEADS * KV_HEADS
        for name, shape in {"attn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, kv), "attn_v": (WIDTH, kv),
                            "attn_output": (WIDTH, WIDTH), "ffn_norm": (WIDTH,), "ffn_gate": (WIDTH, FEED),
                            "ffn_up": (WIDTH, FEED), "ffn_down": (FEED, WIDTH)}.items():
            tensors.append((f"blk.{layer}.{name}.weight", shape))

    infos, offset, sizes = [], 0, []
    for name, shape in tensors:
        count = int(numpy.prod(shape))
        size = count * 4 if len(shape) == 1 else count // 32 * 18
        infos.append(text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
                     + struct.pack("<IQ", F32 if len(shape) == 1 else Q4_0, offset))
        sizes.append(size)
        offset += -(-size // ALIGNMENT) * ALIGNMENT

    random = numpy.random.default_rng(arguments.seed)
    with open(arguments.out, "wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(infos))
        out.write(bytes(-out.tell() % ALIGNMENT))
        for (_, shape), size in zip(tensors, sizes):
            if len(shape) == 1:
                out.write(numpy.ones(shape, numpy.float32).tobytes())
            else:
                # A block: its scale as a 16-bit float, then 32 numbers of 4 bits. This scale keeps activations near 1.
                blocks = numpy.frombuffer(random.bytes(size), numpy.uint8).reshape(-1, 18).copy()
                scale = numpy.float16(0.2 / shape[0] ** 0.5)
                blocks[:, :2] = numpy.frombuffer(scale.tobytes(), numpy.uint8)
                out.write(blocks.tobytes())
            out.write(bytes(-size % ALIGNMENT))


if __name__ == "__main__":
    main()
