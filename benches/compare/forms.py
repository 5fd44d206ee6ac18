#!/usr/bin/env python3
"""What it costs to keep an answer to a form: tokens/s with a JSON schema beside tokens/s without, and beside llama.cpp's own
server with the same schema, in turn on one machine.

    LLAMA_SERVER=/path/to/llama-server benches/compare/forms.py [--rounds N] [MODEL.gguf …]

Build first: cargo build --release. Without models: SmolLM2 (49,152 tokens) and Gemma 3 (262,144).
"""
import argparse
import json
import os
import pathlib
import statistics
import sys
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from compare import CACHE, TARGET, free_port, running  # noqa: E402

MODELS = [str(CACHE / "shimmy/models" / name) for name in ("smollm2-135m-instruct.q4_1.gguf", "gemma3-270m.q4_k_m.gguf")]
PERSON = {"type": "object", "additionalProperties": False, "required": ["name", "age", "tags", "kind"], "properties": {
    "name": {"type": "string", "maxLength": 40}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
    "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 2, "maxItems": 4},
    "kind": {"enum": ["friend", "colleague", "stranger"]}}}
SCHEMA = {"type": "array", "items": PERSON, "minItems": 6, "maxItems": 6}
ASK = {"model": "default", "messages": [{"role": "user", "content": "Write down six people as JSON."}], "temperature": 0.8, "max_tokens": 192}


def speed(port, seed, form):
    body = dict(ASK, seed=seed)
    if form:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "people", "schema": SCHEMA}}
    else:
        body["ignore_eos"] = True
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    answer = json.load(urllib.request.urlopen(request))
    if form and answer["choices"][0]["finish_reason"] == "stop":
        assert len(json.loads(answer["choices"][0]["message"]["content"])) == 6, answer
    timings = answer["timings"]
    return timings.get("tokens_per_second") or timings["predicted_per_second"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("models", nargs="*", default=MODELS)
    arguments = arguments.parse_args()
    if "LLAMA_SERVER" not in os.environ:
        sys.exit("forms: error: LLAMA_SERVER must name llama.cpp's llama-server")
    print("| model | free, tokens/s | with a form | ratio | llama-server with it | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for model in arguments.models:
        found = {}
        for number in range(arguments.rounds):
            for kind in ("shimmy", "peer"):
                port = free_port()
                ours = [str(TARGET / "shimmy"), "--ctx-size", "8192", "--base-gguf", model, "serve", "--bind", f"127.0.0.1:{port}", "--model", "default"]
                theirs = [os.environ["LLAMA_SERVER"], "-m", model, "-t", str(os.cpu_count()), "-c", "8192", "-np", "1", "--host", "127.0.0.1", "--port", str(port)]
                with running(ours if kind == "shimmy" else theirs, port):
                    speed(port, 1, True)
                    for seed in range(4):
                        # In turn, since the machine's speed drifts.
                        for form in (False, True):
                            found.setdefault((kind, form), []).append(speed(port, 100 * number + seed, form))
        free, formed, peer = (statistics.median(found[key]) for key in (("shimmy", False), ("shimmy", True), ("peer", True)))
        print(f"| {pathlib.Path(model).name} | {free:.1f} | {formed:.1f} | {formed / free:.2f} | {peer:.1f} | {formed / peer:.2f} |", flush=True)


if __name__ == "__main__":
    main()
