"""The training loop of both stages: resumable, logged as JSONL, paced by a warm-up and a decay."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from skillc_compiler.families.writer_net import WriterNet
from skillc_compiler.train import ops
from skillc_compiler.train.feed import Feed, Step, stream
from skillc_compiler.train.lookups import looked
from skillc_compiler.train.match import compare
from skillc_compiler.train.muon import Muon
from skillc_compiler.train.nano import Nano, Trace
from skillc_compiler.train.progress import Progress
from skillc_compiler.train.recipe import Recipe, Schedule, Stage
from skillc_compiler.train.step import Score, joint_step, score

Log = Callable[[dict[str, Any]], None]

_WRITES = 2  # the writer's keys are told apart every so many steps: it takes two passes more


@dataclass
class Run:
    """A training run's state; everything in it is saved and restored."""

    model: Nano
    writer: WriterNet | None
    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    step: int = 0

    @property
    def device(self) -> torch.device:
        """Where the base and the writer are."""
        return self.model.model.embed_tokens.weight.device

    def save(self, path: Path, extra: dict[str, Any]) -> None:
        """Write a checkpoint beside the target, then rename."""
        state = {
            "model": self.model.state_dict(),
            "writer": self.writer.state_dict() if self.writer else None,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            **extra,
        }
        draft = path.with_suffix(".tmp")
        torch.save(state, draft)
        draft.replace(path)

    def restore(self, state: dict[str, Any]) -> None:
        """Load a checkpoint of the same stage."""
        self.model.load_state_dict(state["model"])
        if self.writer is not None and state["writer"] is not None:
            self.writer.load_state_dict(state["writer"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]


def optimizers(
    model: Nano, writer: WriterNet | None, stage: Stage, schedule: Schedule
) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in (model, writer):
        for name, parameter in module.named_parameters() if module else ():
            plain = parameter.ndim != 2 or "embed" in name or name.startswith("gate")
            (others if plain else matrices).append(parameter)
    decay = schedule.weight_decay
    return [
        Muon(matrices, lr=stage.lr, weight_decay=decay),
        torch.optim.AdamW(others, lr=stage.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def pace(step: int, stage: Stage, warmup: int) -> float:
    """Learning-rate factor: linear warm-up, constant, linear decay to a twentieth."""
    rise = min(1.0, (step + 1) / warmup)
    fall = stage.decay * stage.steps
    left = (stage.steps - step) / fall if fall else 1.0
    return min(rise, 0.05 + 0.95 * min(1.0, left))


def _momentum(step: int, stage: Stage) -> float:
    """How far the writer's input statistics move: every fourth step, and not at the end."""
    return 2.0 / (4 + step / 20) if step % 4 == 0 and step < stage.steps * 0.7 else 0.0


def _workers(device: torch.device) -> int:
    """How many processes make batches: a GPU waits for one; the CPU has other things to do."""
    return 1 if device.type == "cpu" else max(1, (os.cpu_count() or 1) - 1)


@dataclass
class Averages:
    """Exponential averages of what is logged."""

    values: dict[str, float] = field(default_factory=dict)

    def add(self, **news: float) -> None:
        """Mix new values in; the first one counts fully."""
        for key, value in news.items():
            old = self.values.get(key, value)
            self.values[key] = old + 0.05 * (value - old)

    def note(self) -> str:
        """The averages in one short line."""
        return " ".join(f"{key} {value:.3f}" for key, value in self.values.items())


def _rates(prefix: str, result: Score) -> dict[str, float]:
    return {
        f"{prefix}_loss": float(result.loss.detach()),
        f"{prefix}_entry": result.entry_right / max(result.entry_all, 1),
        f"{prefix}_later": result.later_right / max(result.later_all, 1),
    }


def _loss(
    run: Run, step: Step, stage: Stage, momentum: float, recipe: Recipe
) -> tuple[Tensor, dict[str, float]]:
    loss, rates, trace = _arms(run, step, stage, momentum)
    lookups, heads = step.batch.lookups, recipe.matchers.heads
    if stage.look_weight and lookups.rows:
        unseen, rates["look"] = looked(run.model, step.batch.read, trace, lookups, heads)
        loss = loss + stage.look_weight * unseen
    if step.matches is not None:
        writer = run.writer if run.step % _WRITES == 0 else None
        for name, found in compare(run.model, writer, step.matches, recipe.matchers).items():
            loss = loss + stage.match_weight * found.loss
            rates[name] = float(found.right.mean())
    return loss, rates


def _arms(
    run: Run, step: Step, stage: Stage, momentum: float
) -> tuple[Tensor, dict[str, float], Trace]:
    if run.writer is None:
        rows = step.batch.read
        trace = run.model(rows.tokens, rows.positions, rows.mask())
        result = score(run.model, trace.hidden, rows)
        return result.loss, _rates("text", result), trace
    outcome = joint_step(
        run.model, run.writer, step.batch, step.order, momentum, step.options,
        taught=stage.teach_weight > 0,
    )  # fmt: skip
    loss = stage.text_weight * outcome.text.loss + stage.adapter_weight * outcome.adapter.loss
    rates = _rates("text", outcome.text) | _rates("adapter", outcome.adapter)
    extras = {
        "idle": (stage.idle_weight, outcome.idle),
        "teach": (stage.teach_weight, outcome.teach),
    }
    for name, (weight, divergence) in extras.items():
        if weight and divergence is not None:
            loss = loss + weight * divergence
            rates[name] = float(divergence.detach())
    return loss, rates, outcome.trace


def train(
    run: Run,
    feed: Feed,
    recipe: Recipe,
    stage: Stage,
    sizes: list[float],
    *,
    out: Path,
    minutes: float = 0.0,
    evaluate: Callable[[Run], dict[str, float]] | None = None,
    evaluate_every: int = 500,
    save_every: int = 50,
) -> None:
    """Run `stage` from `run.step` to its end, or until `minutes` are over; checkpoints in `out`."""
    name = feed.stage
    ops.fuse(run.device)
    if not run.optimizers:
        run.optimizers = optimizers(run.model, run.writer, stage, recipe.schedule)
    checkpoint = out / f"{name}.pt"
    if checkpoint.is_file():
        run.restore(torch.load(checkpoint, weights_only=True, map_location="cpu"))
    progress = Progress(name, stage.steps, run.step)
    averages, tokens, begun = Averages(), 0, time.monotonic()
    parameters = [p for o in run.optimizers for group in o.param_groups for p in group["params"]]
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        for step in stream(feed, run.step, stage.steps, sizes, workers=_workers(run.device)):
            factor = pace(run.step, stage, recipe.schedule.warmup)
            for optimizer, rate in zip(run.optimizers, (stage.lr, stage.adam_lr), strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = rate * factor
            momentum = _momentum(run.step, stage) if stage.observe else 0.0
            with ops.autocast(run.device):
                loss, rates = _loss(run, step.to(run.device), stage, momentum, recipe)
            torch.autograd.backward(loss)
            norm = nn.utils.clip_grad_norm_(parameters, recipe.schedule.clip)
            if torch.isfinite(norm):
                for optimizer in run.optimizers:
                    optimizer.step()
            for optimizer in run.optimizers:
                optimizer.zero_grad(set_to_none=True)
            run.step += 1
            tokens += step.batch.read.tokens.numel() + step.batch.ask.tokens.numel()
            averages.add(**rates)
            progress.update(run.step, averages.note(), tokens)
            done = run.step == stage.steps
            over = bool(minutes) and time.monotonic() - begun > minutes * 60
            entry: dict[str, Any] = {}
            if evaluate and (done or over or run.step % evaluate_every == 0):
                entry = evaluate(run)
            if entry or run.step % 20 == 0:
                entry |= {"stage": name, "step": run.step, "lr": stage.lr * factor}
                log.write(json.dumps(entry | averages.values) + "\n")
                log.flush()
            if done or over or run.step % save_every == 0:
                run.save(checkpoint, {"recipe": recipe.name, "base": asdict(recipe.base)})
            if over:
                return
