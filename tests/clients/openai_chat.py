"""Drives `shimmy serve` with OpenAI's own Python package: python3 openai_chat.py ADDRESS SHIMMY MODEL.gguf"""
import asyncio
import functools
import json
import sys

import openai
import pydantic

from served import DIMENSIONS, EMBEDDER, NAME, cancellations, raises, serving, stops_working, tokens

SUM = [{"role": "user", "content": "What is 2+2?"}]


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


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"], "additionalProperties": False}}}
TIME = {"type": "function", "function": {
    "name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"type": "integer"}}, "required": ["zone"]}}}


def tools(client):
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]

    def create(**more):
        return client.chat.completions.create(model=NAME, messages=ask, tools=[WEATHER, TIME], temperature=0, **more)

    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        [answer] = create(tool_choice=choice).choices
        [call] = answer.message.tool_calls
        assert answer.finish_reason == "tool_calls" and answer.message.content is None, answer
        arguments = json.loads(call.function.arguments)
        if call.function.name == "get_weather":
            assert set(arguments) == {"city", "unit"} and arguments["unit"] in ("C", "F"), arguments
    chunks = list(create(tool_choice=choice, stream=True))
    pieces = [piece for chunk in chunks for piece in chunk.choices[0].delta.tool_calls or []]
    assert pieces[0].function.name == "get_weather" and pieces[0].id, pieces
    assert json.loads("".join(piece.function.arguments for piece in pieces)) == arguments, pieces
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    # The call and its result go back.
    ask += [answer.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, sunny"}]
    [after] = create(tool_choice="none", max_tokens=24).choices
    assert after.message.content and not after.message.tool_calls, after
    [free] = create(max_tokens=40).choices
    assert free.finish_reason in ("stop", "length", "tool_calls"), free


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=30)
    population: int = pydantic.Field(ge=0, le=10**8)
    capital: bool


def forms(client):
    ask = [{"role": "user", "content": "Describe Paris as JSON."}]
    create = functools.partial(client.chat.completions.create, model=NAME, messages=ask, max_tokens=300)
    for seed in range(4):
        parsed = client.chat.completions.parse(
            model=NAME, messages=ask, response_format=City, seed=seed, temperature=1.2, max_tokens=300)
        assert isinstance(parsed.choices[0].message.parsed, City), parsed
    whole = create(response_format={"type": "json_object"}, temperature=0)
    if whole.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(whole.choices[0].message.content), dict), whole
    pieces = create(response_format={"type": "json_object"}, temperature=0, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content
    assert create(extra_body={"grammar": 'root ::= "yes" | "no"'}).choices[0].message.content in ("yes", "no")


def several(client):
    create = functools.partial(client.chat.completions.create, model=NAME, messages=SUM, n=3, seed=7, temperature=1.5, max_tokens=12)
    whole = [choice.message.content for choice in create().choices]
    assert len(set(whole)) > 1, whole
    texts = {0: "", 1: "", 2: ""}
    for chunk in create(stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert list(texts.values()) == whole, (texts, whole)
    told = client.chat.completions.create(
        model=NAME, messages=SUM, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3).choices[0]
    assert "".join(token.token for token in told.logprobs.content) == told.message.content, told
    for token in told.logprobs.content:
        assert token.top_logprobs[0].token == token.token and len(token.top_logprobs) == 3 and token.logprob <= 0, token


def biases(client, address):
    """A token that is pushed up comes alone; the one that would come first, pushed down, does not."""
    def text(**bias):
        answer = client.chat.completions.create(model=NAME, messages=SUM, temperature=0, max_tokens=4, logprobs=True, **bias)
        return [token.token for token in answer.choices[0].logprobs.content]

    first = text()[0]
    [*_, id] = tokens(address, first)
    assert text(logit_bias={str(id): -100})[0] != first
    [*_, id] = tokens(address, " yes")
    assert text(logit_bias={str(id): 100}) == [" yes"] * 4


def again(shimmy, model):
    """The same seed gives the same text, also when the prompt is cached by then."""
    # Without AVX-512, sums depend on the number of threads, which otherwise follows what else runs here.
    with serving(shimmy, model, "--threads", "2") as address:
        client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
        for number in range(5):
            ask = [{"role": "user", "content": f"Tell me story {number} of a fox. " + "Leave nothing out. " * (5 * number)}]
            answers = [client.chat.completions.create(
                model=NAME, messages=ask, seed=number, temperature=1.0, max_tokens=64) for _ in range(2)]
            texts = [answer.choices[0].message.content for answer in answers]
            usage = answers[1].usage
            assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens - 1, usage
            assert texts[0] == texts[1], texts


def errors(client, address):
    def create(**more):
        return client.chat.completions.create(**{"model": NAME, "messages": SUM, "max_tokens": 4, **more})

    unknown = raises(openai.NotFoundError, lambda: create(model="nothing"))
    assert unknown.code == "model_not_found", unknown
    long = raises(openai.BadRequestError, lambda: create(messages=[{"role": "user", "content": "word " * 20000}]))
    assert long.code == "context_length_exceeded", long
    refused = raises(openai.BadRequestError, lambda: create(tool_choice="required"))
    assert "tool_choice" in refused.message and refused.type == "invalid_request_error", refused
    unkept = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}}}
    assert "uniqueItems" in raises(openai.BadRequestError, lambda: create(response_format=unkept)).message
    raises(openai.BadRequestError, lambda: client.embeddings.create(model=NAME, input="a text"))
    endless = {"model": NAME, "messages": SUM, "max_tokens": 4000, "extra_body": {"ignore_eos": True}}
    before = cancellations(address)
    raises(openai.APITimeoutError, lambda: client.with_options(timeout=0.5).chat.completions.create(**endless))
    stops_working(address, before)
    raw = client.chat.completions.with_raw_response.create(model=NAME, messages=SUM, max_tokens=1, user="me")
    assert raw.headers["x-shimmy-ignored"] == "user", raw.headers


