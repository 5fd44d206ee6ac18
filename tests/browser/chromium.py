"""A headless Chromium, driven by its DevTools protocol."""
import contextlib
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading

from websockets.sync.client import connect


@contextlib.contextmanager
def browser(program, *options):
    """A connection to a browser whose names end in `.example` all mean this machine."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, "--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run", "--disable-gpu",
                   "--no-proxy-server", "--host-resolver-rules=MAP *.example 127.0.0.1", *options, "about:blank"]
        if os.geteuid() == 0:
            # Its sandbox refuses to run for root.
            command.insert(1, "--no-sandbox")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
        try:
            lines = iter(process.stderr.readline, "")
            address = next((line.split(" on ")[1].strip() for line in lines if "DevTools listening on " in line), None)
            assert address, f"{program} did not start"
            # It would wait where nobody reads what else it says.
            threading.Thread(target=read_to_end, args=[process.stderr], daemon=True).start()
            with connect(address, max_size=None, proxy=None) as socket:
                yield Browser(socket)
        finally:
            # The program may be a script that starts the browser and others beside it.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def read_to_end(file):
    with file:
        for _ in file:
            pass


class Browser:
    def __init__(self, socket):
        self.socket, self.numbers, self.events = socket, itertools.count(1), []

    def call(self, method, session=None, **params):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                return message["result"]
            self.events.append(message)

    def page(self):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        return Page(self, self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])


class Page:
    def __init__(self, browser, session):
        self.browser, self.session = browser, session
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def visit(self, address):
        """Waits until the document is there; what its scripts still fetch may come later."""
        told = self.call("Page.navigate", url=address)
        assert not told.get("errorText"), (address, told)
        self.run("new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))")

    def run(self, script):
        """The value of an expression, or of what it promises."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def until(self, condition, seconds=20):
        """Waits until an expression of the page is true."""
        self.run(f"""new Promise((done, fail) => {{
            const begun = performance.now();
            const look = () => ({condition}) ? done()
              : performance.now() - begun > {1000 * seconds} ? fail(new Error({json.dumps('never true: ' + condition)})) : setTimeout(look, 20);
            look();
        }})""")

    def seen(self, *methods):
        """What happened on this page so far, of these kinds."""
        self.call("Runtime.evaluate", expression="0")
        return [event["params"] for event in self.browser.events if event.get("sessionId") == self.session and event["method"] in methods]

    def complaints(self):
        """Exceptions, and whatever a console would show as an error."""
        logged = [one["entry"] for one in self.seen("Log.entryAdded")]
        return [entry for entry in logged if entry["level"] == "error"] + self.seen("Runtime.exceptionThrown")
