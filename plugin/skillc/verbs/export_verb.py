"""`skillc export`: a built skill for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from skillc.cli import Start
from skillc.project import Project

TO = ("peft", "gguf", "vllm", "lorax", "ollama", "merged")


@click.command("export")
@click.argument("name", metavar="NAME")
@click.option("--to", required=True, type=click.Choice(TO), help="The program it is for.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write; NAME-TO without it.",
)
@click.option("--force", is_flag=True, help="Write into a folder that has files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(
    start: Start, *, name: str, to: str, out: Path | None, force: bool, as_json: bool
) -> int:
    """Write a built skill's adapter for another program, and print the commands it needs.

    peft: a PEFT folder. gguf: a LoRA for llama.cpp. vllm, lorax: a PEFT folder of one rank. ollama:
    a Modelfile. merged: the base with the adapter in its weights, as one GGUF.
    """
    from skillc.export import export

    folder = start.folder / (out or f"{name}-{to}")
    done = export(Project.find(start.folder), name, to, folder, force=force)
    if as_json:
        record = {
            "folder": str(done.folder),
            "files": done.files,
            "commands": done.commands,
            "notes": done.notes,
        }
        click.echo(json.dumps(record, indent=2))
        return 0
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"wrote {done.folder}: {', '.join(done.files)}", err=True)
    for line in done.commands:
        click.echo(line)
    return 0
