"""Writes a BERT that embeds, as sentence-transformers keeps it, as GGUF: numbers stay as they are, in 32 bits.

A folder of it holds model.safetensors (a length in 8 bytes, a JSON header with each tensor's type, shape and place, the
data), vocab.txt (one token a line) and config.json. What GGUF looks like is in docs of ggml; the names of keys and
tensors are those that llama.cpp reads for `bert`.
"""
import json
import struct

ALIGNMENT = 32
UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
INT32 = 5
NORMAL, UNKNOWN, CONTROL = 1, 2, 3
POOL_BY_MEAN = 1

GENERAL = {
    "embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm",
    # Pooling by rank reads it: its first number is the score.
    "pooler.dense": "cls",
}
LAYER = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k", "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output", "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}


def gguf_name(name):
    """None for what is no weight: a list of positions."""
    module, _, kind = name.rpartition(".")
    if module in GENERAL:
        return f"{GENERAL[module]}.{kind}"
    if module.startswith("encoder.layer."):
        _, _, number, inner = module.split(".", 3)
        return f"blk.{number}.{LAYER[inner]}.{kind}"
    return None


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, one):
    """A value with its type; a list becomes an array of them."""
    if isinstance(one, list):
        return struct.pack("<IIQ", ARRAY, kind, len(one)) + b"".join(packed(kind, each) for each in one)
    return struct.pack("<I", kind) + packed(kind, one)


def packed(kind, one):
    return text(one) if kind == STRING else struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], one)


def vocabulary(lines):
    """Tokens as llama.cpp wants them: where a word begins is marked, and not where it goes on."""
    special = [line.startswith("[") and line.endswith("]") for line in lines]
    tokens = [line if own else line[2:] if line.startswith("##") else f"▁{line}" for line, own in zip(lines, special)]
    kinds = [UNKNOWN if line == "[UNK]" else CONTROL if own else NORMAL for line, own in zip(lines, special)]
    return tokens, kinds


def keys(config, name, lines):
    tokens, kinds = vocabulary(lines)
    sizes = {
        "context_length": config["max_position_embeddings"], "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"], "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"], "pooling_type": POOL_BY_MEAN,
    }
    yield "general.architecture", STRING, "bert"
    yield "general.name", STRING, name
    for key, size in sizes.items():
        yield f"bert.{key}", UINT32, size
    yield "bert.attention.layer_norm_epsilon", FLOAT32, config["layer_norm_eps"]
    yield "bert.attention.causal", BOOL, False
    yield "tokenizer.ggml.model", STRING, "bert"
    yield "tokenizer.ggml.token_type_count", UINT32, config["type_vocab_size"]
    yield "tokenizer.ggml.tokens", STRING, tokens
    yield "tokenizer.ggml.token_type", INT32, kinds
    for key, token in {"bos": "[CLS]", "seperator": "[SEP]", "padding": "[PAD]", "mask": "[MASK]", "unknown": "[UNK]"}.items():
        yield f"tokenizer.ggml.{key}_token_id", UINT32, lines.index(token)


def convert(safetensors, vocab, config, name, out):
    """`safetensors` and `vocab` are the files' bytes, `config` is read; writes to the open file `out`."""
    [length] = struct.unpack_from("<Q", safetensors)
    header = json.loads(safetensors[8:8 + length])
    header.pop("__metadata__", None)
    tensors = {gguf_name(name): tensor for name, tensor in header.items() if gguf_name(name)}
    meta = list(keys(config, name, vocab.decode().splitlines()))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    head += b"".join(text(key) + value(kind, one) for key, kind, one in meta)
    at = 0
    for tensor_name, tensor in tensors.items():
        assert tensor["dtype"] == "F32", (tensor_name, tensor)
        # The innermost dimension comes first.
        shape = tensor["shape"][::-1]
        head += text(tensor_name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, at)
        begin, end = tensor["data_offsets"]
        at += end - begin + -(end - begin) % ALIGNMENT
    out.write(head + bytes(-len(head) % ALIGNMENT))
    for tensor in tensors.values():
        begin, end = tensor["data_offsets"]
        out.write(safetensors[8 + length + begin:8 + length + end] + bytes(-(end - begin) % ALIGNMENT))
