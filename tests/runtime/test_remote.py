"""The engine in its own process: same answers, and its end is not the server's."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.conftest import Client, Reply, settings_for
from tests.runtime.support import ProjectFolder, chat, prompt, wait_for

from skillc_compiler.errors import AdapterError, BaseModelError, ServeError
from skillc_compiler.gguf_base import BaseInfo
from skillc_runtime import wire
from skillc_runtime.adapters import AdapterRef
from skillc_runtime.engine import Engine
from skillc_runtime.events import Event, Failed, Finish, Piece, Started
from skillc_runtime.remote import EngineLostError, ProcessWorker
from skillc_runtime.sampling import Choice, Sampling
from skillc_runtime.server import running
from skillc_runtime.worker import Job, QueueFullError, Worker

OPTIONS = {"n_threads": 1}


class Asked:
    """A job, and what came of it."""

    def __init__(
        self,
        worker: Worker,
        tokens: Sequence[int],
        adapters: Sequence[AdapterRef] = (),
        count: int = 6,
        **sampling: Any,
    ) -> None:
        self.events: list[Event | Failed] = []
        self.done = threading.Event()
        asked = Sampling(max_tokens=count, **sampling)
        self.job = Job(tuple(tokens), tuple(adapters), asked, self._take)
        worker.submit(self.job)

    def _take(self, event: Event | Failed, at: float) -> None:
        assert not self.done.is_set(), "an event after the end"
        self.events.append(event)
        if isinstance(event, Finish | Failed):
            self.done.set()

    @property
    def end(self) -> Finish | Failed:
        assert self.done.wait(300)
        end = self.events[-1]
        assert isinstance(end, Finish | Failed)
        return end


@pytest.fixture
def worker(base: BaseInfo) -> Iterator[ProcessWorker]:
    """A worker whose process has loaded the base."""
    worker = ProcessWorker(base, OPTIONS, waiting=64)
    worker.start()
    assert worker.loaded.wait(300)
    assert worker.failure is None
    yield worker
    worker.close()
    assert worker.pid is None


def test_answers_are_those_of_an_engine_here(
    worker: ProcessWorker, engine: Engine, adapters: list[AdapterRef]
) -> None:
    remote = worker.engine
    assert (remote.n_ctx, remote.base) == (engine.n_ctx, engine.base)
    text = "naïve 日本"
    assert remote.tokenize(text) == engine.tokenize(text)
    tokens = prompt(engine, 70)
    asked = Sampling(
        max_tokens=9, logprobs=3, temperature=0.7, seed=3, logit_bias={5: 1.5}, stop=("never",)
    )
    for refs in ([], adapters[:1], adapters[:2]):
        expected = list(engine.generate(tokens, refs, asked, tail_from=40))[1:]
        assert list(remote.generate(tokens, refs, asked, tail_from=40))[1:] == expected
    assert (len(remote.adapters), remote.adapters.loads) == (2, 2)
    assert remote.counts.tokens > 70


def test_errors_arrive_as_what_they_are(worker: ProcessWorker, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="No such file"):
        worker.engine.answer([1, 2], [AdapterRef(tmp_path / "none.gguf", "0" * 64)])
    with pytest.raises(ServeError, match="grammar"):
        worker.engine.answer([1, 2], (), Sampling(grammar="root ::= nonsense"))
    with pytest.raises(ServeError, match="no tokens"):
        worker.engine.answer([])
    assert isinstance(Asked(worker, []).end, Failed)


def endless(engine: Engine) -> dict[int, float]:
    """The bias under which no answer ends of itself."""
    vocab = engine.model.vocab
    return {token: -100.0 for token in range(vocab.size) if vocab.is_end(token)}


def test_cancelled_answer_ends(worker: ProcessWorker, engine: Engine) -> None:
    asked = Asked(worker, [1, 2, 3], count=900, logit_bias=endless(engine))
    wait_for(lambda: len(asked.events) > 3)
    asked.job.cancel.set()
    end = asked.end
    assert isinstance(end, Finish)
    assert end.reason == "cancelled"
    assert len(asked.events) < 900


def fill_and_abort(worker: Worker) -> None:
    """Ask until the queue (of 64) is full; all that was taken ends, and nothing more is taken."""
    asked: list[Asked] = []
    with pytest.raises(QueueFullError, match="wait already"):
        for _ in range(220):
            asked.append(Asked(worker, [1, 2, 3], count=1000))
    assert len(asked) >= 64
    worker.abort()
    for one in asked:
        assert isinstance(one.end, Finish)
    with pytest.raises(QueueFullError, match="stopping"):
        Asked(worker, [1])


def test_full_queue_and_abort(worker: ProcessWorker) -> None:
    fill_and_abort(worker)


def test_base_that_does_not_load_is_said_so(base: BaseInfo, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(base.path.read_bytes()[:5000])
    worker = ProcessWorker(replace(base, path=torn), OPTIONS)
    worker.start()
    assert worker.loaded.wait(300)
    assert isinstance(worker.failure, BaseModelError)
    assert isinstance(Asked(worker, [1]).end, Failed)
    worker.close()


def kill_under_load(
    worker: ProcessWorker, engine: Engine, refs: list[AdapterRef], times: int
) -> int:
    """Kill the process again and again; every answer is right or lost.  Returns how many are."""
    tokens = prompt(engine, 40)
    asked = Sampling(max_tokens=60, logit_bias=endless(engine))
    expected = [engine.answer(tokens, refs[i:2], asked).text for i in range(3)]
    lost = 0
    for _ in range(times):
        jobs = [
            (i % 3, Asked(worker, tokens, refs[i % 3 : 2], 60, logit_bias=asked.logit_bias))
            for i in range(9)
        ]
        wait_for(lambda jobs=jobs: any(len(one.events) > 2 for _, one in jobs))  # type: ignore[misc]
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGABRT if lost % 2 else signal.SIGKILL)
        for which, one in jobs:
            if isinstance(one.end, Failed):
                assert isinstance(one.end.error, EngineLostError)
                lost += 1
            else:
                assert text_of(one.events) == expected[which]
        wait_for(lambda pid=pid: worker.pid not in (None, pid))  # type: ignore[misc]
    assert worker.restarts == times
    assert worker.engine.answer(tokens, refs[:2], asked).text == expected[0]
    return lost


def text_of(events: Sequence[Event | Failed]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece | Finish))


def test_death_ends_what_it_had_and_nothing_else(
    worker: ProcessWorker, engine: Engine, adapters: list[AdapterRef]
) -> None:
    assert kill_under_load(worker, engine, adapters, 2) > 0


@pytest.mark.slow
def test_twenty_deaths_give_no_wrong_answer(
    worker: ProcessWorker, engine: Engine, adapters: list[AdapterRef]
) -> None:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    kill_under_load(worker, engine, adapters, 20)
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= files  # noqa: PTH208


def test_server_outlives_its_engine(project: ProjectFolder) -> None:
    with running(settings_for(project, in_process=False)) as server:
        client = Client(server)
        before = client.text(chat("tiny:deploy"))
        replies = []
        bias = {str(token): value for token, value in endless(server.worker.engine).items()}
        body = chat("tiny:deploy", max_tokens=900, n=8, logit_bias=bias)
        asking = threading.Thread(target=lambda: replies.append(client.chat(body)))
        worker = server.worker
        assert isinstance(worker, ProcessWorker)
        decodes = worker.engine.counts.decodes
        asking.start()
        wait_for(lambda: bool(worker._asked))
        time.sleep(0.05)
        assert worker.pid is not None
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGABRT)
        asking.join()
        assert (replies[0].status, replies[0].error["code"]) == (503, "engine_error")
        assert replies[0].headers["Retry-After"] == "1"
        assert client.send("/health").status == 200
        assert client.text(chat("tiny:deploy")) == before
        assert decodes > 0


def ask_until_lost(client: Client, body: dict[str, Any], times: int) -> list[Reply]:
    """Answers to eight clients at a time, whose engine is killed under them."""
    worker = client.server.worker
    assert isinstance(worker, ProcessWorker)
    replies: list[Reply] = []
    with ThreadPoolExecutor(8) as clients:
        for number in range(times):
            wait_for(lambda: not worker.away)
            pid = worker.pid
            asked = [clients.submit(client.chat, body) for _ in range(8)]
            wait_for(lambda: bool(worker._asked))
            time.sleep(0.02 * (number % 3))
            assert pid is not None
            os.kill(pid, signal.SIGABRT if number % 2 else signal.SIGKILL)
            replies += [one.result() for one in asked]
    return replies


@pytest.mark.slow
def test_twenty_deaths_are_clean_answers_to_clients(project: ProjectFolder) -> None:
    with running(settings_for(project, in_process=False)) as server:
        client = Client(server)
        bias = {str(token): value for token, value in endless(server.worker.engine).items()}
        body = chat("tiny:deploy", max_tokens=300, logit_bias=bias)
        right = client.text(body)
        replies = ask_until_lost(client, body, 20)
        lost = [reply for reply in replies if reply.status != 200]
        assert lost and len(replies) == 160
        for reply in lost:
            assert (reply.status, reply.error["code"]) == (503, "engine_error")
            assert reply.headers["Retry-After"] == "1"
        texts = {r.json["choices"][0]["message"]["content"] for r in replies if r.status == 200}
        assert texts <= {right}
        assert client.text(body) == right


def test_health_says_that_the_engine_is_away(
    project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(settings_for(project, in_process=False)) as server:
        client, worker = Client(server), server.worker
        assert isinstance(worker, ProcessWorker)
        assert client.send("/health").json["status"] == "ok"
        let_go = threading.Event()
        run_once = worker._run_once

        def held() -> bool:
            let_go.wait(60)
            return run_once()

        monkeypatch.setattr(worker, "_run_once", held)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: worker.away)
        found = client.send("/health")
        assert (found.status, found.json["status"]) == (200, "degraded")
        assert found.json["problems"] == {"engine": "its process ended and is being started again"}
        let_go.set()
        wait_for(lambda: client.send("/health").json["status"] == "ok")


def test_what_crosses_is_what_arrives(tmp_path: Path) -> None:
    events: list[Event | Failed] = [
        Started(5, 3),
        Piece("é\ud7ff\n", Choice(3, -0.1234567890123, ((1, -0.5), (2, -1e-9)))),
        Piece("", Choice(3)),
        Finish("stop", "rest", stopped_by="x"),
    ]
    for event in events:
        assert wire.unpack_event(*wire.pack_event(event)) == event
    failed = wire.unpack_event(*wire.pack_event(Failed(EngineLostError("gone"))))
    assert isinstance(failed, Failed)
    assert (type(failed.error), str(failed.error)) == (ServeError, "gone")
    sampling = Sampling(3, 0.5, stop=("a", "b"), logit_bias={7: -1.0}, grammar="g", logprobs=2)
    job = ((1, 2), (AdapterRef(tmp_path, "0" * 64, 0.5),), sampling, 1)
    assert wire.unpack_job(*wire.pack_job(*job)) == job
