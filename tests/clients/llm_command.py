"""Drives `shimmy serve` with the `llm` command and its setting for servers with OpenAI's API: python3 llm_command.py ADDRESS"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import urllib.request

from served import DIMENSIONS, EMBEDDER, NAME, cancellations, stops_working

# What `llm` reads from extra-openai-models.yaml. A name of its own for each way to ask.
MODELS = """
- {{model_id: here, model_name: {model}, api_base: "http://{address}/v1", supports_schema: true, supports_tools: true}}
- {{model_id: here-responses, model_name: {model}, api_base: "http://{address}/v1", responses: true, supports_schema: true}}
- {{model_id: here-text, model_name: {model}, api_base: "http://{address}/v1", completion: true}}
- {{model_id: nowhere, model_name: nothing, api_base: "http://{address}/v1"}}
"""
SCHEMA = {"type": "object", "properties": {"name": {"enum": ["Paris", "Rome"]}, "big": {"type": "boolean"}}, "required": ["name", "big"],
          "additionalProperties": False}
COLD = ("-o", "temperature", "0", "-o", "max_tokens", "32")


class Llm:
    def __init__(self, home, address):
        pathlib.Path(home, "extra-openai-models.yaml").write_text(MODELS.format(model=NAME, address=address))
        # Embeddings have no setting of their own: the package behind it reads this variable.
        self.env = {**os.environ, "LLM_USER_PATH": home, "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": f"http://{address}/v1"}

    def start(self, *arguments, **more):
        # Without `python -m llm`, which would take what lies in this folder before what is installed. What a shell starts in
        # the background ignores Ctrl-C, and so does all that it starts, unless told otherwise.
        program = [sys.executable, "-c", f"import signal; signal.signal({signal.SIGINT:d}, signal.default_int_handler); "
                   "from llm.cli import cli; cli()", *arguments]
        return subprocess.Popen(program, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=self.env, **more)

    def __call__(self, *arguments):
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, (arguments, process.returncode, output)
        return output.strip()

    def fails(self, *arguments):
        process = self.start(*arguments, stderr=subprocess.PIPE)
        _, message = process.communicate(timeout=120)
        assert process.returncode != 0, arguments
        return message


def prompting(llm):
    whole = llm("prompt", "-m", "here", "--no-stream", *COLD, "What is 2+2?")
    assert "4" in whole, whole
    assert llm("prompt", "-m", "here", *COLD, "What is 2+2?") == whole
    # What it wrote down of the stream: the usage comes in the last chunk, if the server sends it.
    [logged] = json.loads(llm("logs", "-n", "1", "--json"))
    assert logged["response"] == whole and logged["input_tokens"] > 0 and logged["output_tokens"] > 0, logged
    llm("prompt", "-c", *COLD, "And 3+3?")
    after = json.loads(llm("logs", "-n", "1", "--json"))[0]
    assert after["conversation_id"] == logged["conversation_id"] and after["input_tokens"] > logged["input_tokens"], after
    assert llm("prompt", "-m", "here", "-s", "Be brief.", *COLD, "What is 2+2?")
    assert llm("prompt", "-m", "here-text", "-o", "temperature", "0", "-o", "max_tokens", "4", "The capital of France is")
    responses = llm("prompt", "-m", "here-responses", *COLD, "What is 2+2?")
    assert responses == llm("prompt", "-m", "here-responses", "--no-stream", *COLD, "What is 2+2?") != "", responses


def forms(llm):
    for model in ("here", "here-responses"):
        options = ("-m", model, "-o", "temperature", "0", "-o", "max_tokens", "200", "--schema", json.dumps(SCHEMA))
        found = json.loads(llm("prompt", *options, "Name a city, as JSON."))
        assert set(found) == {"name", "big"} and found["name"] in ("Paris", "Rome"), found


def tools(llm):
    """It cannot force a call; with a tool it must come to an answer all the same."""
    function = 'def weather(city: str) -> str:\n    "Tells the weather of a city."\n    return "sunny"'
    answer = llm("prompt", "-m", "here", *COLD, "--functions", function, "What is the weather in Paris?")
    logged = json.loads(llm("logs", "-n", "1", "--json"))[0]
    assert answer == logged["response"].strip() != "" and [tool["name"] for tool in logged["tools"]] == ["weather"], (answer, logged)


def embedding(llm, address):
    # Under the name that this model of OpenAI's has.
    body = json.dumps({"source": EMBEDDER, "destination": "text-embedding-3-small"}).encode()
    urllib.request.urlopen(f"http://{address}/api/copy", body)
    vector = json.loads(llm("embed", "-m", "3-small", "-c", "a text"))
    assert len(vector) == DIMENSIONS and any(vector), vector
    urllib.request.urlopen(urllib.request.Request(
        f"http://{address}/api/delete", json.dumps({"model": "text-embedding-3-small"}).encode(), method="DELETE"))


def listing(llm, address):
    assert "here-responses" in llm("models", "list")
    # Asked of the server, without any setting.
    assert "smollm2:135m-instruct-q4_1" in llm("openai", "endpoint", f"http://{address}/v1", "--models")
    assert "4" in llm("openai", "endpoint", f"http://{address}/v1", "-m", NAME, *COLD, "What is 2+2?")


def errors(llm):
    assert "model not found" in llm.fails("prompt", "-m", "nowhere", "x")
    assert "context" in llm.fails("prompt", "-m", "here", "word " * 20000)


def leaving(llm, address):
    before = cancellations(address)
    # Without the tokens that would end it.
    endless = json.dumps({"0": -100, "2": -100})
    process = llm.start("prompt", "-m", "here", "-o", "max_tokens", "4000", "-o", "logit_bias", endless, "Count.",
                        stderr=subprocess.DEVNULL)
    assert process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    stops_working(address, before)


def main(address, *_):
    with tempfile.TemporaryDirectory() as home:
        llm = Llm(home, address)
        prompting(llm)
        forms(llm)
        tools(llm)
        embedding(llm, address)
        listing(llm, address)
        errors(llm)
        leaving(llm, address)
        version = llm("--version").rsplit(" ", 1)[1]
    print(f"llm {version}: prompts, streamed and whole, continued, responses, completions, schemas, tools, embeddings, models, "
          "errors, leaving: ok")


main(*sys.argv[1:])
