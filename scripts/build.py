#!/usr/bin/env python3
"""Runs a cargo command and shows how far it is: scripts/build.py -- cargo build --release

cargo is silent while a build script runs, and ours compiles llama.cpp for minutes. Here cargo says all (-vv) to a pipe;
its lines become one bar where stderr is a terminal, and a plain line every 15 seconds elsewhere. Warnings and
errors are passed on as they come, the whole output is kept in target/build.log.
"""
import collections
import os
import pathlib
import re
import selectors
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOG = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target") / "build.log"
PLAIN_EVERY_S = 15
DRAW_EVERY_S = 0.1
TAIL = 40

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SCRIPT_LINE = re.compile(r"^\[(\S+) \S+\] (.*)")
NINJA_STEP = re.compile(r"^\[(\d+)/(\d+)\] ")
MAKE_STEP = re.compile(r"^\[ *(\d+)%\] ")
CARGO_BAR = re.compile(r"^ *Building \[.*\] (\d+)/(\d+)")
CARGO_STATUS = re.compile(r"^ *(Compiling|Checking|Documenting|Fresh|Dirty|Running|Finished|Downloading|Downloaded|Updating|"
                          r"Locking|Adding|Blocking|Executable|Generated|Packaging|Building) ")
DIAGNOSTIC = re.compile(r"^(warning|error)(\[\w+\])?: ")
SUMMARY = re.compile(r"^warning: `\S+` \(.*\) generated \d+ warning|^error: could not compile ")


class Progress:
    """Counts of the two things that take time: llama.cpp's files and Rust's crates."""

    def __init__(self):
        self.crates = self.native = (0, 0)
        self.unit = "files"
        self.phase = self.phase_start = None
        self.start = self.last_shown = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.drawn = False

    def native_step(self, done, total, unit):
        self.native, self.unit = (done, total), unit

    def text(self):
        """What is counted now (name, done, total, unit), and words about it. The rate is that of the present phase."""
        now = time.monotonic()
        in_native = self.native[0] < self.native[1]
        name, (done, total), unit = ("llama.cpp", self.native, self.unit) if in_native else ("Rust", self.crates, "crates")
        if self.phase != name:
            self.phase, self.phase_start = name, (now, done)
        words = []
        since, first = self.phase_start
        # The first few say nothing about the rest.
        if done - first >= 3 and now - since >= 2:
            rate = (done - first) / (now - since)
            words.append(f"{rate:.1f} {unit}/s, {clock((total - done) / rate)} left")
        if in_native and self.crates[1]:
            words.append("Rust {}/{} crates".format(*self.crates))
        return (name, done, total, unit) if total else None, words + [f"{clock(now - self.start)} elapsed"]

    def show(self):
        counted, words = self.text()
        if time.monotonic() - self.last_shown < (DRAW_EVERY_S if self.terminal else PLAIN_EVERY_S):
            return
        self.last_shown = time.monotonic()
        if self.terminal:
            if counted:
                name, done, total, unit = counted
                filled = 24 * done // total
                words.insert(0, f"{name} [{'#' * filled}{'.' * (24 - filled)}] {100 * done // total}% {done}/{total} {unit}")
            line = "  ".join(words)[: shutil.get_terminal_size().columns - 1]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self.drawn = True
        else:
            if counted:
                name, done, total, unit = counted
                words.insert(0, f"{name} {done}/{total} {unit} ({100 * done // total} %)")
            print("build: " + ", ".join(words), file=sys.stderr, flush=True)

    def clear(self):
        if self.drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self.drawn = False


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Output:
    """Passes on what a reader must see and remembers what explains a failure."""

    def __init__(self, progress):
        self.progress = progress
        self.block = []
        self.printed_error = False
        self.printed_block = False
        self.in_cause = False
        self.recent = collections.deque(maxlen=TAIL)
        self.native_failure = []

    def line(self, raw):
        plain = ANSI.sub("", raw)
        script = SCRIPT_LINE.match(plain)
        if script:
            self.script_line(script.group(2))
        elif self.block and plain.strip() and not CARGO_STATUS.match(plain) and not DIAGNOSTIC.match(plain):
            self.block.append(raw)
        else:
            self.end_block()
            if DIAGNOSTIC.match(plain):
                self.block = [raw]
            elif plain.strip() and not CARGO_STATUS.match(plain):
                self.recent.append(raw)
                self.cause(plain, raw)

    def cause(self, plain, raw):
        """The chain of causes below cargo's own errors, less what a failed process repeats at length: the log has it."""
        if plain.startswith("Caused by:"):
            self.in_cause = True
        elif self.in_cause and plain.startswith("  process didn't exit successfully"):
            self.in_cause = False
        elif self.in_cause and plain.startswith("  "):
            self.print(["Caused by:", raw])

    def script_line(self, text):
        if step := NINJA_STEP.match(text):
            self.progress.native_step(int(step.group(1)), int(step.group(2)), "files")
        elif step := MAKE_STEP.match(text):
            self.progress.native_step(int(step.group(1)), 100, "%")
        self.recent.append(text)
        # The first failure explains; what comes after it are other jobs that were still running.
        if self.native_failure or re.match(r"FAILED: |CMake Error|.*: (fatal )?error: |gmake.*Error \d", text):
            if len(self.native_failure) < TAIL and not text.startswith("cargo:"):
                self.native_failure.append(text)

    def end_block(self):
        block, self.block = self.block, []
        if not block:
            return
        plain = [ANSI.sub("", line) for line in block]
        error = plain[0].startswith("error")
        if SUMMARY.match(plain[0]) and not error:
            if self.printed_block:
                self.print(block)
            self.printed_block = False
        # With -vv cargo shows the warnings of dependencies too; nobody here can act on those.
        elif error or not self.is_dependency(plain):
            self.print(block + ([""] if len(block) > 1 else []))
            self.printed_block |= any("--> " in line for line in plain)
            self.printed_error |= error and "failed to run custom build command" not in plain[0]

    @staticmethod
    def is_dependency(plain):
        """Whether a warning is about a crate of the registry: it names a file there, or the crate with its version."""
        in_file = any(re.search(r"--> .*[/\\]registry[/\\]src[/\\]", line) for line in plain)
        return in_file or re.match(r"^warning: [\w-]+@[\d.]+\S*: ignoring ", plain[0])

    def print(self, lines):
        self.progress.clear()
        print("\n".join(lines), file=sys.stderr, flush=True)

    def explain_failure(self, command, status):
        if self.native_failure:
            self.print(["build: llama.cpp did not compile; the first failure:"] + [f"  {line}" for line in self.native_failure])
        elif not self.printed_error:
            self.print(["build: the last lines:"] + [f"  {line}" for line in self.recent])
        self.print([f"build: `{' '.join(command)}` failed with status {status}; the whole output is in {LOG}"])


