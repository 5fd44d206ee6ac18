"""Drives `shimmy serve` with LangChain's packages for OpenAI, Ollama and Anthropic: python3 langchain_clients.py ADDRESS"""
import asyncio
import importlib.metadata
import sys
from typing import Literal

import anthropic
import httpx
import ollama
import openai
import pydantic
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from served import DIMENSIONS, EMBEDDER, NAME, cancellations, raises, stops_working

SUM = "What is 2+2?"
WEATHER = "What is the weather in Paris?"
# LangChain keeps connections for all models of an address, and those are of one loop.
LOOP = asyncio.new_event_loop()


class City(pydantic.BaseModel):
    """A city."""

    name: Literal["Paris", "Rome"]
    big: bool


@tool
def weather(city: Literal["Paris", "Rome"]) -> str:
    """Tells the weather of a city."""
    return f"It is sunny in {city}."


def over_openai(address, **more):
    return ChatOpenAI(**{"model": NAME, "base_url": f"http://{address}/v1", "api_key": "none", "temperature": 0,
                         "max_tokens": 32, "max_retries": 0, **more})


def over_anthropic(address, **more):
    return ChatAnthropic(**{"model": NAME, "base_url": f"http://{address}", "api_key": "none", "temperature": 0,
                            "max_tokens": 32, "max_retries": 0, **more})


def over_ollama(address, **more):
    return ChatOllama(**{"model": NAME, "base_url": f"http://{address}", "temperature": 0, "num_predict": 32, **more})


def invoking(model):
    answer = model.invoke(SUM)
    assert isinstance(answer, AIMessage) and "4" in answer.text, answer
    usage = answer.usage_metadata
    assert usage["output_tokens"] > 0 and usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"], answer
    # An answer goes back as it came, behind a system message.
    turns = [SystemMessage("Answer in one word."), HumanMessage(SUM), answer, HumanMessage("And 3+3?")]
    assert model.invoke(turns).text
    chain = ChatPromptTemplate.from_messages([("human", "What is {a}+{b}?")]) | model
    assert chain.invoke({"a": 2, "b": 2}).text == answer.text
    assert [one.text for one in chain.batch([{"a": 2, "b": 2}] * 3)] == [answer.text] * 3
    return answer


def streaming(model, expected):
    chunks = list(model.stream(SUM))
    assert len(chunks) > 2 and "".join(chunk.text for chunk in chunks) == expected.text, chunks
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.usage_metadata["output_tokens"] == expected.usage_metadata["output_tokens"], whole

    async def read():
        return "".join([chunk.text async for chunk in model.astream(SUM)])

    assert LOOP.run_until_complete(read()) == expected.text


def tools(model):
    """What is forced has to come; then its result goes back."""
    bound = model.bind_tools([weather], tool_choice="weather")
    answer = bound.invoke(WEATHER)
    [call] = answer.tool_calls
    assert call["name"] == "weather" and call["args"]["city"] in ("Paris", "Rome") and call["id"], answer
    assert not answer.invalid_tool_calls, answer
    whole = None
    for chunk in bound.stream(WEATHER):
        whole = chunk if whole is None else whole + chunk
    assert [(one["name"], one["args"]) for one in whole.tool_calls] == [("weather", call["args"])], whole
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage), result
    told = model.invoke([HumanMessage(WEATHER), answer, result])
    assert told.text and not told.tool_calls, told


def offered_tools(model):
    """Ollama's API has no way to force a call; where one comes, its shape has to be right, and one that came goes back."""
    answer = model.bind_tools([weather]).invoke(WEATHER)
    assert all(call["name"] and isinstance(call["args"], dict) for call in answer.tool_calls), answer
    asked = AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Paris"}, "id": "1"}])
    told = model.bind_tools([weather]).invoke([HumanMessage(WEATHER), asked, ToolMessage("Sunny.", tool_call_id="1")])
    assert told.text or told.tool_calls, told


def structured(model, *methods):
    for method in methods:
        found = model.with_structured_output(City, method=method).invoke("Name a city, as JSON.")
        assert isinstance(found, City), (method, found)


def embedding(model):
    vectors = model.embed_documents(["one", "two and more"])
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * 2 and vectors[0] != vectors[1], vectors
    alone = model.embed_query("one")
    assert all(abs(a - b) < 1e-4 for a, b in zip(alone, vectors[0], strict=True)), (alone, vectors)


