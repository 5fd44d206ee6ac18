"""Runs the documentation's examples in Python and JavaScript against a server: python3 documentation.py SHIMMY MODEL.gguf"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from served import EMBEDDER, NAME, serving

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# What an example leaves to its reader.
BEFORE = {
    "python": """
from typing import Literal

import pydantic
from langchain_core.tools import tool

@tool
def tool_name(city: Literal["Paris", "Rome"]) -> str:
    "Tells the weather of a city."

tool, key = tool_name, "none"

class Schema(pydantic.BaseModel):
    name: Literal["Paris", "Rome"]
""",
    "js": "",
}


def examples():
    """Where each stands, its language and its text. Pages in a browser are test_browser.py's."""
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(r"^```(python|js)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if "// A page of " not in found[2]:
                yield f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}", found[1], found[2]


def run(address, place, language, text):
    assert "http://127.0.0.1:11435" in text, f"{place}: it does not use the server"
    for old, new in {"127.0.0.1:11435": address, "EMBEDDING-MODEL": EMBEDDER, "MODEL": NAME}.items():
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable] if language == "python" else [os.environ["NODE"]]
        file = pathlib.Path(folder, "example" + (".py" if language == "python" else ".mjs"))
        file.write_text(BEFORE[language] + text)
        pathlib.Path(folder, "node_modules").symlink_to(os.environ["NODE_MODULES"])
        done = subprocess.run([*program, file], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{place}: {done.stdout}"


def main(shimmy, model):
    found = list(examples())
    assert {language for _, language, _ in found} == set(BEFORE) and len(found) >= 6, found
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        # Examples say nothing of where an answer ends.
        config.write("[sampling]\ntemperature = 0\nmax_tokens = 64\n")
        config.flush()
        with serving(shimmy, model, "--config", config.name) as address:
            for example in found:
                run(address, *example)
    print(f"documentation: {', '.join(place for place, _, _ in found)}: ok")


main(*sys.argv[1:])
