"""What `serve` can be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8191
DEFAULT_CONTEXT = 8192


def served_context(trained: int, asked: int | None = None) -> int:
    """Tokens that prompt and answer may have together: the base's own, or so many as were asked."""
    return asked or min(trained, DEFAULT_CONTEXT)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where to listen and what to serve; every field but `base` has a default.

    `base` is the base's GGUF, `name` what clients call it (default: its own name), `project` the
    folder with skillc.lock (None: no skills).  `port` 0 takes a free one.  `token` is the API key
    that clients must send; without one only this machine may be listened on.  `alive` says in one
    line what else that serving depends on has died (None: nothing); /health is then a 503.
    `lora_loading` lets clients load and unload adapters of the project's store.
    `deadline` is the most seconds a request may take, `body_seconds` those to send its body in.
    `engines` is how many processes answer, each with the base and a cache of its own.
    `in_process` runs the engine in this process: a native crash then ends it.
    `log` gets one line of JSON for each request once it has ended (None: nothing is logged).
    """

    base: Path
    name: str | None = None
    project: Path | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    hosts: tuple[str, ...] = ()  # further names the server may be called by
    token: str | None = None
    n_ctx: int | None = None
    n_threads: int | None = None  # of each engine
    engines: int = 1
    max_adapters: int = 16
    max_tokens: int = 1024  # of an answer whose request does not say
    max_waiting: int = 32
    ping_seconds: float = 5.0
    lora_loading: bool = False
    deadline: float | None = None
    body_seconds: float = 30.0
    stop_seconds: float = 5.0
    in_process: bool = False
    log: Callable[[str], None] | None = None
    alive: Callable[[], str | None] | None = None