def leaving(address, model):
    before = cancellations(address)
    stream = model.stream("Count from 1 to 1000, with all the numbers between.")
    for _, chunk in zip(range(5), stream):
        assert chunk.content is not None
    stream.close()
    stops_working(address, before)


def by_openai(address):
    model = over_openai(address)
    expected = invoking(model)
    assert expected.response_metadata["model_name"] == NAME, expected
    assert expected.response_metadata["finish_reason"] in ("stop", "length"), expected
    streaming(over_openai(address, stream_usage=True), expected)
    tools(over_openai(address, max_tokens=200))
    structured(over_openai(address, max_tokens=200), "json_schema", "function_calling")
    told = over_openai(address, logprobs=True, top_logprobs=2).invoke(SUM).response_metadata["logprobs"]["content"]
    assert "".join(one["token"] for one in told) == expected.text, told
    responses = over_openai(address, use_responses_api=True)
    answer = invoking(responses)
    streaming(responses, answer)
    tools(over_openai(address, use_responses_api=True, max_tokens=200))
    structured(over_openai(address, use_responses_api=True, max_tokens=200), "json_schema")
    text = OpenAI(model=NAME, base_url=f"http://{address}/v1", api_key="none", temperature=0, max_tokens=4)
    assert text.invoke("The capital of France is") == "".join(text.stream("The capital of France is")) != ""
    # Without this it sends OpenAI's own tokens, whose table it would have to fetch.
    embedding(OpenAIEmbeddings(
        model=EMBEDDER, base_url=f"http://{address}/v1", api_key="none", check_embedding_ctx_length=False))
    raises(openai.NotFoundError, lambda: over_openai(address, model="nothing").invoke(SUM))
    raises(openai.BadRequestError, lambda: over_openai(address).invoke("word " * 20000))
    endless = {"max_tokens": 4000, "extra_body": {"ignore_eos": True}}
    raises(openai.APITimeoutError, lambda: over_openai(address, timeout=0.5, **endless).invoke(SUM))
    leaving(address, over_openai(address, **endless))
    print_line("langchain-openai", "plain, streaming, tools, structured output, probabilities, responses, completions, embeddings, "
               "errors, timeout, leaving")


def by_anthropic(address):
    model = over_anthropic(address)
    expected = invoking(model)
    assert expected.response_metadata["stop_reason"] in ("end_turn", "max_tokens"), expected
    streaming(model, expected)
    tools(over_anthropic(address, max_tokens=200))
    structured(over_anthropic(address, max_tokens=200), "function_calling", "json_schema")
    raises(anthropic.NotFoundError, lambda: over_anthropic(address, model="nothing").invoke(SUM))
    raises(anthropic.BadRequestError, lambda: over_anthropic(address).invoke("word " * 20000))
    leaving(address, over_anthropic(address, max_tokens=2000, model_kwargs={"extra_body": {"ignore_eos": True}}))
    print_line("langchain-anthropic", "plain, streaming, tools, structured output, errors, leaving")


def by_ollama(address):
    # It asks /api/tags whether the model is there, by the name that is listed.
    over_ollama(address, model="smollm2:135m-instruct-q4_1", validate_model_on_init=True)
    model = over_ollama(address)
    expected = invoking(model)
    assert expected.response_metadata["done_reason"] in ("stop", "length"), expected
    streaming(model, expected)
    offered_tools(model)
    structured(over_ollama(address, num_predict=200), "json_schema")
    text = OllamaLLM(model=NAME, base_url=f"http://{address}", temperature=0, num_predict=8)
    assert text.invoke("Say yes.") == "".join(text.stream("Say yes.")) != ""
    embedding(OllamaEmbeddings(model=EMBEDDER, base_url=f"http://{address}"))
    assert raises(ollama.ResponseError, lambda: over_ollama(address, model="nothing").invoke(SUM)).status_code == 404
    raises(httpx.TimeoutException, lambda: over_ollama(address, client_kwargs={"timeout": 0.01}).invoke("word " * 1500))
    leaving(address, over_ollama(address, num_predict=2000))
    print_line("langchain-ollama", "plain, streaming, tools, structured output, generate, embeddings, errors, timeout, leaving")


def print_line(package, what):
    print(f"{package} {importlib.metadata.version(package)}: {what}: ok", flush=True)


def main(address, *_):
    by_openai(address)
    by_anthropic(address)
    by_ollama(address)


main(*sys.argv[1:])
