"""`skillc add`: take in an adapter that was trained elsewhere."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from skillc.cli import Start
from skillc.project import Project


@click.command("add")
@click.option(
    "--adapter",
    required=True,
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A PEFT folder, or a LoRA as GGUF.",
)
@click.option("--skill", "name", required=True, metavar="NAME", help="The skill it is for.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(start: Start, *, adapter: Path, name: str, as_json: bool) -> int:
    """Serve a skill by an adapter that was trained elsewhere.

    The adapter is checked against the project's base and locked as foreign: 'skillc build' leaves
    it alone until it is asked to compile this skill with --force NAME.
    """
    from skillc.foreign import add_foreign

    added = add_foreign(Project.find(start.folder), adapter, name)
    if as_json:
        click.echo(json.dumps(asdict(added), indent=2))
        return 0
    for warning in added.warnings:
        click.echo(f"warning: {warning}", err=True)
    size = f"{added.size / 1024:.0f} KiB"
    click.echo(f"added {name}: rank {added.rank}, {added.modules} modules, {size}, foreign")
    return 0
