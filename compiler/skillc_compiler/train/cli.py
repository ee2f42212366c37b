"""`skillc train base` and `skillc train compiler`: the two stages of a recipe."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.writer_net import WriterNet
from skillc_compiler.train.feed import Feed, make_step, real_texts
from skillc_compiler.train.nano import Nano
from skillc_compiler.train.recipe import Recipe, load_recipe
from skillc_compiler.train.step import joint_step, score
from skillc_compiler.train.tokens import generated_text, train_tokenizer
from skillc_compiler.train.trainer import Run, train

VALIDATION_STEPS = 4


def train_base(
    recipe_name: str, out: Path, *, texts: Sequence[Path] = (), seed: int = 0, minutes: float = 0
) -> None:
    """Stage one: tokenizer, then the base alone, learning to answer with the text in context."""
    recipe = load_recipe(recipe_name)
    _prepare(out, seed)
    real = real_texts(texts)
    tokenizer = _tokenizer(recipe, out, real, seed)
    feed = Feed(recipe.data, tokenizer.to_str(), real, seed, stage="copy")
    run = Run(Nano(recipe.base), None)
    sizes = [step / recipe.copy.steps for step in range(recipe.copy.steps)]
    train(run, feed, recipe, recipe.copy, sizes, out=out, minutes=minutes)
    feed = replace(feed, stage="text")
    run = Run(run.model, None)
    grow = max(1, round(recipe.schedule.curriculum * recipe.text.steps))
    sizes = [min(1.0, (step + 1) / grow) for step in range(recipe.text.steps)]
    train(
        run, feed, recipe, recipe.text, sizes,
        out=out, minutes=minutes, evaluate=_validation(feed),
    )  # fmt: skip


def train_compiler(
    recipe_name: str, out: Path, *, texts: Sequence[Path] = (), seed: int = 0, minutes: float = 0
) -> None:
    """Stage two: the writer, jointly with the base that stage one left in `out`."""
    recipe = load_recipe(recipe_name)
    _prepare(out, seed)
    start = out / "text.pt"
    if not start.is_file():
        raise CompilerError(f"no trained base in {out}: run `skillc train base --out {out}` first")
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    run = Run(Nano(recipe.base), WriterNet(recipe.writer))
    run.model.load_state_dict(torch.load(start, weights_only=True)["model"])
    feed = Feed(recipe.data, tokenizer.to_str(), real_texts(texts), seed + 1)
    train(
        run, feed, recipe, recipe.joint, [1.0] * recipe.joint.steps,
        out=out, minutes=minutes, evaluate=_validation(feed),
    )  # fmt: skip


def _prepare(out: Path, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    if sys.platform == "linux":
        # Large tensors come and go every step; without this glibc gives their pages back each time.
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _tokenizer(recipe: Recipe, out: Path, real: Sequence[str], seed: int) -> Tokenizer:
    path = out / "tokenizer.json"
    if not path.is_file():
        texts = [*generated_text(seed, 6000), *(text[:6000] for text in real)]
        train_tokenizer(texts, recipe.base.vocab_size).save(str(path))
        print(f"tokenizer: {recipe.base.vocab_size} tokens -> {path}", file=sys.stderr)
    return Tokenizer.from_file(str(path))


def _validation(feed: Feed):  # type: ignore[no-untyped-def]
    data = Feed(feed.data, feed.tokenizer_json, (), 777, "val", stage="text")

    def evaluate(run: Run) -> dict[str, float]:
        """Token accuracies on validation wording: answers' first tokens (entry) and later ones."""
        steps = [make_step(data, number, 1.0) for number in range(VALIDATION_STEPS)]
        totals: dict[str, list[int]] = {"text": [0, 0, 0, 0], "adapter": [0, 0, 0, 0]}
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for step in steps:
                rows = step.batch.read
                if run.writer is None:
                    results = {
                        "text": score(
                            run.model,
                            run.model(rows.tokens, rows.positions, rows.mask()).hidden,
                            rows,
                        )
                    }
                else:
                    outcome = joint_step(run.model, run.writer, step.batch, step.order, 0.0)
                    results = {"text": outcome.text, "adapter": outcome.adapter}
                for arm, result in results.items():
                    counts = (
                        result.entry_right,
                        result.entry_all,
                        result.later_right,
                        result.later_all,
                    )
                    totals[arm] = [a + b for a, b in zip(totals[arm], counts, strict=True)]
        found = {}
        for arm, (right, every, later, later_all) in totals.items():
            if every:
                found[f"val_{arm}_entry"] = right / every
                found[f"val_{arm}_later"] = later / max(later_all, 1)
        print(json.dumps({"step": run.step, **found}), file=sys.stderr, flush=True)
        return found

    return evaluate
