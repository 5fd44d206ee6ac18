"""Open WebUI against `shimmy serve`, through its connections for Ollama and OpenAI, and in a browser: for scripts/test_open_webui.sh."""
import contextlib
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

from chromium import browser
from served import EMBEDDER, serving

MODEL = "smollm2:135m-instruct-q4_1"
# What its connection for OpenAI puts before names, so that they differ from those of the other connection.
OVER_OPENAI = "over-openai"
SUM = [{"role": "user", "content": "What is 2+2?"}]
# The temperature of a request reaches Ollama's API only in this place.
ASKED = {MODEL: {"options": {"temperature": 0}}, f"{OVER_OPENAI}.{MODEL}": {"temperature": 0}}
USER = {"name": "Me", "email": "me@localhost.example", "password": "secret-enough"}


@contextlib.contextmanager
def open_webui(shimmy):
    """Its address, in a home of its own, with both connections to this server, and nothing that comes from elsewhere."""
    with tempfile.TemporaryDirectory() as home:
        env = {
            "PATH": os.environ["PATH"], "HOME": home, "DATA_DIR": home, "PYTHONPATH": os.environ["OPEN_WEBUI"], "WEBUI_SECRET_KEY": "secret",
            # What its own command sets.
            "FROM_INIT_PY": "true",
            "PYTHONDONTWRITEBYTECODE": "1", "STATIC_DIR": f"{home}/static", "OFFLINE_MODE": "true", "HF_HUB_OFFLINE": "1",
            # Without models and stores of its own for documents and speech, which is most of what it would need.
            "USE_SLIM_DOCKER": "true",
            "OLLAMA_BASE_URL": f"http://{shimmy}", "OPENAI_API_BASE_URL": f"http://{shimmy}/v1", "OPENAI_API_KEY": "none",
        }
        log = pathlib.Path(home, "log")
        with socket.create_server(("127.0.0.1", 0)) as listener, log.open("w") as output:
            # Whoever connects before it is ready waits, and is refused where it has ended.
            command = [sys.executable, "-m", "uvicorn", "open_webui.main:app", "--fd", str(listener.fileno())]
            process = subprocess.Popen(command, env=env, cwd=home, stdout=output, stderr=output, pass_fds=[listener.fileno()])
            address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            yield address
        finally:
            if process.poll() is not None:
                print(f"Open WebUI ended with {process.returncode}:\n{log.read_text()}", file=sys.stderr)
            process.terminate()
            process.wait(timeout=60)


