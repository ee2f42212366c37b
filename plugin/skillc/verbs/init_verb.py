"""`skillc init`: make a folder a project."""

from __future__ import annotations

import re
from pathlib import Path

import click

from skillc.cli import Start
from skillc.project import SKILLS_FOLDER, Project
from skillc.settings import SETTINGS_FILE, TEMPLATE, has_tool_table
from skillc.verbs.init_opencode import command as opencode
from skillc_compiler.errors import ProjectError

STARTER = """\
---
name: {name}
description: What this skill is about, and when to use it. One or two sentences.
---

# {name}

- Run the quick checks: `make check`
"""


@click.group("init", invoke_without_command=True)
@click.option("--skill", "name", metavar="NAME", help="Also start a skill called NAME.")
@click.pass_context
def command(ctx: click.Context, name: str | None) -> int:
    """Make this folder a skillc project.

    Writes .skills/ and skillc.toml and touches nothing that is already there. With 'opencode' it
    makes OpenCode use the project's skills instead.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    start = ctx.find_object(Start)
    assert start is not None
    root = start.folder.resolve()
    for line in make(root, name):
        click.echo(line)
    if not list((root / SKILLS_FOLDER).glob("*/SKILL.md")):
        click.echo("next: put a SKILL.md under .skills/NAME/, then run 'skillc build'")
    else:
        click.echo("next: run 'skillc build'")
    return 0


command.add_command(opencode)


def make(root: Path, name: str | None) -> list[str]:
    """Write what is missing of a project at `root`; returns one line for each thing written."""
    done = []
    if name is not None and not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ProjectError(f"'{name}' is no skill name: use lower-case letters, digits and '-'")
    skills = root / SKILLS_FOLDER
    if not skills.is_dir():
        skills.mkdir()
        done.append(f"made {SKILLS_FOLDER}/")
    settings = root / SETTINGS_FILE
    if not settings.exists() and not has_tool_table(root):
        settings.write_text(TEMPLATE, "utf-8")
        done.append(f"wrote {SETTINGS_FILE}")
    Project.at(root).make_state()
    if name is not None:
        path = skills / name / "SKILL.md"
        if path.exists():
            raise ProjectError(f"{path.relative_to(root)} exists already: edit it instead")
        path.parent.mkdir(exist_ok=True)
        path.write_text(STARTER.format(name=name), "utf-8")
        done.append(f"wrote {path.relative_to(root)}")
    return done or [f"{root} is a skillc project already"]
