"""Drives `shimmy serve` with OpenAI's own Python package: python3 openai_chat.py SHIMMY MODEL.gguf"""
import asyncio
import subprocess
import sys
import time
import urllib.request

import openai

NAME = "smollm2-135m-instruct"
SUM = [{"role": "user", "content": "What is 2+2?"}]


def metric(address, name):
    """Sum of a metric over its labels."""
    lines = urllib.request.urlopen(f"http://{address}/metrics").read().decode().splitlines()
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{")]
    assert values, f"there is no metric {name}"
    return sum(values)


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def plain(client):
    answer = client.chat.completions.create(model=NAME, messages=SUM, temperature=0, max_completion_tokens=32)
    [choice] = answer.choices
    assert "4" in choice.message.content, answer
    assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length"), answer
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens and usage.completion_tokens > 0, answer
    assert answer.system_fingerprint.startswith("fp_"), answer
    # An answer goes back as it came, with all that is null in it.
    again = SUM + [choice.message.model_dump(), {"role": "user", "content": "And 3+3?"}]
    assert client.chat.completions.create(model=NAME, messages=again, max_tokens=8, stop=None).choices[0].message.content
    return choice.message.content


def streaming(client, expected):
    chunks = list(client.chat.completions.create(
        model=NAME, messages=SUM, temperature=0, max_completion_tokens=32, stream=True,
        stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == expected
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] in ("stop", "length")
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0, chunks[-1]


def sampling(client):
    def text(**more):
        return client.chat.completions.create(model=NAME, messages=SUM, max_tokens=24, **more).choices[0].message.content

    # The largest seed, too, which llama.cpp takes for none.
    for seed in (5, -1):
        assert text(seed=seed, temperature=1.5) == text(seed=seed, temperature=1.5)
    assert text(seed=5, temperature=1.5) != text(seed=6, temperature=1.5)
    assert " 4" in text(temperature=0) and " 4" not in text(temperature=0, stop=[" 4"])


def errors(client):
    def create(**more):
        return client.chat.completions.create(**{"model": NAME, "messages": SUM, "max_tokens": 4, **more})

    unknown = raises(openai.NotFoundError, lambda: create(model="nothing"))
    assert unknown.code == "model_not_found", unknown
    long = raises(openai.BadRequestError, lambda: create(messages=[{"role": "user", "content": "word " * 20000}]))
    assert long.code == "context_length_exceeded", long
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    refused = raises(openai.BadRequestError, lambda: create(tools=[tool]))
    assert "`tools` is not served" in refused.message and refused.type == "invalid_request_error", refused
    endless = {"model": NAME, "messages": SUM, "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
    raises(openai.APITimeoutError, lambda: client.with_options(timeout=0.5).chat.completions.create(**endless))
    raw = client.chat.completions.with_raw_response.create(model=NAME, messages=SUM, max_tokens=1, user="me")
    assert raw.headers["x-shimmy-ignored"] == "user", raw.headers


def models(client):
    assert NAME in [model.id for model in client.models.list()]
    assert client.models.retrieve(NAME).owned_by == "local"
    raises(openai.NotFoundError, lambda: client.models.retrieve("nothing"))


def cancelling(client, address):
    before = metric(address, "shimmy_cancellations_total")
    stream = client.chat.completions.create(
        model=NAME, messages=SUM, stream=True, max_tokens=2000, extra_body={"ignore_eos": True})
    for _, chunk in zip(range(5), stream):
        assert chunk.choices
    stream.close()
    for _ in range(100):
        if metric(address, "shimmy_cancellations_total") > before and metric(address, "shimmy_sequences") == 0:
            return
        time.sleep(0.05)
    raise AssertionError("the server still works for a client that has left")


async def many(address, expected):
    async with openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
        calls = [client.chat.completions.create(model=NAME, messages=SUM, temperature=0, max_tokens=32) for _ in range(8)]
        for answer in await asyncio.gather(*calls):
            assert answer.choices[0].message.content == expected, answer


def main(shimmy, model):
    # Answers are compared with each other, so they must not depend on what else runs.
    command = [shimmy, "--deterministic", "serve", "--bind", "127.0.0.1:0", "--drain", "2", "--model", model]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split("http://")[1].split()[0]
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
        expected = plain(client)
        streaming(client, expected)
        sampling(client)
        errors(client)
        models(client)
        cancelling(client, address)
        asyncio.run(many(address, expected))
    finally:
        server.terminate()
        server.wait(timeout=30)
    print(f"openai {openai.__version__}: plain, streaming, sampling, errors, models, cancelling, many at once: ok")


main(*sys.argv[1:])
