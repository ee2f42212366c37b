"""Recipes for a writer on a base that stays as it is: one TOML file, every key with a default."""

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

DEFAULT = "writer"
Part = TypeVar("Part")


@dataclass(frozen=True)
class Shape:
    """The writer's network: its sites (none: spread over the base), sizes, and first gain."""

    sites: tuple[int, ...]
    width: int
    blocks: int
    heads: int
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
    writer: Shape
    data: Data
    loss: Loss
    schedule: Schedule

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        found = asdict(self)
        found["writer"]["sites"] = list(self.writer.sites)
        found["data"]["facts"] = list(self.data.facts)
        return found


def load_recipe(name: str = DEFAULT) -> Recipe:
    """A shipped recipe by name, or any TOML file by path over the shipped one's values."""
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
            if section not in values or not isinstance(changes, dict):
                raise CompilerError(f"{path}: no section [{section}] in a writer's recipe")
            values[section] |= changes
    recipe = Recipe(
        Path(name).stem,
        _part(Shape, name, "writer", values),
        _part(Data, name, "data", values),
        _part(Loss, name, "loss", values),
        _part(Schedule, name, "schedule", values),
    )
    _check(recipe)
    return recipe


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
    data, shape, schedule = recipe.data, recipe.writer, recipe.schedule
    counts = {
        "skills": data.skills,
        "questions": data.questions,
        "steps": schedule.steps,
        "warmup": schedule.warmup,
        "save_every": schedule.save_every,
        "check_every": schedule.check_every,
        "top_k": recipe.loss.top_k,
        "heads": shape.heads,
    }
    for key, value in counts.items():
        if not isinstance(value, int) or value < 1:
            raise CompilerError(f"recipe {recipe.name}: {key} must be a whole number of 1 or more")
    if shape.width % (2 * shape.heads):
        raise CompilerError(f"recipe {recipe.name}: width must be a multiple of twice the heads")
    if data.max_skill < 32:
        raise CompilerError(f"recipe {recipe.name}: max_skill must be 32 or more")
    if len(data.facts) != 2 or not 1 <= data.facts[0] <= data.facts[1]:
        raise CompilerError(
            f"recipe {recipe.name}: facts must be the least and the most, as [2, 8]"
        )
