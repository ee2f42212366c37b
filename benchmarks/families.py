"""Which family of compilers learns most of the same base, data, loss and minutes?

`writer`, `m2p` and `perceiver` are trained from scratch on a base that stays as it is, each alone
for the same wall-clock minutes, on the same skills in the same order; their networks have about as
many weights. Each then compiles held-out skills (other wording, templates and strings) the ordinary
way, and the engine that also serves answers the questions about their facts. `exact` is the share
answered exactly, `token` that of the literals' tokens, each given those before it; `lead` is how
many points of `exact` the writer is ahead of the better of the others. `text` has the skill in its
prompt instead of an adapter, `own` is the compiler that the base already has: what long training
makes of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors.numpy import load_file

from skillc.evaluate.arms import Arms
from skillc.evaluate.cases import Case, generated_cases
from skillc.evaluate.harness import Harness, compile_all, harness
from skillc.evaluate.report import figures as figures_of
from skillc.figures import Target, print_figures
from skillc_compiler.adapter import Adapter
from skillc_compiler.bases import DEFAULT_BASE, Base, find_base
from skillc_compiler.data.generate import Shape
from skillc_compiler.families.interface import DEFAULT_RANK, load_compiler
from skillc_compiler.train_base.cli import write_trained
from skillc_compiler.train_base.recipe import FAMILIES, Recipe, load_recipe
from skillc_compiler.train_base.trainer import train

TARGETS: dict[str, Target] = {"lead": (">=", 20)}
# Short documents, and few a step: a fresh writer begins to copy after some 200 steps (docs/log.md),
# and steps are what two cores have few of.
FACTS = (1, 2)
SEED = 7
# Sizes for a base of some million parameters: the writer's as it is shipped, the others' so that
# they have about as many weights. Chunks are short: the perceiver gets its rank once for each.
RECIPE = """
[writer]
sites = [0, 1, 2, 3]
width = 256
blocks = 2
heads = 4
[m2p]
rank = 8
meta_rank = 32
blocks = 4
heads = 4
[perceiver]
rank = 8
latent = 128
queries = 32
encoder_blocks = 4
heads = 4
kv_heads = 4
head_dim = 32
residual_blocks = 1
chunk = 128
[data]
skills = 4
facts = [{facts[0]}, {facts[1]}]
questions = 4
recite = 16
[loss]
teacher = 0.0
[schedule]
steps = 1000000
rate = {rate}
warmup = 20
decay = 0.0
save_every = 1000000
check_every = 1000000
check_skills = 4
"""


def say(what: str, done: int, total: int) -> None:
    """Progress goes to standard error."""
    if done in (1, total) or done % 10 == 0:
        print(f"{what} {done}/{total}", file=sys.stderr, flush=True)


def recipe_of(family: str, rate: float, folder: Path) -> Recipe:
    """The recipe of one family; they differ in nothing but the network."""
    path = folder / "families.toml"
    path.write_text(RECIPE.format(facts=FACTS, rate=rate), "utf-8")
    return load_recipe(str(path), family)


def trained(base: Base, recipe: Recipe, minutes: float, folder: Path) -> Base:
    """The base with a compiler that was trained so long, in a folder of its own."""
    folder.mkdir()
    train(base, recipe, folder, minutes=minutes)
    write_trained(base, folder, folder)
    return replace(base, compiler_dir=folder)


def size_and_steps(base: Base) -> tuple[int, int]:
    """How many weights its compiler has, and how many steps it was trained."""
    assert base.compiler_dir is not None
    tensors = load_file(base.compiler_dir / "compiler.safetensors")
    settings = json.loads((base.compiler_dir / "compiler.json").read_text("utf-8"))
    return sum(int(value.size) for value in tensors.values()), int(settings["steps"])


def asked(
    engine: Harness, cases: Sequence[Case], adapters: Sequence[Adapter], arm: str
) -> tuple[float, float]:
    """Exact answers and right tokens of an arm, as shares."""
    marks = Arms(engine, cases, adapters, DEFAULT_RANK, say).run(arm)
    found = figures_of(marks, [arm])
    return found[f"{arm}_exact"], found[f"{arm}_token"]


def compiled(engine: Harness, base: Base, cases: Sequence[Case]) -> tuple[float, float]:
    """The same with what the base's compiler makes of each skill."""
    texts = [case.skill for case in cases]
    adapters = compile_all(load_compiler(base), texts, rank=DEFAULT_RANK, note=say)
    return asked(engine, cases, adapters, "adapter")


def measure(base: Base, minutes: float, skills: int, rate: float, folder: Path) -> dict[str, float]:
    """Train, compile and ask, family by family."""
    shape = Shape(facts=FACTS, tools=0.0, chat=0.0)
    cases = generated_cases("test", skills, SEED, shape)
    figures: dict[str, float] = {}
    with harness(base) as engine:
        figures["text_exact"], figures["text_token"] = asked(engine, cases, [], "text")
        if base.compiler_dir is not None:
            figures["own_exact"], figures["own_token"] = compiled(engine, base, cases)
        for family in FAMILIES:
            bound = trained(base, recipe_of(family, rate, folder), minutes, folder / family)
            found = compiled(engine, bound, cases)
            figures[f"{family}_exact"], figures[f"{family}_token"] = found
            figures[f"parameters_{family}"], figures[f"steps_{family}"] = size_and_steps(bound)
    others = max(figures[f"{family}_exact"] for family in FAMILIES if family != "writer")
    figures["lead"] = round(100 * (figures["writer_exact"] - others), 1)
    return figures


def main() -> int:
    """Measure and print; 0 when the target holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object, last")
    parser.add_argument("--base", default=DEFAULT_BASE)
    parser.add_argument("--minutes", type=float, default=20, help="of training, each family")
    parser.add_argument("--skills", type=int, default=40, help="held-out ones that are asked about")
    parser.add_argument("--rate", type=float, default=2e-3, help="learning rate of all three")
    arguments = parser.parse_args()
    base = find_base(arguments.base)
    with tempfile.TemporaryDirectory(prefix="skillc-families-") as scratch:
        figures = measure(base, arguments.minutes, arguments.skills, arguments.rate, Path(scratch))
    figures |= {"minutes": arguments.minutes, "skills": arguments.skills}
    print_figures("families", figures, TARGETS, as_json=arguments.json)
    return 0 if figures["lead"] >= TARGETS["lead"][1] else 1


if __name__ == "__main__":
    sys.exit(main())
