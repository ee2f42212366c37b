"""The `distill` compiler: no hypernetwork; each skill is learned by gradient steps on its base.

Context distillation (arXiv 2112.00861; Doc-to-LoRA's slow reference): the teacher is the base with
the skill's text in its prompt, the student the base with a LoRA and without the text. Questions
come from the text itself. It works on any base at once, and it takes seconds to minutes a skill.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from skillc_compiler.adapter import Adapter
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.bound import Bound, check_base, check_rank
from skillc_compiler.families.chat_prompt import ChatPrompt, base_prompt
from skillc_compiler.families.distill_items import Item, Teacher, batch_loss
from skillc_compiler.families.distill_settings import DistillConfig
from skillc_compiler.families.interface import DEFAULT_RANK
from skillc_compiler.families.lessons import lessons
from skillc_compiler.torch_base import load_frozen

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from skillc_compiler.bases import Base
    from skillc_compiler.skill import Skill

Factors = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Progress:
    """Where the distillation of a skill stands; `loss` is the last round's mean, in nats."""

    skill: str
    step: int
    steps: int
    loss: float
    seconds: float
    done: str = ""

    def line(self) -> str:
        """The progress as one line for people."""
        where = f"step {self.step} of at most {self.steps}"
        end = f", {self.done}" if self.done else ""
        return f"distill {self.skill}: {where}, loss {self.loss:.3f}, {self.seconds:.0f} s{end}"


class Distill(Bound):
    """Learns skills one by one; load it with `load_compiler`. `note` hears of the progress."""

    def __init__(
        self,
        base: Base,
        model: Any,
        tokenizer: Tokenizer,
        prompt: ChatPrompt,
        config: DistillConfig,
    ) -> None:
        super().__init__(base, model, tokenizer)
        self.host.model.requires_grad_(False)
        self.prompt, self.config = prompt, config
        self.note: Callable[[Progress], None] = Lines()

    @staticmethod
    def load(base: Base, config: dict[str, Any]) -> Distill:
        """Read the base's GGUF. Raises CompilerError."""
        path = check_base(base, config).with_suffix(".json")
        try:
            settings = DistillConfig.from_dict(config["distill"])
        except (KeyError, TypeError, ValueError) as error:
            raise CompilerError(f"{path}: does not fit ({error})") from error
        model, tokenizer = load_frozen(base)
        return Distill(base, model, tokenizer, base_prompt(base, tokenizer), settings)

    def compile(self, skill: Skill, *, rank: int = DEFAULT_RANK) -> Adapter:
        """The adapter of one skill, of exactly this rank; see `Compiler`."""
        check_rank(rank)
        started = time.monotonic()
        # The same skill gives the same questions, start and order on every run.
        seed = int(skill.hash[:12], 16)
        asked = lessons(skill, self.config.questions, random.Random(seed))
        teacher = Teacher(self.host, self.tokenizer, self.prompt, self.config.top_k)
        items = teacher.items(skill, asked, longest=self.config.answer)
        factors = self._start(rank, seed)
        self._learn(skill, items, factors, random.Random(seed), started)
        return self.adapter(
            skill, {path: (a.data, b.data) for path, (a, b) in factors.items()}, rank
        )

    def _start(self, rank: int, seed: int) -> Factors:
        generator = torch.Generator().manual_seed(seed)
        return {
            site.path: (
                nn.Parameter(torch.randn(rank, site.d_in, generator=generator) * site.d_in**-0.5),
                nn.Parameter(torch.zeros(site.d_out, rank)),
            )
            for site in self.host.sites(self.config.targets)
        }

    def _learn(
        self,
        skill: Skill,
        items: Sequence[Item],
        factors: Factors,
        rng: random.Random,
        started: float,
    ) -> None:
        """Gradient steps on `factors` until they no longer help; raises CompilerError on NaN."""
        config = self.config
        best, waited, step = float("inf"), 0, 0
        with self.host.attached(factors):
            for taken, mean in self._rounds(items, factors, rng):
                step += taken
                if not math.isfinite(mean):
                    raise CompilerError(
                        f"skill {skill.name!r}: the loss is not finite; choose a lower --rate"
                    )
                waited = 0 if mean < 0.99 * best else waited + 1
                best = min(best, mean)
                done = ""
                if mean <= config.enough:
                    done = "learned"
                elif waited >= config.patience:
                    done = "no more progress"
                elif step >= config.steps:
                    done = "all steps done"
                seconds = time.monotonic() - started
                self.note(Progress(skill.name, step, config.steps, mean, seconds, done))
                if done:
                    return

    def _rounds(
        self, items: Sequence[Item], factors: Factors, rng: random.Random
    ) -> Iterator[tuple[int, float]]:
        """Rounds over all items in a new order each: steps taken and mean loss; ends by itself."""
        config = self.config
        optimizer = torch.optim.AdamW(
            [half for pair in factors.values() for half in pair], lr=config.rate, weight_decay=0.0
        )
        step = 0
        while step < config.steps:
            order = rng.sample(items, len(items))
            losses = []
            for start in range(0, len(order), config.batch):
                if step == config.steps:
                    break
                for group in optimizer.param_groups:
                    group["lr"] = config.rate * (1 - 0.9 * step / config.steps)
                loss = batch_loss(self.host, order[start : start + config.batch], config.literal)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
                step += 1
            yield len(losses), sum(losses) / len(losses)


class Lines:
    """Lines on standard error, at most one every few seconds, and one at the end."""

    def __init__(self, every: float = 5.0) -> None:
        self._every, self._last = every, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.done or now - self._last >= self._every:
            self._last = now
            print(progress.line(), file=sys.stderr, flush=True)
