"""What differential.py sees, and what it does not: SHIMMY=target/debug/shimmy python3 -m unittest discover tests/differential"""
import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from cases import DIALECTS
from comparing import Accepted, differences, read
from differential import compare, started

HERE = pathlib.Path(__file__).parent


def rules(text):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "rules.txt")
        path.write_text(text)
        return Accepted(path)


class Differences(unittest.TestCase):
    def found(self, ours, theirs):
        return list(differences(ours, theirs))

    def test_shape_and_text(self):
        ours = {"a": [1, {"b": "x"}], "only": None}
        self.assertEqual(self.found(ours, ours), [])
        self.assertEqual(self.found(ours, {"a": [1, {"b": "y"}], "other": 1}), [
            'a[1].b: "x" here, "y" there', "only: only shimmy has it", "other: only the other has it"])
        self.assertEqual(self.found({"a": [1]}, {"a": [1, 2]}), ["a: 1 entries here, 2 there"])
        self.assertEqual(self.found({"a": True}, {"a": 1}), ["a: true here, 1 there"])
        self.assertEqual(self.found({"a": None}, {"a": {}}), ["a: null here, {} there"])

    def test_numbers_may_be_rounded_and_counts_may_not(self):
        self.assertEqual(self.found({"p": -1.01, "q": 0}, {"p": -1.02, "q": 0.0}), [])
        self.assertEqual(self.found({"n": 3}, {"n": 4}), ["n: 3 here, 4 there"])
        self.assertEqual(self.found({"p": -1.0}, {"p": -2}), ["p: -1.0 here, -2 there"])

    def test_what_is_of_the_moment_must_be_of_one_kind(self):
        self.assertEqual(self.found({"id": "a", "created": 1}, {"id": "b", "created": 2.5}), [])
        self.assertEqual(self.found({"id": "a"}, {"id": 7}), ["id: a text here, a number there"])


class Streams(unittest.TestCase):
    def chat(self, *texts, end="data: [DONE]\n\n"):
        chunks = "".join('data: {"id":"x","choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text for text in texts)
        return read("text/event-stream", chunks + end)

    def test_cuts_do_not_count_and_texts_and_ends_do(self):
        self.assertEqual(list(differences(self.chat("a", "bc"), self.chat("ab", "c"))), [])
        self.assertEqual(list(differences(self.chat("ab"), self.chat("ac"))), ['stream.text: "ab" here, "ac" there'])
        self.assertEqual(list(differences(self.chat("a"), self.chat("a", end=""))), ['stream.ends: "[DONE]" here, "without" there'])

    def test_types_of_events(self):
        def events(*kinds):
            return read("text/event-stream; charset=utf-8", "".join(f'event: {k}\ndata: {{"type":"{k}","delta":"x"}}\n\n' for k in kinds))

        self.assertEqual(list(differences(events("a", "b", "b"), events("a", "b", "b"))), [])
        self.assertIn("stream.events: 2 entries here, 1 there", list(differences(events("a", "b"), events("a", "a"))))

    def test_lines(self):
        body = '{"message":{"content":"a"},"done":false}\n{"message":{"content":"b"},"done":true,"done_reason":"stop"}\n'
        stream = read("application/x-ndjson", body)["stream"]
        self.assertEqual((stream["text"], stream["finish_reason"]), ("ab", "stop"))

    def test_bodies_that_are_no_json(self):
        self.assertEqual(read("text/html", "<p>"), "<p>")


class Rules(unittest.TestCase):
    def test_they_need_a_reason(self):
        with self.assertRaisesRegex(ValueError, "rules.txt:2"):
            rules("# head\nchat | .*\n")

    def test_they_hold_for_their_request_and_are_told_when_unused(self):
        accepted = rules("chat | a: .* # because\nchat.* | b: .* # because\n")
        self.assertTrue(accepted.covers("chat", "a: 1 here, 2 there"))
        self.assertFalse(accepted.covers("chat stop", "a: 1 here, 2 there"))
        self.assertEqual(accepted.unused(), ["chat.* | b: .* # because"])

    def test_the_committed_ones_can_be_read(self):
        self.assertTrue(Accepted(HERE / "accepted.txt").rules)


class Servers(unittest.TestCase):
    """Two servers that answer without a model: the build with the feature `stub`."""

    def server(self, *arguments):
        return started(os.environ["SHIMMY"], "serve", *arguments)

    def test_a_server_is_like_another_one_of_its_kind(self):
        cases = {name: case for dialect in DIALECTS.values() for name, case in dialect.items()}
        with self.server() as one, self.server() as other:
            # Ollama's models are listed with what is loaded, which the first requests change alike.
            self.assertEqual(compare((one, other), ["stub-fast"] * 2, cases, rules("")), (0, 0))
            program = [sys.executable, HERE / "differential.py", one, other, "--models", "stub-fast,nothing", "--only", "chat|models"]
            result = subprocess.run(program, capture_output=True, text=True)
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertEqual(result.stdout.splitlines(), [
                "chat: status: 200 here, 404 there", "2 requests, 0 accepted differences, 1 others"])

    def test_one_that_asks_for_a_key_differs_in_each_status(self):
        cases = {**DIALECTS["openai"], **DIALECTS["anthropic"]}
        with self.server() as one, self.server("--api-key", "secret") as other:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                known, unexpected = compare((one, other), ["stub-fast"] * 2, cases, rules("chat | status: 200 here, 401 there # keys\n"))
        lines = printed.getvalue().splitlines()
        self.assertEqual((known, unexpected), (1, len(lines)), lines)
        by_status = [line.split(": ")[0] for line in lines if line.endswith(" here, 401 there")]
        self.assertEqual(by_status, [name for name in cases if name != "chat"])


if __name__ == "__main__":
    unittest.main()
