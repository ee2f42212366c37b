"""`skillc train`: hands over to the trainer of skillc_compiler."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from skillc_compiler.bases import find_base
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
    ):
        function = option(function)
    return function


@command.command("base")
@options
@click.option(
    "--recipe",
    default="nano",
    show_default=True,
    metavar="NAME",
    help="A shipped recipe, or the path of a TOML file.",
)
def base(*, recipe: str, out: Path, texts: tuple[Path, ...], minutes: float, seed: int) -> int:
    """Train the base model of a recipe from scratch."""
    trainer().train_base(recipe, out, texts=texts, seed=seed, minutes=minutes)
    return 0


@command.command("compiler")
@options
@click.option(
    "--base",
    "name",
    metavar="NAME",
    help="Train for this base, which stays as it is.  [default: a recipe's own base]",
)
@click.option(
    "--family",
    type=click.Choice(["writer", "m2p", "perceiver"]),
    help="With --base: which kind of compiler.  [default: the recipe's, or writer]",
)
@click.option(
    "--recipe",
    metavar="NAME",
    help="A shipped recipe, or the path of a TOML file.  [default: nano; with --base: frozen;"
    " with --start: nano-more]",
)
@click.option(
    "--start",
    metavar="NAME",
    help="Go on from this base and its compiler, both of which are trained.",
)
def compiler(
    *,
    name: str | None,
    family: str | None,
    recipe: str | None,
    start: str | None,
    out: Path,
    texts: tuple[Path, ...],
    minutes: float,
    seed: int,
) -> int:
    """Train a compiler: a recipe's, jointly with its base, or one for any base.

    Without --base it goes on from the base that `train base` left in DIR, or with --start from a
    finished pair such as `nano`. With it the base is
    frozen; 'accelerate launch -m skillc train compiler --base NAME ...' trains on several devices.
    """
    options: dict[str, Any] = {"texts": texts, "seed": seed, "minutes": minutes}
    if start is not None:
        if name is not None or family is not None:
            raise click.UsageError("--start has no meaning with --base or --family")
        options["start"] = find_base(start)
        trainer().train_compiler(recipe or "nano-more", out, **options)
    elif name is not None:
        base_trainer().train_compiler(name, recipe or "frozen", out, family=family, **options)
    elif family is not None:
        raise click.UsageError("--family has no meaning without --base")
    else:
        trainer().train_compiler(recipe or "nano", out, **options)
    return 0


@command.command("export")
@click.option("--base", "name", metavar="NAME", help="The base that DIR was trained for.")
@click.option("--recipe", metavar="NAME", help="The recipe, without --base.  [default: nano]")
@click.option("--force", is_flag=True, help="With --base: replace the compiler that it has.")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of the checkpoints.",
)
def export(*, name: str | None, recipe: str | None, force: bool, out: Path) -> int:
    """Turn what was trained into what is used.

    With --base the result becomes that base's compiler. Without, base.gguf and the compiler's files
    go to DIR/export, as `train compiler` does at its end; copied to $SKILLC_HOME/bases/NAME/ they
    are a base that build and serve find by its name.
    """
    if name is not None:
        if recipe is not None:
            raise click.UsageError("--recipe has no meaning with --base: DIR knows its recipe")
        base_trainer().export_compiler(name, out, force=force)
    elif force:
        raise click.UsageError("--force has no meaning without --base")
    else:
        trainer().export_pair(recipe or "nano", out)
    return 0


@command.command("mean")
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    metavar="RUN...",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
)
@click.option("--recipe", default="nano-more", show_default=True, metavar="NAME")
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the result.",
)
def mean(*, runs: tuple[Path, ...], recipe: str, out: Path) -> int:
    """Average the weights of finished runs.

    Each RUN is the --out of a `train compiler` that went on from the same pair, with another seed
    or other data. What ships goes to DIR/export.
    """
    trainer().train_mean(runs, recipe, out)
    return 0


def trainer() -> Any:
    """The trainer of a recipe's pair; CompilerError without torch."""
    return needing_torch("skillc_compiler.train.cli")


def base_trainer() -> Any:
    """The trainer of compilers for any base; CompilerError without torch."""
    return needing_torch("skillc_compiler.train_base.cli")


def needing_torch(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise CompilerError(
            f"{error.name or 'torch'} is not installed: pip install 'skillc[compiler]'"
        ) from error
