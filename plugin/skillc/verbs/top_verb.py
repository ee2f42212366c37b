"""`skillc top`: a live view of a running server."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import click

from skillc.top import Look, lines, look, view

DEFAULT_URL = "http://127.0.0.1:8191"


@click.command("top")
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Where the server listens.")
@click.option("--api-key", metavar="KEY", help="The server's key, if it asks for one.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--once", is_flag=True, help="Look once and print plain lines.")
def command(*, url: str, api_key: str | None, interval: float, once: bool) -> int:
    """Show what a running server does: requests, tokens, waiting times, skills.

    Live until Ctrl-C on a terminal, plain lines otherwise. Exit code 2 when no server answers.
    """
    url = url.rstrip("/").removesuffix("/v1")
    if once:
        click.echo("\n".join(lines(look(url, api_key))))
        return 0
    if sys.stdout.isatty():
        _live(url, api_key, interval)
    for number, (now, before) in enumerate(_looks(url, api_key, interval)):
        click.echo("\n".join([*([""] if number else []), *lines(now, before)]))
    return 0


def _looks(url: str, key: str | None, interval: float) -> Iterator[tuple[Look, Look | None]]:
    before = None
    while True:
        now = look(url, key)
        yield now, before
        before = now
        time.sleep(interval)


def _live(url: str, key: str | None, interval: float) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, screen=True) as live:
        for now, before in _looks(url, key, interval):
            live.update(view(now, before), refresh=True)
