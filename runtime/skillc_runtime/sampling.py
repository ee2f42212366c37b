"""How the next token is chosen from a row of logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]
_Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a request asks of the answer; the default is greedy."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: no limit
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None  # GBNF that the answer keeps to
    logprobs: int | None = None  # None: off; n: the chosen token's and the n best

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token; its log probability and the best ones' only when asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Constraint(Protocol):
    """What says which tokens may come next; see `grammar.Grammar`."""

    def allows(self, token: int) -> bool: ...

    def mask(self, row: Row) -> Row: ...

    def accept(self, token: int) -> None: ...


class Sampler:
    """Chooses the tokens of one answer; the same seed chooses the same ones."""

    def __init__(self, sampling: Sampling, constraint: Constraint | None = None) -> None:
        self.sampling = sampling
        self._constraint = constraint
        self._random = np.random.Generator(np.random.PCG64(sampling.seed))
        self._seen: Counter[int] = Counter()

    def choose(self, row: Row) -> Choice:
        """The next token for logits `row`, float32 [vocabulary], all finite."""
        logits = self._constrain(self._adjust(row))
        if self.sampling.temperature <= 0:
            token = int(np.argmax(logits))
        else:
            weights = nucleus(logits, self.sampling)
            # numpy's own choice() checks more and is slower; this is its inverse transform.
            point = self._random.random() * weights.sum()
            token = int(min(np.searchsorted(np.cumsum(weights), point, "right"), len(weights) - 1))
        if self._constraint is not None:
            self._constraint.accept(token)
        self._seen[token] += 1
        return self._with_logprobs(token, row)

    def _constrain(self, logits: Row) -> Row:
        if self._constraint is None:
            return logits
        # The whole vocabulary is slow to go through: where the best token is taken, ask for it.
        if self.sampling.temperature <= 0 and self._constraint.allows(int(np.argmax(logits))):
            return logits
        return self._constraint.mask(logits)

    def _adjust(self, row: Row) -> Row:
        asked = self.sampling
        penalised = bool(asked.frequency_penalty or asked.presence_penalty) and bool(self._seen)
        if not penalised and not asked.logit_bias:
            return row
        row = row.copy()
        for token, bias in asked.logit_bias.items():
            row[token] += bias
        for token, count in self._seen.items():
            row[token] -= count * asked.frequency_penalty + asked.presence_penalty
        return row

    def _with_logprobs(self, token: int, row: Row) -> Choice:
        count = self.sampling.logprobs
        if count is None:
            return Choice(token)
        logs = log_softmax(row)
        best = np.argsort(-logs, kind="stable")[:count]
        return Choice(token, float(logs[token]), tuple((int(i), float(logs[i])) for i in best))


def nucleus(logits: Row, asked: Sampling) -> _Weights:
    """Unnormalised weights [vocabulary] left by temperature, then top_k, top_p and min_p."""
    scaled = logits.astype(np.float64) / asked.temperature
    weights: _Weights = np.exp(scaled - scaled.max())
    if 0 < asked.top_k < len(weights):
        weights[weights < np.partition(weights, -asked.top_k)[-asked.top_k]] = 0
    if asked.min_p > 0:
        weights[weights < asked.min_p * weights.max()] = 0
    if asked.top_p < 1:
        order = np.argsort(-weights, kind="stable")
        before = np.cumsum(weights[order]) - weights[order]
        weights[order[before > asked.top_p * weights.sum()]] = 0
    return weights


def log_softmax(rows: Row) -> _Weights:
    """Log probabilities, float64, of logits [..., vocabulary]."""
    wide = rows.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    shifted: _Weights = wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return shifted