def pieces(stream):
    """Lines, where a carriage return ends one as well: cargo draws its bar with those. None each half second."""
    selector = selectors.DefaultSelector()
    selector.register(stream, selectors.EVENT_READ)
    rest = b""
    while True:
        if not selector.select(timeout=0.5):
            yield None
            continue
        data = os.read(stream.fileno(), 1 << 16)
        if not data:
            break
        *lines, rest = re.split(rb"\r\n|\n|\r", rest + data)
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")


def main():
    command = sys.argv[2:] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    if not command:
        sys.exit("usage: scripts/build.py -- cargo build [options]")
    progress = Progress()
    output = Output(progress)
    # cargo's own bar carries the number of crates; it is the only place where that can be read.
    environment = dict(os.environ, CARGO_TERM_PROGRESS_WHEN="always", CARGO_TERM_PROGRESS_WIDTH="120")
    if progress.terminal and "NO_COLOR" not in os.environ:
        environment["CARGO_TERM_COLOR"] = "always"
    LOG.parent.mkdir(parents=True, exist_ok=True)
    split = command.index("--") if "--" in command else len(command)
    verbose = command[:split] + ["-vv"] + command[split:]
    try:
        process = subprocess.Popen(verbose, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, env=environment)
    except FileNotFoundError:
        sys.exit(f"build: error: {command[0]} is not in PATH; install Rust first")
    with open(LOG, "w") as log:
        for line in pieces(process.stdout):
            if line is not None:
                bar = CARGO_BAR.match(ANSI.sub("", line))
                if bar:
                    progress.crates = (int(bar.group(1)), int(bar.group(2)))
                else:
                    if line.strip():
                        log.write(ANSI.sub("", line) + "\n")
                    output.line(line)
            progress.show()
        output.end_block()
    status = process.wait()
    progress.clear()
    if status != 0:
        output.explain_failure(command, status)
    elif time.monotonic() - progress.start > 2:
        print(f"build: done in {clock(time.monotonic() - progress.start)}", file=sys.stderr)
    sys.exit(status if status >= 0 else 128 - status)


main()
