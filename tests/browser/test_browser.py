"""What a real browser makes of the server: the page of the API, and pages of other sites. For scripts/test_browser.sh."""
import contextlib
import http.server
import json
import os
import pathlib
import re
import threading
import unittest
import urllib.request

from chromium import browser
from served import metric, started, stops_working

KEY = "sk-secret"
GENERATE = {"model": "stub-fast", "prompt": "one two three", "stream": True}


class Blank(http.server.BaseHTTPRequestHandler):
    """A page of some site; below /sandboxed one that has no origin of its own."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-type", "text/html")
        if self.path == "/sandboxed":
            self.send_header("content-security-policy", "sandbox allow-scripts allow-forms")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def site():
    """The port of a web server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def requests(address):
    return metric(address, "shimmy_requests_total", KEY)


def fetching(address, path="/api/generate", body=GENERATE, **more):
    """A script: what a page gets for this request, its status, text and a header; or what it fails with."""
    options = {"method": "POST", "headers": {"content-type": "application/json", "accept": "text/event-stream", **more.pop("headers", {})},
               "body": json.dumps(body), **more}
    if options["method"] == "GET":
        del options["body"]
    return f"""fetch("{address}{path}", {json.dumps(options)}).then(
        async (answer) => ({{status: answer.status, text: await answer.text(), ignored: answer.headers.get("x-shimmy-ignored")}}),
        (error) => ({{failed: error.name}}))"""


def talking(address, *protocols):
    """A script: what a WebSocket says to one request, up to its last frame; or that it did not open."""
    return f"""new Promise((done) => {{
        const socket = new WebSocket("ws://{address}/ws/generate", {json.dumps(protocols)}), frames = [];
        socket.onopen = () => socket.send({json.dumps(json.dumps(GENERATE))});
        socket.onmessage = ({{data}}) => {{ frames.push(data); if (data.startsWith("{{")) {{ socket.close(); done(frames); }} }};
        socket.onerror = () => done("refused");
    }})"""


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.browser = stack.enter_context(browser(os.environ["CHROMIUM"]))


