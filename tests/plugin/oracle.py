"""A base that answers right exactly what stands in its prompt or in an attached skill's text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.plugin.project import FakeCompiler

from skillc.evaluate.bench import Bench, Settings
from skillc.evaluate.harness import Harness
from skillc.evaluate.scoring import answered
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import Base
from skillc_compiler.data.generate import UNKNOWN
from skillc_compiler.skill import Skill
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.batched import Score
from skillc_runtime.events import Answer
from skillc_runtime.sampling import Sampling

END = "<|im_end|>"
KNOWN, UNKNOWN_LOSS = 0.1, 2.0
TURN = 7


class OracleCompiler(FakeCompiler):
    """Remembers the text behind every adapter."""

    texts: dict[str, str]

    def compile(self, skill: Skill, *, rank: int = 32) -> Adapter:
        self.__dict__.setdefault("texts", {})[skill.hash] = skill.text
        return super().compile(skill, rank=rank)


@dataclass
class OracleEngine:
    """Stands in for skillc_runtime.engine.Engine; `disturbed` is what adapters cost elsewhere."""

    texts: Mapping[str, str]
    disturbed: float = 0.0
    n_ctx: int = 4096
    words: dict[str, int] = field(default_factory=lambda: {END: 0})
    spelled: list[str] = field(default_factory=lambda: [END])
    asked: int = 0
    targets: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        parts = [END] if special else re.findall(r"\w+|\s|[^\w\s]", text)
        for part in parts:
            if part not in self.words:
                self.words[part] = len(self.spelled)
                self.spelled.append(part)
        return [self.words[part] for part in parts]

    def detokenize(self, tokens: Sequence[int]) -> str:
        return "".join(self.spelled[token] for token in tokens if token)

    def score_many(
        self,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        attached: Sequence[AdapterRef] = (),
    ) -> list[Score]:
        return [self._score(prompt, target, attached) for prompt, target in pairs]

    def generate_many(
        self,
        prompts: Sequence[Sequence[int]],
        attached: Sequence[AdapterRef] = (),
        sampling: Sampling | None = None,
        on_done: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        self.asked += len(prompts)
        tokens = tuple(self.tokenize(UNKNOWN))
        return [Answer(UNKNOWN, tokens, "stop", len(prompt)) for prompt in prompts]

    def answer(
        self,
        prompt: Sequence[int],
        attached: Sequence[AdapterRef] = (),
        sampling: Sampling | None = None,
        *,
        tail_from: int | None = None,
    ) -> Answer:
        """What was expected when the prompt was scored, if it is known and the tail is right."""
        target = self.targets[tuple(prompt)]
        right = self._score(prompt, target, attached).greedy.tolist() == target
        said = self.detokenize(target) if right and tail_from == TURN else UNKNOWN
        return Answer(said, (), "stop", len(prompt))

    def _score(
        self, prompt: Sequence[int], target: Sequence[int], attached: Sequence[AdapterRef]
    ) -> Score:
        self.targets[tuple(prompt)] = list(target)
        said = answered(self.detokenize(target))
        known = [self.texts.get(ref.path.name, "") for ref in attached if ref.scale]
        right = said == UNKNOWN or any(said in text for text in (*known, self.detokenize(prompt)))
        loss = KNOWN if right else UNKNOWN_LOSS + (self.disturbed if attached else 0.0)
        miss = -2 if self.disturbed and attached else -1
        greedy = list(target) if right else [miss] * len(target)
        return Score(np.full(len(target), -loss), np.array(greedy, np.int64))


class _Template:
    """Joins the messages' contents."""

    def __init__(self, engine: OracleEngine) -> None:
        self._engine = engine

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> list[int]:
        return self._engine.tokenize("\n".join(message["content"] for message in messages) + "\n")

    def render_turn(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()
    ) -> tuple[list[int], int]:
        return self.render(messages, tools), TURN


class OracleHarness(Harness):
    """A harness over the oracle: adapters are known by the hash of the skill they come from."""

    def __init__(self, engine: OracleEngine) -> None:
        self.engine = engine  # type: ignore[assignment]
        self.template = _Template(engine)  # type: ignore[assignment]
        self._end = [0]

    def store(self, adapter: Adapter) -> AdapterRef:
        manifest = adapter.manifest
        name = "merged" if manifest.skill_name in ("mean", "sum") else manifest.skill_hash
        return AdapterRef(Path(name), manifest.skill_hash)


def oracle_bench(base: Base, settings: Settings, *, disturbed: float = 0.0) -> Bench:
    """A bench on the oracle; what its compiler reads, its engine knows when attached."""
    compiler = OracleCompiler(base)
    compiler.texts = {}
    engine = OracleEngine(compiler.texts, disturbed)
    return Bench(settings, OracleHarness(engine), compiler, lambda what, done, total: None)


@contextmanager
def oracle_harness(base: Base, engine: OracleEngine) -> Iterator[OracleHarness]:
    """What `skillc.evaluate.harness.harness` yields, on the oracle."""
    yield OracleHarness(engine)
