"""Suites beside each other: each process has an engine, a compiler and a core of its own."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from skillc.evaluate.bench import Result, Settings
from skillc_compiler.bases import find_base
from skillc_compiler.errors import SkillcError


def jobs_of(settings: Settings, suites: int) -> int:
    """How many suites run at once: as asked for, else one a core with bases of one thread.

    A large base is in memory once for each of them and uses all cores anyhow: one.
    """
    from skillc_compiler.families.parallel import cores
    from skillc_runtime.engine import default_threads

    if settings.jobs:
        return min(settings.jobs, suites)
    threads = settings.threads or default_threads(find_base(settings.base).gguf.stat().st_size)
    return min(cores(), suites) if threads == 1 else 1


def beside(
    one: Callable[[str], Result], names: Sequence[str], jobs: int
) -> Iterator[tuple[str, Result]]:
    """Each suite's result, in the order of `names`; `one` is pickled. Errors end all of them."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _begin)
    try:
        futures = [pool.submit(one, name) for name in names]
        for name, future in zip(names, futures, strict=True):
            yield name, future.result()
    except BrokenProcessPool as error:
        raise SkillcError(
            f"a process of the evaluation ended while {name} ran: try --jobs 1"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _begin() -> None:
    """Ctrl-C ends a process without a traceback; torch keeps to one thread of it."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
