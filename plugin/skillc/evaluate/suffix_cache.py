"""The baseline without weights: what followed the same last tokens in the skill's text.

The longest suffix of question and answer that occurs in the text decides the next token; where
none does, the bare base's greedy choice stands. An adapter that only writes n-grams is no better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skillc.evaluate.harness import MAX_ANSWER, Asked, Harness, Note, Prompt
from skillc.evaluate.scoring import Mark, mark_of

if TYPE_CHECKING:
    from skillc_runtime.engine import Engine

ARM = "suffix_cache"
LONGEST = 12
_ROUNDS = 16
_AT_ONCE = 256


class SuffixCache:
    """The n-grams of one text and what followed each the last time."""

    def __init__(self, tokens: Sequence[int], longest: int = LONGEST) -> None:
        self._longest = longest
        self._next: dict[tuple[int, ...], int] = {}
        for size in range(1, longest + 1):
            for end in range(size, len(tokens)):
                self._next[tuple(tokens[end - size : end])] = tokens[end]

    def after(self, question: Sequence[int], answer: Sequence[int]) -> int | None:
        """The token after the longest suffix of question and answer; None when nothing is known.

        A single token is enough only when it is the whole answer so far: else it says too little.
        """
        context = [*question, *answer][-self._longest :]
        least = 1 if len(answer) == 1 else 2
        for size in range(len(context), least - 1, -1):
            found = self._next.get(tuple(context[-size:]))
            if found is not None:
                return found
        return None


@dataclass
class _Answer:
    """An answer under way: `draft` is how the base would go on from `begin`."""

    prompt: Prompt
    question: list[int]
    cache: SuffixCache
    tokens: list[int] = field(default_factory=list)
    draft: list[int] = field(default_factory=list)
    begin: int = 0
    done: bool = False


class Completer:
    """Answers and marks questions with a suffix cache over the bare base."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._engine: Engine = harness.engine
        self._end = harness.engine.tokenize("<|im_end|>", special=True)[0]

    def ask(self, asked: Sequence[Asked], note: Note) -> list[Mark]:
        """The marks of questions, each with a cache over its own skill's text."""
        marks: list[Mark] = []
        for start in range(0, len(asked), _AT_ONCE):
            portion = asked[start : start + _AT_ONCE]
            marks += self._ask(portion)
            note(ARM, len(marks), len(asked))
        return marks

    def _ask(self, asked: Sequence[Asked]) -> list[Mark]:
        caches = {
            text: SuffixCache(self._engine.tokenize(text))
            for text in {each.case.skill.text for each in asked}
        }
        answers = [
            _Answer(
                self._harness.prompt(each),
                self._engine.tokenize(each.ask.question.ask),
                caches[each.case.skill.text],
            )
            for each in asked
        ]
        scores = self._engine.score_many([(a.prompt.prompt, a.prompt.target) for a in answers])
        self._complete(answers)
        return [
            mark_of(
                ARM,
                each.case,
                each.ask,
                self._engine.detokenize(answer.tokens),
                self._hits(answer, score.greedy.tolist()),
                answer.prompt.literal,
            )
            for each, answer, score in zip(asked, answers, scores, strict=True)
        ]

    def _hits(self, answer: _Answer, greedy: Sequence[int]) -> list[bool]:
        """Of every expected token, whether it is predicted from the expected ones before it."""
        target = answer.prompt.target
        hits = []
        for place, (wanted, base) in enumerate(zip(target, greedy, strict=True)):
            known = answer.cache.after(answer.question, target[:place])
            hits.append(wanted == (base if known is None else self._closed(known)))
        return hits

    def _complete(self, answers: Sequence[_Answer]) -> None:
        """Answer all greedily: the base is asked in rounds, each for whole continuations."""
        from skillc_runtime.sampling import Sampling

        for _ in range(_ROUNDS):
            for answer in answers:
                self._walk(answer)
            waiting = [answer for answer in answers if not answer.done]
            if not waiting:
                return
            drafts = self._engine.generate_many(
                [[*answer.prompt.prompt, *answer.tokens] for answer in waiting],
                (),
                Sampling(max_tokens=MAX_ANSWER),
            )
            for answer, draft in zip(waiting, drafts, strict=True):
                answer.draft = [*draft.tokens, self._end]
                answer.begin = len(answer.tokens)

    def _walk(self, answer: _Answer) -> None:
        """Go on with what the cache or the draft says, until the base must be asked again."""
        while not answer.done:
            place = len(answer.tokens) - answer.begin
            known = answer.cache.after(answer.question, answer.tokens)
            if known is not None:
                token = self._closed(known)
            elif answer.tokens[answer.begin :] == answer.draft[:place] and place < len(
                answer.draft
            ):
                token = answer.draft[place]
            else:
                return
            if token == self._end or len(answer.tokens) == MAX_ANSWER:
                answer.done = True
            else:
                answer.tokens.append(token)

    def _closed(self, token: int) -> int:
        """The end of the turn where the text's code span or line ends, as a kind reading has it."""
        text = self._engine.detokenize([token])
        return self._end if "`" in text or "\n" in text else token
