"""What each arm is given besides the question, and the questions of cases run in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skillc.evaluate.cases import Case
from skillc.evaluate.factors import means
from skillc.evaluate.harness import Asked, Harness, Note
from skillc.evaluate.scoring import Mark
from skillc.evaluate.suffix_cache import ARM as SUFFIX_CACHE
from skillc.evaluate.suffix_cache import Completer
from skillc_compiler.adapter import Adapter

ARMS = ("none", "text", "adapter", "wrong", "mean", SUFFIX_CACHE, "text_sft")


@dataclass(frozen=True)
class Arms:
    """The cases of a suite with their adapters, ready to be asked in any arm.

    `sft` is the engine of the text-SFT base, where there is one.
    """

    harness: Harness
    cases: Sequence[Case]
    adapters: Sequence[Adapter]
    rank: int
    note: Note
    sft: Harness | None = None

    def run(self, arm: str) -> list[Mark]:
        """All questions in one arm."""
        if arm == "none":
            return self.harness.ask_all(arm, self._asked(), (), self.note)
        if arm == SUFFIX_CACHE:
            return Completer(self.harness).ask(self._asked(), self.note)
        if arm == "text":
            return self.harness.ask_all(arm, self._asked(in_text=True), (), self.note)
        if arm == "text_sft":
            assert self.sft is not None
            return self.sft.ask_all(arm, self._asked(in_text=True), (), self.note)
        if arm == "mean":
            return self._mean()
        return self._attached(arm, shift=1 if arm == "wrong" else 0)

    def missing(self) -> dict[str, str]:
        """The arms that cannot be run here, and why."""
        reasons = {}
        if self.sft is None:
            reasons["text_sft"] = "no --sft-base: a base trained on the same data with the text"
        if len(self.cases) < 2:
            reasons |= dict.fromkeys(("wrong", "mean"), "needs two skills")
        return reasons

    def _asked(self, numbers: Sequence[int] | None = None, *, in_text: bool = False) -> list[Asked]:
        picked = self.cases if numbers is None else [self.cases[number] for number in numbers]
        return [
            Asked(case, ask, case.skill.text if in_text else "")
            for case in picked
            for ask in case.asks
        ]

    def _attached(self, arm: str, shift: int) -> list[Mark]:
        """Every case with the adapter of the case `shift` places on."""
        marks: list[Mark] = []
        for number in range(len(self.cases)):
            ref = self.harness.store(self.adapters[(number + shift) % len(self.cases)])
            marks += self.harness.ask(arm, self._asked([number]), [ref])
            self.note(arm, number + 1, len(self.cases))
        return marks

    def _mean(self) -> list[Mark]:
        marks: list[Mark] = []
        for fold, adapter in means(self.adapters, self.rank):
            marks += self.harness.ask("mean", self._asked(fold), [self.harness.store(adapter)])
            self.note("mean", fold.stop, len(self.cases))
        return marks
