"""Training recipes: one TOML file a size, shipped with the package or given by path."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from skillc_compiler.errors import CompilerError
from skillc_compiler.families.writer_net import WriterConfig
from skillc_compiler.train.nano import NanoConfig
from skillc_compiler.train.packing import Weights

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class DataConfig:
    """What one step is made of."""

    skills: int
    facts: tuple[int, int]
    questions: int
    in_text: int
    filler: float
    tools: float
    outside: float
    chat: float
    max_skill: int
    none: float
    wrong: float
    sets: float
    system: float
    real: float
    slim: float = 0.0
    drill: float = 0.0
    tail: float = 0.0
    ranks: tuple[int, ...] = (0,)
    idle: int = 0
    lookup: float = 0.0
    inverted: float = 0.0
    match: int = 0
    others: float = 0.35
    drill_tokens: int = 6000


@dataclass(frozen=True)
class Stage:
    """Steps, learning rates (Muon's and AdamW's) and the decaying share of one stage.

    `data` and `weights` are the recipe's, as far as the stage has no values of its own.
    """

    steps: int
    lr: float
    adam_lr: float
    decay: float
    data: DataConfig
    weights: Weights
    adapter_weight: float = 1.0
    text_weight: float = 1.0
    idle_weight: float = 0.0  # of the KL to the bare base on unrelated texts
    teach_weight: float = 0.0  # of the KL to the text arm's answers
    match_weight: float = 0.0  # of telling lines apart (see `train.match`)
    look_weight: float = 0.0  # of attending to what is answered (see `train.lookups`)
    drills: int = 0  # its first steps, which are drills (see `train.drill`)
    observe: bool = True  # whether the writer's statistics of its inputs move
    grow: float = 0.0  # share of the steps after them in which documents grow to their full size


@dataclass(frozen=True)
class Schedule:
    """Warm-up steps, the growth of documents, and the optimiser's constants."""

    warmup: int
    curriculum: float
    clip: float
    weight_decay: float


@dataclass(frozen=True)
class Matchers:
    """What is taught to tell lines apart (see `train.match`).

    heads: (layer, head) pairs of the base; sites: layers at which the writer writes.
    """

    heads: tuple[tuple[int, int], ...]
    sites: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, besides its seed.

    name: the base's; title: the recipe's own.
    """

    name: str
    title: str
    base: NanoConfig
    writer: WriterConfig
    matchers: Matchers
    copy: Stage
    drill: Stage
    lookup: Stage
    text: Stage
    joint: Stage
    schedule: Schedule


def load_recipe(name: str) -> Recipe:
    """Read a shipped recipe by name, or any TOML file by path.

    One with `extends = NAME` has only what differs from the recipe of that name. `name` is that of
    the base which it trains, if the file's is another.
    """
    try:
        values = _values(name)
        title = Path(name).stem
        return _recipe(values.pop("name", title), title, values)
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise CompilerError(f"recipe {name}: {error}") from error


def _values(name: str) -> dict[str, Any]:
    values = tomllib.loads(_text(name))
    extended = values.pop("extends", None)
    return values if extended is None else _merged(_values(extended), values)


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    tables = {
        key: _merged(old[key], value)
        for key, value in new.items()
        if isinstance(value, dict) and key in old
    }
    return {**old, **new, **tables}


def _text(name: str) -> str:
    path = Path(name)
    if path.suffix == ".toml":
        if not path.is_file():
            raise CompilerError(f"no recipe at {path}: give the path of a TOML file")
        return path.read_text(encoding="utf-8")
    source = resources.files("skillc_compiler.train") / "recipes" / f"{name}.toml"
    if not source.is_file():
        raise CompilerError(f"no recipe named {name!r}: shipped are `nano` and `nano-more`")
    return source.read_text(encoding="utf-8")


def _recipe(name: str, title: str, values: dict[str, Any]) -> Recipe:
    base = NanoConfig(**values["base"])
    writer = WriterConfig(
        hidden=base.hidden_size,
        inner=base.intermediate_size,
        layers=base.num_hidden_layers,
        vocab=base.vocab_size,
        **{**values["writer"], "sites": tuple(values["writer"]["sites"])},
    )
    return Recipe(
        name=name,
        title=title,
        base=base,
        writer=writer,
        matchers=_matchers(values["matchers"], base, writer),
        copy=_stage(values, "copy"),
        drill=_stage(values, "drill"),
        lookup=_stage(values, "lookup"),
        text=_stage(values, "text"),
        joint=_stage(values, "joint"),
        schedule=Schedule(**values["schedule"]),
    )


def _matchers(values: dict[str, Any], base: NanoConfig, writer: WriterConfig) -> Matchers:
    heads = tuple(tuple(pair) for pair in values["heads"])
    sites = tuple(values["sites"])
    layers, width = range(base.num_hidden_layers), range(base.num_attention_heads)
    for pair in heads:
        if len(pair) != 2 or pair[0] not in layers or pair[1] not in width:
            raise KeyError(f"heads in [matchers]: the base has no layer and head {list(pair)}")
    if not heads or not sites or not set(sites) <= set(writer.sites):
        raise KeyError("[matchers] needs heads, and sites that [writer] has")
    return Matchers(heads, sites)


def _stage(values: dict[str, Any], name: str) -> Stage:
    own = dict(values[name])
    data = {**values["data"], **own.pop("data", {})}
    unknown = set(data) - {field.name for field in fields(DataConfig)}
    if unknown:
        raise KeyError(f"unknown keys in [data]: {', '.join(sorted(unknown))}")
    data |= {key: tuple(data[key]) for key in ("facts", "ranks") if key in data}
    weights = Weights(**{**values.get("weights", {}), **own.pop("weights", {})})
    return Stage(**own, data=DataConfig(**data), weights=weights)
