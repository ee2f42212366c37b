"""`skillc compiler`: give a base a compiler, published or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from skillc.cli import Start
from skillc.project import Project
from skillc_compiler.bases import DEFAULT_BASE, Base, find_base
from skillc_compiler.errors import CompilerError, ProjectError

if TYPE_CHECKING:
    from skillc_compiler.published.convert import Imported

# The keys of skillc_compiler.published.convert.SOURCES, which imports torch.
SOURCES = ("latentskill", "shine", "parametricskills", "doc2lora")


@click.group("compiler")
def command() -> None:
    """Give a base a compiler: a published one, or none but gradient steps."""


@command.command("import")
@click.argument("checkpoint", metavar="DIR", type=click.Path(path_type=Path, exists=True))
@click.option("--from", "source", required=True, type=click.Choice(SOURCES), help="What DIR holds.")
@click.option("--base", "name", metavar="NAME", help="Base it was made for.  [default: project's]")
@click.option("--heads", type=click.IntRange(1), help="Attention heads, if not of width 128.")
@click.option(
    "--gain",
    type=click.FloatRange(0, min_open=True),
    help="Factor of every adapter; for doc2lora of A and of B, as published.  [default: 1]",
)
@click.option("--context", type=click.IntRange(1), help="Tokens read at once.  [default: 4096]")
@click.option("--chunk", type=click.IntRange(1), help="doc2lora: tokens a chunk.  [default: 512]")
@click.option("--truncate", is_flag=True, help="Drop what is longer than --context.")
@click.option("--force", is_flag=True, help="Replace the compiler that the base has.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def bring_in(
    start: Start,
    *,
    checkpoint: Path,
    source: str,
    name: str | None,
    heads: int | None,
    gain: float | None,
    context: int | None,
    chunk: int | None,
    truncate: bool,
    force: bool,
    as_json: bool,
) -> int:
    """Convert a published hypernetwork into the compiler of a base.

    Reads the checkpoint in DIR (or the only one below it) without running anything in it, checks
    every tensor against the base, and writes compiler.safetensors and compiler.json beside it.
    """
    base = base_for(start, name)
    chosen = {
        "scaling" if source == "doc2lora" else "gain": gain,
        "context": context,
        "chunk": chunk,
        "long": "truncate" if truncate else None,
    }
    changes = {key: value for key, value in chosen.items() if value is not None}
    wrong = {"chunk"} if source != "doc2lora" else {"context", "long"}
    if bad := wrong & changes.keys():
        option = {"long": "--truncate"}.get(
            bad.pop(), "--chunk" if "chunk" in wrong else "--context"
        )
        raise click.UsageError(f"{option} has no meaning with --from {source}")
    made = convert(source, checkpoint, base, heads=heads, changes=changes, force=force)
    if as_json:
        record = {
            "family": made.family,
            "base": base.name,
            "parameters": made.parameters,
            "settings": dict(made.settings),
            "remarks": list(made.remarks),
        }
        click.echo(json.dumps(record, indent=2, sort_keys=True))
    else:
        for remark in made.remarks:
            click.echo(f"warning: {remark}", err=True)
        click.echo(
            f"{source}: {made.parameters / 1e6:.1f}M weights of family {made.family} for base"
            f" {base.name}, rank {made.settings['rank']}, in {made.folder}"
        )
    return 0


@command.command("distill")
@click.option("--base", "name", metavar="NAME", help="The base.  [default: the project's]")
@click.option(
    "--targets",
    metavar="LIST",
    help="Modules that are adapted, such as q_proj,o_proj,down_proj."
    "  [default: o_proj,gate_proj,up_proj,down_proj]",
)
@click.option("--steps", type=click.IntRange(1), help="At most so many steps.  [default: 240]")
@click.option("--batch", type=click.IntRange(1), help="Questions a step.  [default: 8]")
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    help="Learning rate.  [default: 0.002]",
)
@click.option("--questions", type=click.IntRange(1), help="Questions a skill.  [default: 48]")
@click.option("--top-k", type=click.IntRange(1), help="Logits kept a token.  [default: 16]")
@click.option("--force", is_flag=True, help="Replace the compiler that the base has.")
@click.pass_obj
def distill(
    start: Start, /, *, name: str | None, targets: str | None, force: bool, **chosen: Any
) -> int:
    """Learn each skill by gradient steps, on a base that has no hypernetwork.

    From then on 'skillc build' distils: the base answers questions about a skill with the text in
    its prompt, and an adapter learns to answer alike without. Seconds a skill on a small base, many
    minutes on one of billions of parameters.
    """
    from skillc_compiler.families.distill_settings import DistillConfig, bind, full_names

    settings = {key: value for key, value in chosen.items() if value is not None}
    if targets is not None:
        settings["targets"] = full_names([part.strip() for part in targets.split(",")])
    base = base_for(start, name)
    folder = bind(base, DistillConfig.from_dict(settings), force=force)
    click.echo(f"base {base.name} is compiled by distillation now; settings in {folder}")
    return 0


@command.command("calibrate")
@click.option("--base", "name", metavar="NAME", help="The base.  [default: the project's]")
@click.option(
    "--skills",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Generated validation skills.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=20,
    show_default=True,
    help="End the search after so many.",
)
@click.option(
    "--flips",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Share of tokens that may change on unrelated prompts.",
)
@click.option("--force", is_flag=True, help="Replace the compiler that the base has.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def calibrate(
    start: Start,
    /,
    *,
    name: str | None,
    skills: int,
    minutes: float,
    flips: float,
    force: bool,
    as_json: bool,
) -> int:
    """Find layers, gain and rank of an untrained writer for a base.

    An untrained writer is one step of the gradient on a skill's text. The best setting on generated
    validation skills becomes the base's compiler. Exit code 1, and nothing written, when no setting
    answers better than the base alone.
    """
    try:
        from skillc_compiler.families import calibrate as search
    except ImportError as error:
        raise missing(error) from error

    def note(trial: search.Trial) -> None:
        sites = ",".join(map(str, trial.sites))
        click.echo(
            f"layers {sites} gain {trial.gain:g} rank {trial.rank}: right {trial.right:.3f},"
            f" changed {trial.flips:.3f}",
            err=True,
        )

    base = base_for(start, name)
    found = search.calibrate(
        base, skills=skills, minutes=minutes, most_flips=flips, force=force, note=note
    )
    if as_json:
        click.echo(json.dumps({"base": base.name, **found.to_dict()}, indent=2, sort_keys=True))
    else:
        click.echo(search.settings_line(found))
        if found.helps:
            click.echo(f"written to {found.folder}; put rank = {found.best.rank} in skillc.toml")
        else:
            click.echo("that is no better than the base alone: nothing written; try distill")
    return 0 if found.helps else 1


def convert(source: str, checkpoint: Path, base: Base, **options: Any) -> Imported:
    try:
        from skillc_compiler.published.convert import import_compiler
    except ImportError as error:
        raise missing(error) from error
    return import_compiler(source, checkpoint, base, **options)


def missing(error: ImportError) -> CompilerError:
    return CompilerError(
        f"{error.name or 'torch'} is not installed: pip install 'skillc[compiler]'"
    )


def base_for(start: Start, name: str | None) -> Base:
    """The base asked for, else the project's."""
    if name is None:
        try:
            name = Project.find(start.folder).settings.base
        except ProjectError:
            name = DEFAULT_BASE
    return find_base(name)
