#!/usr/bin/env python3
"""Runs shimmy and llama.cpp's own server side by side on the same model, threads and context, in turn, and prints
medians and ratios as a Markdown table; --json FILE keeps all figures.

    LLAMA_SERVER=/path/to/llama-server benches/compare/compare.py [--rounds N] [--work single,distinct,…] [--json FILE]

For a GPU: --gpu-backend cuda --work streams-1,streams-8,streams-32,streams-128. The peer runs with its default number of slots and with one slot a client (-np); the better of the two counts. Build
first: cargo build --release && cargo build --release --example load
"""
import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
MODEL = os.environ.get("SHIMMY_BENCH_MODEL", str(CACHE / "shimmy/models/smollm2-135m-instruct.q4_1.gguf"))
THREADS = str(os.cpu_count())

# Work, what it is, slots of the peer, figure, whether more is better, what we want to reach. `warm` repeats `shared`.
WORKS = {
    "single": ("1 client, 128 tokens: decode, tokens/s", 1, "decode_tokens_per_second", True, 1.00),
    "distinct": ("16 clients, 32 different texts, 64 tokens: tokens/s", 16, "tokens_per_second", True, 1.10),
    "distinct ttft": ("the same: time to first token, p95, ms", 16, "ttft_p95_ms", False, 0.70),
    "template": ("16 clients, 32 different chats, 64 tokens: tokens/s", 16, "tokens_per_second", True, 1.10),
    "template ttft": ("the same: time to first token, p95, ms", 16, "ttft_p95_ms", False, 0.70),
    "shared": ("16 clients, 600 shared words, cold: s", 16, "wall_s", False, 0.40),
    "warm": ("the same again, warm: s", 16, "wall_s", False, 0.55),
    "chat": ("8 conversations of 6 turns: s", 8, "wall_s", False, 0.90),
    "stall": ("4 streams while 4,000 tokens arrive: worst gap, ms", 5, "worst_gap_ms", False, 0.50),
    "busy": ("1 client beside a busy process: decode, tokens/s", 1, "decode_tokens_per_second", True, 1.60),
    "start": ("process start to first token, ms", 1, "first_token_ms", False, 0.60),
    "idle memory": ("resident memory, idle, MB", 16, "idle_mb", False, 1.00),
    "memory": ("resident memory after 16 clients, MB", 16, "loaded_mb", False, 1.00),
}
# For GPUs: N clients with a text and 128 tokens each.
STREAMS = {1: 1.0, 8: 1.0, 32: 1.3, 128: 1.3}
WORKS.update({f"streams-{n}": (f"{n} streams of 128 tokens: tokens/s", n, "tokens_per_second", True, wanted) for n, wanted in STREAMS.items()})
# Work that comes out of another's run.
PART_OF = {"distinct ttft": "distinct", "template ttft": "template", "warm": "shared", "idle memory": "distinct", "memory": "distinct"}


CONTEXT = {"stall": "32768", "streams-32": "32768", "streams-128": "65536"}
BACKEND = "auto"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def resident_mb(process):
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


