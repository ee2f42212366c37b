"""`skillc demo`: the example project, built, served and asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from skillc.demo import DemoReport


@click.command("demo")
@click.option(
    "--project",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Use the project in DIR, with a questions.json, instead of the example.",
)
@click.option("--all", "every", is_flag=True, help="Ask every question, not one a skill.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(project: Path | None, every: bool, as_json: bool) -> int:
    """Build and serve the example project and ask it questions.

    Each question is asked three times: with nothing, with the skill's text in the system message,
    and with the skill's adapter. Exit code 1 when no answer of an adapter obeys its skill.
    """
    from skillc.demo import run_demo

    report = run_demo(project, every=every, say=lambda line: click.echo(line, err=True))
    if as_json:
        click.echo(json.dumps(report.to_dict(), indent=2))
    else:
        print_report(report)
    return 0 if report.obeyed("adapter") else 1


def print_report(report: DemoReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from skillc.demo import ARMS

    table = Table(title="the same base, asked in three arms", title_justify="left")
    for name in ("skill", "arm", "answer", "obeyed"):
        table.add_column(name, overflow="fold")
    table.add_column("prompt tokens", justify="right")
    table.add_column("first token", justify="right")
    for one in report.asked:
        first = one.arm == ARMS[0]
        if first:
            asked = Text(one.question.ask, style="bold")
            table.add_row(one.question.skill, Text("asked"), asked, "", "", "", style="dim")
        table.add_row(
            "",
            one.arm if one.served_as in ("", one.arm) else f"{one.arm}, as {one.served_as}",
            Text(" ".join(one.answer.text.split())),
            "yes" if one.obeyed else "no",
            str(one.answer.prompt_tokens),
            f"{one.answer.first_token_s * 1000:.0f} ms",
            end_section=one.arm == ARMS[-1],
        )
    # Wide enough to read when the output is a file or a log.
    console = Console()
    Console(width=None if console.is_terminal else 120).print(table)
    for arm in ARMS:
        click.echo(
            f"{arm:8} {report.obeyed(arm)} of {len(report.of(arm))} obeyed, "
            f"{report.prompt_tokens(arm):.0f} prompt tokens on average, "
            f"{report.first_token_s(arm) * 1000:.0f} ms to the first token (median)"
        )
    click.echo(f"built in {report.build_seconds:.1f} s, all of it in {report.seconds:.1f} s")
