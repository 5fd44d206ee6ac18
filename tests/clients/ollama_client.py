"""Drives `shimmy serve` with Ollama's own Python package: python3 ollama_client.py ADDRESS SHIMMY MODEL.gguf"""
import asyncio
import functools
import importlib.metadata
import json
import sys
import time
import urllib.request

import httpx
import ollama

from served import DIMENSIONS, EMBEDDER, NAME, cancellations, raises, says, started, stops_working

SUM = [{"role": "user", "content": "What is 2+2?"}]
COLD = {"temperature": 0, "num_predict": 32}
fails = functools.partial(says, ollama.ResponseError)


def plain(client):
    answer = client.chat(model=NAME, messages=SUM, options=COLD)
    assert "4" in answer.message.content and answer.message.role == "assistant", answer
    assert answer.done and answer.done_reason in ("stop", "length"), answer
    assert answer.eval_count > 0 and answer.prompt_eval_count > 0, answer
    assert answer.total_duration >= answer.eval_duration > 0, answer
    # An answer goes back as it came.
    again = SUM + [answer.message, {"role": "user", "content": "And 3+3?"}]
    assert client.chat(model=NAME, messages=again, options={"num_predict": 8}, think=False).message.content
    return answer.message.content


def streaming(client, expected):
    parts = list(client.chat(model=NAME, messages=SUM, options=COLD, stream=True))
    assert "".join(part.message.content for part in parts) == expected, parts
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True], parts
    assert parts[-1].eval_count > 0, parts[-1]


def generate(client):
    prompt = "The capital of France is"
    answer = client.generate(model=NAME, prompt=prompt, raw=True, options={"temperature": 0, "num_predict": 2})
    assert answer.response and answer.done_reason == "length" and answer.eval_count == 2, answer
    parts = client.generate(
        model=NAME, prompt=prompt, raw=True, options={"temperature": 0, "num_predict": 2}, stream=True)
    assert "".join(part.response for part in parts) == answer.response
    assert client.generate(model=NAME).done_reason == "load"
    assert client.generate(model=NAME, prompt="Hi", system="Be brief.", options=COLD).response


def sampling(client):
    def text(**options):
        return client.chat(model=NAME, messages=SUM, options={"num_predict": 24, **options}).message.content

    assert text(seed=5, temperature=1.5) == text(seed=5, temperature=1.5)
    assert text(seed=5, temperature=1.5) != text(seed=6, temperature=1.5)
    # Ollama draws a seed for this one.
    assert text(seed=-1, temperature=1.5) != text(seed=-1, temperature=1.5)
    assert " 4" not in text(temperature=0, stop=[" 4"])


def add(a: int, b: int) -> int:
    """Adds two numbers.

    Args:
      a: The first.
      b: The second.
    """
    return a + b


def tools(client):
    """Nothing can make the model call; where it does, the shape has to be right."""
    calls = []
    for part in client.chat(model=NAME, messages=SUM, tools=[add], options=COLD, stream=True):
        calls.extend(part.message.tool_calls or [])
    for call in calls:
        assert call.function.name and isinstance(call.function.arguments, dict), call
    asked = ollama.Message.ToolCall(function={"name": "add", "arguments": {"a": 2, "b": 2}})
    round_trip = SUM + [ollama.Message(role="assistant", content="", tool_calls=[asked]),
                        {"role": "tool", "tool_name": "add", "content": "4"}]
    assert client.chat(model=NAME, messages=round_trip, tools=[add], options=COLD).done


def schema(client):
    form = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"],
            "additionalProperties": False}
    answer = client.chat(model=NAME, messages=SUM, format=form, options={"temperature": 0, "num_predict": 64})
    found = json.loads(answer.message.content)
    assert list(found) == ["sum"] and isinstance(found["sum"], int), answer


def embedding(client):
    vectors = client.embed(model=EMBEDDER, input=["one", "two and more"]).embeddings
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * 2 and vectors[0] != vectors[1], vectors
    assert len(client.embed(model=EMBEDDER, input="one", dimensions=8).embeddings[0]) == 8
    older = client.embeddings(model=EMBEDDER, prompt="one").embedding
    assert all(abs(a - b) < 1e-4 for a, b in zip(older, vectors[0], strict=True)), (older, vectors)
    reason = fails(400, lambda: client.embed(model=NAME, input=["one", "two"]))
    assert "embed" in reason, reason
    fails(400, lambda: client.embeddings(model=NAME, prompt="one"))
    fails(404, lambda: client.embed(model="nothing", input="one"))
    assert client.embed(model=NAME, input="").embeddings == []


def models(client, address):
    [model] = [model for model in client.list().models if model.model == "smollm2:135m-instruct-q4_1"]
    assert model.size > 0 and len(model.digest) == 64 and model.modified_at.year > 2000, model
    assert model.details.format == "gguf" and model.details.family == "llama", model
    shown = client.show(NAME)
    assert "completion" in shown.capabilities and shown.template, shown
    assert shown.modelinfo["general.architecture"] == "llama", shown.modelinfo
    assert shown.modelinfo["llama.context_length"] > 0 and shown.modelinfo["general.parameter_count"] > 0
    assert client.chat(model=model.model, messages=SUM, options=COLD).model == model.model
    loaded = here(client)
    assert loaded.digest == model.digest and loaded.size > 0 and loaded.context_length > 0, loaded
    assert loaded.expires_at.year > 2100, loaded
    version = json.load(urllib.request.urlopen(f"http://{address}/api/version"))["version"]
    assert [int(part) for part in version.split("-")[0].split(".")] >= [1, 0, 0], version
    assert urllib.request.urlopen(f"http://{address}/").read() == b"Ollama is running"


