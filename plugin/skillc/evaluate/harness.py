"""Asks questions of a base through the engine that also serves it, with adapters kept on disk."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from skillc.evaluate.cases import Ask, Case
from skillc.evaluate.scoring import Mark, mark_of
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import Base
from skillc_compiler.gguf_adapter import adapter_to_gguf
from skillc_compiler.skill import Skill

if TYPE_CHECKING:
    from skillc_compiler.families.interface import Compiler
    from skillc_runtime.adapters import AdapterRef
    from skillc_runtime.batched import Score
    from skillc_runtime.engine import Engine

MAX_ANSWER = 96
_AT_ONCE = 64

Note = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Asked:
    """One question as it is put: of which case, and the texts that stand in the system turn."""

    case: Case
    ask: Ask
    system: str = ""


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt, of the expected reply, and where in it the literal begins.

    `turn` is the place in the prompt where the user's turn begins.
    """

    prompt: list[int]
    target: list[int]
    literal: int
    turn: int | None


class Harness:
    """A base with its engine; `close` it, or use `harness`."""

    def __init__(self, base: Base, folder: Path, *, threads: int | None = None) -> None:
        from skillc_compiler.gguf_base import read_base_info
        from skillc_runtime.engine import Engine
        from skillc_runtime.template import ChatTemplate

        self.info = read_base_info(base.gguf)
        self.engine: Engine = Engine(self.info, n_threads=threads)
        self.template = ChatTemplate(self.info.chat_template or "", self.engine.model.vocab)
        self._folder = folder
        self._end = self.engine.tokenize("<|im_end|>", special=True)

    @property
    def room(self) -> int:
        """Tokens that a prompt may have when an answer is to follow."""
        return self.engine.n_ctx - MAX_ANSWER

    def store(self, adapter: Adapter) -> AdapterRef:
        """Write an adapter as f16 GGUF, as a build does; returns what to attach."""
        from skillc_runtime.adapters import AdapterRef

        data = adapter_to_gguf(adapter, self.info, "f16")
        digest = hashlib.sha256(data).hexdigest()
        path = self._folder / f"{digest}.gguf"
        path.write_bytes(data)
        return AdapterRef(path, digest)

    def ask(
        self, arm: str, asked: Sequence[Asked], attached: Sequence[AdapterRef] = ()
    ) -> list[Mark]:
        """The marks of questions asked under one set of adapters, in order.

        The expected replies are scored first. Where every one of their tokens is the greedy choice
        the reply is what the engine would answer, and is not decoded once more.
        """
        prompts = [self.prompt(each) for each in asked]
        scores = self.engine.score_many([(p.prompt, p.target) for p in prompts], attached)
        answers = self._answers(asked, prompts, scores, attached)
        return [
            mark_of(arm, each.case, each.ask, answer, score.greedy == prompt.target, prompt.literal)
            for each, prompt, score, answer in zip(asked, prompts, scores, answers, strict=True)
        ]

    def ask_all(
        self, arm: str, asked: Sequence[Asked], attached: Sequence[AdapterRef], note: Note
    ) -> list[Mark]:
        """`ask` in portions, with progress notes."""
        marks: list[Mark] = []
        for start in range(0, len(asked), _AT_ONCE):
            marks += self.ask(arm, asked[start : start + _AT_ONCE], attached)
            note(arm, len(marks), len(asked))
        return marks

    def ask_tail(
        self, arm: str, asked: Sequence[Asked], attached: Sequence[AdapterRef]
    ) -> list[Mark]:
        """`ask` with adapters that act from the user's turn on; only whole answers are marked."""
        from skillc_runtime.sampling import Sampling

        marks = []
        for each in asked:
            prompt = self.prompt(each)
            answer = self.engine.answer(
                prompt.prompt, attached, Sampling(max_tokens=MAX_ANSWER), tail_from=prompt.turn
            )
            unknown = [False] * len(prompt.target)
            mark = mark_of(arm, each.case, each.ask, answer.text, unknown, prompt.literal)
            marks.append(replace(mark, scored=False))
        return marks

    def prompt(self, asked: Asked) -> Prompt:
        """The tokens of a question and of its expected reply, with the end of the turn."""
        question = asked.ask.question
        messages = [{"role": "user", "content": question.ask}]
        if asked.system:
            messages.insert(0, {"role": "system", "content": asked.system})
        prompt, turn = self.template.render_turn(messages, question.tools)
        target = self.engine.tokenize(question.reply)
        begin = question.reply.find(question.answer) if question.answer != question.reply else 0
        return Prompt(prompt, target + self._end, self._place(target, max(0, begin)), turn)

    def _answers(
        self,
        asked: Sequence[Asked],
        prompts: Sequence[Prompt],
        scores: Sequence[Score],
        attached: Sequence[AdapterRef],
    ) -> list[str]:
        from skillc_runtime.sampling import Sampling

        answers = [each.ask.question.reply for each in asked]
        open_ones = [
            number
            for number, (prompt, score) in enumerate(zip(prompts, scores, strict=True))
            if score.greedy.tolist() != prompt.target
        ]
        decoded = self.engine.generate_many(
            [prompts[number].prompt for number in open_ones],
            attached,
            Sampling(max_tokens=MAX_ANSWER),
        )
        for number, answer in zip(open_ones, decoded, strict=True):
            answers[number] = answer.text
        return answers

    def _place(self, tokens: Sequence[int], begin: int) -> int:
        """The index of the token that holds character `begin` of the text."""
        size = 0
        for index, token in enumerate(tokens):
            size += len(self.engine.detokenize([token]))
            if size > begin:
                return index
        return len(tokens) - 1


def compile_all(
    compiler: Compiler, skills: Sequence[Skill], *, rank: int, note: Note
) -> list[Adapter]:
    """Every skill's adapter, in order; a skill that cannot be compiled raises CompilerError."""
    adapters = []
    for number, skill in enumerate(skills, 1):
        adapters.append(compiler.compile(skill, rank=rank))
        note("compile", number, len(skills))
    return adapters


@contextmanager
def harness(base: Base, *, threads: int | None = None) -> Iterator[Harness]:
    """A harness with a temporary folder for adapters; closed at the end."""
    with tempfile.TemporaryDirectory(prefix="skillc-eval-") as folder:
        made = Harness(base, Path(folder), threads=threads)
        try:
            yield made
        finally:
            made.engine.close()
