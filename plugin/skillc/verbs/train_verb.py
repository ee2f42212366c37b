"""`skillc train`: hands over to the trainer of skillc_compiler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from skillc_compiler.errors import CompilerError


@click.group("train")
def command() -> None:
    """Train a base or a compiler.

    Both write checkpoints into --out and go on from there when they are started again.
    """


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that both stages take."""
    for option in (
        click.option("--seed", type=int, default=0, show_default=True, help="Seed of the data."),
        click.option(
            "--minutes",
            type=click.FloatRange(min=0),
            default=0.0,
            help="Stop after so many minutes with a checkpoint; 0 runs to the recipe's end.",
        ),
        click.option(
            "--texts",
            multiple=True,
            metavar="FILE",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="Real texts to mix in, as JSON lines (.jsonl, .jsonl.xz); may be repeated.",
        ),
        click.option(
            "--out",
            required=True,
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the checkpoints and of the result.",
        ),
        click.option(
            "--recipe",
            default="nano",
            show_default=True,
            metavar="NAME",
            help="A shipped recipe, or the path of a TOML file.",
        ),
    ):
        function = option(function)
    return function


@command.command("base")
@options
def base(*, recipe: str, out: Path, texts: tuple[Path, ...], minutes: float, seed: int) -> int:
    """Train the base model of a recipe from scratch."""
    trainer().train_base(recipe, out, texts=texts, seed=seed, minutes=minutes)
    return 0


@command.command("compiler")
@options
def compiler(*, recipe: str, out: Path, texts: tuple[Path, ...], minutes: float, seed: int) -> int:
    """Train the compiler of a recipe, with the base that `train base` left in DIR."""
    trainer().train_compiler(recipe, out, texts=texts, seed=seed, minutes=minutes)
    return 0


@command.command("export")
@click.option("--recipe", default="nano", show_default=True, metavar="NAME")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the checkpoints.",
)
def export(*, recipe: str, out: Path) -> int:
    """Write base.gguf and the compiler's files to DIR/export, as `train compiler` does at its end.

    Copied to $SKILLC_HOME/bases/NAME/ they are a base that build and serve find by its name.
    """
    trainer().export_pair(recipe, out)
    return 0


def trainer() -> Any:
    """The trainer's module; CompilerError without torch."""
    try:
        from skillc_compiler.train import cli
    except ImportError as error:
        raise CompilerError(
            f"{error.name or 'torch'} is not installed: pip install 'skillc[compiler]'"
        ) from error
    return cli
