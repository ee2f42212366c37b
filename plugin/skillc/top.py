"""What `skillc top` shows: a running server's health and figures, now and since the last look."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from skillc.prometheus import Page
from skillc_compiler.errors import ServeError

if TYPE_CHECKING:
    from rich.console import RenderableType

PATIENCE = 5.0
"""Seconds that a server may take to say how it is."""

_MOST = 4 << 20
_TTFT = "skillc_time_to_first_token_seconds"
_SKILL_TTFT = "skillc_skill_time_to_first_token_seconds"


@dataclass(frozen=True, slots=True)
class Look:
    """What a server said at one moment."""

    health: dict[str, Any]
    page: Page
    at: float


def look(url: str, key: str | None = None) -> Look:
    """Ask the server at `url`; ServeError in one line when none answers there."""
    if not url.startswith(("http://", "https://")):
        raise ServeError(f"{url}: not a URL of a server, such as http://127.0.0.1:8191")
    health = _get(f"{url}/health", key, unwell=True)
    page = _get(f"{url}/metrics", key)
    try:
        said = json.loads(health)
    except ValueError:
        said = None
    if not isinstance(said, dict) or "status" not in said:
        raise ServeError(f"{url}: something answers there, but it is no skillc server")
    return Look(said, Page(page), monotonic())


def _get(url: str, key: str | None, *, unwell: bool = False) -> str:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            data: bytes = answer.read(_MOST)
    except urllib.error.HTTPError as error:
        with error:
            if not (unwell and error.code == 503):
                hint = "; give its key with --api-key" if error.code == 401 else ""
                raise ServeError(f"{url}: the server says {error.code}{hint}") from None
            data = error.read(_MOST)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        line = f"no server answers at {url}: {reason}; start one with 'skillc serve'"
        raise ServeError(line) from None
    return data.decode("utf-8", "replace")


def rows(now: Look, before: Look | None = None) -> Iterator[tuple[str, str]]:
    """Name and value of each figure; rates are since `before`, or none."""
    page = now.page
    yield "status", _status(now)
    yield (
        "requests",
        f"{page.total('skillc_requests_running'):.0f} running, "
        f"{page.total('skillc_requests_waiting'):.0f} waiting, "
        f"{page.total('skillc_answers_total'):.0f} answered, "
        f"{page.total('skillc_errors_total'):.0f} errors",
    )
    yield "tokens", _tokens(now, before)
    yield "first token", f"p50 {_time(page, 0.5)}, p99 {_time(page, 0.99)}"
    prompt = page.total("skillc_prompt_tokens_total")
    cached = page.total("skillc_cached_tokens_total")
    share = f" ({100 * cached / prompt:.0f}% of prompts)" if prompt else ""
    elided = page.total("skillc_elided_tokens_total")
    yield "spared", f"{cached:.0f} tokens cached{share}, {elided:.0f} elided"
    batches = page.total("skillc_decodes_total")
    size = page.total("skillc_decoded_tokens_total") / batches if batches else 0
    yield (
        "engine",
        f"{page.total('skillc_adapters_loaded'):.0f} adapters in memory, "
        f"{page.total('skillc_adapter_loads_total'):.0f} loads, "
        f"{page.total('skillc_set_switches_total'):.0f} switches, {size:.1f} tokens a batch",
    )


def skills(now: Look) -> Iterator[tuple[str, str, str, str]]:
    """Name, requests, generated tokens and median time to first token of each skill asked for."""
    page = now.page
    for name in page.values("skillc_skill_requests_total", "skill"):
        yield (
            name,
            f"{page.total('skillc_skill_requests_total', skill=name):.0f}",
            f"{page.total('skillc_skill_generated_tokens_total', skill=name):.0f}",
            _time(page, 0.5, skill=name),
        )


def lines(now: Look, before: Look | None = None) -> Iterator[str]:
    """The same as plain lines."""
    yield from (f"{name:12} {value}" for name, value in rows(now, before))
    for name, requests, tokens, ttft in skills(now):
        yield f"skill {name}: {requests} requests, {tokens} tokens, first token p50 {ttft}"


def view(now: Look, before: Look | None = None) -> RenderableType:
    """The same for a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    figures = Table.grid(padding=(0, 2))
    for name, value in rows(now, before):
        figures.add_row(Text(name, "bold"), Text(value))
    table = Table("skill", "requests", "tokens", "first token p50")
    for row in skills(now):
        table.add_row(*map(Text, row))
    return Group(figures, table) if table.row_count else figures


def _status(now: Look) -> str:
    health = now.health
    problems = health.get("problems")
    found = [f"{name}: {line}" for name, line in problems.items()] if problems else []
    about = f"{health['status']}: {health.get('base')}, {health.get('skills')} skills"
    return "; ".join([about, *found])


def _tokens(now: Look, before: Look | None) -> str:
    name = "skillc_generated_tokens_total"
    total = now.page.total(name)
    if before is None:
        return f"{total:.0f} generated"
    rate = max(0.0, total - before.page.total(name)) / max(now.at - before.at, 1e-3)
    return f"{total:.0f} generated, {rate:.1f} a second"


def _time(page: Page, share: float, **labels: str) -> str:
    name = _SKILL_TTFT if labels else _TTFT
    seconds = page.quantile(name, share, **labels)
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
