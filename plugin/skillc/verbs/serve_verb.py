"""`skillc serve`: the base and the built skills over HTTP."""

from __future__ import annotations

import click

from skillc.cli import Start
from skillc.project import Project
from skillc.serve import announcement, stale_lines
from skillc.upstream import serve_front
from skillc.verbs.listening import listening
from skillc_compiler.bases import find_base
from skillc_compiler.errors import ProjectError
from skillc_runtime.settings import ServeSettings


@click.command("serve")
@listening
@click.option("--base", "name", metavar="NAME", help="The base, over the project's setting.")
@click.option("--api-key", metavar="KEY", help="Key that clients must send; needed on other hosts.")
@click.option(
    "--engines",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that answer, each with the base, a cache and --threads of its own.",
)
@click.option("--log", is_flag=True, help="Write a line of JSON to stderr for each request.")
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="The most a request may take; it may ask for less.",
)
@click.option(
    "--lora-loading",
    is_flag=True,
    help="Let clients load and unload adapters of the project's store (vLLM's endpoints).",
)
@click.option(
    "--upstream",
    metavar="URL",
    help="Let this vLLM server, which serves the same base, compute the answers.",
)
@click.option("--upstream-model", metavar="NAME", help="What the upstream calls the base.")
@click.option("--upstream-key", metavar="KEY", help="Key that the upstream asks for.")
@click.pass_obj
def command(
    start: Start,
    *,
    host: str,
    port: int,
    ctx: int | None,
    threads: int | None,
    name: str | None,
    api_key: str | None,
    engines: int,
    log: bool,
    deadline: float | None,
    lora_loading: bool,
    upstream: str | None,
    upstream_model: str | None,
    upstream_key: str | None,
) -> int:
    """Serve the base with the built skills over the OpenAI API.

    Runs until Ctrl-C. A later 'skillc build' is picked up without a restart. With --base it also
    runs outside a project, without skills. With --upstream no base is loaded here: skills are
    resolved and their texts elided, and the upstream answers with their adapters.
    """
    project = find_project(start, name)
    base = find_base(name or (project.settings.base if project else ""))
    for line in stale_lines(project) if project else ():
        click.echo(f"warning: {line}", err=True)
    if upstream is not None:
        given = (ctx, threads, deadline)
        if any(one is not None for one in given) or engines > 1 or log or lora_loading:
            raise click.UsageError(
                "--ctx, --threads, --engines, --deadline, --lora-loading and --log"
                " are for the own engine"
            )
        serve_front(
            project,
            base,
            upstream,
            model=upstream_model,
            key=upstream_key,
            host=host,
            port=port,
            token=api_key,
            say=click.echo,
        )
        return 0
    settings = ServeSettings(
        base=base.gguf,
        name=base.name,
        project=project.root if project else None,
        host=host,
        port=port,
        token=api_key,
        n_ctx=ctx,
        n_threads=threads,
        engines=engines,
        deadline=deadline,
        lora_loading=lora_loading,
        log=(lambda line: click.echo(line, err=True)) if log else None,
    )

    def ready(url: str) -> None:
        click.echo("\n".join(announcement(url, base.name, project)))

    from skillc_runtime.server import serve

    serve(settings, ready)
    return 0


def find_project(start: Start, base: str | None) -> Project | None:
    """The project, or None when there is none and a base was named."""
    try:
        return Project.find(start.folder)
    except ProjectError:
        if base is None:
            raise
        return None
