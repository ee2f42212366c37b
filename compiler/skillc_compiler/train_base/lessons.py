"""What a step trains on: a skill's text in tokens, questions about it, and what to leave alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from skillc_compiler.data.generate import Generator, Question, Shape
from skillc_compiler.families.chat_prompt import ChatPrompt, base_prompt
from skillc_compiler.families.lessons import UNRELATED
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.train_base.recipe import Data, Recipe
from skillc_compiler.train_base.trainable import Trainable

# Answered from the skill; other questions are what its adapter must not change.
_OUTSIDE = ("outside", "chat")
_QUIET = 2
_CUE = 8


@dataclass(frozen=True)
class Row:
    """A prompt with its answer, and where the answer begins."""

    ids: list[int]
    start: int

    @property
    def answer(self) -> list[int]:
        return self.ids[self.start :]


@dataclass(frozen=True)
class Lesson:
    """One skill of a step.

    text: what the compiler reads. asked, taught: the same answers without and with the text in the
    prompt. recited: a window of the text, to be gone on with from its cue. quiet: prompts.
    """

    text: list[int]
    asked: list[Row]
    taught: list[Row]
    recited: Row | None
    quiet: list[list[int]]


class Lessons:
    """Makes the lessons of any step: the same seed, step and place give the same lesson."""

    def __init__(
        self,
        data: Data,
        prompt: ChatPrompt,
        tokenizer: Tokenizer,
        reading: Callable[[str], tuple[list[int], list[int]]],
        *,
        end: int | None,
        texts: Sequence[str] = (),
        seed: int = 0,
        split: str = "train",
    ) -> None:
        """`reading` is the compiler's (`Trainable`), `end` the token that ends an answer.

        `texts` are real ones, which are only recited.
        """
        self._data, self._prompt, self._tokenizer = data, prompt, tokenizer
        self._reading = reading
        self._end, self._texts, self._seed, self._split = end, texts, seed, split
        self._shape = replace(Shape(), facts=data.facts, questions=data.questions + 2, tools=0.0)

    def make(self, step: int, place: int) -> Lesson:
        """The lesson at `place` of a step."""
        rng = random.Random(f"{self._seed}/{self._split}/{step}/{place}")
        if self._texts and rng.random() < self._data.real:
            return self._lesson(rng.choice(self._texts), [], rng)
        sample = Generator(self._split, rng.getrandbits(40), self._shape).sample()
        return self._lesson(sample.text, sample.questions, rng)

    def _lesson(self, text: str, questions: Sequence[Question], rng: random.Random) -> Lesson:
        prefix, ids = self._reading(text)
        if len(ids) > self._data.max_skill:
            # Questions about what was cut off could not be answered.
            ids, text = ids[: self._data.max_skill], ""
        covered = [q for q in questions if q.kind not in _OUTSIDE][: self._data.questions]
        covered = covered if text else []
        asks = [*(q.ask for q in questions if q.kind in _OUTSIDE), *UNRELATED]
        return Lesson(
            prefix + ids,
            [self._row([("user", q.ask)], q.answer) for q in covered],
            [self._row([("system", text), ("user", q.ask)], q.answer) for q in covered],
            self._recited(ids, rng),
            [self._prompt.ids([("user", ask)]) for ask in rng.sample(asks, _QUIET)],
        )

    def _row(self, messages: list[tuple[str, str]], answer: str) -> Row:
        prompt = self._prompt.ids(messages)
        end = [] if self._end is None else [self._end]
        return Row([*prompt, *self._plain(answer), *end], len(prompt))

    def _recited(self, ids: list[int], rng: random.Random) -> Row | None:
        size = self._data.recite
        if size <= _CUE or len(ids) <= _CUE + 1:
            return None
        begin = rng.randrange(max(1, len(ids) - size))
        return Row(ids[begin : begin + size], _CUE)

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def lessons_of(
    student: Trainable, recipe: Recipe, seed: int, texts: Sequence[str] = (), split: str = "train"
) -> Lessons:
    """The lessons of a run for the base of the compiler that is trained."""
    end = read_base_info(student.base.gguf).metadata.get("tokenizer.ggml.eos_token_id")
    return Lessons(
        recipe.data, base_prompt(student.base, student.tokenizer), student.tokenizer,
        student.reading, end=end, texts=texts, seed=seed, split=split,
    )  # fmt: skip
