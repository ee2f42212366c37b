"""`skillc train base` and `skillc train compiler`: the two stages of a recipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from skillc_compiler.bases import Base
from skillc_compiler.errors import BaseModelError, CompilerError
from skillc_compiler.families.writer_net import WriterNet
from skillc_compiler.gguf_base import read_base_weights, read_tokenizer
from skillc_compiler.train.curves import draw_curves
from skillc_compiler.train.export import export
from skillc_compiler.train.feed import Feed, real_texts
from skillc_compiler.train.mean import write_mean
from skillc_compiler.train.nano import Nano
from skillc_compiler.train.ops import best_device
from skillc_compiler.train.recipe import Recipe, Stage, load_recipe
from skillc_compiler.train.tokens import generated_text, train_tokenizer
from skillc_compiler.train.trainer import Run, train
from skillc_compiler.train.validate import validation


def train_base(
    recipe_name: str, out: Path, *, texts: Sequence[Path] = (), seed: int = 0, minutes: float = 0
) -> None:
    """Stage one: tokenizer, then the base alone, learning to answer with the text in context."""
    recipe = load_recipe(recipe_name)
    _prepare(out, seed)
    real = real_texts(texts)
    tokenizer = _tokenizer(recipe, out, real, seed)
    feed = Feed(recipe.copy.data, tokenizer.to_str(), real, seed)
    run = Run(Nano(recipe.base).to(best_device()), None)
    begun = time.monotonic()
    stages = {"copy": recipe.copy, "drill": recipe.drill, "lookup": recipe.lookup}
    for name, stage in {**stages, "text": recipe.text}.items():
        feed = replace(feed, stage=name, data=stage.data, weights=stage.weights)
        run = Run(run.model, None)
        share = 1.0 if name in ("copy", "drill") else recipe.schedule.curriculum
        grow = max(1, round(share * stage.steps))
        sizes = [min(1.0, (step + 1) / grow) for step in range(stage.steps)]
        evaluate = validation(feed, recipe) if name == "text" else None
        left = minutes - (time.monotonic() - begun) / 60 if minutes else 0.0
        if left < 0:
            break
        train(run, feed, recipe, stage, sizes, out=out, minutes=left, evaluate=evaluate)
        if run.step < stage.steps:
            break
    _curves(out)


def train_compiler(
    recipe_name: str,
    out: Path,
    *,
    texts: Sequence[Path] = (),
    seed: int = 0,
    minutes: float = 0,
    start: Base | None = None,
) -> None:
    """Stage two: the writer, jointly with the base that stage one left in `out`.

    Or with both as `start` has them, whose shapes the recipe must have.
    """
    recipe = load_recipe(recipe_name)
    _prepare(out, seed)
    device = best_device()
    run = Run(Nano(recipe.base).to(device), WriterNet(recipe.writer).to(device))
    if start is None:
        _load_stage_one(run.model, out)
    else:
        load_pair(start, run.model, run.writer)
        read_tokenizer(start.gguf).save(str(out / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    feed = Feed(
        recipe.joint.data, tokenizer.to_str(), real_texts(texts), seed + 1,
        weights=recipe.joint.weights, drills=recipe.joint.drills,
    )  # fmt: skip
    train(
        run, feed, recipe, recipe.joint, _growth(recipe.joint),
        out=out, minutes=minutes, evaluate=validation(feed, recipe),
    )  # fmt: skip
    _curves(out)
    if run.step == recipe.joint.steps:
        export_pair(recipe_name, out)


def train_mean(runs: Sequence[Path], recipe_name: str, out: Path) -> None:
    """The mean of finished runs, exported. Raises CompilerError, see `write_mean`."""
    load_recipe(recipe_name)  # a name that is wrong is said before anything is written
    write_mean(runs, out)
    export_pair(recipe_name, out)


def _load_stage_one(model: Nano, out: Path) -> None:
    path = out / "text.pt"
    if not path.is_file():
        raise CompilerError(f"no trained base in {out}: run `skillc train base --out {out}` first")
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["model"])


def load_pair(start: Base, model: Nano, writer: WriterNet | None) -> None:
    """Give a base and a writer the weights of an installed pair. Raises CompilerError."""
    if start.compiler_dir is None:
        raise CompilerError(f"base {start.name}: has no compiler to start from")
    try:
        weights = read_base_weights(start.gguf)[1]
        weights.pop("lm_head.weight", None)
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        if writer is not None:
            saved = load_file(start.compiler_dir / "compiler.safetensors")
            writer.load_state_dict({name: value.float() for name, value in saved.items()})
    except (OSError, RuntimeError, BaseModelError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CompilerError(f"base {start.name}: cannot be started from: {reason}") from error


def _growth(joint: Stage) -> list[float]:
    """How large the documents of each step are: small behind the drills, at last all there is."""
    span = max(1.0, joint.grow * (joint.steps - joint.drills))
    return [min(1.0, 0.2 + 0.8 * (step - joint.drills) / span) for step in range(joint.steps)]


def export_pair(recipe_name: str, out: Path) -> Path:
    """Write what ships (base.gguf, compiler.safetensors, compiler.json) to `out`/export."""
    target = out / "export"
    export(load_recipe(recipe_name), out, target)
    print(f"base and compiler -> {target}", file=sys.stderr)
    return target


def _curves(out: Path) -> None:
    if drawn := draw_curves(out):
        print(f"curves -> {drawn}", file=sys.stderr)


def _prepare(out: Path, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)


def _tokenizer(recipe: Recipe, out: Path, real: Sequence[str], seed: int) -> Tokenizer:
    path = out / "tokenizer.json"
    if not path.is_file():
        texts = [*generated_text(seed, 6000), *(text[:6000] for text in real)]
        train_tokenizer(texts, recipe.base.vocab_size).save(str(path))
        print(f"tokenizer: {recipe.base.vocab_size} tokens -> {path}", file=sys.stderr)
    return Tokenizer.from_file(str(path))
