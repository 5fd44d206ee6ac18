"""Answers of two servers, brought into one form and compared: status, shape and text."""
import json
import re

# Their values are of one server and one moment.
MOMENTARY = {
    "id", "created", "system_fingerprint", "timings", "model", "__verbose", "created_at", "completed_at", "item_id", "call_id",
    "request_id", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration", "modified_at", "expires_at", "digest",
    "obfuscation",
}


def read(content_type, text):
    """An answer's body: JSON, a stream of events or lines made one object, or its text."""
    if "event-stream" in content_type:
        return {"stream": events([line[5:].strip() for line in text.splitlines() if line.startswith("data:")])}
    lines = [line for line in text.splitlines() if line]
    if "ndjson" in content_type:
        return {"stream": events(lines)}
    try:
        return json.loads(text)
    except ValueError:
        return text


def events(lines):
    chunks = [json.loads(line) for line in lines if line != "[DONE]"]
    whole = typed(chunks) if chunks and "type" in chunks[0] else untyped(chunks)
    return {**whole, "ends": "[DONE]" if lines and lines[-1] == "[DONE]" else "without"}


def untyped(chunks):
    """OpenAI's and Ollama's chunks as one: where their text is cut is the server's to choose."""
    whole = {"fields": sorted({field for chunk in chunks for field in chunk}), "text": "", "calls": {}, "finish_reason": None}
    for chunk in chunks:
        for choice in chunk.get("choices") or [chunk]:
            delta = choice.get("delta") or choice.get("message") or {}
            whole["text"] += delta.get("content") or choice.get("text") or choice.get("response") or ""
            whole["finish_reason"] = choice.get("finish_reason") or choice.get("done_reason") or whole["finish_reason"]
            for call in delta.get("tool_calls") or []:
                known = whole["calls"].setdefault(str(call.get("index", 0)), {"name": "", "arguments": ""})
                known["name"] += call["function"].get("name") or ""
                arguments = call["function"].get("arguments") or ""
                known["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
        if chunk.get("usage"):
            whole["usage"] = {field: chunk["usage"].get(field) for field in ("prompt_tokens", "completion_tokens", "total_tokens")}
        if chunk.get("error"):
            whole["error"] = chunk["error"]
    return whole


def typed(chunks):
    """Events with a type, of the responses and of Anthropic's messages: the order of their types, each run of one as one."""
    kinds, fields, text = [], {}, ""
    for chunk in chunks:
        if kinds[-1:] != [chunk["type"]]:
            kinds.append(chunk["type"])
        fields.setdefault(chunk["type"], set()).update(chunk)
        delta = chunk.get("delta")
        if isinstance(delta, dict):
            delta = delta.get("text") or delta.get("partial_json")
        text += delta or ""
    # How often a server says that it is still there is its own matter.
    kinds = [kind for kind in kinds if kind != "ping"]
    return {"events": kinds, "fields": {kind: sorted(of) for kind, of in fields.items() if kind != "ping"}, "text": text, "last": chunks[-1]}


def differences(ours, theirs, path=""):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for field in sorted(ours.keys() | theirs.keys()):
            where = f"{path}.{field}" if path else field
            if field not in theirs:
                yield f"{where}: only shimmy has it"
            elif field not in ours:
                yield f"{where}: only the other has it"
            elif field not in MOMENTARY:
                yield from differences(ours[field], theirs[field], where)
            elif kind(ours[field]) != kind(theirs[field]):
                yield f"{where}: {kind(ours[field])} here, {kind(theirs[field])} there"
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            yield f"{path}: {len(ours)} entries here, {len(theirs)} there"
        for index, (mine, other) in enumerate(zip(ours, theirs)):
            yield from differences(mine, other, f"{path}[{index}]")
    elif {type(ours), type(theirs)} in ({float}, {float, int}):
        # Probabilities are sums of floating-point numbers.
        if abs(ours - theirs) > 0.05:
            yield f"{path}: {ours} here, {theirs} there"
    elif type(ours) is not type(theirs) or ours != theirs:
        yield f"{path}: {shown(ours)} here, {shown(theirs)} there"


def kind(value):
    return {dict: "an object", list: "a list", str: "a text", bool: "a bool", type(None): "null"}.get(type(value), "a number")


def shown(value):
    return json.dumps(value)[:120]


class Accepted:
    """Lines of `request | difference`, both regular expressions, with the reason behind `#`."""

    def __init__(self, path):
        self.name, self.rules, self.used = path.name, [], set()
        for number, line in enumerate(path.read_text().splitlines(), 1):
            rule, _, reason = line.partition(" # ")
            if rule.strip() and not line.startswith("#"):
                if not reason.strip():
                    raise ValueError(f"{path.name}:{number}: a difference is accepted for a reason, behind ` # `")
                request, difference = rule.strip().split(" | ", 1)
                self.rules.append((re.compile(request), re.compile(difference), line))

    def covers(self, request, difference):
        matching = [line for name, rule, line in self.rules if name.fullmatch(request) and rule.match(difference)]
        self.used.update(matching)
        return bool(matching)

    def unused(self):
        return [line for _, _, line in self.rules if line not in self.used]