@contextlib.contextmanager
def running(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
                    break
            if process.poll() is not None:
                sys.exit(f"compare: error: {command[0]} ended with {process.returncode} before it served")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


def load(api, port, work, salt):
    env = dict(os.environ, LOAD_MODEL="default")
    command = [str(TARGET / "examples/load"), api, f"127.0.0.1:{port}", work, str(salt)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"compare: {api} {work}: {done.stderr.strip()[:300]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


@contextlib.contextmanager
def busy_process(settle_s=1):
    process = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        time.sleep(settle_s)
        yield
    finally:
        process.kill()
        process.wait()


def server(kind, slots, context):
    port = free_port()
    if kind == "shimmy":
        # Without --threads, so that it may adapt them, as it does by default.
        return "shimmy", port, [str(TARGET / "shimmy"), "--gpu-backend", BACKEND, "--ctx-size", context,
                                *(["--parallel", str(slots)] if slots > 16 else []), "--base-gguf", MODEL, "serve",
                                "--bind", f"127.0.0.1:{port}", "--model", "default"]
    command = [os.environ["LLAMA_SERVER"], "-m", MODEL, "-t", THREADS, "-c", context, "--host", "127.0.0.1", "--port", str(port)]
    return "llama-server", port, command + (["-np", str(slots)] if kind == "peer -np" else [])


def first_token_ms(kind):
    """From the start of a process to the first text that it gives."""
    prompt = "The capital of France is"
    begun = time.monotonic()
    if kind == "shimmy":
        command = [str(TARGET / "shimmy"), "--gpu-backend", BACKEND, "generate", MODEL, "--raw", "--prompt", prompt, "--max-tokens", "64"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            process.stdout.read(1)
            return (time.monotonic() - begun) * 1e3
    _, port, command = server(kind, 1, "8192")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        body = json.dumps({"prompt": prompt, "n_predict": 64, "stream": True}).encode()
        while True:
            with contextlib.suppress(OSError):
                request = urllib.request.Request(f"http://127.0.0.1:{port}/completion", body, {"content-type": "application/json"})
                with urllib.request.urlopen(request) as answer:
                    answer.readline()
                    return (time.monotonic() - begun) * 1e3
            time.sleep(0.002)
    finally:
        process.kill()
        process.wait()


def measure(kind, work, salt):
    """All figures that one run of `work` gives, by the name of the row that shows them."""
    if work == "start":
        return {"start": {"first_token_ms": first_token_ms(kind)}}
    slots = WORKS[work][1]
    api, port, command = server(kind, slots, CONTEXT.get(work, "16384"))
    with running(command, port) as process:
        load(api, port, "first", 1)
        if work.startswith("streams"):
            # Pipelines of a GPU are compiled when they are first used; both have them ready then.
            load(api, port, work, salt + 500)
        if work == "busy":
            with busy_process():
                # The first one passes while shimmy still notices.
                load(api, port, "single", salt + 1)
                return {"busy": load(api, port, "single", salt)}
        idle = resident_mb(process)
        found = {work: load(api, port, work, salt)}
        if work == "shared":
            found["warm"] = load(api, port, work, salt)
        if work in ("distinct", "template"):
            found[f"{work} ttft"] = found[work]
        if work == "distinct":
            found["idle memory"] = {"idle_mb": idle}
            found["memory"] = {"loaded_mb": resident_mb(process)}
        return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--work", default=",".join(w for w in WORKS if w not in PART_OF and not w.startswith("streams")))
    arguments.add_argument("--gpu-backend", default="auto", help="shimmy's; the peer takes what it was built with")
    arguments.add_argument("--json", type=pathlib.Path)
    arguments = arguments.parse_args()
    if "LLAMA_SERVER" not in os.environ:
        sys.exit("compare: error: LLAMA_SERVER must name llama.cpp's llama-server")

    global BACKEND
    BACKEND = arguments.gpu_backend
    figures = {}
    for number in range(arguments.rounds):
        for work in arguments.work.split(","):
            for kind in ("shimmy", "peer", "peer -np"):
                measured = measure(kind, work, 1000 + number)
                for row, found in measured.items():
                    figures.setdefault(row, {}).setdefault(kind, []).append(found)
                shown = {row: round(found[WORKS[row][2]], 2) for row, found in measured.items() if found}
                print(f"round {number + 1}, {kind}: {shown}", file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))

    print(f"{THREADS} threads, {pathlib.Path(MODEL).name}, median of {arguments.rounds} rounds\n")
    print("| work | shimmy | llama-server | with -np | ratio to the better | to reach |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row, (title, slots, key, more, wanted) in WORKS.items():
        if row not in figures:
            continue
        medians = {}
        for kind, found in figures[row].items():
            values = [one[key] for one in found if one]
            medians[kind] = statistics.median(values) if values else None
        peers = [medians[kind] for kind in ("peer", "peer -np") if medians.get(kind) is not None]
        ours = medians["shimmy"]
        ratio = ours / (max if more else min)(peers) if ours and peers else None
        show = lambda value: "–" if value is None else f"{value:,.1f}"
        verdict = "–" if ratio is None else f"{ratio:.2f}"
        print(f"| {title} | {show(ours)} | {show(medians.get('peer'))} | {show(medians.get('peer -np'))} ({slots}) | {verdict} | {'≥' if more else '≤'} {wanted:.2f} |")


if __name__ == "__main__":
    main()