class Docs(Case):
    """The page that /docs is."""

    def opened(self, address, fragment=""):
        page = self.browser.page()
        page.visit(f"http://{address}/docs{fragment}")
        return page

    def test_each_operation_opens_and_nothing_comes_from_elsewhere(self):
        with started(os.environ["SHIMMY"], "serve") as address:
            page = self.opened(address)
            page.until("document.querySelector('details.operation')")
            described = json.load(urllib.request.urlopen(f"http://{address}/openapi.json"))
            methods = {"get", "post", "put", "patch", "delete", "head"}
            expected = [one["operationId"] for item in described["paths"].values() for method, one in item.items() if method in methods]
            shown = page.run("[...document.querySelectorAll('details.operation')].map((one) => one.id)")
            self.assertEqual(sorted(shown), sorted(expected))
            page.run("document.querySelectorAll('details.operation').forEach((one) => { one.open = true; })")
            page.until("[...document.querySelectorAll('details.operation .inside')].every((one) => one.children.length > 1)")
            # Types hold types: two levels deep, whatever there is.
            for _ in range(2):
                page.run("document.querySelectorAll('.schema details').forEach((one) => { one.open = true; })")
                page.until("[...document.querySelectorAll('.schema details[open]')].every((one) => one.children.length > 1)")
            self.assertEqual(page.complaints(), [])
            asked = {one["request"]["url"] for one in page.seen("Network.requestWillBeSent")}
            self.assertEqual({url.removeprefix(f"http://{address}") for url in asked if not url.startswith("data:")},
                             {"/docs", "/openapi.json", "/api/models"})

    def test_search_and_links(self):
        with started(os.environ["SHIMMY"], "serve") as address:
            page = self.opened(address)
            page.until("document.querySelector('details.operation')")
            visible = "[...document.querySelectorAll('details.operation .path')].filter((one) => one.offsetParent).map((one) => one.textContent)"
            page.run("at('find').value = 'tokenize'; at('find').dispatchEvent(new Event('input'))")
            self.assertEqual(sorted(page.run(visible)), ["/detokenize", "/tokenize"])
            name = page.run("[...document.querySelectorAll('details.operation')].find((one) => one.textContent.includes('/tokenize')).id")
            page = self.opened(address, f"#{name}")
            page.until(f"document.getElementById('{name}')?.open")

    FORM = "[...document.querySelectorAll('details.operation')].find((one) => one.querySelector('.path').textContent === '/api/generate')"

    def sent(self, page, accept, body):
        page.until(self.FORM)
        page.run(f"""(() => {{
            window.box = {self.FORM};
            box.open = true;
        }})()""")
        page.until("box.querySelector('form')")
        page.run(f"""(() => {{
            const form = box.querySelector('form');
            [...form.querySelectorAll('select')].at(-1).value = {json.dumps(accept)};
            form.querySelector('textarea').value = {json.dumps(json.dumps(body))};
            form.requestSubmit();
        }})()""")

    def test_a_form_sends_its_request_and_shows_what_comes(self):
        with started(os.environ["SHIMMY"], "serve") as address:
            page = self.opened(address)
            self.sent(page, "text/event-stream", GENERATE)
            page.until("box.querySelector('[role=status]').textContent.includes('all after')")
            self.assertEqual(page.run("box.querySelector('form').nextElementSibling.textContent"), "data: one\n\ndata:  two\n\ndata:  three\n\ndata: [DONE]\n\n")
            self.assertIn("curl -N -X POST", page.run("box.querySelector('pre').textContent"))
            self.assertEqual(page.complaints(), [])

    def test_stop_stops_the_work(self):
        with started(os.environ["SHIMMY"], "serve") as address:
            page = self.opened(address)
            self.sent(page, "text/event-stream", {**GENERATE, "model": "stub", "prompt": "word " * 4000})
            page.until("box.querySelector('form').nextElementSibling.textContent.includes('word')")
            page.run("[...box.querySelectorAll('button')].find((one) => one.textContent === 'Stop').click()")
            page.until("box.querySelector('[role=status]').textContent === 'Stopped'")
            stops_working(address, 0)

    def test_where_a_key_is_needed_it_is_asked_for(self):
        with started(os.environ["SHIMMY"], "serve", "--api-key", KEY) as address:
            page = self.opened(address)
            page.until("document.querySelector('[role=alert]')?.textContent.includes('enter it above')")
            page.run(f"at('key').value = '{KEY}'; at('key').dispatchEvent(new Event('change'))")
            self.sent(page, "text/event-stream", GENERATE)
            page.until("box.querySelector('[role=status]').textContent.includes('200')")
            self.assertNotIn(KEY, page.run("document.body.textContent"))


