"""What all tests of other people's clients share: a server, a tiny model that embeds, and what they ask about the server."""
import contextlib
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import time
import urllib.request

NAME = "smollm2-135m-instruct"
EMBEDDER = "embedder"
DIMENSIONS = 32


@contextlib.contextmanager
def serving(shimmy, model, *options):
    """The address of a server that knows this model and one that embeds, and nothing of the user's."""
    with tempfile.TemporaryDirectory() as models:
        pathlib.Path(models, f"{EMBEDDER}.gguf").write_bytes(embedder())
        pathlib.Path(models, pathlib.Path(model).name).symlink_to(pathlib.Path(model).absolute())
        with started(shimmy, "--model-dirs", models, *options, "serve", "--drain", "2", "--model", NAME) as address:
            yield address


@contextlib.contextmanager
def started(shimmy, *arguments, **variables):
    """The address of a server in a home of its own, without a way to a registry unless variables of its environment name one."""
    with tempfile.TemporaryDirectory() as home:
        kept = {name: os.environ[name] for name in ("PATH", "SHIMMY_THREADS") if name in os.environ}
        env = {**kept, "HOME": home, "RUST_LOG": "warn", "OLLAMA_MODELS": f"{home}/none", "HF_ENDPOINT": "http://127.0.0.1:9",
               "SHIMMY_OLLAMA_REGISTRY": "http://127.0.0.1:9", **variables}
        command = [pathlib.Path(shimmy).absolute(), *arguments, "--bind", "127.0.0.1:0"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, cwd=home)
        try:
            line = server.stdout.readline()
            assert "http://" in line, "the server did not start; its message is above"
            yield line.split("http://")[1].split()[0]
        finally:
            server.terminate()
            server.wait(timeout=30)
            server.stdout.close()


def metric(address, name, key="none"):
    """Sum of a metric over its labels. Before the first request there are none at all."""
    request = urllib.request.Request(f"http://{address}/metrics", headers={"authorization": f"Bearer {key}"})
    lines = urllib.request.urlopen(request).read().decode().splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{")]
    assert values or not lines, f"there is no metric {name}"
    return sum(values)


def cancellations(address):
    return metric(address, "shimmy_cancellations_total")


def stops_working(address, before):
    """Waits until the server has noticed a client that left, when `before` were counted."""
    for _ in range(100):
        if cancellations(address) > before and metric(address, "shimmy_sequences") == 0:
            return
        time.sleep(0.05)
    raise AssertionError("the server still works for a client that has left")


def tokens(address, text):
    body = json.dumps({"model": NAME, "content": text, "add_special": True}).encode()
    return json.load(urllib.request.urlopen(f"http://{address}/tokenize", body))["tokens"]


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def says(kind, status, call):
    """What a call fails with, in an exception that has a status and a text."""
    error = raises(kind, call)
    assert error.status_code == status, error
    return error.error


def embedder():
    """A GGUF file with a LLaMA of one layer that looks both ways, which makes it one for embeddings. Its weights mean nothing."""
    width, inner = DIMENSIONS, 64
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * 27
    llama = {"block_count": 1, "context_length": 512, "embedding_length": width, "feed_forward_length": inner,
             "attention.head_count": 4, "attention.head_count_kv": 4, "rope.dimension_count": 8}
    keys = [text("general.architecture") + u32(8) + text("llama"), text("general.name") + u32(8) + text(EMBEDDER)]
    keys += [text(f"llama.{key}") + u32(4) + u32(value) for key, value in llama.items()]
    keys += [
        text("llama.attention.layer_norm_rms_epsilon") + u32(6) + struct.pack("<f", 1e-5),
        text("llama.attention.causal") + u32(7) + b"\0",
        text("llama.pooling_type") + u32(4) + u32(1),
        text("tokenizer.ggml.model") + u32(8) + text("llama"),
        text("tokenizer.ggml.tokens") + u32(9) + u32(8) + u64(len(names)) + b"".join(map(text, names)),
        text("tokenizer.ggml.scores") + u32(9) + u32(6) + u64(len(names)) + bytes(4 * len(names)),
        text("tokenizer.ggml.token_type") + u32(9) + u32(5) + u64(len(names)) + struct.pack(f"<{len(kinds)}i", *kinds),
    ]
    shapes = {"token_embd": [width, len(names)], "output_norm": [width], "output": [width, len(names)]}
    layer = {"attn_norm": [width], "ffn_norm": [width], "ffn_gate": [width, inner], "ffn_up": [width, inner], "ffn_down": [inner, width],
             **{f"attn_{part}": [width, width] for part in ("q", "k", "v", "output")}}
    shapes |= {f"blk.0.{part}": shape for part, shape in layer.items()}
    head, data, state = b"", b"", 1
    for name, shape in shapes.items():
        head += text(f"{name}.weight") + u32(len(shape)) + b"".join(map(u64, shape)) + u32(0) + u64(len(data))
        weights = []
        for _ in range(shape[0] * (shape[1] if len(shape) > 1 else 1)):
            state = state * 1103515245 + 12345 & 0x7FFFFFFF
            weights.append((len(shape) == 1) + state / 0x7FFFFFFF - 0.5)
        data += struct.pack(f"<{len(weights)}f", *weights)
    head = b"GGUF" + u32(3) + u64(len(shapes)) + u64(len(keys)) + b"".join(keys) + head
    return head + bytes(-len(head) % 32) + data


def u32(number):
    return struct.pack("<I", number)


def u64(number):
    return struct.pack("<Q", number)


def text(value):
    return u64(len(value.encode())) + value.encode()
