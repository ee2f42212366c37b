"""What the server and the engine's process say to each other: JSON, each message after its length.

Nothing of it is code: neither side can make the other run something.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from skillc_compiler.errors import AdapterError, BaseModelError, ServeError, SkillcError
from skillc_runtime.adapters import AdapterRef, BadAdapterError
from skillc_runtime.events import Event, Failed, Finish, FinishReason, Piece, Started
from skillc_runtime.sampling import Choice, Sampling

_LENGTH = struct.Struct("<I")
_SAMPLING = tuple(field.name for field in fields(Sampling))
_ERRORS: dict[str, type[SkillcError]] = {
    kind.__name__: kind for kind in (AdapterError, BadAdapterError, BaseModelError, ServeError)
}


def send(link: socket.socket, *messages: list[Any]) -> None:
    """Send messages in one go; OSError when nobody is there."""
    found = bytearray()
    for message in messages:
        data = json.dumps(message, separators=(",", ":")).encode()
        found += _LENGTH.pack(len(data)) + data
    link.sendall(found)


def messages(link: socket.socket) -> Iterator[list[Any]]:
    """The messages that arrive, until the other side ends or is torn off."""
    held = bytearray()
    while True:
        try:
            data = link.recv(1 << 16)
        except OSError:
            return
        if not data:
            return
        held += data
        at = 0
        while len(held) - at >= _LENGTH.size:
            end = at + _LENGTH.size + _LENGTH.unpack_from(held, at)[0]
            if end > len(held):
                break
            yield json.loads(held[at + _LENGTH.size : end])
            at = end
        del held[:at]


def pack_event(event: Event | Failed) -> list[Any]:
    """An event as JSON."""
    if isinstance(event, Started):
        return ["started", event.prompt_tokens, event.cached_tokens]
    if isinstance(event, Piece):
        choice = event.choice
        return ["piece", event.text, choice.token, choice.logprob, choice.top]
    if isinstance(event, Finish):
        return ["finish", event.reason, event.text, event.stopped_by]
    return ["failed", *pack_error(event.error)]


def unpack_event(kind: str, *values: Any) -> Event | Failed:
    """The event that `pack_event` packed."""
    if kind == "started":
        return Started(*values)
    if kind == "piece":
        text, token, logprob, top = values
        return Piece(text, Choice(token, logprob, tuple((one, log) for one, log in top)))
    if kind == "finish":
        assert values[0] in get_args(FinishReason)
        return Finish(*values)
    return Failed(unpack_error(*values))


def pack_error(error: SkillcError) -> list[str]:
    """An error as its kind and its line."""
    for kind in type(error).__mro__:
        if _ERRORS.get(kind.__name__) is kind:
            return [kind.__name__, str(error)]
    return [ServeError.__name__, str(error)]


def unpack_error(kind: str, line: str) -> SkillcError:
    """The error that `pack_error` packed."""
    return _ERRORS[kind](line)


def pack_job(
    prompt: tuple[int, ...],
    adapters: tuple[AdapterRef, ...],
    sampling: Sampling,
    tail_from: int | None,
) -> list[Any]:
    """What is asked of the engine as JSON."""
    refs = [[str(ref.path), ref.sha256, ref.scale] for ref in adapters]
    asked = {name: getattr(sampling, name) for name in _SAMPLING}
    asked["logit_bias"] = list(sampling.logit_bias.items())
    return [prompt, refs, asked, tail_from]


def unpack_job(
    prompt: list[int], refs: list[Any], asked: dict[str, Any], tail_from: int | None
) -> tuple[tuple[int, ...], tuple[AdapterRef, ...], Sampling, int | None]:
    """What `pack_job` packed."""
    adapters = tuple(AdapterRef(Path(path), sha256, scale) for path, sha256, scale in refs)
    bias = {int(token): float(value) for token, value in asked["logit_bias"]}
    sampling = Sampling(**{**asked, "logit_bias": bias, "stop": tuple(asked["stop"])})
    return tuple(prompt), adapters, sampling, tail_from
