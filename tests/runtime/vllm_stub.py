"""A server with vLLM's API as its documentation has it, and an answer that names its model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

BASE = "org/tiny"


@dataclass
class Vllm:
    """What the stub has been told; `updating` is VLLM_ALLOW_RUNTIME_LORA_UPDATING."""

    url: str = ""
    updating: bool = True
    most_rank: int = 64
    key: str | None = None
    loaded: dict[str, Path] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies of the requests for answers."""
        return [body for path, body in self.calls if path.endswith("completions")]

    def load(self, body: dict[str, Any]) -> tuple[int, object]:
        name, path = body["lora_name"], Path(body["lora_path"])
        if not self.updating:
            return 404, {"detail": "Not Found"}
        if name in self.loaded:
            return 400, error(f"The lora adapter '{name}' has already been loaded.", 400)
        config = json.loads((path / "adapter_config.json").read_text())
        assert (path / "adapter_model.safetensors").is_file()
        if config["r"] > self.most_rank:
            return 400, error(f"LoRA rank {config['r']} is greater than max_lora_rank", 400)
        self.loaded[name] = path
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: dict[str, Any]) -> tuple[int, object]:
        name = body["lora_name"]
        if self.loaded.pop(name, None) is None:
            return 404, error(f"The lora adapter '{name}' cannot be found.", 404)
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, object]:
        model = body["model"]
        if model not in (BASE, *self.loaded):
            return 404, error(f"The model `{model}` does not exist.", 404)
        if body.get("temperature") == 9:
            return 400, error("temperature must be at most 2", 400)
        choice = {"index": 0, "finish_reason": "stop"}
        said = f"answered by {model}"
        choice |= {"message": {"role": "assistant", "content": said}} if "chat" in path else {}
        choice |= {} if "chat" in path else {"text": said}
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        return 200, {"id": "c-1", "model": model, "choices": [choice], "usage": usage}

    def models(self) -> dict[str, Any]:
        loaded = [{"id": n, "root": str(p), "parent": BASE} for n, p in self.loaded.items()]
        return {"object": "list", "data": [{"id": BASE, "root": BASE, "parent": None}, *loaded]}


def error(message: str, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": code}}


@contextmanager
def vllm(**options: Any) -> Iterator[Vllm]:
    """The stub on a free port, for the block."""
    stub = Vllm(**options)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.allowed():
                self.send(200, stub.models() if self.path == "/v1/models" else {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.allowed():
                return
            stub.calls.append((self.path, body))
            if self.path == "/v1/load_lora_adapter":
                self.send(*stub.load(body))
            elif self.path == "/v1/unload_lora_adapter":
                self.send(*stub.unload(body))
            else:
                status, answer = stub.answer(self.path, body)
                if status == 200 and body.get("stream"):
                    self.stream(answer)
                else:
                    self.send(status, answer)

        def allowed(self) -> bool:
            if stub.key is None or self.headers.get("Authorization") == f"Bearer {stub.key}":
                return True
            self.send(401, {"error": "Unauthorized"})
            return False

        def send(self, status: int, answer: object) -> None:
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def stream(self, answer: Any) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            (choice,) = answer.pop("choices")
            words = choice.pop("message")["content"].split()
            for word in words:
                self.event(answer, [{"index": 0, "delta": {"content": word + " "}}])
            self.event(answer, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
            self.event(answer, [])
            self.wfile.write(b"data: [DONE]\n\n")

        def event(self, answer: Any, choices: list[Any]) -> None:
            self.wfile.write(f"data: {json.dumps({**answer, 'choices': choices})}\n\n".encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
