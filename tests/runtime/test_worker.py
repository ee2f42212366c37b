"""The engine's thread: loading, failing, aborting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runtime.support import wait_for

from skillc_compiler.errors import ServeError
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.events import Event, Finish, Piece, Started
from skillc_runtime.sampling import Sampling
from skillc_runtime.worker import Failed, Job, QueueFullError, Worker

MakeEngine = Callable[..., Engine]


class Collector:
    """A job, and what came of it."""

    def __init__(self, prompt: tuple[int, ...] = (1, 2, 3), count: int = 4) -> None:
        self.events: list[Event | Failed] = []
        self.done = threading.Event()
        self.job = Job(prompt, (), Sampling(max_tokens=count), self._take)

    def _take(self, event: Event | Failed, at: float) -> None:
        self.events.append(event)
        if isinstance(event, Finish | Failed):
            self.done.set()

    def kinds(self) -> list[type]:
        assert self.done.wait(60)
        return [type(event) for event in self.events]


def test_jobs_are_answered(fresh: MakeEngine) -> None:
    worker = Worker(fresh)
    with pytest.raises(ServeError, match="not loaded"):
        _ = worker.engine
    worker.start()
    jobs = [Collector(count=count) for count in (3, 1, 2)]
    for one in jobs:
        worker.submit(one.job)
    kinds = [one.kinds() for one in jobs]
    assert [found.count(Piece) for found in kinds] == [3, 1, 2]
    assert all((found[0], found[-1]) == (Started, Finish) for found in kinds)
    worker.close()
    with pytest.raises(QueueFullError, match="stopping"):
        worker.submit(jobs[0].job)


def test_prompt_that_does_not_fit_fails_its_own_job_only(fresh: MakeEngine) -> None:
    worker = Worker(fresh)
    worker.start()
    bad, good = Collector(prompt=()), Collector()
    worker.submit(bad.job)
    worker.submit(good.job)
    assert bad.kinds() == [Failed]
    assert good.kinds()[-1] is Finish
    worker.close()


def test_listener_that_is_gone_cancels_its_job(fresh: MakeEngine) -> None:
    worker = Worker(fresh)
    worker.start()

    def gone(event: Event | Failed, at: float) -> None:
        raise RuntimeError("Event loop is closed")

    job = Job((1, 2, 3), (), Sampling(max_tokens=400), gone)
    after = Collector()
    worker.submit(job)
    worker.submit(after.job)
    assert after.kinds()[-1] is Finish
    assert job.cancel.is_set()
    worker.close()


@pytest.mark.parametrize("error", [ServeError("no context"), MemoryError("no memory")])
def test_load_that_fails_is_kept(error: Exception) -> None:
    def load() -> Engine:
        raise error

    worker = Worker(load)
    worker.start()
    assert worker.loaded.wait(60)
    assert isinstance(worker.failure, ServeError)
    assert str(error) in str(worker.failure)
    one = Collector()
    worker.submit(one.job)
    assert one.kinds() == [Failed]
    worker.close()


def test_abort_ends_what_runs_and_what_waits(
    fresh: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(fresh)
    worker.start()
    worker.loaded.wait()
    running, waiting = Collector(count=900), Collector()
    started = threading.Event()
    take = running._take

    def slow(event: Event | Failed, at: float) -> None:
        started.set()
        if isinstance(event, Piece):
            running.job.cancel.wait(60)
        take(event, at)

    monkeypatch.setattr(running, "job", Job((1, 2), (), Sampling(max_tokens=900), slow))
    worker.submit(running.job)
    worker.submit(waiting.job)
    assert started.wait(60)
    worker.abort()
    for one in (waiting, running):
        assert one.kinds()[-1] is Finish
        assert one.events[-1].reason == "cancelled"  # type: ignore[union-attr]
    worker.close()


def test_a_thousand_aborted_answers_leave_nothing(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    """No sequence, no thread, no file, and the next answer is what it was."""
    worker = Worker(fresh, waiting=2000)
    worker.start()
    worker.loaded.wait()
    engine = worker.engine
    expected = engine.answer([1, 2, 3], adapters[:1]).tokens
    threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        jobs = [Collector((1, 2, 3, 4 + i % 50), count=900) for i in range(100)]
        for i, one in enumerate(jobs):
            refs = tuple(adapters[i % 4 : 3])
            one.job = replace(one.job, adapters=refs)
            worker.submit(one.job)
        for one in jobs:
            one.job.cancel.set()
        assert all(one.kinds()[-1] is Finish for one in jobs)
    wait_for(lambda: engine.scheduler.idle)
    assert worker.waiting == 0
    assert all(slot.task is None for slot in engine.scheduler.slots)
    assert threading.active_count() == threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
    assert engine.answer([1, 2, 3], adapters[:1]).tokens == expected
    worker.close()
