"""`skillc doctor`: what is there and what is missing."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from skillc.cli import Start
from skillc.doctor import checks


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(start: Start, as_json: bool) -> int:
    """Check what skillc finds on this machine.

    Exit code 1 when something is missing without which nothing can be served.
    """
    found = list(checks(start.folder))
    if as_json:
        click.echo(json.dumps({"checks": [asdict(check) for check in found]}, indent=2))
    else:
        for check in found:
            mark = "ok  " if check.value is not None else "MISS" if check.needed else "-   "
            click.echo(f"{mark} {check.name:18} {check.value or check.reason}")
    return 1 if any(check.needed and check.value is None for check in found) else 0
