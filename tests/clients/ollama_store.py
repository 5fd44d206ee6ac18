"""Fetches, makes, copies and deletes models with Ollama's own Python package, from a registry of our own:
python3 ollama_store.py SHIMMY MODEL.gguf"""
import asyncio
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import re
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ollama

from served import says, started

SUM = [{"role": "user", "content": "What is 2+2?"}]
MEDIA = "application/vnd.ollama.image."
fails = functools.partial(says, ollama.ResponseError)


class Registry(ThreadingHTTPServer):
    """Ollama's registry, as far as pulling goes. Blobs are bytes or files."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs, self.manifests, self.pause, self.asked = {}, {}, 0, []
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # A client that leaves is no error here.

    def blob(self, kind, content):
        if isinstance(content, pathlib.Path):
            with content.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = content.stat().st_size
        else:
            digest, size = hashlib.sha256(content).hexdigest(), len(content)
        self.blobs[f"sha256:{digest}"] = content
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}

    def model(self, name, **layers):
        config = self.blob("application/vnd.docker.container.image.v1+json", b"{}")
        layers = [self.blob(MEDIA + kind, content) for kind, content in layers.items()]
        self.manifests[name] = json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": config, "layers": layers}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        found = re.fullmatch(r"/v2/library/([^/]+)/(manifests|blobs)/(.+)", self.path)
        name, kind, what = found.groups() if found else (None, None, None)
        content = self.server.manifests.get(f"{name}:{what}") if kind == "manifests" else self.server.blobs.get(what)
        if content is None:
            body = json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "there is none"}]}).encode()
            self.answer(404, body, {"content-type": "application/json"})
            return
        data = content.read_bytes() if isinstance(content, pathlib.Path) else content
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if asked is None:
            self.answer(200, data, {})
            return
        start, end = int(asked[1]), min(int(asked[2]) + 1, len(data))
        self.answer(206, data[start:end], {"content-range": f"bytes {start}-{end - 1}/{len(data)}"})

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for at in range(0, len(body), 1 << 18):
            time.sleep(self.server.pause)
            self.wfile.write(body[at:at + (1 << 18)])


class Machine:
    """A registry, a server that knows no other, and where that keeps what it fetches."""

    def __init__(self, registry, address, cache):
        self.registry, self.address, self.root = registry, address, pathlib.Path(cache, "shimmy/models")
        self.client = ollama.Client(host=f"http://{address}")

    def names(self):
        return sorted(model.model for model in self.client.list().models)

    def blobs(self):
        return list(self.root.glob("blobs/*"))


def pulling(machine, model):
    registry, client = machine.registry, machine.client
    registry.model("tiny:latest", model=model, template=b"{{ .System }} {{ .Prompt }}", system=b"Be brief.",
                   params=json.dumps({"temperature": 0, "num_predict": 5, "stop": ["<|im_end|>"]}).encode(),
                   license=b"free")
    steps = list(client.pull("tiny", stream=True))
    statuses = [step.status for step in steps]
    assert statuses[0] == "pulling manifest" and statuses[-1] == "success", statuses
    assert "verifying sha256 digest" in statuses and "writing manifest" in statuses, statuses
    size = model.stat().st_size
    [digest] = {step.digest for step in steps if step.total == size}
    told = [step.completed for step in steps if step.digest == digest]
    assert told == sorted(told) and told[-1] == size and len(told) > 2, told
    assert f"pulling {digest[7:19]}" in statuses
    assert client.pull("tiny:latest").status == "success"
    [found] = [model for model in client.list().models if model.model == "tiny:latest"]
    assert found.size == size and found.details.family == "llama", found
    shown = client.show("tiny")
    assert shown.license == "free" and shown.template == "{{ .System }} {{ .Prompt }}", shown
    assert "num_predict                    5" in shown.parameters, shown.parameters
    assert 'SYSTEM """Be brief."""' in shown.modelfile, shown.modelfile
    assert shown.modelinfo["general.architecture"] == "llama"


def refusals(machine):
    client = machine.client
    assert "there is none" in fails(404, lambda: client.pull("nothing"))
    # In a stream the package knows no status of what fails on the way.
    assert "there is none" in fails(-1, lambda: list(client.pull("nothing", stream=True)))
    before = len(machine.registry.asked)
    fails(403, lambda: client.pull(f"{machine.registry.url}/x.gguf"))
    fails(403, lambda: client.pull(machine.registry.url.removeprefix("http://") + "/library/tiny"))
    assert len(machine.registry.asked) == before, "it went where it should not"
    assert "ollama push" in fails(501, lambda: client.push("tiny"))


def interrupted(machine, model):
    """A client that leaves ends the pull; the next one goes on."""
    registry, client = machine.registry, machine.client
    other = pathlib.Path(machine.root.parent, "other.gguf")
    # Other bytes behind the weights make another file of it.
    other.write_bytes(model.read_bytes() + b"\0" * 32)
    registry.model("other:latest", model=other)
    registry.pause = 0.02
    steps = client.pull("other", stream=True)
    for step in steps:
        if (step.completed or 0) > 1 << 20:
            break
    steps.close()
    for _ in range(100):
        before = len(registry.asked)
        time.sleep(0.3)
        if len(registry.asked) == before:
            break
    assert "other:latest" not in machine.names()
    registry.pause = 0
    steps = list(client.pull("other", stream=True))
    first = next(step.completed for step in steps if step.completed is not None)
    assert first > 1 << 19 and steps[-1].status == "success", first
    client.delete("other")
    other.unlink()


async def shared(machine, model):
    """Both hear of one download."""
    registry, client = machine.registry, ollama.AsyncClient(host=f"http://{machine.address}")
    registry.model("shared:latest", model=model, license=b"shared")
    machine.client.delete("tiny")
    registry.asked.clear()
    registry.pause = 0.002

    async def pull():
        return [step.status async for step in await client.pull("shared", stream=True)]

    both = await asyncio.gather(pull(), pull())
    assert all(statuses[-1] == "success" for statuses in both), both
    assert sum("/manifests/" in path for path in registry.asked) == 1, registry.asked
    registry.pause = 0
    machine.client.pull("tiny")
    machine.client.delete("shared")


def copies(machine):
    client = machine.client
    assert client.copy("tiny", "me/mine:1").status == "success"
    assert machine.names() == ["me/mine:1", "tiny:latest"], machine.names()
    fails(404, lambda: client.copy("nothing", "x"))
    assert client.delete("tiny").status == "success"
    assert machine.names() == ["me/mine:1"]
    assert client.pull("tiny").status == "success"
    fails(404, lambda: client.delete("nothing"))


def making(machine, model):
    client = machine.client
    steps = client.create(model="pirate", from_="tiny", system="You are a pirate.", license=["really free"],
                          parameters={"num_predict": 3, "temperature": 0},
                          messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Arr!"}],
                          stream=True)
    statuses = [step.status for step in steps]
    assert statuses[-2:] == ["writing manifest", "success"], statuses
    shown = client.show("pirate")
    assert 'SYSTEM """You are a pirate."""' in shown.modelfile and "MESSAGE assistant" in shown.modelfile
    assert "num_predict                    3" in shown.parameters and "stop" in shown.parameters, shown.parameters
    assert shown.license == "free\nreally free", shown.license
    digest = client.create_blob(str(model))
    assert digest == client.create_blob(str(model)), "it was there already"
    assert client.create(model="plain", files={model.name: digest}).status == "success"
    assert client.show("plain").details.format == "gguf"
    jinja = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    assert client.create(model="jinja", from_="plain", template=jinja).status == "success"
    assert "not in the store" in fails(400, lambda: client.create(model="no", files={"x.gguf": "sha256:" + "0" * 64}))
    fails(400, lambda: client.create(model="no", from_="tiny", quantize="q4_K_M"))
    fails(400, lambda: client.create(model="no", from_="tiny", parameters={"temperature": -1}))
    assert machine.names() == ["jinja:latest", "me/mine:1", "pirate:latest", "plain:latest", "tiny:latest"]


def answers(machine):
    """What was kept with a model counts when it answers."""
    client = machine.client

    def ask(name, **more):
        return client.chat(model=name, messages=SUM, **more)

    assert ask("tiny").eval_count <= 5 and ask("pirate").eval_count <= 3
    assert ask("pirate", options={"num_predict": 1}).eval_count == 1, "a request says more"
    plain = ask("plain", options={"temperature": 0, "num_predict": 3})
    # Its system turn and the two before it are in the prompt; the file's template has a system turn of its own.
    assert ask("pirate").prompt_eval_count > plain.prompt_eval_count, (ask("pirate"), plain)
    assert ask("pirate").message == ask("pirate").message
    jinja = ask("jinja", options={"num_predict": 1})
    assert 0 < jinja.prompt_eval_count < plain.prompt_eval_count, jinja


def deleting(machine):
    for name in machine.names():
        assert machine.client.delete(name).status == "success"
    assert machine.names() == [] and machine.blobs() == [], machine.blobs()
    fails(404, lambda: machine.client.show("tiny"))


def main(shimmy, model):
    model, registry = pathlib.Path(model), Registry()
    with tempfile.TemporaryDirectory() as cache, started(
            shimmy, "serve", "--drain", "2", XDG_CACHE_HOME=cache, SHIMMY_OLLAMA_REGISTRY=registry.url) as address:
        machine = Machine(registry, address, cache)
        pulling(machine, model)
        refusals(machine)
        interrupted(machine, model)
        asyncio.run(shared(machine, model))
        copies(machine)
        making(machine, model)
        answers(machine)
        deleting(machine)
    print(f"ollama {importlib.metadata.version('ollama')}: pulling, refusals, interrupted, shared, copies, making, answers, "
          "deleting: ok")


main(*sys.argv[1:])