def models(client):
    assert "smollm2:135m-instruct-q4_1" in [model.id for model in client.models.list()]
    assert client.models.retrieve(NAME).owned_by == "local"
    raises(openai.NotFoundError, lambda: client.models.retrieve("nothing"))


def embeddings(client):
    texts = ["a text", "another one, which is longer"]
    # The package asks for base64 by itself, and decodes it.
    [one, other] = client.embeddings.create(model=EMBEDDER, input=texts).data
    assert len(one.embedding) == len(other.embedding) == DIMENSIONS and one.embedding != other.embedding
    plain = client.embeddings.create(model=EMBEDDER, input=texts[0], encoding_format="float")
    assert plain.usage.prompt_tokens > 0 and near(plain.data[0].embedding, one.embedding), plain
    assert len(client.embeddings.create(model=EMBEDDER, input=texts[0], dimensions=8).data[0].embedding) == 8


def near(one, other):
    """Sums depend on what is computed together."""
    return all(abs(a - b) < 1e-4 for a, b in zip(one, other, strict=True))


def cancelling(client, address):
    before = cancellations(address)
    stream = client.chat.completions.create(
        model=NAME, messages=SUM, stream=True, max_tokens=2000, extra_body={"ignore_eos": True})
    for _, chunk in zip(range(5), stream):
        assert chunk.choices
    stream.close()
    stops_working(address, before)


async def many(address, expected):
    async with openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
        calls = [client.chat.completions.create(model=NAME, messages=SUM, temperature=0, max_tokens=32) for _ in range(8)]
        for answer in await asyncio.gather(*calls):
            assert answer.choices[0].message.content == expected, answer


def main(address, shimmy, model):
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
    expected = plain(client)
    streaming(client, expected)
    sampling(client)
    tools(client)
    forms(client)
    several(client)
    biases(client, address)
    errors(client, address)
    models(client)
    embeddings(client)
    cancelling(client, address)
    asyncio.run(many(address, expected))
    again(shimmy, model)
    print(f"openai {openai.__version__}: plain, streaming, sampling, tools, forms, several, biases, the same again, errors, models, embeddings, cancelling, many at once: ok")


main(*sys.argv[1:])
