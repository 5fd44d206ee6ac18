"""Runs other people's clients against one server, and tells how long each took: python3 run.py SHIMMY MODEL.gguf [CLIENT …]"""
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from served import serving

HERE = pathlib.Path(__file__).parent
# The last one unloads the model, and takes its copies away.
CLIENTS = [
    "openai_chat.py", "openai_more.py", "node/openai_node.mjs", "anthropic_client.py", "langchain_clients.py", "llm_command.py",
    "ollama_client.py",
]
# Those that need a server with settings of their own.
ALONE = ["documentation.py", "images.py", "ollama_store.py"]


def told_versions():
    """The documentation names the versions that are installed here."""
    pinned = dict(line.split("==") for line in HERE.joinpath("requirements.txt").read_text().splitlines() if "==" in line)
    node = json.loads(HERE.joinpath("node/package.json").read_text())["dependencies"]
    expected = {f"`{name}`": pinned[name] for name in ("langchain-openai", "langchain-anthropic", "langchain-ollama", "llm")}
    expected |= {f"`{name}` (Python)": pinned[name] for name in ("openai", "anthropic", "ollama")}
    expected["`openai` (Node)"] = node["openai"]
    [expected["`open-webui`"]] = re.findall("^open-webui==(.*)$", HERE.joinpath("../open_webui/requirements.txt").read_text(), re.MULTILINE)
    rows = [line.split(" | ") for line in HERE.joinpath("../../docs/clients.md").read_text().splitlines() if line.startswith("| `")]
    told = {row[0].removeprefix("| "): row[1] for row in rows}
    assert told == expected, f"docs/clients.md names {told}, tested are {expected}"


def run(client, *arguments):
    begun = time.monotonic()
    program = [os.environ["NODE"]] if client.endswith(".mjs") else [sys.executable]
    subprocess.run([*program, HERE / client, *arguments], check=True, timeout=600)
    print(f"== {client} took {time.monotonic() - begun:.0f} s", flush=True)


def main(shimmy, model, *chosen):
    told_versions()
    chosen = chosen or CLIENTS + ALONE
    # Answers are compared with each other, so they must not depend on what else runs.
    with serving(shimmy, model, "--deterministic") as address:
        for client in chosen:
            if client not in ALONE:
                run(client, address, shimmy, model)
    for client in chosen:
        if client in ALONE:
            run(client, shimmy, model)


if __name__ == "__main__":
    main(*sys.argv[1:])
