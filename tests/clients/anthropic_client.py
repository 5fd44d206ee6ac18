"""Drives `shimmy serve` with Anthropic's own Python package: python3 anthropic_client.py ADDRESS SHIMMY MODEL.gguf"""
import sys
from typing import Literal

import anthropic
import pydantic

from served import NAME, cancellations, raises, serving, stops_working

# The package knows of no temperature any more; the server does.
COLD = {"temperature": 0}
SUM = [{"role": "user", "content": "What is 2+2?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]
# Few answers fit, so that even a small model comes to an end.
TOOL = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
}


def prompt_tokens(usage):
    return usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens


def plain(client):
    answer = client.messages.create(model=NAME, messages=SUM, extra_body=COLD, max_tokens=32)
    [block] = answer.content
    assert block.type == "text" and "4" in block.text, answer
    assert answer.type == "message" and answer.role == "assistant" and answer.model == NAME, answer
    assert answer.id.startswith("msg_") and answer._request_id.startswith("req_"), answer
    assert answer.stop_reason in ("end_turn", "max_tokens") and answer.stop_sequence is None, answer
    assert answer.usage.output_tokens > 0, answer
    counted = client.messages.count_tokens(model=NAME, messages=SUM)
    assert counted.input_tokens == prompt_tokens(answer.usage), (counted, answer)
    more = client.messages.count_tokens(model=NAME, messages=SUM, system="Answer in one word.")
    assert more.input_tokens != counted.input_tokens, more
    # An answer goes back as it came.
    again = SUM + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "And 3+3?"}]
    assert client.messages.create(model=NAME, messages=again, max_tokens=8).content
    return answer


def streaming(client, expected):
    with client.messages.stream(model=NAME, messages=SUM, extra_body=COLD, max_tokens=32) as stream:
        events = list(stream)
        answer = stream.get_final_message()
    assert "".join(event.text for event in events if event.type == "text") == expected.content[0].text
    assert answer.content[0].text == expected.content[0].text, answer
    assert (answer.stop_reason, answer.stop_sequence) == (expected.stop_reason, None), answer
    assert prompt_tokens(answer.usage) == prompt_tokens(expected.usage), (answer, expected)
    assert answer.usage.output_tokens == expected.usage.output_tokens, (answer, expected)
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"], kinds
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"], kinds
    assert prompt_tokens(events[0].message.usage) == prompt_tokens(answer.usage), (events[0], answer)


def tools(client):
    asked = {"model": NAME, "messages": WEATHER, "tools": [TOOL], "extra_body": COLD, "max_tokens": 64}
    for choice in ({"type": "any"}, {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}):
        answer = client.messages.create(**asked, tool_choice=choice)
        call = answer.content[-1]
        assert answer.stop_reason == "tool_use" and call.type == "tool_use" and call.name == "weather", answer
        assert call.id and call.input in ({"city": "Paris"}, {"city": "Rome"}), answer
        with client.messages.stream(**asked, tool_choice=choice) as stream:
            events = list(stream)
            streamed = stream.get_final_message()
        assert (streamed.stop_reason, streamed.content[-1].input) == ("tool_use", call.input), streamed
        assert any(event.type == "input_json" for event in events), events

    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Sunny, 21 degrees."}]}
    turns = WEATHER + [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    told = client.messages.create(**{**asked, "messages": turns}, tool_choice={"type": "none"})
    assert [block.type for block in told.content] == ["text"] and told.stop_reason != "tool_use", told


class City(pydantic.BaseModel):
    name: Literal["Paris", "Rome"]
    big: bool


def forms(client):
    asked = {"model": NAME, "messages": [{"role": "user", "content": "Name a city, as JSON."}], "extra_body": COLD, "max_tokens": 200}
    answer = client.messages.parse(**asked, output_format=City)
    assert isinstance(answer.parsed_output, City) and answer.stop_reason == "end_turn", answer
    with client.messages.stream(**asked, output_format=City) as stream:
        assert stream.get_final_message().parsed_output == answer.parsed_output


def stopping(client, expected):
    answer = client.messages.create(model=NAME, messages=SUM, extra_body=COLD, max_tokens=32, stop_sequences=["4"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "4"), answer
    text = "".join(block.text for block in answer.content)
    assert text.rstrip() == expected.content[0].text.split("4")[0].rstrip(), answer


def errors(client):
    def create(**more):
        return client.messages.create(**{"model": NAME, "messages": SUM, "max_tokens": 4, **more})

    unknown = raises(anthropic.NotFoundError, lambda: create(model="nothing"))
    assert unknown.type == "not_found_error" and unknown.request_id.startswith("req_"), unknown
    long = raises(anthropic.BadRequestError, lambda: create(messages=[{"role": "user", "content": "word " * 20000}]))
    assert long.type == "invalid_request_error" and "the context holds" in long.api_message, long
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    refused = raises(anthropic.BadRequestError, lambda: create(messages=[{"role": "user", "content": [image]}]))
    assert refused.api_message.startswith("this model takes no images: "), refused
    search = {"type": "web_search_20250305", "name": "web_search"}
    assert "web_search" in raises(anthropic.BadRequestError, lambda: create(tools=[search])).api_message
    raw = client.messages.with_raw_response.create(
        model=NAME, messages=SUM, max_tokens=1, metadata={"user_id": "me"}, service_tier="auto")
    assert raw.headers["x-shimmy-ignored"] == "metadata, service_tier", raw.headers


def models(client):
    assert "smollm2:135m-instruct-q4_1" in [model.id for model in client.models.list()]
    model = client.models.retrieve(NAME)
    assert model.type == "model" and model.created_at.year > 1970, model
    assert raises(anthropic.NotFoundError, lambda: client.models.retrieve("nothing")).type == "not_found_error"


def endless(client):
    return client.messages.create(
        model=NAME, messages=SUM, stream=True, max_tokens=2000, extra_body={"ignore_eos": True})


def timeout(client, address):
    before = cancellations(address)
    asked = {"model": NAME, "messages": SUM, "max_tokens": 2000, "extra_body": {"ignore_eos": True}}
    raises(anthropic.APITimeoutError, lambda: client.with_options(timeout=0.5).messages.create(**asked))
    stops_working(address, before)


def cancelling(client, address):
    before = cancellations(address)
    stream = endless(client)
    for _, event in zip(range(5), stream):
        assert event.type
    stream.close()
    stops_working(address, before)


def overload(client):
    stream = endless(client)
    next(stream)
    full = raises(
        anthropic.OverloadedError, lambda: client.messages.create(model=NAME, messages=SUM, max_tokens=1))
    assert full.type == "overloaded_error" and full.response.headers["retry-after"] == "1", full
    stream.close()


def connected(address):
    return anthropic.Anthropic(base_url=f"http://{address}", api_key="none", max_retries=0)


def main(address, shimmy, model):
    client = connected(address)
    expected = plain(client)
    streaming(client, expected)
    tools(client)
    forms(client)
    stopping(client, expected)
    errors(client)
    models(client)
    timeout(client, address)
    cancelling(client, address)
    with serving(shimmy, model, "--parallel", "1", "--queue", "0") as full:
        overload(connected(full))
    print(
        f"anthropic {anthropic.__version__}: plain, streaming, tools, forms, stop sequences, errors, models, timeout, cancelling, overload: ok")


main(*sys.argv[1:])
