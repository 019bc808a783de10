"""A small stand-in for the wandb service, on this machine, for the client of wandb 0.2x and 0.3x.

It answers what the real client asks when a run is logged online, files and tables with it, and when
runs are listed and their files fetched: GraphQL, the file stream, uploads and downloads. What it
does not know it refuses and keeps in ``refused``, so that a test can tell.
"""

import base64
import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.wandb_service import Service


class Handler(BaseHTTPRequestHandler):
    """HTTP for a ``Service``, which its server holds."""

    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *args: Any) -> None:
        pass

    def content(self) -> bytes:
        found = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(found) if self.headers.get("Content-Encoding") == "gzip" else found

    def answer(self, body: Any, code: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, what: str) -> None:
        self.server.service.refused.append(what)
        self.answer({"errors": [{"message": f"not known: {what}"}]}, 400)

    def do_POST(self) -> None:
        body, service = self.content(), self.server.service
        key = base64.b64decode(self.headers.get("Authorization", "").partition(" ")[2])
        if self.path.startswith("/sdk/otel/"):  # the client's own measurements
            self.answer(b"")
        elif key != f"api:{self.server.key}".encode():
            self.answer({"errors": [{"message": "no such key"}]}, 401)
        elif self.path == "/graphql":
            asked = json.loads(body)
            operation = re.search(r"\b(?:query|mutation)\s+(\w+)", asked["query"])
            name = operation[1] if operation else asked["query"]
            found = service.query(name, asked.get("variables") or {})
            self.refuse(f"{name}: {asked}") if found is None else self.answer({"data": found})
        elif stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path):
            service.stream(stream[1], json.loads(body))
            self.answer({})
        else:
            self.refuse(f"POST {self.path}")

    def do_PUT(self) -> None:
        self.server.service.put(unquote(self.path), self.content())
        self.answer(b"")

    def do_GET(self) -> None:
        found = self.server.service.get(unquote(self.path))
        self.answer(b"" if found is None else found, 404 if found is None else 200)


@contextmanager
def serving(key: str) -> Iterator[Service]:
    """Runs the stand-in on a free port; ``key`` is the one API key that it knows."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # the client cuts connections off when it is done
    server.key = key
    server.service = Service(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
