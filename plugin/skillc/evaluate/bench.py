"""What a suite gets to work with, and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from skillc.evaluate.harness import Harness, Note, compile_all
from skillc.evaluate.scoring import Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from skillc_compiler.adapter import Adapter
    from skillc_compiler.families.interface import Compiler
    from skillc_compiler.skill import Skill


@dataclass(frozen=True)
class Settings:
    """What a run depends on; `skills` overrides the sizes of the suites."""

    base: str = "nano"
    rank: int = 64
    split: str = "test"
    seed: int = 0
    skills: int | None = None
    quick: bool = False
    threads: int | None = None
    sft_base: str | None = None
    handwritten: Path | None = None
    real: Path | None = None
    answers: Path | None = None
    plot: Path | None = None
    jobs: int | None = None

    def size(self, full: int, quick: int) -> int:
        """How many skills a suite takes."""
        return self.skills or (quick if self.quick else full)


@dataclass(frozen=True)
class Bench:
    """One base at work with its compiler; shared by the suites of a run."""

    settings: Settings
    harness: Harness
    compiler: Compiler
    note: Note
    sft: Harness | None = None

    def compile(self, skills: Sequence[Skill], rank: int | None = None) -> list[Adapter]:
        """The adapters of skills, at the run's rank unless another is given."""
        wanted = self.settings.rank if rank is None else rank
        return compile_all(self.compiler, skills, rank=wanted, note=self.note)


@dataclass(frozen=True)
class Curve:
    """One panel of a plot: named lines of (x, y, low, high) with a share on the y axis."""

    title: str
    axis: str
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]]


@dataclass(frozen=True)
class Result:
    """What a suite found: figures, a Markdown table, curves, the answers, what was left out."""

    figures: dict[str, float]
    table: str
    curves: tuple[Curve, ...] = ()
    marks: tuple[Mark, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
