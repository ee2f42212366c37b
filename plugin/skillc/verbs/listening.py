"""The options of every verb that runs a server: where it listens and how large its engine is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from skillc_runtime.settings import DEFAULT_HOST, DEFAULT_PORT

_OPTIONS = (
    click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=DEFAULT_PORT,
        show_default=True,
        help="Port to listen on; 0 takes a free one.",
    ),
    click.option("--ctx", type=click.IntRange(64), metavar="N", help="Tokens of context."),
    click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of the engine."),
)


def listening(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --host, --port, --ctx and --threads, in this order."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
