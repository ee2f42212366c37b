"""What the engine says while it answers: plain data, fit to cross a process boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from skillc_compiler.errors import SkillcError
from skillc_runtime.sampling import Choice

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Started:
    """The set is attached; the prompt's first `cached_tokens` need no decoding."""

    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """One generated token and the text that became certain with it (may be empty)."""

    text: str
    choice: Choice


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of an answer and the text that was still held back."""

    reason: FinishReason
    text: str = ""
    stopped_by: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The end of an answer by an error."""

    error: SkillcError


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int = 0


Event = Started | Piece | Finish
