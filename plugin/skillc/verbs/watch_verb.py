"""`skillc watch`: build whenever a skill changes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from skillc.cli import Start
from skillc.project import Project

if TYPE_CHECKING:
    from skillc.watch import Watch


@click.command("watch")
@click.option("--poll", is_flag=True, help="Compare files twice a second; use no events.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def command(start: Start, *, poll: bool, as_json: bool) -> int:
    """Build whenever a skill changes.

    Runs until Ctrl-C. A change is built as soon as the files are at rest; every few seconds all
    files are read, so that nothing is missed where the system reports no changes.
    """
    from skillc.telling import teller
    from skillc.watch import Watch
    from skillc_compiler.families.interface import load_compiler

    project = Project.find(start.folder)
    with teller(as_json=as_json) as listener:
        watch = Watch(project.root, listener, load_compiler, polling=poll)
        stop_on_signals(watch)
        watch.run()
    return 0


def stop_on_signals(watch: Watch) -> None:
    """Let Ctrl-C and SIGTERM end the watch between builds; a second one ends it at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        default = signal.getsignal(number)

        def stop(signum: int, frame: object, default: object = default) -> None:
            watch.stop()
            signal.signal(signum, default)  # type: ignore[arg-type]

        signal.signal(number, stop)
