"""A chat server that knows its answers by heart, for tests of clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], str | tuple[int, str]]


@contextmanager
def chat_stub(
    reply: Reply, *, usage: bool = True, finish: bool = True
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve `reply(body)` on a free port; yields the URL and the list of bodies it got.

    A reply is the text to stream in pieces, or a status and the raw body of an error.
    """
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bodies.append(body)
            answer = reply(body)
            if isinstance(answer, tuple):
                self.send_response(answer[0])
                self.end_headers()
                self.wfile.write(answer[1].encode())
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            self.event({"choices": [{"delta": {"role": "assistant"}}]})
            for word in answer.split(" "):
                self.event({"choices": [{"delta": {"content": f"{word} "}}]})
            if usage:
                skills = body["model"].split(":")[1:]
                attached = [{"name": name, "as": "adapter"} for name in skills]
                used = {"prompt_tokens": 17}
                self.event({"choices": [], "usage": used, "skillc": {"attached": attached}})
            if finish:
                self.wfile.write(b"data: [DONE]\n\n")

        def event(self, record: dict[str, Any]) -> None:
            self.wfile.write(f": ping\n\ndata: {json.dumps(record)}\n\n".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
