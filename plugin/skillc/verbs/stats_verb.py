"""`skillc stats`: what a server's log says about tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TextIO

import click

from skillc.usage import Tally, read_usage
from skillc.verbs.list_verb import aligned
from skillc_compiler.errors import ProjectError

HEAD = ("REQUESTS", "PROMPT", "CACHED", "AS TEXT", "ELIDED", "CUT")


@click.command("stats")
@click.argument("log", type=click.File(encoding="utf-8", errors="replace"), default="-")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(log: TextIO, as_json: bool) -> int:
    """Say what a server's log shows: tokens that skills as text would have cost.

    LOG is what 'skillc serve --log 2> LOG' wrote; without it, standard input is read. PROMPT are
    the tokens of the prompts, AS TEXT those that the texts of the attached adapters would have
    added, CUT the share that this is of both. ELIDED were sent by a client and taken out.
    """
    usage = read_usage(log)
    if not usage.total.requests:
        raise ProjectError(f"{log.name}: no answers in it: is it from 'skillc serve --log'?")
    if as_json:
        click.echo(json.dumps(usage.to_dict(), indent=2))
        return 0
    for title, tallies in (("SESSION", usage.sessions), ("SKILL", usage.skills)):
        if tallies:
            show(title, tallies)
            click.echo()
    show("", {"all": usage.total})
    return 0


def show(title: str, tallies: Mapping[str, Tally]) -> None:
    rows: list[tuple[str, ...]] = [(title, *HEAD)]
    for name, one in tallies.items():
        counts = (one.requests, one.spent, one.cached, one.text, one.elided)
        rows.append((name, *map(str, counts), f"{one.cut:.0%}"))
    for line in aligned(rows):
        click.echo(line)
