"""Prompts through a base's own chat template, for compilers that question the base themselves."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from skillc_compiler.errors import CompilerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        try:
            self._template = environment.from_string(template or PLAIN)
        except TemplateError as error:
            raise CompilerError(f"the base's chat template is broken: {error}") from error

    def ids(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Prompt tokens of (role, content) pairs, up to where the assistant's answer starts."""
        marks = [f"\ue000{secrets.token_hex(6)}\ue001" for _ in messages]
        framed = [
            {"role": role, "content": mark} for (role, _), mark in zip(messages, marks, strict=True)
        ]
        try:
            text = self._template.render(
                messages=framed,
                add_generation_prompt=True,
                enable_thinking=False,
                **self._tokens,
            )
        except Exception as error:  # a template is a program: anything may go wrong in it
            raise CompilerError(f"the chat template cannot take this: {error}") from error
        ids: list[int] = []
        for (_, content), mark in zip(messages, marks, strict=True):
            frame, found, text = text.partition(mark)
            ids += self._encode(frame)
            ids += self._encode(content) if found else []
        return ids + self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids) if text else []


def _refuse(message: str) -> None:
    raise TemplateError(message)
