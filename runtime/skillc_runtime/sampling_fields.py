"""The fields of a request that say how its answer's tokens are chosen."""

from __future__ import annotations

from typing import Any

from skillc_runtime.api_error import invalid
from skillc_runtime.engine import Engine
from skillc_runtime.fields import Body, flag, integer, number, strings
from skillc_runtime.sampling import Sampling

SEEDS = 1 << 63
MAX_STOPS = 16
_CHAT_LOGPROBS, _TEXT_LOGPROBS = 20, 5


def read_sampling(body: Body, engine: Engine, *, chat: bool, max_tokens: int) -> Sampling:
    """The sampling of a request; `max_tokens` is the length of an answer that says none.

    ApiError 400 for a field that is out of its range.
    """
    most = engine.n_ctx
    asked = integer(body, "max_completion_tokens", 1, most)
    asked = asked or integer(body, "max_tokens", 1, most)
    seed = integer(body, "seed", -SEEDS)
    return Sampling(
        max_tokens=asked or min(most, max_tokens),
        temperature=number(body, "temperature", 0.0, 0.0, 100.0),
        top_p=number(body, "top_p", 1.0, 0.0, 1.0),
        top_k=integer(body, "top_k", 0, 1 << 30) or 0,
        min_p=number(body, "min_p", 0.0, 0.0, 1.0),
        seed=None if seed is None else seed % SEEDS,
        stop=strings(body, "stop", MAX_STOPS),
        frequency_penalty=number(body, "frequency_penalty", 0.0, -2.0, 2.0),
        presence_penalty=number(body, "presence_penalty", 0.0, -2.0, 2.0),
        logit_bias=_biases(body.get("logit_bias"), engine.model.vocab.size),
        logprobs=_chat_logprobs(body) if chat else integer(body, "logprobs", 0, _TEXT_LOGPROBS),
    )


def _chat_logprobs(body: Body) -> int | None:
    if not flag(body, "logprobs"):
        return None
    return integer(body, "top_logprobs", 0, _CHAT_LOGPROBS) or 0


def _biases(value: Any, tokens: int) -> dict[int, float]:
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise invalid("logit_bias", "must be an object of token ids")
    biases: dict[int, float] = {}
    for key in value:
        token = int(key) if str(key).isdecimal() and len(key) < 10 else -1
        if not 0 <= token < tokens:
            raise invalid("logit_bias", f"{key!r} is no token of this base")
        biases[token] = number(value, key, 0.0, -100.0, 100.0)
    return biases
