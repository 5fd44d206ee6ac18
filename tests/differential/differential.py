#!/usr/bin/env python3
"""Sends the same requests to shimmy and to another server that speaks the same dialects, and lists what differs in status,
shape and greedy text. What is accepted, with its reason, is in accepted.txt; anything else is an error.

    LLAMA_SERVER=/path/to/llama-server tests/differential/differential.py SHIMMY MODEL.gguf     starts both
    tests/differential/differential.py 127.0.0.1:11435 127.0.0.1:8080 [--models NAME,NAME]      two that run already, shimmy first
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

from cases import DIALECTS
from comparing import Accepted, differences, read

sys.path.append(str(pathlib.Path(__file__).parents[1] / "clients"))
from served import started


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def running(command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).status == 200:
                    break
            if process.poll() is not None:
                sys.exit(f"differential: error: {command[0]} ended with {process.returncode} before it served")
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(address, model, path, body):
    data = body.encode() if isinstance(body, str) else None if body is None else json.dumps({"model": model, **body}).encode()
    headers = {"content-type": "application/json"}
    if path.startswith("/api/"):
        headers["accept"] = "application/x-ndjson"
    elif "/messages" in path:
        headers["anthropic-version"] = "2023-06-01"
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://{address}{path}", data, headers), timeout=300) as answer:
            return answer.status, read(answer.headers.get("content-type", ""), answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.code, read(error.headers.get("content-type", ""), error.read().decode())


def compare(servers, models, cases, accepted):
    """How many differences were accepted, and how many were not; those are printed."""
    known = unexpected = 0
    for name, (path, body) in cases.items():
        (status, mine), (their_status, their) = [ask(server, model, path, body) for server, model in zip(servers, models)]
        found = [] if status == their_status else [f"status: {status} here, {their_status} there"]
        # Bodies of different statuses have nothing to do with each other.
        found += [] if found and 200 in (status, their_status) else list(differences(mine, their))
        for difference in found:
            if accepted.covers(name, difference):
                known += 1
            else:
                unexpected += 1
                print(f"{name}: {difference}")
    return known, unexpected


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", metavar="SHIMMY", help="the binary, or the address of a running one")
    parser.add_argument("second", metavar="MODEL", help="the model, or the address of the other server")
    parser.add_argument("--models", default="default,default", help="what the model is called here and there")
    parser.add_argument("--dialects", default="openai,responses,anthropic,llama.cpp", help=f"of {', '.join(DIALECTS)}")
    parser.add_argument("--only", default=".*", help="a regular expression for the names of requests")
    parser.add_argument("--accepted", type=pathlib.Path, default=pathlib.Path(__file__).with_name("accepted.txt"))
    return parser.parse_args()


@contextlib.contextmanager
def servers(chosen):
    if all(re.fullmatch(r"[^/]+:\d+", address) for address in (chosen.first, chosen.second)):
        yield chosen.first, chosen.second
        return
    if "LLAMA_SERVER" not in os.environ:
        sys.exit("differential: error: LLAMA_SERVER must name the other server, llama.cpp's llama-server; or give two addresses")
    port, model = free_port(), pathlib.Path(chosen.second).absolute()
    theirs = [os.environ["LLAMA_SERVER"], "-m", model, "-c", "8192", "-np", "1", "--host", "127.0.0.1", "--port", str(port)]
    ours = started(chosen.first, "--base-gguf", model, "--ctx-size", "8192", "serve", "--model", "default")
    with ours as here, running(theirs, port) as there:
        yield here, there


def main():
    chosen = options()
    accepted = Accepted(chosen.accepted)
    asked = {name: case for dialect in chosen.dialects.split(",") for name, case in DIALECTS[dialect].items() if re.fullmatch(chosen.only, name)}
    with servers(chosen) as addresses:
        known, unexpected = compare(addresses, chosen.models.split(","), asked, accepted)
    if chosen.only == ".*":
        for line in accepted.unused():
            print(f"{accepted.name}: does not occur any more: {line}")
    print(f"{len(asked)} requests, {known} accepted differences, {unexpected} others")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
