"""How many answers a request asks for, and the prompts of a plain completion."""

from __future__ import annotations

from typing import Any

from skillc_runtime.api_error import invalid
from skillc_runtime.engine import Engine
from skillc_runtime.fields import Body, flag, integer

MAX_ANSWERS = 16


def read_count(body: Body) -> int:
    """The field `n`."""
    count = integer(body, "n", 1)
    if count is not None and count > MAX_ANSWERS:
        raise invalid("n", f"at most {MAX_ANSWERS} answers a request")
    return count or 1


def read_prompts(body: Body, engine: Engine) -> list[tuple[int, ...]]:
    """The token lists of `prompt`: a string, a list of token ids, or a list of either.

    A string is used as it is, control tokens included.  ApiError 400 for anything else.
    """
    _refuse_what_is_not_done(body)
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and not _is_tokens(prompt)
    prompts = list(prompt) if several and isinstance(prompt, list) else [prompt]
    if len(prompts) > MAX_ANSWERS:
        raise invalid("prompt", f"at most {MAX_ANSWERS} prompts a request")
    if not prompts:
        raise invalid("prompt", "must not be empty")
    return [_tokens(one, engine) for one in prompts]


def _refuse_what_is_not_done(body: Body) -> None:
    if flag(body, "echo"):
        raise invalid("echo", "the prompt is not repeated")
    if body.get("suffix"):
        raise invalid("suffix", "the base completes at the end only")
    best_of = integer(body, "best_of", 1)
    if best_of is not None and best_of != read_count(body):
        raise invalid("best_of", "must be n: every answer is given")


def _is_tokens(prompt: list[Any]) -> bool:
    return bool(prompt) and all(
        isinstance(item, int) and not isinstance(item, bool) for item in prompt
    )


def _tokens(prompt: Any, engine: Engine) -> tuple[int, ...]:
    if isinstance(prompt, str) and prompt:
        text = prompt.encode("utf-8", "replace").decode()
        return tuple(engine.tokenize(text, special=True))
    if not isinstance(prompt, list) or not _is_tokens(prompt):
        raise invalid("prompt", "must be a string, a list of token ids, or a list of those")
    size = engine.model.vocab.size
    if not all(0 <= token < size for token in prompt):
        raise invalid("prompt", f"token ids of this base are below {size}")
    return tuple(prompt)
