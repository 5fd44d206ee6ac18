"""Images through other people's clients. SmolLM2 was not trained to see any; it gets a projector that reads each patch of a colour as
the embedding of the colour's name, so that an image must be answered as those words are: python3 images.py SHIMMY MODEL.gguf"""
import base64
import pathlib
import struct
import sys
import tempfile
import zlib

import anthropic
import gguf
import langchain_anthropic
import langchain_ollama
import langchain_openai
import numpy
import ollama
import openai
from langchain_core.messages import HumanMessage

from served import NAME, started

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
PATCH, SIDE, INNER = 4, 4, 32
PICTURE = ["red"] * 6 + ["blue"] * 6 + ["green"] * 4
QUESTION = "\nWhich colours are these?"


def projector(model, path):
    """Writes a projector for the model. What is no pure colour is far below zero, where nothing of it passes."""
    reader = gguf.GGUFReader(model)
    [table] = [tensor for tensor in reader.tensors if tensor.name == "token_embd.weight"]
    vocabulary = reader.fields["tokenizer.ggml.tokens"].contents()
    rows = [table.data[vocabulary.index(f"Ġ{name}")] for name in COLOURS]
    embeddings = numpy.stack([gguf.quants.dequantize(row, table.tensor_type) for row in rows])
    width = embeddings.shape[1]
    patches = numpy.zeros((INNER, 3, PATCH, PATCH), numpy.float32)
    for channel in range(3):
        patches[channel, channel] = 1 / PATCH ** 2
    names = numpy.zeros((width, INNER), numpy.float32)
    names[:, :3] = embeddings.T / 20

    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_string("clip.projector_type", "janus_pro")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    sizes = {"image_size": SIDE * PATCH, "patch_size": PATCH, "embedding_length": INNER, "feed_forward_length": INNER,
             "block_count": 0, "attention.head_count": 1, "projection_dim": width}
    for key, size in sizes.items():
        writer.add_uint32(f"clip.vision.{key}", size)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.0] * 3)
    writer.add_array("clip.vision.image_std", [1.0] * 3)
    writer.add_tensor("v.patch_embd.weight", patches)
    writer.add_tensor("mm.0.weight", 40 * numpy.eye(INNER, dtype=numpy.float32))
    writer.add_tensor("mm.0.bias", numpy.full(INNER, -20, numpy.float32))
    writer.add_tensor("mm.1.weight", names)
    writer.add_tensor("mm.1.bias", numpy.zeros(width, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def picture():
    """A PNG of the patches in PICTURE."""
    side = SIDE * PATCH
    pixels = [[COLOURS[PICTURE[y // PATCH * SIDE + x // PATCH]] for x in range(side)] for y in range(side)]
    lines = b"".join(b"\0" + b"".join(map(bytes, line)) for line in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def openai_package(address, data):
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none")

    def ask(content, **more):
        messages = [{"role": "user", "content": content}]
        return client.chat.completions.create(model=NAME, messages=messages, max_tokens=24, temperature=0, **more)

    words = ask("".join(f" {name}" for name in PICTURE) + QUESTION)
    expected = words.choices[0].message.content
    assert "red" in expected.lower(), expected
    parts = [{"type": "image_url", "image_url": {"url": data}}, {"type": "text", "text": QUESTION}]
    seen = ask(parts)
    assert seen.choices[0].message.content == expected, (seen, expected)
    assert seen.usage.prompt_tokens == words.usage.prompt_tokens, (seen, words)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(parts, stream=True) if chunk.choices) == expected
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": data}, {"type": "input_text", "text": QUESTION}]}]
    answer = client.responses.create(model=NAME, input=items, max_output_tokens=24, temperature=0)
    assert answer.output_text == expected, (answer, expected)
    # What was seen is still there in the next turn.
    more = client.responses.create(model=NAME, input="Say it again.", previous_response_id=answer.id, max_output_tokens=4, temperature=0)
    assert more.usage.input_tokens > answer.usage.input_tokens + 16, more
    return expected, words.usage.prompt_tokens


def ollama_package(address, file, expected):
    client = ollama.Client(host=f"http://{address}")
    assert "vision" in client.show(NAME).capabilities
    options = {"temperature": 0, "num_predict": 24}
    chat = client.chat(model=NAME, messages=[{"role": "user", "content": QUESTION, "images": [file]}], options=options)
    assert chat.message.content == expected, (chat, expected)
    generated = client.generate(model=NAME, prompt=QUESTION, images=[file], options=options)
    assert generated.response == expected, (generated, expected)


def anthropic_package(address, file, expected, prompt_tokens):
    client = anthropic.Anthropic(base_url=f"http://{address}", api_key="none")
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(file).decode()}
    content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    messages = [{"role": "user", "content": content}]
    answer = client.messages.create(model=NAME, messages=messages, max_tokens=24, extra_body={"temperature": 0})
    assert answer.content[0].text == expected, (answer, expected)
    assert client.messages.count_tokens(model=NAME, messages=messages).input_tokens == prompt_tokens


def langchain_packages(address, data, expected):
    image = {"type": "image_url", "image_url": {"url": data}}
    models = [
        langchain_openai.ChatOpenAI(base_url=f"http://{address}/v1", api_key="none", model=NAME, max_tokens=24, temperature=0),
        langchain_anthropic.ChatAnthropic(base_url=f"http://{address}", api_key="none", model=NAME, max_tokens=24, temperature=0),
        langchain_ollama.ChatOllama(base_url=f"http://{address}", model=NAME, num_predict=24, temperature=0),
    ]
    for model in models:
        # For Ollama, LangChain puts a text on a line of its own.
        question = QUESTION.removeprefix("\n") if isinstance(model, langchain_ollama.ChatOllama) else QUESTION
        answer = model.invoke([HumanMessage([image, {"type": "text", "text": question}])])
        assert answer.content == expected, (type(model), answer, expected)


def main(shimmy, model):
    file = picture()
    data = "data:image/png;base64," + base64.b64encode(file).decode()
    with tempfile.TemporaryDirectory() as models:
        projector(model, pathlib.Path(models, "mmproj-colours.gguf"))
        pathlib.Path(models, pathlib.Path(model).name).symlink_to(pathlib.Path(model).absolute())
        with started(shimmy, "--model-dirs", models, "--deterministic", "serve", "--drain", "2", "--model", NAME) as address:
            expected, prompt_tokens = openai_package(address, data)
            ollama_package(address, file, expected)
            anthropic_package(address, file, expected, prompt_tokens)
            langchain_packages(address, data, expected)
    print(f"images are answered as their words are: {expected!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
