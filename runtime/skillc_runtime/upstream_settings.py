"""What `serve --upstream` can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skillc_runtime.settings import DEFAULT_HOST, DEFAULT_PORT


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Where to listen and what to put in front of.

    `base` is the GGUF of the base that the upstream serves, `name` what clients call it, `project`
    the folder with skillc.lock. `url` is the upstream's, `key` what it asks for, `model` its name
    for the base. Adapters are written into `folder`, which the upstream must see under the same
    path; it keeps at most `max_adapters` of ours. `token` is the key that clients must send.
    """

    base: Path
    name: str
    project: Path
    url: str
    folder: Path
    model: str = ""
    key: str | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    hosts: tuple[str, ...] = ()
    token: str | None = None
    max_adapters: int = 16
