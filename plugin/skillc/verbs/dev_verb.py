"""`skillc dev`: watch and serve in one terminal."""

from __future__ import annotations

import signal
import threading

import click

from skillc.cli import Start
from skillc.project import Project
from skillc.serve import announcement
from skillc.verbs.listening import listening
from skillc_compiler.bases import find_base
from skillc_runtime.settings import ServeSettings


@click.command("dev")
@listening
@click.option("--api-key", metavar="KEY", help="Key that clients must send; needed on other hosts.")
@click.option("--poll", is_flag=True, help="Compare files twice a second; use no events.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_obj
def command(
    start: Start,
    *,
    host: str,
    port: int,
    ctx: int | None,
    threads: int | None,
    api_key: str | None,
    poll: bool,
    as_json: bool,
) -> int:
    """Watch and serve: save a skill and the running model knows it.

    Serves like 'skillc serve' and builds like 'skillc watch', in one terminal, until Ctrl-C. An
    adapter that is being replaced answers until the new one is checked.
    """
    from skillc.dev import dev
    from skillc.telling import Json, teller
    from skillc_compiler.families.interface import load_compiler

    project = Project.find(start.folder)
    base = find_base(project.settings.base)
    settings = ServeSettings(
        base=base.gguf,
        name=base.name,
        project=project.root,
        host=host,
        port=port,
        token=api_key,
        n_ctx=ctx,
        n_threads=threads,
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with teller(as_json=as_json) as listener:

        def ready(url: str) -> None:
            if isinstance(listener, Json):
                listener.event("serving", url=url)
                return
            for line in announcement(url, base.name, project):
                click.echo(line)

        dev(project.root, settings, listener, load_compiler, stop, polling=poll, on_ready=ready)
    return 0
