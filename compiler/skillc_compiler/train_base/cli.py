"""`skillc train compiler --base NAME` and `skillc train export --base NAME`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from skillc_compiler.bases import Base, find_base
from skillc_compiler.errors import CompilerError
from skillc_compiler.families.place import compiler_place
from skillc_compiler.published.convert import write_compiler
from skillc_compiler.train.feed import real_texts
from skillc_compiler.train_base.recipe import load_recipe
from skillc_compiler.train_base.trainer import CHECKPOINT, read_checkpoint, train

# Activations of large models have channels beyond what half precision can hold.
_EXACT = ("mean", "spread")


def train_compiler(
    base: str,
    recipe: str,
    out: Path,
    *,
    family: str | None = None,
    texts: Sequence[Path] = (),
    seed: int = 0,
    minutes: float = 0,
) -> None:
    """Train a compiler for the base called `base`; checkpoints in `out`."""
    found, settings = find_base(base), load_recipe(recipe, family)
    out.mkdir(parents=True, exist_ok=True)
    reached = train(found, settings, out, texts=real_texts(texts), seed=seed, minutes=minutes)
    print(
        f"step {reached} of {settings.schedule.steps} -> {out / CHECKPOINT}; 'skillc train export"
        f" --base {base} --out {out}' makes it the base's compiler",
        file=sys.stderr,
    )


def export_compiler(base: str, out: Path, *, force: bool = False) -> Path:
    """Make what was trained in `out` the base's compiler; returns its folder."""
    found = find_base(base)
    folder = compiler_place(found, force=force)
    family = write_trained(found, out, folder)
    print(f"{family} -> {folder}", file=sys.stderr)
    return folder


def write_trained(base: Base, out: Path, folder: Path) -> str:
    """Write compiler.safetensors (f16) and compiler.json of the run in `out`; gives its family."""
    checkpoint = out / CHECKPOINT
    if not checkpoint.is_file():
        raise CompilerError(
            f"no trained compiler in {out}: run 'skillc train compiler --base {base.name}"
            f" --out {out}'"
        )
    state = read_checkpoint(checkpoint, base, None, 0)
    weights = {
        name: (value if name in _EXACT else value.half()).contiguous()
        for name, value in state["net"].items()
    }
    if not all(torch.isfinite(value).all() for value in weights.values()):
        raise CompilerError(f"{checkpoint}: its weights are not finite: train with a lower rate")
    family = str(state["recipe"]["family"])
    table = {
        "family": family,
        "id": f"{family}-{base.name}",
        "recipe": state["recipe"],
        "seed": state["seed"],
        "steps": state["step"],
        family: state["settings"],
    }
    write_compiler(folder, base, table, weights)
    return family