class WebUi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.shimmy = stack.enter_context(serving(os.environ["SHIMMY"], os.environ["MODEL"], "--deterministic"))
        cls.address = stack.enter_context(open_webui(cls.shimmy))
        cls.token = None
        cls.token = cls.ask("/api/v1/auths/signup", USER)["token"]
        settings = cls.ask("/openai/config")
        settings["OPENAI_API_CONFIGS"] = {"0": {"enable": True, "prefix_id": OVER_OPENAI}}
        cls.ask("/openai/config/update", settings)

    @classmethod
    def opened(cls, path, body=None, method=None):
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {cls.token}"} if cls.token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{cls.address}{path}", data, headers, method=method)
        return urllib.request.urlopen(request, timeout=300)

    @classmethod
    def ask(cls, path, body=None, method=None):
        with cls.opened(path, body, method) as answer:
            return json.load(answer)

    def lines(self, path, body):
        with self.opened(path, body) as answer:
            # Comments are pings, of a server that is slow.
            return [line.decode().strip() for line in answer if line.strip() and not line.startswith(b":")]

    def refused(self, path, body):
        with self.assertRaises(urllib.error.HTTPError) as caught:
            self.ask(path, body)
        return caught.exception.code, caught.exception.read().decode()

    def test_both_connections_list_the_models(self):
        models = {model["id"]: model for model in self.ask("/api/models")["data"]}
        self.assertEqual(models[MODEL]["owned_by"], "ollama")
        self.assertEqual(models[MODEL]["ollama"]["details"]["family"], "llama", models[MODEL])
        self.assertGreater(models[MODEL]["ollama"]["size"], 0)
        self.assertEqual(models[f"{OVER_OPENAI}.{MODEL}"]["owned_by"], "openai")
        self.assertIn(f"{EMBEDDER}:latest", models)

    def test_connections_are_verified(self):
        told = self.ask("/ollama/verify", {"url": f"http://{self.shimmy}", "key": ""})
        self.assertEqual(told, json.load(urllib.request.urlopen(f"http://{self.shimmy}/api/version")))
        told = self.ask("/openai/verify", {"url": f"http://{self.shimmy}/v1", "key": "none"})
        self.assertIn(MODEL, [model["id"] for model in told["data"]])
        self.assertRegex(self.ask("/ollama/api/version")["version"], r"^\d+\.\d+\.\d+$")

    def test_a_chat_answers_over_both(self):
        texts = []
        for model, cold in ASKED.items():
            asked = {"model": model, "messages": SUM, "max_tokens": 24, **cold}
            whole = self.ask("/api/chat/completions", {**asked, "stream": False})
            texts.append(whole["choices"][0]["message"]["content"])
            *lines, last = self.lines("/api/chat/completions", {**asked, "stream": True})
            self.assertEqual(last, "data: [DONE]")
            chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
            deltas = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
            self.assertGreater(sum(map(bool, deltas)), 2, deltas)
            texts.append("".join(deltas))
        self.assertIn("4", texts[0])
        self.assertEqual(texts, [texts[0]] * 4)

    def test_ollamas_own_api_goes_through(self):
        options = {"temperature": 0, "num_predict": 24}
        parts = [json.loads(line) for line in self.lines("/ollama/api/chat", {"model": MODEL, "messages": SUM, "options": options})]
        self.assertIn("4", "".join(part["message"]["content"] for part in parts))
        self.assertEqual([part["done"] for part in parts], [False] * (len(parts) - 1) + [True])
        [part] = map(json.loads, self.lines("/ollama/api/generate", {"model": MODEL, "prompt": "Hi", "stream": False, "options": options}))
        self.assertTrue(part["response"] and part["done"], part)
        self.assertEqual(self.ask("/ollama/api/show", {"model": MODEL})["model_info"]["general.architecture"], "llama")
        [loaded] = [model for model in self.ask("/ollama/api/ps")["models"] if model["model"] == MODEL]
        self.assertEqual((loaded["name"], loaded["size"] > 0), (MODEL, True), loaded)
        # Told with the list then, as a moment.
        [listed] = [model for model in self.ask("/ollama/api/tags")["models"] if model["model"] == MODEL]
        self.assertGreater(listed["expires_at"], 1_700_000_000, listed)
        vectors = self.ask("/ollama/api/embed", {"model": f"{EMBEDDER}:latest", "input": ["one", "two"]})["embeddings"]
        self.assertEqual(len(vectors), 2)
        status, text = self.refused("/ollama/api/embed", {"model": MODEL, "input": "one"})
        self.assertTrue(400 <= status < 500 and "embed" in text, (status, text))

    def test_models_are_pulled_copied_and_deleted(self):
        def names():
            # Of the server itself: Open WebUI keeps a list for a second.
            return [model["model"] for model in json.load(urllib.request.urlopen(f"http://{self.shimmy}/api/tags"))["models"]]

        steps = [json.loads(line) for line in self.lines("/ollama/api/pull", {"model": MODEL})]
        self.assertEqual(steps[-1], {"status": "success"})
        told = self.lines("/ollama/api/pull", {"model": "nothing"})
        self.assertIn("refused", json.loads(told[-1])["error"])
        self.assertTrue(self.ask("/ollama/api/copy", {"source": MODEL, "destination": "mine"}))
        self.assertIn("mine:latest", names())
        self.assertTrue(self.ask("/ollama/api/delete/0", {"model": "mine:latest"}, "DELETE"))
        self.assertNotIn("mine:latest", names())

    def test_a_model_is_unloaded(self):
        self.ask("/ollama/api/generate", {"model": MODEL, "prompt": "Hi", "stream": False, "options": {"num_predict": 1}})
        self.assertEqual(self.ask("/ollama/api/unload", {"model": MODEL}), {"status": True})
        self.assertNotIn(MODEL, [model["model"] for model in self.ask("/ollama/api/ps")["models"]])

    def test_a_page_of_it_shows_the_answer(self):
        with browser(os.environ["CHROMIUM"]) as chromium:
            for model in ASKED:
                page = chromium.page()
                page.visit(f"http://{self.address}/static/favicon.png")
                page.run(f"localStorage.token = {json.dumps(self.token)}")
                page.visit(f"http://{self.address}/?models={model}&temporary-chat=true")
                page.until("document.querySelector('#chat-input')", seconds=50)
                page.run("document.querySelector('#chat-input').focus()")
                page.call("Input.insertText", text="What is 2+2?")
                page.until("document.querySelector('#send-message-button')?.disabled === false")
                page.run("document.querySelector('#send-message-button').click()")
                page.until("[...document.querySelectorAll('.chat-assistant')].some((one) => one.textContent.includes('4'))", seconds=50)


if __name__ == "__main__":
    unittest.main(verbosity=2)