class Pages(Case):
    """Pages of other sites, and this machine under other names."""

    def test_a_page_that_is_allowed_may_use_it(self):
        with site() as port:
            origin = f"http://app.example:{port}"
            with started(os.environ["SHIMMY"], "serve", "--api-key", KEY, "--allow-origin", origin) as address:
                page = self.browser.page()
                page.visit(origin)
                key = {"authorization": f"Bearer {KEY}"}
                answer = page.run(fetching(f"http://{address}", headers=key))
                self.assertEqual((answer["status"], answer["text"].endswith("data: [DONE]\n\n")), (200, True), answer)
                body = {"model": "stub-fast", "messages": [{"role": "user", "content": "hello"}], "user": "me"}
                chat = page.run(fetching(f"http://{address}", "/v1/chat/completions", body, headers=key))
                self.assertEqual((chat["status"], chat["ignored"]), (200, "user"), chat)
                self.assertEqual(page.run(fetching(f"http://{address}"))["status"], 401, "it may read why it was refused")
                deleted = page.run(fetching(f"http://{address}", "/v1/responses/nothing", method="DELETE", headers=key))
                self.assertEqual(deleted["status"], 404, deleted)
                frames = page.run(talking(address, "shimmy", f"bearer.{KEY}"))
                self.assertEqual(("".join(frames[:-1]), json.loads(frames[-1])["done"]), ("one two three", True), frames)

    def test_the_example_of_the_documentation(self):
        documentation = pathlib.Path(__file__).parents[2].joinpath("docs/access.md").read_text()
        [example] = re.findall(r"^```js\n(// A page of .*?)^```$", documentation, re.MULTILINE | re.DOTALL)
        with site() as port:
            origin = f"http://app.example:{port}"
            with started(os.environ["SHIMMY"], "serve", "--api-key", KEY, "--allow-origin", origin) as address:
                page = self.browser.page()
                page.visit(origin)
                told = page.run("""(async () => {
                    const key = "%s";
                    %s
                    return [(await answer.json()).object, await new Promise((done) => { socket.onmessage = ({data}) => done(data); })];
                })()""" % (KEY, example.replace("127.0.0.1:11435", address).replace('"default"', '"stub-fast"')))
                self.assertEqual(told, ["chat.completion", "Hi"])

    def refused(self, page, address):
        """Nothing that a page can do by itself starts any work."""
        target, before = f"http://{address}", requests(address)
        self.assertEqual(page.run(fetching(target)), {"failed": "TypeError"})
        self.assertEqual(page.run(fetching(target, "/v1/models", method="GET")), {"failed": "TypeError"})
        # Without a preflight: such a request reaches the server, and its answer is not for the page.
        plain = {"content-type": "text/plain"}
        self.assertEqual(page.run(fetching(target, headers=plain, mode="no-cors"))["status"], 0)
        page.run("""new Promise((done) => {
            const frame = document.createElement('iframe'), form = document.createElement('form');
            frame.name = 'frame';
            frame.onload = done;
            Object.assign(form, {method: 'post', action: '%s/api/generate', enctype: 'text/plain', target: 'frame'});
            const input = document.createElement('input');
            [input.name, input.value] = ['{"model":"stub-fast","prompt":"x', '"}'];
            form.append(input);
            document.body.append(frame, form);
            form.submit();
        })""" % target)
        self.assertEqual(page.run(talking(address)), "refused")
        self.assertEqual(requests(address), before)

    def test_a_page_that_is_not_allowed_may_not(self):
        with site() as port, started(os.environ["SHIMMY"], "serve", "--allow-origin", f"http://app.example:{port}") as address:
            page = self.browser.page()
            page.visit(f"http://other.example:{port}")
            self.refused(page, address)
            # The same site on another port is another page.
            with site() as second:
                page.visit(f"http://app.example:{second}")
                self.refused(page, address)
            # A page without an origin of its own.
            page.visit(f"http://app.example:{port}/sandboxed")
            self.assertEqual(page.run("origin"), "null")
            self.refused(page, address)

    def test_a_page_that_changes_its_name_may_not(self):
        """DNS rebinding: for the browser all of it is one origin, that of the page."""
        with started(os.environ["SHIMMY"], "serve") as address:
            port = address.split(":")[1]
            page = self.browser.page()
            page.visit(f"http://evil.example:{port}/v1/models")
            self.assertIn("evil.example", page.run("document.body.textContent"))
            self.assertEqual(page.run("location.origin"), f"http://evil.example:{port}")
            before = requests(address)
            for method, path in [("POST", "/api/generate"), ("GET", "/v1/models"), ("GET", "/openapi.json"), ("GET", "/health")]:
                answer = page.run(fetching("", path, method=method))
                self.assertEqual(answer["status"], 403, (path, answer))
            self.assertEqual(page.run(talking(f"evil.example:{port}")), "refused")
            self.assertEqual(requests(address), before)
            # Under its own names it works.
            page.visit(f"http://localhost:{port}/docs")
            self.assertEqual(page.run(fetching("", body={**GENERATE, "stream": False}))["status"], 200)
            self.assertEqual(requests(address), before + 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
