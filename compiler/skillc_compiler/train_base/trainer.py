"""Trains a compiler on a frozen base: resumable, logged, in one process or several.

Every process holds the base and the same compiler, takes its share of a step's skills, and adds its
gradients to those of the others; `accelerate launch` starts several, without it there is one. With
`--use_fsdp` they share the base's layers (`processes`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from skillc_compiler.bases import Base
from skillc_compiler.errors import CompilerError
from skillc_compiler.gguf_base import read_base_info
from skillc_compiler.train.progress import Progress
from skillc_compiler.train_base.lessons import Lessons, lessons_of
from skillc_compiler.train_base.loss import lesson_loss
from skillc_compiler.train_base.processes import begin_processes, open_shared, open_whole, shared
from skillc_compiler.train_base.recipe import Recipe, Schedule
from skillc_compiler.train_base.trainable import Trainable
from skillc_compiler.train_base.untrained import untrained
from skillc_compiler.train_base.validate import validate

CHECKPOINT = "compiler.pt"


@dataclass
class Run:
    """A run's state; everything in it is saved and restored."""

    student: Trainable
    optimizer: torch.optim.Optimizer
    step: int = 0

    def state(self, recipe: Recipe, seed: int) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "net": self.student.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "settings": self.student.settings(),
            "base_hash": self.student.base_hash,
            "recipe": recipe.to_dict(),
            "seed": seed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint of the same run."""
        self.student.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]


def train(
    base: Base,
    recipe: Recipe,
    out: Path,
    *,
    texts: Sequence[str] = (),
    seed: int = 0,
    minutes: float = 0.0,
) -> int:
    """Train to the recipe's end, or until `minutes` are over; returns the step that was reached.

    Checkpoints and log.jsonl go to `out`. Raises CompilerError.
    """
    accelerator = begin_processes()
    run = begin(base, recipe, accelerator.device, seed)
    checkpoint = out / CHECKPOINT
    if checkpoint.is_file():
        run.restore(read_checkpoint(checkpoint, base, recipe, seed))
    lessons = lessons_of(run.student, recipe, seed, texts)
    held = lessons_of(run.student, recipe, seed, split="val")
    schedule, main = recipe.schedule, accelerator.is_main_process
    progress = Progress(recipe.family, schedule.steps, run.step)
    begun, tokens = time.monotonic(), 0
    while run.step < schedule.steps:
        parts, read = step(run, lessons, recipe, accelerator)
        tokens += read
        done = run.step == schedule.steps
        over = _any(accelerator, bool(minutes) and time.monotonic() - begun > 60 * minutes)
        checked: dict[str, float] = {}
        due = done or over or run.step % schedule.check_every == 0
        if due and (main or run.student.host.sharded):
            checked = validate(run.student, held, schedule.check_skills)
        if main:
            progress.update(run.step, _note(parts), tokens)
            _log(out, {"step": run.step, **parts, **checked})
            if done or over or run.step % schedule.save_every == 0:
                _save(run.state(recipe, seed), checkpoint)
        if over:
            break
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return run.step


def begin(base: Base, recipe: Recipe, device: torch.device, seed: int) -> Run:
    """The base, an untrained compiler for it, and the optimiser; the same in every process."""
    model, tokenizer = open_shared(base, device) if shared() else open_whole(base, device)
    student = untrained(base, model, tokenizer, recipe, seed)
    schedule = recipe.schedule
    optimizer = torch.optim.AdamW(
        student.net.parameters(),
        lr=schedule.rate,
        betas=(0.9, 0.95),
        weight_decay=schedule.weight_decay,
    )
    return Run(student, optimizer)


def step(
    run: Run, lessons: Lessons, recipe: Recipe, accelerator: Accelerator
) -> tuple[dict[str, float], int]:
    """One step over this process's share of the skills: mean parts of the loss, tokens read."""
    count, schedule = recipe.data.skills, recipe.schedule
    sums: dict[str, float] = {}
    tokens = 0
    for first in range(0, count, accelerator.num_processes):
        place = first + accelerator.process_index
        if place >= count:
            if run.student.host.sharded:
                _accompany(run, lessons, recipe)
            break
        lesson = lessons.make(run.step, place)
        told = lesson_loss(run.student, lesson, recipe.loss)
        torch.autograd.backward(told.loss / count)
        rows = [*lesson.asked, *(lesson.taught if recipe.loss.teacher else ())]
        tokens += len(lesson.text) + sum(len(row.ids) for row in rows)
        for name, value in {"loss": float(told.loss.detach()), **told.parts}.items():
            sums[name] = sums.get(name, 0.0) + value / count
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad = _summed(accelerator, parameter.grad)
    for group in run.optimizer.param_groups:
        group["lr"] = schedule.rate * pace(run.step, schedule)
    norm = nn.utils.clip_grad_norm_(parameters, schedule.clip)
    if torch.isfinite(norm):
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.step += 1
    return sums, tokens * accelerator.num_processes


def _accompany(run: Run, lessons: Lessons, recipe: Recipe) -> None:
    """Make the passes of a lesson for the processes that still have one, and learn nothing."""
    told = lesson_loss(run.student, lessons.make(run.step, 0), recipe.loss)
    torch.autograd.backward(0.0 * told.loss)


def pace(number: int, schedule: Schedule) -> float:
    """Learning-rate factor: linear warm-up, constant, linear decay to a twentieth."""
    rise = min(1.0, (number + 1) / schedule.warmup)
    fall = schedule.decay * schedule.steps
    left = (schedule.steps - number) / fall if fall else 1.0
    return min(rise, 0.05 + 0.95 * min(1.0, left))


def read_checkpoint(path: Path, base: Base, recipe: Recipe | None, seed: int) -> dict[str, Any]:
    """A run's checkpoint. Raises CompilerError when it is of another base or recipe."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
        known, table = state["base_hash"], state["recipe"]
    except (OSError, RuntimeError, KeyError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CompilerError(f"{path}: not a checkpoint of a compiler ({reason})") from error
    if known != read_base_info(base.gguf).hash:
        raise CompilerError(f"{path}: was trained on another base than {base.name!r}")
    if recipe is not None and (table, state["seed"]) != (recipe.to_dict(), seed):
        raise CompilerError(
            f"{path}: was begun with another recipe or seed: give the same, or another --out"
        )
    return state


def _summed(accelerator: Accelerator, value: Tensor) -> Tensor:
    found: Tensor = accelerator.reduce(value, reduction="sum")
    return found


def _any(accelerator: Accelerator, flag: bool) -> bool:
    """Whether any process says so: all of them have to stop at the same step."""
    told = torch.tensor([float(flag)], device=accelerator.device)
    return bool(_summed(accelerator, told).item() > 0)


def _note(parts: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in parts.items())


def _log(out: Path, entry: dict[str, Any]) -> None:
    # JSON has no word for what is not finite.
    plain = {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in entry.items()
    }
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain) + "\n")


def _save(state: dict[str, Any], path: Path) -> None:
    draft = path.with_suffix(".tmp")
    torch.save(state, draft)
    draft.replace(path)