def copies(client):
    assert client.copy(NAME, "mine").status == "success"
    assert client.show("mine:latest").details.family == "llama"
    assert client.delete("mine").status == "success"
    fails(404, lambda: client.show("mine"))
    # The file is the user's.
    assert "is not in shimmy's own folder" in fails(403, lambda: client.delete(NAME))
    fails(404, lambda: client.delete("nothing"))
    assert client.show(NAME).details.family == "llama"


def pulling(client, shimmy, model):
    # Its whole name: NAME could also be that of another file of its family.
    [listed] = [one.model for one in client.list().models if one.model.startswith("smollm2:")]
    assert [step.status for step in client.pull(listed, stream=True)][-1] == "success"
    assert client.pull(listed).status == "success"
    # ollama_store.py fetches; here is no way to a registry. In a stream the package knows no status of what fails on the way.
    for name in ("localhost:5000/a/b", "http://127.0.0.1/model.gguf"):
        assert "neither the hub nor" in fails(403, lambda: client.pull(name))
        assert "neither the hub nor" in fails(403, lambda: list(client.pull(name, stream=True)))
    assert "refused" in fails(502, lambda: client.pull("nothing"))
    assert "refused" in fails(-1, lambda: list(client.pull("nothing", stream=True)))
    # A file that was named is served alone.
    with started(shimmy, "serve", "--model", model) as address:
        alone = ollama.Client(host=f"http://{address}")
        assert "alone" in fails(403, lambda: alone.pull("nothing"))
        assert "alone" in fails(403, lambda: list(alone.pull("nothing", stream=True)))
        assert "in the server's settings" in fails(403, lambda: alone.delete(NAME))


def errors(client, address):
    reason = fails(404, lambda: client.chat(model="nothing", messages=SUM))
    assert reason == "model 'nothing' not found", reason
    fails(404, lambda: list(client.generate(model="nothing", prompt="x", stream=True)))
    image = [{"role": "user", "content": "What is it?", "images": [b"no image"]}]
    assert "takes no images" in fails(400, lambda: client.chat(model=NAME, messages=image))
    fails(400, lambda: client.chat(model=NAME, messages=SUM, options={"temperature": -1}))
    body = {"model": NAME, "messages": SUM, "stream": False, "options": {"num_ctx": 4096, "num_predict": 1}}
    request = urllib.request.Request(f"http://{address}/api/chat", json.dumps(body).encode())
    assert urllib.request.urlopen(request).headers["x-shimmy-ignored"] == "options.num_ctx"


def timeout(address):
    before = cancellations(address)
    hurried = ollama.Client(host=f"http://{address}", timeout=0.5)
    count = [{"role": "user", "content": "Count from 1 to 1000, with all the numbers between."}]
    raises(httpx.TimeoutException, lambda: hurried.chat(model=NAME, messages=count, options={"temperature": 0}))
    stops_working(address, before)


def cancelling(client, address):
    before = cancellations(address)
    count = [{"role": "user", "content": "Count from 1 to 1000, with all the numbers between."}]
    stream = client.chat(model=NAME, messages=count, stream=True, options={"temperature": 0})
    for _, part in zip(range(5), stream):
        assert not part.done, "too short an answer to leave it"
    stream.close()
    stops_working(address, before)


async def many(address, expected):
    client = ollama.AsyncClient(host=f"http://{address}")
    answers = await asyncio.gather(*[client.chat(model=NAME, messages=SUM, options=COLD) for _ in range(8)])
    assert {answer.message.content for answer in answers} == {expected}, answers


def here(client):
    """What is told about the model while it is loaded."""
    return next((model for model in client.ps().models if model.model == "smollm2:135m-instruct-q4_1"), None)


def unloading(client):
    assert client.chat(model=NAME, messages=SUM, options=COLD, keep_alive=0).done
    for _ in range(100):
        if not here(client):
            break
        time.sleep(0.05)
    assert not here(client)
    assert client.chat(model=NAME, messages=SUM, options=COLD, keep_alive="5m").load_duration > 0
    assert client.generate(model=NAME, keep_alive=0).done_reason == "unload" and not here(client)


def main(address, shimmy, model):
    client = ollama.Client(host=f"http://{address}")
    expected = plain(client)
    streaming(client, expected)
    generate(client)
    sampling(client)
    tools(client)
    schema(client)
    embedding(client)
    models(client, address)
    copies(client)
    pulling(client, shimmy, model)
    errors(client, address)
    timeout(address)
    cancelling(client, address)
    asyncio.run(many(address, expected))
    unloading(client)
    # Below this path all is Ollama's.
    assert ollama.Client(host=f"http://{address}/ollama").generate(model=NAME, prompt="Hi", options=COLD).response
    version = importlib.metadata.version("ollama")
    print(f"ollama {version}: plain, streaming, generate, sampling, tools, schema, embedding, models, copies, pulling, "
          "errors, timeout, cancelling, many at once, unloading: ok")


main(*sys.argv[1:])
