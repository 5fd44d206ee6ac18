"""Runs other people's clients against one server, and tells how long each took: python3 run.py SHIMMY MODEL.gguf [CLIENT …]"""
import os
import pathlib
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


def main(shimmy, model, *chosen):
    # Answers are compared with each other, so they must not depend on what else runs.
    with serving(shimmy, model, "--deterministic") as address:
        for client in chosen or CLIENTS:
            begun = time.monotonic()
            program = [os.environ["NODE"]] if client.endswith(".mjs") else [sys.executable]
            subprocess.run([*program, HERE / client, address, shimmy, model], check=True, timeout=600)
            print(f"== {client} took {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
