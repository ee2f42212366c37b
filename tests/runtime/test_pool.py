"""Several engines behind one queue."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.runtime.conftest import Client, settings_for
from tests.runtime.support import ProjectFolder, chat, prompt, wait_for
from tests.runtime.test_remote import OPTIONS, Asked, endless, fill_and_abort, text_of

from skillc_compiler.gguf_base import BaseInfo
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.events import Failed, Finish
from skillc_runtime.pool import WorkerPool
from skillc_runtime.remote import EngineLostError, ProcessWorker
from skillc_runtime.sampling import Sampling
from skillc_runtime.server import running


@pytest.fixture
def members(base: BaseInfo) -> list[ProcessWorker]:
    return [ProcessWorker(base, OPTIONS, waiting=64) for _ in range(2)]


@pytest.fixture
def pool(members: list[ProcessWorker]) -> Iterator[WorkerPool]:
    pool = WorkerPool(members, waiting=64)
    pool.start()
    assert pool.loaded.wait(300)
    assert pool.failure is None
    yield pool
    pool.close()
    assert [member.pid for member in members] == [None, None]


def answer(asked: Asked) -> str:
    assert isinstance(asked.end, Finish)
    return text_of(asked.events)


def test_answers_are_those_of_one_engine(
    pool: WorkerPool,
    members: list[ProcessWorker],
    engine: Engine,
    adapters: list[AdapterRef],
) -> None:
    tokens = prompt(engine, 50)
    sets = [[], adapters[:1], adapters[1:2], adapters[:2]]
    asked = [Asked(pool, tokens, refs, count=12) for refs in sets * 3]
    expected = [engine.answer(tokens, refs, Sampling(max_tokens=12)).text for refs in sets]
    assert [answer(one) for one in asked] == expected * 3
    each = [member.counts for member in members]
    assert all(counts.tokens > 0 for counts in each)
    assert pool.counts.tokens == sum(counts.tokens for counts in each)
    assert pool.adapters[0] >= 3  # two, and both as one


def test_a_set_stays_where_its_cache_is(
    pool: WorkerPool, members: list[ProcessWorker], adapters: list[AdapterRef]
) -> None:
    for refs in [adapters[:1], adapters[1:2]] * 3:
        answer(Asked(pool, [1, 2, 3], refs))
    assert sorted(member.adapters for member in members) == [(0, 0), (2, 2)]


def test_a_set_moves_when_its_engine_is_busy(
    pool: WorkerPool, members: list[ProcessWorker], engine: Engine
) -> None:
    bias = endless(engine)
    asked = [Asked(pool, [1, 2, 3], count=900, logit_bias=bias) for _ in range(6)]
    assert min(member.busy for member in members) >= 2
    for one in asked:
        one.job.cancel.set()
        assert isinstance(one.end, Finish)


def test_the_others_answer_while_one_is_started_again(
    pool: WorkerPool, members: list[ProcessWorker], engine: Engine, adapters: list[AdapterRef]
) -> None:
    bias = endless(engine)
    sets: list[list[AdapterRef]] = [[], adapters[:1]]
    asked = [Asked(pool, [1, 2, 3], refs, count=900, logit_bias=bias) for refs in sets]
    wait_for(lambda: all(len(one.events) > 2 for one in asked))
    assert [member.busy for member in members] == [1, 1]
    killed = members[0].pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: any(one.done.is_set() for one in asked))
    ended = [one for one in asked if one.done.is_set()]
    assert len(ended) == 1
    assert isinstance(ended[0].end, Failed)
    assert isinstance(ended[0].end.error, EngineLostError)
    assert answer(Asked(pool, [1, 2, 3], count=3))
    wait_for(lambda: members[0].pid not in (None, killed))
    assert pool.failure is None
    for one in asked:
        one.job.cancel.set()


def test_too_many_are_refused_and_all_are_aborted(pool: WorkerPool) -> None:
    fill_and_abort(pool)


def test_all_must_fail_for_the_pool_to_fail(
    base: BaseInfo, members: list[ProcessWorker], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(base.path.read_bytes()[:5000])
    broken = [ProcessWorker(replace(base, path=torn), OPTIONS) for _ in range(2)]
    for group, fails in (([broken[0], members[0]], False), ([broken[1]], True)):
        pool = WorkerPool(group)
        pool.start()
        assert pool.loaded.wait(300)
        assert (pool.failure is not None) == fails
        if not fails:
            assert answer(Asked(pool, [1, 2, 3], count=2))
        pool.close()


def test_served_by_two(project: ProjectFolder) -> None:
    with running(settings_for(project, in_process=False, engines=2)) as server:
        client = Client(server)
        assert isinstance(server.worker, WorkerPool)
        first = client.text(chat("tiny:deploy"))
        assert client.text(chat("tiny:deploy")) == first
        assert client.send("/health").status == 200
        assert "skillc_adapter_loads_total 1\n" in client.send("/metrics").text
