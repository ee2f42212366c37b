"""Several skills at once: one thread each, one core a thread, results in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

import torch

Given = TypeVar("Given")
Made = TypeVar("Made")


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the operations that this thread starts in the block on this thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_parallel(
    make: Callable[[Given], Made],
    given: Sequence[Given],
    on_done: Callable[[Given, Made], None] | None = None,
    most: int | None = None,
) -> list[Made]:
    """`make` of each, in the order given; `on_done` is called in this thread as each is ready.

    One thread a core, or at most `most`.
    """
    workers = min(len(given), most or cores())
    if workers < 2:
        return [_told(one, make(one), on_done) for one in given]
    with ThreadPoolExecutor(workers, "skillc-compile") as pool:
        futures: dict[Future[Made], Given] = {pool.submit(make, one): one for one in given}
        try:
            for future in as_completed(futures):
                _told(futures[future], future.result(), on_done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def cores() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _told(one: Given, made: Made, on_done: Callable[[Given, Made], None] | None) -> Made:
    if on_done is not None:
        on_done(one, made)
    return made
