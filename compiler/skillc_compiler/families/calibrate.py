"""Finds sites, gain and rank of an untrained writer on a base that nobody trained one for.

At initialisation a writer's update is one step of the cross-entropy gradient on the text. How
large the step may be, and at which layers, differs from base to base; it is searched for here on
generated validation skills: the share of answer tokens predicted right without the text in context,
as long as the base's choices on unrelated prompts stay.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from skillc_compiler.data.generate import Generator
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.chat_prompt import base_prompt
from skillc_compiler.families.gradient import pushes
from skillc_compiler.families.host import Factors, Host
from skillc_compiler.families.lessons import UNRELATED
from skillc_compiler.families.place import compiler_place
from skillc_compiler.families.taps import SITE
from skillc_compiler.families.writer import Writer
from skillc_compiler.families.writer_net import WriterConfig, WriterNet, low_rank
from skillc_compiler.published.convert import write_compiler
from skillc_compiler.skill import parse_skill
from skillc_compiler.torch_base import load_frozen

if TYPE_CHECKING:
    from skillc_compiler.bases import Base

GAINS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
RANKS = (16, 32, 64)
MOST_SITES = 6
FACTS = ("command", "literal", "apply", "never")
# The learned residuals are zero in an untrained writer; their network is as small as can be.
READER_WIDTH = 8

Row = tuple[list[int], int]
"""Tokens of a prompt with its answer, and where the answer begins."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting: `right` is the share of answer tokens, `flips` of changed unrelated choices."""

    sites: tuple[int, ...]
    gain: float
    rank: int
    right: float
    flips: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The best setting, beside the base with nothing and with the text in its prompt."""

    best: Trial
    none: float
    text: float
    trials: int
    seconds: float
    folder: Path | None

    @property
    def helps(self) -> bool:
        """Whether the setting answers better than nothing does."""
        return self.best.right > self.none

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        best = self.best
        return {
            "sites": list(best.sites),
            "gain": best.gain,
            "rank": best.rank,
            "right": round(best.right, 4),
            "right_none": round(self.none, 4),
            "right_text": round(self.text, 4),
            "flips": round(best.flips, 4),
            "trials": self.trials,
            "seconds": round(self.seconds, 1),
            "helps": self.helps,
        }


def calibrate(
    base: Base,
    *,
    skills: int = 4,
    minutes: float = 20.0,
    most_flips: float = 0.02,
    force: bool = False,
    note: Callable[[Trial], None] = lambda trial: None,
) -> Calibration:
    """Search, and write the writer beside the base if it helps. Raises CompilerError."""
    folder = compiler_place(base, force=force)
    begun = time.monotonic()
    bench = Bench(base, skills)
    with torch.inference_mode():
        found: list[Trial] = []
        for trial in bench.search(most_flips):
            found.append(trial)
            note(trial)
            if time.monotonic() - begun > 60 * minutes:
                break
        best = choose(found, most_flips)
        none, text = bench.right([{}] * skills), bench.right([{}] * skills, text=True)
    seconds = time.monotonic() - begun
    result = Calibration(best, none, text, len(found), seconds, folder)
    if not result.helps:
        return Calibration(best, none, text, len(found), seconds, None)
    bench.write(folder, result)
    return result


def choose(trials: Sequence[Trial], most_flips: float) -> Trial:
    """The trial with most tokens right among those that leave unrelated prompts alone.

    If all disturb them too much, the one that disturbs least. Equal ones: fewer sites, lower rank.
    """
    quiet = [trial for trial in trials if trial.flips <= most_flips]
    if not quiet:
        return min(trials, key=lambda trial: trial.flips)
    return max(quiet, key=lambda trial: (trial.right, -len(trial.sites), -trial.rank))


class Bench:
    """The base, validation skills with their questions, and every candidate site's memories."""

    def __init__(self, base: Base, skills: int) -> None:
        model, tokenizer = load_frozen(base)
        self.base, self.host, self.tokenizer = base, Host(model), tokenizer
        self.prompt = base_prompt(base, tokenizer)
        layers = len(self.host.layers)
        self.sites = candidates(layers)
        (first, *_) = self.host.sites([SITE])
        self.config = WriterConfig(
            hidden=self.host.hidden,
            inner=first.d_in,
            layers=layers,
            vocab=int(model.config.get_text_config().vocab_size),
            sites=self.sites,
            width=READER_WIDTH,
            blocks=0,
            heads=1,
        )
        self.net = untrained(self.config, pushes(self.host, self.sites))
        samples = [Generator("val", seed).sample() for seed in range(skills)]
        self.skills = [parse_skill(s.text.encode(), folder=s.name) for s in samples]
        self.asked = [[q for q in s.questions if q.kind in FACTS] for s in samples]
        if not any(self.asked):
            raise CompilerError("no validation questions: take more --skills")
        self.unrelated = [(self.prompt.ids([("user", ask)]), 1) for ask in UNRELATED]
        self.memories = self._memories()
        with torch.inference_mode():
            self.usual = self._guesses(self.unrelated, {})

    def search(self, most_flips: float) -> Iterator[Trial]:
        """Every candidate layer alone, then the best ones together, then other ranks."""
        found: list[Trial] = []
        for layer in self.sites:
            for gain in GAINS:
                found.append(self.trial((layer,), gain, RANKS[1]))
                yield found[-1]
        alone = [
            choose([trial for trial in found if trial.sites == (layer,)], most_flips)
            for layer in self.sites
        ]
        order = [trial.sites[0] for trial in sorted(alone, key=lambda trial: -trial.right)]
        for count in range(2, len(order) + 1):
            for gain in GAINS:
                found.append(self.trial(tuple(sorted(order[:count])), gain, RANKS[1]))
                yield found[-1]
        chosen = choose(found, most_flips)
        for rank in RANKS:
            if rank != chosen.rank:
                yield self.trial(chosen.sites, chosen.gain, rank)

    def trial(self, sites: tuple[int, ...], gain: float, rank: int) -> Trial:
        """Measure one setting over all validation skills."""
        factors = [
            {
                f"{self.host.path}.{layer}.{SITE}": (a[:rank], gain * b[:, :rank])
                for layer, (a, b) in made.items()
                if layer in sites
            }
            for made in self.memories
        ]
        changed = [self._guesses(self.unrelated, one) != self.usual for one in factors]
        flips = float(torch.cat(changed).float().mean())
        return Trial(sites, gain, rank, self.right(factors), flips)

    def right(self, factors: Sequence[Factors], *, text: bool = False) -> float:
        """The share of answer tokens predicted right, each skill's questions with its factors."""
        hits: list[Tensor] = []
        for skill, asked, one in zip(self.skills, self.asked, factors, strict=True):
            system = [("system", skill.text)] if text else []
            rows = []
            for question in asked:
                prompt = self.prompt.ids([*system, ("user", question.ask)])
                answer = self.tokenizer.encode(question.answer, add_special_tokens=False).ids
                rows.append(([*prompt, *answer], len(prompt)))
            if rows:
                wanted = torch.cat([torch.tensor(ids[start:]) for ids, start in rows])
                hits.append(self._guesses(rows, one) == wanted)
        return float(torch.cat(hits).float().mean())

    def write(self, folder: Path, result: Calibration) -> None:
        """Write the writer with the chosen sites and gain."""
        best = result.best
        places = [self.sites.index(layer) for layer in best.sites]
        config = WriterConfig.from_dict({**self.config.to_dict(), "sites": list(best.sites)})
        net = untrained(config, self.net.push.detach()[places])
        net.mean.copy_(self.net.mean[places])
        net.spread.copy_(self.net.spread[places])
        net.scale.data.mul_(best.gain)
        table = {
            "family": "writer",
            "id": "writer-untrained",
            "writer": config.to_dict(),
            # Without the clock's figures: equal settings are the same compiler.
            "calibration": {k: v for k, v in result.to_dict().items() if k != "seconds"},
        }
        write_compiler(folder, self.base, table, dict(net.state_dict()))

    @torch.inference_mode()
    def _memories(self) -> list[dict[int, tuple[Tensor, Tensor]]]:
        """By skill and candidate layer: the factors at gain 1 and the largest rank."""
        identity = ("writer-untrained", "0" * 64)
        writer = Writer(self.base, self.host.model, self.tokenizer, self.net, identity)
        for number, skill in enumerate(self.skills):
            ids = self.tokenizer.encode(skill.text, add_special_tokens=False).ids
            reading = writer.read(ids[:512])
            self.net.observe(reading.inputs, reading.mask, 1 / (number + 1))
        return [
            {
                layer: low_rank(keys, values, max(RANKS))
                for layer, (keys, values) in writer.memories(skill.text).items()
            }
            for skill in self.skills
        ]

    def _guesses(self, rows: Sequence[Row], factors: Factors) -> Tensor:
        """The likeliest token at every place of the rows from their start on, one after another."""
        device = self.host.ids([0]).device
        padded = pad_sequence([torch.tensor(ids) for ids, _ in rows], batch_first=True)
        with self.host.attached(factors):
            best = self.host.model(padded.to(device), use_cache=False).logits.argmax(-1).cpu()
        parts = [best[n, start - 1 : len(ids) - 1] for n, (ids, start) in enumerate(rows)]
        return torch.cat(parts)


