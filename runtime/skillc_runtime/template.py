"""Messages to prompt tokens through the base's own chat template.

Text that came from outside never becomes a control token: where it spells one, a mark that nobody
can guess stands during rendering, and its text is tokenized as plain text.  Contents are
tokenized apart from what the template puts around them, as the embedded base was trained.
"""

from __future__ import annotations

import json
import re
import secrets
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import partial
from typing import Any, Protocol

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from skillc_compiler.errors import BaseModelError, ServeError
from skillc_compiler.pieces import encode_pieces
from skillc_runtime.encodings import Encodings

_MAX_DEPTH = 64
# Anything that could be a mark: they overlap where foreign text ends like the beginning of one.
_MARK = re.compile(r"x(?=([0-9a-f]{32}x))")


class Vocabulary(Protocol):
    """What a template needs to know of a base's tokens."""

    @property
    def control_texts(self) -> tuple[str, ...]: ...

    @property
    def adds_space(self) -> bool: ...

    def tokenize(self, text: str, *, special: bool) -> list[int]: ...

    def is_control(self, token: int) -> bool: ...

    def special(self, name: str) -> str: ...


class MessagesError(ServeError):
    """The base's template does not take these messages."""


class ChatTemplate:
    """A base's chat template and vocabulary."""

    def __init__(self, source: str, vocab: Vocabulary) -> None:
        """BaseModelError when `source` is no Jinja template."""
        self._vocab = vocab
        self._guard = Guard(vocab.control_texts)
        self._plain = Encodings(partial(vocab.tokenize, special=False))
        self._special = Encodings(partial(vocab.tokenize, special=True))
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
        return self.render_turn(messages, tools, continuation=continuation)[0]

    def render_turn(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        continuation: str = "",
    ) -> tuple[list[int], int | None]:
        """What `render` gives, and the token at which the last user's turn begins.

        None when there is no such turn, or nothing in it.
        """
        marks = Marks(self._guard)
        users = [at for at, message in enumerate(messages) if message.get("role") == "user"]
        last = users[-1] if users else None
        try:
            text = self._template.render(
                messages=[marks.message(m, last=at == last) for at, m in enumerate(messages)],
                tools=[marks.value(tool) for tool in tools] or None,
                add_generation_prompt=True,
                **self._names,
            )
        except Exception as error:  # a template is a program: anything may go wrong in it
            reason = " ".join(str(error).split()) or type(error).__name__
            raise MessagesError(f"the chat template cannot take this: {reason}") from error
        before, found, after = text.partition(marks.turn)
        head = list(marks.split(before if found else ""))
        pieces = self._encode([*head, *marks.split((after if found else text) + continuation)])
        tokens = [token for ids in pieces for token in ids]
        size = sum(map(len, pieces[: len(head)]))
        return tokens, self._opening(tokens[:size]) if found else None

    def _encode(self, parts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        return encode_pieces(
            [(part, self._plain if foreign else self._special) for part, foreign in parts],
            adds_space=self._vocab.adds_space,
            is_control=self._vocab.is_control,
        )

    def _opening(self, tokens: Sequence[int]) -> int:
        """The place of the last control token: what a template opens a turn with."""
        places = (at for at in reversed(range(len(tokens))) if self._vocab.is_control(tokens[at]))
        return next(places, 0)


class Marks:
    """The marks of one rendering: around contents, and in place of control-token spellings."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.turn = _mark()
        self._cut = _mark()
        self._hidden: dict[str, str] = {}

    def message(self, message: Mapping[str, Any], *, last: bool = False) -> dict[str, Any]:
        """A message whose content can be told from the template's text after rendering.

        That of the `last` user begins with the mark `turn`.
        """
        safe: dict[str, Any] = self.value(message)
        if isinstance(content := safe.get("content"), str) and content:
            opening = self.turn if last else self._cut
            safe["content"] = f"{opening}{content}{self._cut}"
        return safe

    def value(self, value: Any, depth: int = 0) -> Any:
        """`value` with every string in it normalised and without control-token spellings."""
        if isinstance(value, str):
            return self._guard.hide(normalise(value), self._hidden)
        if depth > _MAX_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DEPTH}")
        if isinstance(value, Mapping):
            return {
                self.value(str(key)): self.value(inner, depth + 1) for key, inner in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.value(inner, depth + 1) for inner in value]
        return value

    def split(self, text: str) -> Iterator[tuple[str, bool]]:
        """The rendered text in parts to tokenize: (text, whether it spells a control token)."""
        marks, at = {self._cut, self.turn, *self._hidden}, 0
        for found in _MARK.finditer(text):
            mark, start = f"x{found[1]}", found.start()
            if start < at or mark not in marks:
                continue
            if start > at:
                yield text[at:start], False
            if mark in self._hidden:
                yield self._hidden[mark], True
            at = start + len(mark)
        if at < len(text):
            yield text[at:], False


class Guard:
    """Finds spellings of control tokens in text from outside."""

    def __init__(self, control_texts: Sequence[str]) -> None:
        spellings = {text for text in control_texts if text}
        # A beginning at the very end, or an end at the very start, of a string could be completed
        # by what the template puts next to it.
        starts = {text[:size] for text in spellings for size in range(2, len(text))}
        ends = {text[size:] for text in spellings for size in range(1, len(text) - 1)}
        forms = [
            _either(spellings),
            rf"(?:{_either(starts)})\Z" if starts else "",
            rf"\A(?:{_either(ends)})" if ends else "",
        ]
        self._find = re.compile("|".join(filter(None, forms)) or "(?!)")

    def hide(self, text: str, hidden: dict[str, str]) -> str:
        """`text` with a mark for each spelling; `hidden` gets mark -> spelling."""

        def replace(hit: re.Match[str]) -> str:
            mark = _mark()
            hidden[mark] = hit[0]
            return mark

        return self._find.sub(replace, text)


def _either(texts: Set[str]) -> str:
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True)))


def _mark() -> str:
    """A word that no text from outside can contain on purpose."""
    return f"x{secrets.token_hex(16)}x"


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
