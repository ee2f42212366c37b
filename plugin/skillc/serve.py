"""What `skillc serve` says: what is out of date before it starts, how to use it once it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from skillc.project import Project
from skillc.status import project_status

SHOWN = 20


def stale_lines(project: Project) -> Iterator[str]:
    """One line for each way in which the lock is not what the project's files say now."""
    problems: list[str] = []
    states: dict[str, list[str]] = {}
    for status in project_status(project, problems):
        states.setdefault(status.state, []).append(status.name)
    remedies = {
        "changed": "changed since the last build and served as built",
        "new": "not built yet",
        "missing": "built, but not in the store",
        "unreadable": "unreadable now and served as last built, if at all",
        "gone": "deleted, but still in the lock",
    }
    for state, meaning in remedies.items():
        if names := states.get(state):
            yield f"{shorten(names)}: {meaning}: run 'skillc build'"
    yield from problems


def shorten(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def announcement(url: str, base: str, project: Project | None) -> Iterator[str]:
    """What is printed when the server at `url` is ready: its models and a request to paste."""
    lock = project.lock() if project is not None else None
    skills = lock.skills if lock is not None else {}
    served = {name: entry.verdict for name, entry in skills.items() if entry.verdict != "off"}
    yield f"serving {url}/v1"
    rows = [(base, "the base alone")]
    rows += [(f"{base}:{name}", f"as {verdict}") for name, verdict in served.items()][:SHOWN]
    width = max(len(model) for model, _ in rows)
    yield from (f"  {model:{width}}  {meaning}" for model, meaning in rows)
    if len(served) > SHOWN:
        yield f"  and {len(served) - SHOWN} more: {url}/v1/models"
    model = f"{base}:{next(iter(served))}" if served else base
    question = {"role": "user", "content": "Which command do I run?"}
    body = json.dumps({"model": model, "messages": [question]})
    yield "try:"
    yield f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"
