"""`skillc show`: one skill, from its text to its adapter."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from skillc.cli import Start
from skillc.plan import check_names
from skillc.project import Project
from skillc.status import Status, project_status
from skillc_compiler.bases import find_base
from skillc_compiler.errors import BaseModelError, SkillError, StoreError


@click.command("show")
@click.argument("name", metavar="NAME")
@click.option("--source", is_flag=True, help="Print exactly the text that is compiled, no more.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(start: Start, name: str, *, source: bool, as_json: bool) -> int:
    """Show one skill: its text, adapter and verdict."""
    project = Project.find(start.folder)
    known = project_status(project, [])
    check_names([name], [status.name for status in known])
    status = next(status for status in known if status.name == name)
    if source:
        return print_source(status)
    record = describe(project, status)
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        for line in lines(record):
            click.echo(line)
    return 1 if status.state == "unreadable" else 0


def print_source(status: Status) -> int:
    if status.skill is None:
        raise SkillError(status.reason or f"{status.source}: is gone: run 'skillc build'")
    sys.stdout.flush()
    sys.stdout.buffer.write(status.skill.text.encode())
    return 0


def describe(project: Project, status: Status) -> dict[str, Any]:
    """Everything known of one skill, as plain JSON values."""
    record = status.to_dict()
    if status.skill is not None:
        record["description"] = status.skill.description
        record["tokens"] = count_tokens(project.settings.base, status.skill.text)
    record["probe"] = dict(status.locked.probe) if status.locked else {}
    record["manifest"] = read_manifest(project, status)
    return record


def count_tokens(base: str, text: str) -> int | None:
    """Tokens of `text` for the base; None when the base is not there to ask."""
    from skillc_compiler.gguf_base import read_tokenizer

    try:
        return len(read_tokenizer(find_base(base).gguf).encode(text).ids)
    except BaseModelError:
        return None


def read_manifest(project: Project, status: Status) -> dict[str, Any] | None:
    if status.locked is None:
        return None
    try:
        return project.store().open(status.locked.key).manifest.to_dict()
    except StoreError:
        return None


def lines(record: dict[str, Any]) -> list[str]:
    """The record for people: one line a fact, what is empty left out."""
    made = []
    for key, value in record.items():
        if key == "manifest" or value in (None, "", [], {}):
            continue
        if isinstance(value, list):
            made += [f"{key[:-1]:12} {one}" for one in value]
        elif isinstance(value, dict):
            made += [f"{key:12} {inner} = {number:.4g}" for inner, number in value.items()]
        else:
            made.append(f"{key:12} {value}")
    for key, value in (record["manifest"] or {}).items():
        if value not in (None, "", [], {}, ()) and key != "probe":
            shown = " ".join(value) if isinstance(value, list) else value
            made.append(f"manifest     {key} = {shown}")
    return made
