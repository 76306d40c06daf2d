"""A Muster for each test: started from the binary, awaited, trusted, stopped, and its exit code checked."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import threading
from pathlib import Path

import covered
import pytest

STOP_S = 20
LOG_S = 20


class Log:
    """What servers say on their standard error, one after another; it can be awaited line by line."""

    def __init__(self):
        self.lines = []
        self.grown = threading.Condition()

    def follow(self, stream):
        """Takes in a stream until it ends, in the background."""

        def read():
            for line in stream:
                with self.grown:
                    self.lines.append(line)
                    self.grown.notify_all()

        threading.Thread(target=read, daemon=True).start()

    def wait_for(self, text: str) -> bool:
        """Waits until some line holds the text."""
        with self.grown:
            return self.grown.wait_for(lambda: any(text in line for line in self.lines), LOG_S)

    def __repr__(self):
        return "".join(self.lines)


class Muster:
    """One server process on its own data folder."""

    def __init__(self, folder: Path, *options: str):
        self.folder = folder
        self.options = options
        self.binary = os.environ["MUSTER_BIN"]
        self.process = None
        self.endpoints = None
        self.log = Log()

    def start(self):
        """Starts the server and waits until it says that it is ready."""
        self.process = subprocess.Popen(
            [self.binary, "serve", "--data", str(self.folder), "--strict", *self.options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log.follow(self.process.stderr)
        line = self.process.stdout.readline()
        assert line.strip() == "ready", self.log
        self.read_endpoints()
        os.environ["REQUESTS_CA_BUNDLE"] = self.endpoints["caFile"]
        os.environ["SSL_CERT_FILE"] = self.endpoints["caFile"]

    def read_endpoints(self):
        """Reads where everything is, which changes with the resources."""
        self.endpoints = json.loads((self.folder / "endpoints.json").read_text())

    def stop(self):
        """Asks the server to end, and expects a clean exit."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(STOP_S) == 0, self.log
        assert not (self.folder / "endpoints.json").exists()

    def kill(self):
        """Takes the server's life without a word, as a power cut would."""
        self.process.kill()
        self.process.wait(STOP_S)

    def count_stored(self, folder: Path, query: str) -> int:
        """What a query of one number finds in the store of a server that is gone; asked of a copy below `folder`."""
        copied = shutil.copytree(self.folder, folder / "copy")
        with contextlib.closing(sqlite3.connect(copied / "muster.db")) as store:
            return store.execute(query).fetchone()[0]

    def restart(self):
        """Ends the server and starts it again on the same folder."""
        self.stop()
        self.start()

    @property
    def authority(self) -> str:
        """What clients must trust, as PEM text."""
        return Path(self.endpoints["caFile"]).read_text()

    @property
    def provisioning(self) -> dict:
        """The default provisioning service."""
        return self.endpoints["provisioningServices"][0]

    @property
    def hub(self) -> dict:
        """The default hub."""
        return self.endpoints["hubs"][0]

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """Runs a command of the binary against this server."""
        return subprocess.run(
            [self.binary, "--data", str(self.folder), "--output", "json", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def command(self, *arguments: str):
        """Runs a command that must succeed, and reads what it prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def muster(tmp_path):
    """A fresh server for one test."""
    server = Muster(tmp_path / "data")
    server.folder.mkdir()
    server.start()
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def muster_with(tmp_path):
    """Starts a fresh server with options of the test's own."""
    started = []

    def start(*options: str) -> Muster:
        server = Muster(tmp_path / "data", *options)
        server.folder.mkdir()
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Keeps what each passed test shows, for docs/clients.md."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "setup":
        return
    methods = covered.passed() if report.when == "call" and report.passed else None
    covered.begin()
    if methods is None or covered.RESULTS not in os.environ:
        return
    shows = item.get_closest_marker("shows")
    result = {"suite": "python", "test": item.nodeid.split("/")[-1], "milliseconds": round(report.duration * 1000)}
    if shows is not None:
        result.update(shows.kwargs)
        for name in ("transport", "credential"):
            result.setdefault(name, getattr(item, "callspec", None) and item.callspec.params.get(name, "-"))
    result["methods"] = methods
    with open(os.environ[covered.RESULTS], "a", encoding="utf-8") as results:
        results.write(json.dumps(result) + "\n")


def pytest_configure(config):
    """Names the marker that says which cell of the table a test is, and has the clients' methods noted."""
    config.addinivalue_line("markers", "shows(client, version, transport, credential, feature): a cell of docs/clients.md")
    covered.watch()


def pytest_collection_modifyitems(items):
    """Puts the tests last that ask what all the others used."""
    items.sort(key=lambda item: item.path.stem == "test_coverage")
