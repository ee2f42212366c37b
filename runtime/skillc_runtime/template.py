"""Messages to prompt tokens through the base's own chat template.

Text that came from outside never becomes a control token.  The rendered prompt is tokenized in
one piece, as in training, except where such text spells a control token: there a placeholder
that nobody can guess stands during rendering, and its text is tokenized as plain text.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from skillc_compiler.errors import BaseModelError, ServeError

_MAX_DEPTH = 64


class Vocabulary(Protocol):
    """What a template needs to know of a base's tokens."""

    @property
    def control_texts(self) -> tuple[str, ...]: ...

    def tokenize(self, text: str, *, special: bool) -> list[int]: ...

    def special(self, name: str) -> str: ...


class MessagesError(ServeError):
    """The base's template does not take these messages."""


class ChatTemplate:
    """A base's chat template and vocabulary."""

    def __init__(self, source: str, vocab: Vocabulary) -> None:
        """BaseModelError when `source` is no Jinja template."""
        self._vocab = vocab
        self._guard = Guard(vocab.control_texts)
        self._names = {f"{name}_token": vocab.special(name) for name in ("bos", "eos")}
        try:
            self._template = environment().from_string(source)
        except TemplateError as error:
            raise BaseModelError(f"the base's chat template is broken: {error}") from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        continuation: str = "",
    ) -> list[int]:
        """Prompt tokens up to where the assistant's answer starts, then `continuation`.

        MessagesError when the template cannot render these messages.
        """
        placeholders: dict[str, str] = {}
        try:
            text = self._template.render(
                messages=[self._guard.apply(message, placeholders) for message in messages],
                tools=[self._guard.apply(tool, placeholders) for tool in tools] or None,
                add_generation_prompt=True,
                **self._names,
            )
        except (TemplateError, TypeError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise MessagesError(f"the chat template cannot take this: {reason}") from error
        return self._tokens(text + continuation, placeholders)

    def _tokens(self, text: str, placeholders: Mapping[str, str]) -> list[int]:
        if not placeholders:
            return self._vocab.tokenize(text, special=True)
        tokens: list[int] = []
        for part in re.split("(" + "|".join(map(re.escape, placeholders)) + ")", text):
            if part:
                foreign = placeholders.get(part)
                tokens += self._vocab.tokenize(foreign or part, special=foreign is None)
        return tokens


class Guard:
    """Normalises text from outside (NFC, whole characters) and hides control-token spellings."""

    def __init__(self, control_texts: Sequence[str]) -> None:
        spellings = sorted(filter(None, control_texts), key=len, reverse=True)
        # A beginning at the very end, or an end at the very start, of a string could be completed
        # by what the template puts next to it.
        starts = {text[:size] for text in spellings for size in range(2, len(text))}
        ends = {text[size:] for text in spellings for size in range(1, len(text) - 1)}
        self._find = re.compile(
            "|".join(
                part
                for part in (
                    _either(spellings),
                    rf"(?:{_either(starts)})\Z" if starts else "",
                    rf"\A(?:{_either(ends)})" if ends else "",
                )
                if part
            )
            or r"(?!)"
        )

    def apply(self, value: Any, placeholders: dict[str, str], depth: int = 0) -> Any:
        """`value` with every string in it made safe; fills `placeholders` (mark to text)."""
        if isinstance(value, str):
            return self._find.sub(lambda hit: _mark(hit[0], placeholders), normalise(value))
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH}")
        if isinstance(value, Mapping):
            return {
                self.apply(str(key), placeholders): self.apply(inner, placeholders, depth + 1)
                for key, inner in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.apply(inner, placeholders, depth + 1) for inner in value]
        return value


def _either(texts: Sequence[str] | set[str]) -> str:
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))


def _mark(text: str, placeholders: dict[str, str]) -> str:
    mark = f"x{secrets.token_hex(16)}x"
    placeholders[mark] = text
    return mark


def normalise(text: str) -> str:
    """NFC, as the tokenizers the bases were trained with do; lone surrogates become U+FFFD."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return unicodedata.normalize("NFC", whole)


class _Generation(Extension):
    """`{% generation %}` marks what training learns from; rendering ignores it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def environment() -> ImmutableSandboxedEnvironment:
    """The Jinja dialect that chat templates are written for, sandboxed."""
    result = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation]
    )
    result.filters["tojson"] = to_json
    result.globals["raise_exception"] = _refuse
    result.globals["strftime_now"] = _strftime_now
    return result


def to_json(value: Any, indent: int | None = None, **_: Any) -> str:
    """JSON as templates expect it: not escaped for HTML, key order kept."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> str:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return time.strftime(pattern)
