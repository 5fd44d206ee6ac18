// Drives `shimmy serve` with OpenAI's own package for Node: node openai_node.mjs ADDRESS, with NODE_MODULES in the environment.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const packages = process.env.NODE_MODULES;
const { default: OpenAI } = await import(pathToFileURL(join(packages, "openai", "index.mjs")));
const { version } = JSON.parse(readFileSync(join(packages, "openai", "package.json")));

const address = process.argv[2];
const client = new OpenAI({ baseURL: `http://${address}/v1`, apiKey: "none", maxRetries: 0 });
const model = "smollm2-135m-instruct";
const embedder = "embedder";
const messages = [{ role: "user", content: "What is 2+2?" }];
const cold = { model, messages, temperature: 0, max_completion_tokens: 32 };
const endless = { model, messages, max_tokens: 4000, ignore_eos: true };
const city = {
  type: "object", properties: { name: { enum: ["Paris", "Rome"] }, big: { type: "boolean" } }, required: ["name", "big"],
  additionalProperties: false,
};
const parameters = {
  type: "object", properties: { city: { enum: ["Paris", "Rome"] } }, required: ["city"], additionalProperties: false };
const weather = { type: "function", function: { name: "weather", description: "Tells the weather of a city.", parameters } };
const question = [{ role: "user", content: "What is the weather in Paris?" }];

/** Sum of a metric over its labels. */
async function metric(name) {
  const lines = (await (await fetch(`http://${address}/metrics`)).text()).split("\n").filter((line) => line.startsWith(`${name}{`));
  assert(lines.length > 0, `there is no metric ${name}`);
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
}

async function stopsWorking(before) {
  for (let i = 0; i < 100; i++) {
    if (await metric("shimmy_cancellations_total") > before && await metric("shimmy_sequences") === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail("the server still works for a client that has left");
}

async function fails(kind, call) {
  try {
    await call();
  } catch (error) {
    assert(error instanceof kind, error);
    return error;
  }
  assert.fail(`no ${kind.name}`);
}

async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

async function plain() {
  const answer = await client.chat.completions.create(cold);
  const [choice] = answer.choices;
  assert.match(choice.message.content, /4/);
  assert.equal(choice.message.role, "assistant");
  assert(["stop", "length"].includes(choice.finish_reason), choice.finish_reason);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  const { data, response } = await client.chat.completions.create({ ...cold, max_completion_tokens: 1, user: "me" }).withResponse();
  assert.equal(data.choices[0].finish_reason, "length");
  assert.equal(response.headers.get("x-shimmy-ignored"), "user");
  // An answer goes back as it came.
  const again = [...messages, choice.message, { role: "user", content: "And 3+3?" }];
  assert((await client.chat.completions.create({ ...cold, messages: again, max_completion_tokens: 8 })).choices[0].message.content);
  return answer;
}

async function streaming(expected) {
  const chunks = await all(await client.chat.completions.create({ ...cold, stream: true, stream_options: { include_usage: true } }));
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.total_tokens, expected.usage.total_tokens);
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), expected.choices[0].message.content);
  // The package's own reader of streams checks the order of chunks.
  const stream = client.chat.completions.stream(cold);
  let heard = "";
  stream.on("content", (delta) => { heard += delta; });
  const whole = await stream.finalChatCompletion();
  assert.equal(whole.choices[0].message.content, expected.choices[0].message.content);
  assert.equal(heard, whole.choices[0].message.content);
  assert.equal(whole.choices[0].finish_reason, expected.choices[0].finish_reason);
}

async function tools() {
  const ask = { model, messages: question, tools: [weather], temperature: 0, max_completion_tokens: 64 };
  for (const tool_choice of ["required", { type: "function", function: { name: "weather" } }]) {
    const answer = await client.chat.completions.create({ ...ask, tool_choice });
    const [call] = answer.choices[0].message.tool_calls;
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
    assert.equal(call.function.name, "weather");
    assert(["Paris", "Rome"].includes(JSON.parse(call.function.arguments).city), call);
    const streamed = await client.chat.completions.stream({ ...ask, tool_choice }).finalMessage();
    assert.equal(streamed.tool_calls[0].function.arguments, call.function.arguments);
    assert(streamed.tool_calls[0].id);
    const told = [...question, answer.choices[0].message, { role: "tool", tool_call_id: call.id, content: "Sunny." }];
    const after = await client.chat.completions.create({ ...ask, messages: told, tool_choice: "none" });
    assert(after.choices[0].message.content && !after.choices[0].message.tool_calls, after);
  }
}

