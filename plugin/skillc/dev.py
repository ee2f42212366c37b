"""Watch and serve in one process: what is saved is built, and what is built is served."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from skillc.outcome import Outcome
from skillc.plan import Plan
from skillc.telling import Teller
from skillc.watch import Listener, Watch
from skillc_compiler.errors import SkillcError
from skillc_runtime.registry import Registry
from skillc_runtime.settings import ServeSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from skillc_compiler.bases import Base
    from skillc_compiler.families.interface import Compiler

STOP_SECONDS = 10.0


class Attaching(Listener):
    """Passes everything on, and makes the server look at each new adapter at once."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller
        self.registry: Registry | None = None

    def detected(self, plan: Plan) -> None:
        self._teller.detected(plan)

    def built(self, plan: Plan, outcomes: list[Outcome]) -> None:
        self._teller.built(plan, outcomes)
        for outcome in outcomes:
            if outcome.status in ("built", "fetched") and self.registry is not None:
                self._attach(outcome.name, self.registry)

    def said(self, line: str) -> None:
        self._teller.said(line)

    def watching(self, skills: int, *, polling: bool) -> None:
        self._teller.watching(skills, polling=polling)

    def _attach(self, name: str, registry: Registry) -> None:
        """Have the server open and check the adapter before somebody asks for it."""
        from skillc_runtime.api_error import ApiError

        started = time.perf_counter()
        try:
            registry.resolve(f"{registry.name}:{name}")
        except ApiError as error:
            self._teller.said(f"{name} is not served: {error.message}")
            return
        self._teller.served(name, time.perf_counter() - started)


def dev(
    root: Path,
    settings: ServeSettings,
    teller: Teller,
    load: Callable[[Base], Compiler],
    stop: threading.Event,
    *,
    polling: bool = False,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve the project at `root` and build it after every change, until `stop`.

    `on_ready` gets the server's URL. Raises SkillcError when the server cannot start.
    """
    from skillc_runtime.server import running

    listener = Attaching(teller)
    watch = Watch(root, listener, load, polling=polling)
    thread = threading.Thread(target=run, args=(watch, teller), name="skillc-watch", daemon=True)
    with running(replace(settings, alive=lambda: watch.problem)) as server:
        listener.registry = server.registry
        on_ready(server.url)
        thread.start()
        stop.wait()
        watch.stop()
        thread.join(STOP_SECONDS)


def run(watch: Watch, teller: Teller) -> None:
    """Run the watch; an end that nobody asked for is one line here, and a 503 of /health."""
    try:
        watch.run()
    except SkillcError as error:
        teller.said(f"the watch has ended: {error}")
    except Exception as error:
        kind = type(error).__name__
        teller.said(f"the watch has ended: unexpected {kind}: {error}; restart 'skillc dev'")
        raise
