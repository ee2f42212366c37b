"""Prompts through a base's own chat template, for compilers that question the base themselves."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from skillc_compiler.errors import CompilerError
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.pieces import control_ids, encode_pieces, puts_space

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base

PLAIN = (
    "{% for message in messages %}{{ message.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Answer: {% endif %}"
)


class ChatPrompt:
    """Messages to token ids. Contents are tokenized apart from the frame around them."""

    def __init__(
        self, template: str | None, tokenizer: Tokenizer, tokens: Mapping[str, str]
    ) -> None:
        """`tokens` are the values of bos_token and eos_token. CompilerError for no template."""
        self._tokenizer, self._tokens = tokenizer, dict(tokens)
        self._adds_space, self._control = puts_space(tokenizer), control_ids(tokenizer)
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(template or PLAIN)
        except TemplateError as error:
            raise CompilerError(f"the base's chat template is broken: {error}") from error

    def ids(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Prompt tokens of (role, content) pairs, up to where the assistant's answer starts.

        Where the template knows no system role, a system message goes in front of the user's.
        """
        try:
            return self._ids(messages)
        except CompilerError:
            if len(messages) < 2 or messages[0][0] != "system":
                raise
            (_, system), (role, content), *rest = messages
            return self._ids([(role, f"{system}\n\n{content}"), *rest])

    def reading(self, content: str) -> tuple[list[int], list[int]]:
        """The tokens in front of a system message (a user's where there is no such role), its own.

        CompilerError when the template shows neither.
        """
        mark = _mark()
        for first in ([("system", mark), ("user", "?")], [("user", mark)]):
            try:
                text = self._text(first)
            except CompilerError:
                continue
            if mark in text:
                frame, own = self._encode([text.partition(mark)[0], content])
                return frame, own
        raise CompilerError("the chat template shows neither system nor user messages")

    def _ids(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        marks = [_mark() for _ in messages]
        framed = [(role, mark) for (role, _), mark in zip(messages, marks, strict=True)]
        text = self._text(framed)
        pieces: list[str] = []
        for (_, content), mark in zip(messages, marks, strict=True):
            frame, found, text = text.partition(mark)
            pieces += [frame, content if found else ""]
        return [token for ids in self._encode([*pieces, text]) for token in ids]

    def _text(self, messages: Sequence[tuple[str, str]]) -> str:
        try:
            return self._template.render(
                messages=[{"role": role, "content": content} for role, content in messages],
                add_generation_prompt=True,
                enable_thinking=False,
                **self._tokens,
            )
        except Exception as error:  # a template is a program: anything may go wrong in it
            raise CompilerError(f"the chat template cannot take this: {error}") from error

    def _encode(self, pieces: Sequence[str]) -> list[list[int]]:
        def encode(text: str) -> list[int]:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

        return encode_pieces(
            [(piece, encode) for piece in pieces],
            adds_space=self._adds_space,
            is_control=self._control.__contains__,
        )


def base_prompt(base: Base, tokenizer: Tokenizer) -> ChatPrompt:
    """The prompts of a base: the template and the tokens that its GGUF names."""
    info = read_base_info(base.gguf)
    tokens = {}
    for name in ("bos", "eos"):
        number = info.metadata.get(f"tokenizer.ggml.{name}_token_id")
        text = tokenizer.id_to_token(number) if isinstance(number, int) else None
        tokens[f"{name}_token"] = text or ""
    return ChatPrompt(info.chat_template, tokenizer, tokens)


def _mark() -> str:
    """A word that no text contains on purpose."""
    return f"\ue000{secrets.token_hex(6)}\ue001"


def _refuse(message: str) -> None:
    raise TemplateError(message)
