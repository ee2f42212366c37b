"""Recipes for a compiler of a frozen base: one TOML file, every key with a default."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from skillc_compiler.errors import CompilerError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = "frozen"
FAMILIES = ("writer", "m2p", "perceiver")
Part = TypeVar("Part")


@dataclass(frozen=True)
class WriterShape:
    """The writer's network: its sites (none: spread over the base), sizes, and first gain."""

    sites: tuple[int, ...]
    width: int
    blocks: int
    heads: int
    gain: float


@dataclass(frozen=True)
class M2PShape:
    """The memory-to-parameter network; `widening` is the feed-forward width over the base's."""

    rank: int
    meta_rank: int
    blocks: int
    heads: int
    widening: int
    scale: float


@dataclass(frozen=True)
class PerceiverShape:
    """The perceiver's network; `gain` multiplies the published scale of its updates."""

    rank: int
    latent: int
    queries: int
    encoder_blocks: int
    heads: int
    kv_heads: int
    head_dim: int
    residual_blocks: int
    chunk: int
    gain: float


@dataclass(frozen=True)
class Data:
    """What one step is made of; `skills` counts those of all processes."""

    skills: int
    facts: tuple[int, int]
    questions: int
    max_skill: int
    recite: int
    real: float


@dataclass(frozen=True)
class Loss:
    """Weights of the parts of a skill's loss; `top_k` of the teacher's tokens are kept."""

    answer: float
    entry: float
    teacher: float
    top_k: int
    recite: float
    quiet: float


@dataclass(frozen=True)
class Schedule:
    """Steps, the learning rate's course, and how often is saved and validated."""

    steps: int
    rate: float
    warmup: int
    decay: float
    clip: float
    weight_decay: float
    save_every: int
    check_every: int
    check_skills: int


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, besides its base, its texts and its seed."""

    name: str
    family: str
    writer: WriterShape
    m2p: M2PShape
    perceiver: PerceiverShape
    data: Data
    loss: Loss
    schedule: Schedule

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; of the families only the one that is trained."""
        found = asdict(self)
        found["writer"]["sites"] = list(self.writer.sites)
        found["data"]["facts"] = list(self.data.facts)
        return {k: v for k, v in found.items() if k not in FAMILIES or k == self.family}


def load_recipe(name: str = DEFAULT, family: str | None = None) -> Recipe:
    """A shipped recipe by name, or any TOML file by path over the shipped one's values.

    `family` goes before the one that the recipe names. Raises CompilerError.
    """
    shipped = resources.files("skillc_compiler.train_base") / "recipes" / f"{DEFAULT}.toml"
    values = tomllib.loads(shipped.read_text(encoding="utf-8"))
    if name != DEFAULT:
        path = Path(name)
        if path.suffix != ".toml" or not path.is_file():
            raise CompilerError(
                f"no recipe {name!r} for a base: the shipped one is {DEFAULT!r},"
                " or give a TOML file"
            )
        try:
            own = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise CompilerError(f"{path}: {error}") from error
        for section, changes in own.items():
            if section == "family":
                values["family"] = changes
                continue
            if section not in values or not isinstance(changes, dict):
                raise CompilerError(f"{path}: no section [{section}] in such a recipe")
            values[section] |= changes
    recipe = Recipe(
        Path(name).stem,
        _family(name, family or values["family"]),
        _part(WriterShape, name, "writer", values),
        _part(M2PShape, name, "m2p", values),
        _part(PerceiverShape, name, "perceiver", values),
        _part(Data, name, "data", values),
        _part(Loss, name, "loss", values),
        _part(Schedule, name, "schedule", values),
    )
    _check(recipe)
    return recipe


def _family(name: str, family: object) -> str:
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CompilerError(f"recipe {name}: family {family!r} cannot be trained, only {known}")
    return family


def _part(kind: type[Part], name: str, section: str, values: dict[str, Any]) -> Part:
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in values[section].items()}
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(given) - known):
        raise CompilerError(f"recipe {name}: no key {unknown[0]!r} in [{section}]")
    for key, value in given.items():
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if not plain and not isinstance(value, tuple):
            raise CompilerError(f"recipe {name}: {key} in [{section}] must be a number")
    return kind(**given)


def _check(recipe: Recipe) -> None:
    data, schedule = recipe.data, recipe.schedule
    counts = {
        "skills": data.skills,
        "questions": data.questions,
        "steps": schedule.steps,
        "warmup": schedule.warmup,
        "save_every": schedule.save_every,
        "check_every": schedule.check_every,
        "top_k": recipe.loss.top_k,
        **_counts(recipe),
    }
    for key, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise CompilerError(f"recipe {recipe.name}: {key} must be a whole number of 1 or more")
    if recipe.writer.width % (2 * recipe.writer.heads):
        raise CompilerError(f"recipe {recipe.name}: width must be a multiple of twice the heads")
    if recipe.perceiver.heads % recipe.perceiver.kv_heads:
        raise CompilerError(f"recipe {recipe.name}: heads must be a multiple of kv_heads")
    if data.max_skill < 32:
        raise CompilerError(f"recipe {recipe.name}: max_skill must be 32 or more")
    if len(data.facts) != 2 or not 1 <= data.facts[0] <= data.facts[1]:
        raise CompilerError(
            f"recipe {recipe.name}: facts must be the least and the most, as [2, 8]"
        )


def _counts(recipe: Recipe) -> dict[str, object]:
    """The sizes of the families' networks: whole numbers all of them."""
    found: dict[str, object] = {}
    for family in FAMILIES:
        found |= {
            f"{key} in [{family}]": value
            for key, value in asdict(getattr(recipe, family)).items()
            if key not in ("sites", "gain", "scale")
        }
    return found
