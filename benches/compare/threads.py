#!/usr/bin/env python3
"""A busy process comes and goes beside one stream: does shimmy, which chooses its number of threads itself, keep up with
the best fixed number? A stream runs from each change on; the one that counts begins two seconds after it. Prints a
Markdown table of medians.

    benches/compare/threads.py [--rounds N]
"""
import argparse
import contextlib
import json
import statistics
import subprocess
import time
import urllib.request

from compare import MODEL, TARGET, THREADS, busy_process, free_port, running

SETTLE_S, TOKENS = 2, 256


def stream(port, tokens, seconds=None):
    """Tokens a second of one generation, which is given up after so many seconds."""
    body = {"model": "default", "prompt": "Once upon a time", "raw": True, "max_tokens": tokens, "stream": True, "ignore_eos": True}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/generate", json.dumps(body).encode())
    begun, times = time.monotonic(), []
    with urllib.request.urlopen(request) as answer:
        for line in answer:
            if seconds and time.monotonic() - begun > seconds:
                break
            if line.startswith(b"data:") and b"[DONE]" not in line:
                times.append(time.monotonic())
    return (len(times) - 1) / (times[-1] - times[0])


def speeds(threads):
    """Tokens a second before, beside and after a busy process."""
    port = free_port()
    command = [str(TARGET / "shimmy"), *threads, "--ctx-size", "16384", "--base-gguf", MODEL, "serve", "--bind", f"127.0.0.1:{port}"]
    found = []
    with running(command, port):
        for beside in (contextlib.nullcontext(), busy_process(settle_s=0), contextlib.nullcontext()):
            with beside:
                stream(port, 4096, SETTLE_S)
                found.append(stream(port, TOKENS))
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    kinds = {"adaptive": []} | {f"{n} thread{'s' * (n > 1)}": ["--threads", str(n)] for n in range(1, int(THREADS) + 1)}
    rounds = [{kind: speeds(threads) for kind, threads in kinds.items()} for _ in range(arguments.parse_args().rounds)]
    medians = {kind: [statistics.median(one[kind][phase] for one in rounds) for phase in range(3)] for kind in kinds}

    print("| tokens/s | alone | beside a busy process | alone again |")
    print("| --- | --- | --- | --- |")
    for kind, found in medians.items():
        print(f"| {kind} | {' | '.join(f'{speed:.1f}' for speed in found)} |")
    best = [max(found[phase] for kind, found in medians.items() if kind != "adaptive") for phase in range(3)]
    print(f"| adaptive to the best fixed | {' | '.join(f'{ours / of:.2f}' for ours, of in zip(medians['adaptive'], best))} |")


main()
