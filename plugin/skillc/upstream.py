"""`skillc serve --upstream`: the project's skills in front of a server that serves the base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from skillc.project import Project
from skillc.serve import announcement
from skillc_compiler.bases import Base
from skillc_compiler.errors import ProjectError
from skillc_runtime.upstream_settings import UpstreamSettings

FOLDER = "upstream"
"""Below the project's .skillc: PEFT folders of what the upstream has loaded."""


def serve_front(
    project: Project | None,
    base: Base,
    url: str,
    *,
    model: str | None,
    key: str | None,
    host: str,
    port: int,
    token: str | None,
    say: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C. Raises ServeError when the upstream cannot be reached."""
    from skillc_runtime.upstream_server import serve_upstream

    if project is None:
        raise ProjectError("--upstream needs a project: its skills are what it adds")
    settings = UpstreamSettings(
        base=base.gguf,
        name=base.name,
        project=project.root,
        url=url,
        folder=folder_of(project),
        model=model or "",
        key=key,
        host=host,
        port=port,
        token=token,
    )

    def ready(own: str) -> None:
        say("\n".join(lines(own, base.name, project, url)))

    serve_upstream(settings, ready)


def folder_of(project: Project) -> Path:
    """Where the adapters are written that the upstream reads."""
    folder = project.make_state() / FOLDER
    folder.mkdir(exist_ok=True)
    return folder


def lines(own: str, base: str, project: Project, url: str) -> Iterator[str]:
    """What is said when the server is ready."""
    yield from announcement(own, base, project)
    yield f"in front of {url}"