def candidates(layers: int) -> tuple[int, ...]:
    """At most MOST_SITES layers, evenly over the upper two thirds and the last one always."""
    lowest = layers // 3
    count = min(MOST_SITES, layers - lowest)
    if count == 1:
        return (layers - 1,)
    step = (layers - 1 - lowest) / (count - 1)
    return tuple(sorted({round(lowest + step * number) for number in range(count)}))


def untrained(config: WriterConfig, push: Tensor | None = None) -> WriterNet:
    """A writer whose learned residuals are zero and whose memories add up: a step of the gradient.

    `push` [sites, hidden, hidden] is the way from output embeddings back to a site's output.
    """
    torch.manual_seed(0)
    net = WriterNet(config).eval()
    torch.nn.init.zeros_(net.key.weight)
    torch.nn.init.zeros_(net.value.weight)
    torch.nn.init.constant_(net.alpha, math.log(1e-6))
    if push is not None:
        net.push.data.copy_(push)
    return net.requires_grad_(False)


def settings_line(result: Calibration) -> str:
    """The result as one line for people."""
    shown = json.dumps(list(result.best.sites))
    return (
        f"layers {shown}, gain {result.best.gain:g}, rank {result.best.rank}: answer tokens right"
        f" {result.best.right:.3f} (nothing {result.none:.3f}, text in context {result.text:.3f}),"
        f" unrelated choices changed {result.best.flips:.3f}"
    )
