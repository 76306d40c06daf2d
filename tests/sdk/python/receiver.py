"""Receivers of what a hub routes, as anybody would write them: a web server, and a reader of NATS subjects."""

import json
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE_S = 30


class Received:
    """Events in the order they came; they can be awaited."""

    def __init__(self):
        self.events, self.requests, self.grown = [], [], threading.Condition()

    def take(self, events, request=None):
        with self.grown:
            self.events.extend(events)
            self.requests.append(request)
            self.grown.notify_all()

    def wait_for(self, fulfils) -> bool:
        """Waits until what came fulfils something."""
        with self.grown:
            return self.grown.wait_for(lambda: fulfils(self.events), PATIENCE_S)

    def bodies(self, device: str) -> list:
        """The bodies of a device's messages."""
        return [event["data"]["body"] for event in self.events if event["subject"] == f"devices/{device}"]


class WebHook(Received):
    """A web server that takes events, on a port that it keeps while it is closed and opened again."""

    def __init__(self, folder: Path, tls: bool = True, port: int = 0):
        super().__init__()
        self.tls, self.folder, self.port = tls, folder, port
        # What it answers to an event; of several events, to the first that it has something to say to.
        self.answer = lambda event: 200
        self.server = None
        if tls:
            self.make_certificate()
        self.open()

    def make_certificate(self):
        """A certificate for the address, signed by itself."""
        # The machine's own configuration would add extensions of its own.
        (self.folder / "hook.cnf").write_text("[req]\ndistinguished_name=dn\n[dn]\n")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
            + ["-subj", "/CN=hook", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
            + ["-addext", "basicConstraints=critical,CA:FALSE", "-config", str(self.folder / "hook.cnf")]
            + ["-keyout", str(self.folder / "hook.key"), "-out", str(self.folder / "hook.pem")],
            check=True,
            capture_output=True,
        )

    @property
    def authority(self) -> str:
        return str(self.folder / "hook.pem")

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/in?from=hub"

    def open(self):
        received = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                events = body if isinstance(body, list) else [body]
                status = next((status for status in map(received.answer, events) if status != 200), 200)
                if status == 200:
                    received.take(events, (self.path, {name.title(): value for name, value in self.headers.items()}, body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        if self.tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.authority, self.folder / "hook.key")
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class NatsServer:
    """A NATS server on a port that it keeps while it is stopped and started again, with what its streams hold."""

    def __init__(self, folder: Path, *options: str):
        self.folder, self.options, self.port = folder, options, -1
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            ["nats-server", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self.folder / "js"), *self.options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            if "Listening for client connections on " in line:
                self.port = int(line.rsplit(":", 1)[1])
            if "Server is ready" in line:
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


class Reader(Received):
    """Hears a subject of a NATS server."""

    def __init__(self, server: NatsServer, subject: str, login: dict | None = None, authority: str | None = None):
        super().__init__()
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
        self.lines = self.socket.makefile("rb")
        self.headers = []
        assert self.lines.readline().startswith(b"INFO ")
        if authority:
            context = ssl.create_default_context(cafile=authority)
            self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
            self.lines = self.socket.makefile("rb")
        greeting = json.dumps({"verbose": False, "headers": True, **(login or {})})
        self.say(f"CONNECT {greeting}\r\nSUB {subject} 1\r\nPING\r\n")
        while (line := self.lines.readline().strip()) != b"PONG":
            assert line, "the server closed the connection"
        threading.Thread(target=self.read, daemon=True).start()

    def say(self, text: str):
        self.socket.sendall(text.encode())

    def request(self, subject: str, body: dict, reply: str = ""):
        """Asks something of the server; the answer goes to `reply`, or is nobody's."""
        payload = json.dumps(body)
        self.say(f"PUB {subject} {reply} {len(payload)}\r\n{payload}\r\n")

    def read(self):
        try:
            while line := self.lines.readline():
                words = line.decode().split()
                if words[0] == "PING":
                    self.say("PONG\r\n")
                elif words[0] in ("MSG", "HMSG"):
                    whole = self.lines.read(int(words[-1]) + 2)[:-2]
                    head = int(words[-2]) if words[0] == "HMSG" else 0
                    self.headers.append(whole[:head].decode())
                    self.take([json.loads(whole[head:])])
        except OSError:
            pass

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
