"""Completions and responses with OpenAI's own Python package: python3 openai_more.py ADDRESS SHIMMY MODEL.gguf"""
import json
import sys
from typing import Literal

import openai
import pydantic

from served import NAME, raises, tokens

PROMPT = "Paris is the capital of France. The capital of France is"
QUESTION = "What is 2+2?"
WEATHER = {
    "type": "function", "name": "weather", "description": "Tells the weather of a place.", "strict": True,
    "parameters": {
        "type": "object", "properties": {"place": {"enum": ["Paris", "Rome"]}}, "required": ["place"],
        "additionalProperties": False,
    },
}


class City(pydantic.BaseModel):
    name: Literal["Paris", "Rome"]
    big: bool


def completions(client, address):
    def create(**more):
        return client.completions.create(**{"model": NAME, "prompt": PROMPT, "max_tokens": 6, "temperature": 0, **more})

    answer = create()
    [choice] = answer.choices
    expected = choice.text
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-"), answer
    assert "Paris" in expected and choice.finish_reason == "length" and choice.logprobs is None, answer
    usage = answer.usage
    assert (usage.completion_tokens, usage.total_tokens) == (6, 6 + usage.prompt_tokens), answer

    several = create(prompt=[PROMPT, "One, two, three,"], n=2)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3], several
    texts = [choice.text for choice in several.choices]
    assert texts[:2] == [expected] * 2 and texts[2] == texts[3] != expected, several
    assert usage.prompt_tokens < several.usage.prompt_tokens < 2 * usage.prompt_tokens, several
    ids = tokens(address, PROMPT)
    for prompt in (ids, [ids]):
        assert create(prompt=prompt).choices[0].text == expected
    assert create(echo=True).choices[0].text == PROMPT + expected

    told = create(logprobs=2).choices[0].logprobs
    assert "".join(told.tokens) == expected and told.text_offset[0] == 0, told
    assert [offset for offset in told.text_offset] == [len("".join(told.tokens[:n])) for n in range(6)], told
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs):
        # The most likely one was taken.
        assert logprob <= 0 and top[token] == max(top.values()) == logprob, told

    chunks = list(create(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == expected
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 6, chunks[-1]
    parts = ["", ""]
    for chunk in create(stream=True, n=2):
        parts[chunk.choices[0].index] += chunk.choices[0].text
    assert parts == [expected] * 2, parts

    assert "does not support insert" in raises(openai.BadRequestError, lambda: create(suffix="!")).message
    assert raises(openai.NotFoundError, lambda: create(model="nothing")).code == "model_not_found"


def plain(client):
    answer = client.responses.create(
        model=NAME, input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=32, metadata={"of": "mine"})
    assert answer.object == "response" and answer.status in ("completed", "incomplete") and answer.error is None, answer
    [message] = answer.output
    assert message.role == "assistant" and message.content[0].text == answer.output_text != "", answer
    assert answer.metadata == {"of": "mine"} and answer.instructions == "Be brief." and answer.temperature == 0, answer
    usage = answer.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens and usage.output_tokens > 0, answer
    assert usage.input_tokens_details.cached_tokens >= 0 and usage.output_tokens_details.reasoning_tokens == 0, answer
    short = client.responses.create(model=NAME, input=QUESTION, max_output_tokens=1)
    assert short.status == "incomplete" and short.incomplete_details.reason == "max_output_tokens", short
    told = client.responses.create(
        model=NAME, input=QUESTION, max_output_tokens=4, top_logprobs=2, include=["message.output_text.logprobs"])
    logprobs = told.output[0].content[0].logprobs
    assert "".join(one.token for one in logprobs).startswith(told.output_text), told
    assert all(len(one.top_logprobs) <= 2 and one.logprob <= 0 for one in logprobs), told
    raw = client.responses.with_raw_response.create(model=NAME, input=QUESTION, max_output_tokens=1, user="me")
    assert raw.headers["x-shimmy-ignored"] == "user", raw.headers
    return answer


def streaming(client, expected):
    events = list(client.responses.create(
        model=NAME, input=QUESTION, instructions="Be brief.", temperature=0, max_output_tokens=32, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"], kinds
    assert kinds[-4:-1] == [
        "response.output_text.done", "response.content_part.done", "response.output_item.done"], kinds
    assert set(kinds[4:-4]) == {"response.output_text.delta"}, kinds
    assert "".join(event.delta for event in events[4:-4]) == events[-4].text == expected.output_text
    final = events[-1].response
    assert events[-1].type == f"response.{expected.status}" and final.usage.total_tokens == expected.usage.total_tokens
    assert final.output == [events[-2].item], final


def forms(client):
    text = '{"name": "Paris", "big": true}'
    answer = client.responses.parse(model=NAME, input=text, text_format=City, temperature=0)
    assert isinstance(answer.output_parsed, City) and answer.status == "completed", answer
    with client.responses.stream(model=NAME, input=text, text_format=City, temperature=0) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.output_parsed == answer.output_parsed and snapshots[-1] == final.output_text, final


def tools(client):
    asked = {"model": NAME, "tools": [WEATHER], "temperature": 0, "max_output_tokens": 48}
    question = [{"role": "user", "content": '{"place": "Paris"}'}]
    forced = {"type": "function", "name": "weather"}
    first = client.responses.create(input=question, tool_choice=forced, **asked)
    [call] = first.output
    assert (call.type, call.name, call.status) == ("function_call", "weather", "completed"), first
    assert json.loads(call.arguments)["place"] in ("Paris", "Rome") and call.id.startswith("fc_"), first
    assert first.tools[0].name == "weather" and first.tool_choice.name == "weather", first

    with client.responses.stream(input=question, tool_choice="required", **asked) as stream:
        events = list(stream)
        [streamed] = stream.get_final_response().output
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments), streamed
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call.arguments, deltas

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "It rains all day in Paris."}
    asked["tool_choice"] = "none"
    # What came back is sent back as it came, or named.
    sent = client.responses.create(input=question + [item.model_dump() for item in first.output] + [result], **asked)
    named = client.responses.create(input=[result], previous_response_id=first.id, **asked)
    assert sent.output_text == named.output_text != "", (sent, named)
    assert sent.usage.input_tokens == named.usage.input_tokens, (sent, named)
    items = client.responses.input_items.list(named.id, order="asc").data
    assert [item.type for item in items] == ["message", "function_call", "function_call_output"], items
    assert items[1].id == call.id, items


def kept(client, answer):
    assert client.responses.retrieve(answer.id).to_dict() == answer.to_dict()
    ask = {"model": NAME, "input": "And 3+3?", "max_output_tokens": 4}
    second = client.responses.create(previous_response_id=answer.id, **ask)
    assert second.previous_response_id == answer.id and second.usage.input_tokens > answer.usage.input_tokens, second
    client.responses.delete(answer.id)
    gone = raises(openai.NotFoundError, lambda: client.responses.retrieve(answer.id))
    assert answer.id in gone.message and gone.type == "invalid_request_error", gone
    unknown = raises(openai.BadRequestError, lambda: client.responses.create(previous_response_id=answer.id, **ask))
    assert (unknown.code, unknown.param) == ("previous_response_not_found", "previous_response_id"), unknown
    lost = client.responses.create(store=False, **ask)
    raises(openai.NotFoundError, lambda: client.responses.retrieve(lost.id))


def errors(client):
    def refused(**more):
        return raises(openai.BadRequestError, lambda: client.responses.create(**{"model": NAME, "input": "x", **more}))

    image = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "low"}]}]
    assert "takes no images" in refused(input=image).message
    assert "web_search" in refused(tools=[{"type": "web_search"}]).message
    assert refused(input="word " * 20000).code == "context_length_exceeded"
    assert "background" in refused(background=True).message


def main(address, _shimmy, _model):
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=0)
    completions(client, address)
    answer = plain(client)
    streaming(client, answer)
    forms(client)
    tools(client)
    kept(client, answer)
    errors(client)
    print(f"openai {openai.__version__}: completions, responses, streaming, forms, tools, kept answers, errors: ok")


main(*sys.argv[1:])
