"""Runs the questions of a suite in every arm through the engine that also serves them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillc.evaluate.cases import Case
from skillc.evaluate.scoring import Mark, is_leak, is_right
from skillc_compiler.bases import Base
from skillc_compiler.families.interface import DEFAULT_RANK, Compiler
from skillc_compiler.gguf_adapter import adapter_to_gguf

if TYPE_CHECKING:
    from skillc_runtime.adapters import AdapterRef
    from skillc_runtime.engine import Engine

ARMS = ("none", "text", "adapter", "wrong")
MAX_ANSWER = 96

Note = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt, of the expected reply, and where in it the literal begins."""

    prompt: list[int]
    target: list[int]
    literal: int


class Harness:
    """A base with its engine, and the adapters of a suite's skills on disk."""

    def __init__(self, base: Base, folder: Path, *, threads: int | None = None) -> None:
        from skillc_compiler.gguf_base import read_base_info
        from skillc_runtime.engine import Engine
        from skillc_runtime.template import ChatTemplate

        self.info = read_base_info(base.gguf)
        self.engine: Engine = Engine(self.info, n_threads=threads)
        self.template = ChatTemplate(self.info.chat_template or "", self.engine.model.vocab)
        self._folder = folder
        self._end = self.engine.tokenize("<|im_end|>", special=True)

    def compile(
        self, compiler: Compiler, cases: Sequence[Case], *, rank: int = DEFAULT_RANK, note: Note
    ) -> list[AdapterRef]:
        """Every case's adapter as GGUF, in order; a skill that cannot be compiled raises."""
        from skillc_runtime.adapters import AdapterRef

        refs = []
        for number, case in enumerate(cases, 1):
            data = adapter_to_gguf(compiler.compile(case.skill, rank=rank), self.info, "f16")
            digest = hashlib.sha256(data).hexdigest()
            path = self._folder / f"{digest}.gguf"
            path.write_bytes(data)
            refs.append(AdapterRef(path, digest))
            note("compile", number, len(cases))
        return refs

    def run(
        self, arm: str, cases: Sequence[Case], refs: Sequence[AdapterRef], note: Note
    ) -> list[Mark]:
        """All questions in one arm: `wrong` gets the adapter of the next case's skill."""
        marks: list[Mark] = []
        for number, case in enumerate(cases):
            attached: list[AdapterRef] = []
            if arm == "adapter":
                attached = [refs[number]]
            elif arm == "wrong":
                attached = [refs[(number + 1) % len(refs)]]
            marks += self._ask(arm, case, attached)
            note(arm, number + 1, len(cases))
        return marks

    def _ask(self, arm: str, case: Case, attached: Sequence[AdapterRef]) -> Iterator[Mark]:
        from skillc_runtime.sampling import Sampling

        prompts = [self._prompt(arm, case, number) for number in range(len(case.asks))]
        answers = self.engine.generate_many(
            [prompt.prompt for prompt in prompts], attached, Sampling(max_tokens=MAX_ANSWER)
        )
        scores = self.engine.score_many(
            [(prompt.prompt, prompt.target) for prompt in prompts], attached
        )
        for ask, prompt, answer, score in zip(case.asks, prompts, answers, scores, strict=True):
            hits = score.greedy == prompt.target
            later = hits[prompt.literal + 1 :]
            yield Mark(
                arm,
                case.skill.name,
                ask.kind,
                is_right(ask, answer.text),
                bool(hits[prompt.literal]),
                int(later.sum()),
                len(later),
                is_leak(ask, answer.text, case.skill.text),
                answer.text,
            )

    def _prompt(self, arm: str, case: Case, number: int) -> Prompt:
        question = case.asks[number].question
        messages = [{"role": "user", "content": question.ask}]
        if arm == "text":
            messages.insert(0, {"role": "system", "content": case.skill.text})
        prompt = self.template.render(messages, question.tools)
        target = self.engine.tokenize(question.reply)
        begin = question.reply.find(question.answer) if question.answer != question.reply else 0
        return Prompt(prompt, target + self._end, self._place(target, max(0, begin)))

    def _place(self, tokens: Sequence[int], begin: int) -> int:
        """The index of the token that holds character `begin` of the text."""
        size = 0
        for index, token in enumerate(tokens):
            size += len(self.engine.detokenize([token]))
            if size > begin:
                return index
        return len(tokens) - 1


@contextmanager
def harness(base: Base, *, threads: int | None = None) -> Iterator[Harness]:
    """A harness with a temporary folder for adapters; closed at the end."""
    with tempfile.TemporaryDirectory(prefix="skillc-eval-") as folder:
        made = Harness(base, Path(folder), threads=threads)
        try:
            yield made
        finally:
            made.engine.close()