async function forms() {
  const response_format = { type: "json_schema", json_schema: { name: "city", strict: true, schema: city } };
  const answer = await client.chat.completions.parse({ ...cold, messages: question, response_format, max_completion_tokens: 200 });
  const { parsed } = answer.choices[0].message;
  assert.deepEqual(Object.keys(parsed), ["name", "big"]);
  assert(["Paris", "Rome"].includes(parsed.name) && typeof parsed.big === "boolean", parsed);
}

async function responses() {
  const ask = { model, input: "What is 2+2?", temperature: 0, max_output_tokens: 32 };
  const whole = await client.responses.create(ask);
  assert(whole.output_text.length > 0);
  const events = await all(await client.responses.create({ ...ask, stream: true }));
  assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, index) => index));
  assert.equal(events[0].type, "response.created");
  assert.equal(events.at(-1).type, `response.${whole.status}`);
  const deltas = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
  assert.equal(deltas.join(""), whole.output_text);
  // The package's own reader puts the response together from its events.
  const read = await client.responses.stream(ask).finalResponse();
  assert.equal(read.output_text, whole.output_text);
  const tool = { type: "function", name: "weather", strict: true, parameters };
  const called = await client.responses.stream({ ...ask, input: question, tools: [tool], tool_choice: "required" }).finalResponse();
  assert.equal(called.output[0].type, "function_call");
  assert(JSON.parse(called.output[0].arguments).city);
  const next = await client.responses.create({ ...ask, input: "And 3+3?", previous_response_id: whole.id });
  assert(next.usage.input_tokens > whole.usage.input_tokens);
}

async function embeddings() {
  const input = ["a text", "another one, which is longer"];
  // The package asks for base64 by itself, and decodes it.
  const [one, other] = (await client.embeddings.create({ model: embedder, input })).data;
  assert.equal(one.embedding.length, 32);
  assert.notDeepEqual(one.embedding, other.embedding);
  const floats = (await client.embeddings.create({ model: embedder, input: input[0], encoding_format: "float" })).data[0].embedding;
  floats.forEach((value, index) => assert(Math.abs(value - one.embedding[index]) < 1e-4));
  const text = (await client.embeddings.create({ model: embedder, input: input[0], encoding_format: "base64" })).data[0].embedding;
  assert.equal(Buffer.from(text, "base64").length, 4 * 32);
}

async function models() {
  const ids = (await all(await client.models.list())).map((one) => one.id);
  assert(ids.includes("smollm2:135m-instruct-q4_1"), ids);
  assert.equal((await client.models.retrieve(model)).owned_by, "local");
  await fails(OpenAI.NotFoundError, () => client.models.retrieve("nothing"));
}

async function errors() {
  const unknown = await fails(OpenAI.NotFoundError, () => client.chat.completions.create({ ...cold, model: "nothing" }));
  assert.equal(unknown.code, "model_not_found");
  const wrong = await fails(OpenAI.BadRequestError, () => client.chat.completions.create({ ...cold, temperature: -1 }));
  assert.match(wrong.message, /temperature/);
  assert.equal(wrong.type, "invalid_request_error");
  const long = [{ role: "user", content: "word ".repeat(20000) }];
  const streamed = await fails(OpenAI.BadRequestError, () => client.chat.completions.create({ ...cold, messages: long, stream: true }));
  assert.equal(streamed.code, "context_length_exceeded");
  await fails(OpenAI.BadRequestError, () => client.embeddings.create({ model, input: "a text" }));
  await fails(OpenAI.NotFoundError, () => client.get("/nothing"));
}

/** A client that leaves, by its own timeout or by an abort, stops the work. */
async function leaving() {
  let before = await metric("shimmy_cancellations_total");
  await fails(OpenAI.APIConnectionTimeoutError, () => client.chat.completions.create(endless, { timeout: 500 }));
  await stopsWorking(before);

  before = await metric("shimmy_cancellations_total");
  const controller = new AbortController();
  const call = client.chat.completions.create(endless, { signal: controller.signal });
  setTimeout(() => controller.abort(), 300);
  await fails(OpenAI.APIUserAbortError, () => call);
  await stopsWorking(before);

  for (const api of ["chat", "responses"]) {
    before = await metric("shimmy_cancellations_total");
    const stream = api === "chat"
      ? await client.chat.completions.create({ ...endless, stream: true })
      : await client.responses.create({ model, input: "x", max_output_tokens: 4000, ignore_eos: true, stream: true });
    let seen = 0;
    for await (const _ of stream) if (++seen === 8) stream.controller.abort();
    assert(seen >= 8, `${seen} events`);
    await stopsWorking(before);
  }
}

const expected = await plain();
await streaming(expected);
await tools();
await forms();
await responses();
await embeddings();
await models();
await errors();
await leaving();
console.log(`openai for Node ${version}: plain, streaming, tools, forms, responses, embeddings, models, errors, timeout, abort: ok`);
