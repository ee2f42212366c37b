"""Many answers at once: each is what it would be alone, and none harms or starves another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.support import prompt

from skillc_compiler.errors import AdapterError, ServeError
from skillc_runtime.adapters import AdapterRef, BadAdapterError
from skillc_runtime.engine import Engine
from skillc_runtime.events import Event, Failed, Finish, Piece, Started
from skillc_runtime.llama import lib
from skillc_runtime.resident import CHUNK, Origin
from skillc_runtime.sampling import Choice, Row, Sampling
from skillc_runtime.task import Task

MakeEngine = Callable[..., Engine]


class Asked:
    """A task, and what came of it."""

    def __init__(
        self,
        engine: Engine,
        tokens: Sequence[int],
        adapters: Sequence[AdapterRef] = (),
        count: int = 8,
        tail_from: int | None = None,
        grammar: str | None = None,
    ) -> None:
        self.events: list[Event | Failed] = []
        self.cancel = threading.Event()
        asked = Sampling(max_tokens=count, logprobs=engine.model.vocab.size, grammar=grammar)
        take = self.events.append
        self.task = Task(tokens, adapters, asked, take, self.cancel, tail_from=tail_from)
        engine.submit(self.task)

    @property
    def choices(self) -> list[Choice]:
        """Each choice with every token's log probability: equal means bit-equal."""
        assert isinstance(self.events[-1], Finish), self.events[-1]
        return [event.choice for event in self.events if isinstance(event, Piece)]

    @property
    def cached(self) -> int:
        assert isinstance(self.events[0], Started)
        return self.events[0].cached_tokens

    @property
    def error(self) -> Exception:
        assert isinstance(self.events[-1], Failed)
        return self.events[-1].error


def alone(engine: Engine, *args: object, **options: object) -> list[Choice]:
    """What a task's choices are in an engine that has nothing else and remembers nothing."""
    engine.scheduler.lose()
    asked = Asked(engine, *args, **options)  # type: ignore[arg-type]
    finish(engine)
    engine.scheduler.lose()
    return asked.choices


def finish(engine: Engine) -> None:
    while engine.step():
        pass


def test_answers_at_once_equal_answers_alone(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    cold, engine = fresh(), fresh(sequences=6)
    a, b = adapters[:2]
    sets = [[], [a], [b], [a, b], [replace(a, scale=0.5)]]
    specs = [
        (prompt(engine, size, start), sets[number % 5], 3 + number % 7)
        for number, (size, start) in enumerate(
            [(1, ""), (2, "x"), (63, ""), (64, ""), (65, "y"), (130, ""), (200, ""), (7, "z")] * 2
        )
    ]
    expected = [alone(cold, *spec) for spec in specs]
    asked = []
    for number, spec in enumerate(specs):
        asked.append(Asked(engine, *spec))
        for _ in range(number % 4):
            engine.step()
    finish(engine)
    assert [one.choices for one in asked] == expected
    assert engine.scheduler.counts.switches > len(sets)


def test_two_sets_by_turns_after_every_token(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    cold, engine = fresh(), fresh()
    engine.scheduler.quantum = 1
    tokens = prompt(engine, 40)
    asked = [Asked(engine, tokens, [ref], 20) for ref in adapters[:2]]
    finish(engine)
    assert engine.scheduler.counts.switches >= 40
    assert [one.choices for one in asked] == [
        alone(cold, tokens, [ref], 20) for ref in adapters[:2]
    ]


def test_adapters_of_running_answers_are_not_freed(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    """More sets at once than may stay loaded, and one more in between, for the caller alone."""
    cold, engine = fresh(), fresh(max_adapters=2)
    engine.scheduler.quantum = 1
    tokens = prompt(engine, 30)
    sets = [adapters[:1], adapters[1:2], adapters[2:3], adapters[:2]]
    asked = [Asked(engine, tokens, refs, 12) for refs in sets]
    for _ in range(6):
        engine.step()
    assert len(engine.adapters) == 4
    apart = engine.logits(tokens, adapters[3:])
    assert len(engine.adapters) == 5
    finish(engine)
    assert [one.choices for one in asked] == [alone(cold, tokens, refs, 12) for refs in sets]
    assert np.array_equal(apart, cold.logits(tokens, adapters[3:]))
    engine.logits(tokens, adapters[:1])
    assert len(engine.adapters) == 2


def test_cells_written_anew_give_the_same(
    fresh: MakeEngine, adapters: list[AdapterRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more tokens than the cache has cells pass through it while answers are on their way."""
    cold, engine = fresh(), fresh(n_ctx=256, sequences=3)
    specs = [
        (prompt(engine, 20 + number * 37 % 150, f"{number % 3}"), adapters[number % 3 : 2], 40)
        for number in range(30)
    ]
    written = engine.scheduler.slots.compact
    times: list[None] = []
    monkeypatch.setattr(engine.scheduler.slots, "compact", lambda: times.append(written()))
    asked = [Asked(engine, *spec) for spec in specs]
    finish(engine)
    assert len(times) > 1
    assert [one.choices for one in asked] == [alone(cold, *spec) for spec in specs]


def test_no_set_starves(fresh: MakeEngine, adapters: list[AdapterRef]) -> None:
    engine = fresh()
    scheduler = engine.scheduler
    running = [Asked(engine, prompt(engine, 9), adapters[:1], 400) for _ in range(4)]
    for _ in range(5):
        engine.step()
    late = [Asked(engine, prompt(engine, 9), [ref], 2) for ref in adapters[1:]]
    for _ in range(3 * scheduler.quantum + 10):
        engine.step()
        running.append(Asked(engine, prompt(engine, 9), adapters[:1], 400))
    assert all(one.task.ended for one in late)
    assert not running[0].task.ended
    for one in running:
        one.cancel.set()
    engine.step()
    assert scheduler.idle


def test_cancelled_answer_ends_with_the_next_step(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    cold, engine = fresh(), fresh()
    tokens = prompt(engine, 30)
    gone, other = (Asked(engine, tokens, adapters[:1], 20) for _ in range(2))
    waits = [Asked(engine, tokens, adapters[:1], 500) for _ in range(40)]
    engine.step()
    for one in (gone, *waits):
        one.cancel.set()
    engine.step()
    assert isinstance(gone.events[-1], Finish)
    assert gone.events[-1].reason == "cancelled"
    assert all(isinstance(one.events[-1], Finish) for one in waits)
    assert waits[-1].events == [Finish("cancelled")]
    assert (engine.scheduler.running, engine.scheduler.waiting) == (1, 0)
    finish(engine)
    assert other.choices == alone(cold, tokens, adapters[:1], 20)


def test_error_of_one_hurts_no_other(
    fresh: MakeEngine, adapters: list[AdapterRef], tmp_path: Path
) -> None:
    cold, engine = fresh(), fresh()
    tokens = prompt(engine, 100)
    good = [Asked(engine, tokens, adapters[:1], 30), Asked(engine, tokens, (), 30)]
    for _ in range(5):
        engine.step()
    missing = Asked(engine, tokens, [AdapterRef(tmp_path / "none.gguf", "0" * 64)])
    grammar = Asked(engine, tokens, grammar="root ::= nonsense")
    finish(engine)
    assert isinstance(missing.error, AdapterError)
    assert isinstance(grammar.error, ServeError)
    assert good[0].choices == alone(cold, tokens, adapters[:1], 30)
    assert good[1].choices == alone(cold, tokens, (), 30)


@pytest.mark.parametrize("exact", [False, True])
def test_nan_of_one_hurts_no_other(
    fresh: MakeEngine,
    adapters: list[AdapterRef],
    monkeypatch: pytest.MonkeyPatch,
    exact: bool,
) -> None:
    cold, engine = fresh(exact=exact), fresh(exact=exact)
    tokens = prompt(engine, 70)
    good = [Asked(engine, tokens, adapters[:1], 30), Asked(engine, tokens, (), 30)]
    bad = Asked(engine, tokens[:50], adapters[1:2], 30)
    row = engine.context.row

    def poisoned(index: int) -> Row:
        found = row(index)
        if engine.scheduler.attached == bad.task.origin.key:
            found[3] = np.nan
        return found

    monkeypatch.setattr(engine.context, "row", poisoned)
    finish(engine)
    assert isinstance(bad.error, BadAdapterError)
    for one, refs in zip(good, (adapters[:1], []), strict=True):
        tokens_alone = [choice.token for choice in alone(cold, tokens, refs, 30)]
        assert [choice.token for choice in one.choices] == tokens_alone
    again = Asked(engine, tokens, adapters[1:2])
    engine.step()
    assert "set aside" in str(again.error)


def test_failed_decode_ends_its_batch_and_others_start_over(
    fresh: MakeEngine, adapters: list[AdapterRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, engine = fresh(), fresh()
    tokens = prompt(engine, 90)
    first = Asked(engine, tokens, adapters[:1], 30)
    for _ in range(8):
        engine.step()
    second = Asked(engine, tokens, adapters[1:2], 30)
    decode = lib.llama_decode

    def failing(*args: object) -> int:
        broken = engine.scheduler.attached == second.task.origin.key
        return -3 if broken else int(decode(*args))

    monkeypatch.setattr("skillc_runtime.context.lib.llama_decode", failing)
    finish(engine)
    assert "failed to decode" in str(second.error)
    monkeypatch.undo()
    assert first.choices == alone(cold, tokens, adapters[:1], 30)


def test_running_answers_share_their_beginning(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    cold, engine = fresh(), fresh()
    tokens = prompt(engine, 3 * CHUNK)
    first = Asked(engine, tokens, adapters[:1], 40)
    for _ in range(6):
        engine.step()
    specs = [([*tokens[: 2 * CHUNK], 5, 6], adapters[:1], 9), (tokens, adapters[1:2], 9)]
    same, other = (Asked(engine, *spec) for spec in specs)
    finish(engine)
    assert (same.cached, other.cached) == (2 * CHUNK, 0)
    assert first.choices == alone(cold, tokens, adapters[:1], 40)
    assert [same.choices, other.choices] == [alone(cold, *spec) for spec in specs]


def test_answer_is_part_of_the_next_prompts_beginning(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    cold, engine = fresh(), fresh()
    tokens = prompt(engine, 2 * CHUNK - 4)
    first = Asked(engine, tokens, adapters[:1], 12)
    finish(engine)
    assert len(first.choices) > 5
    more = [*tokens, *(choice.token for choice in first.choices), 7, 8]
    second = Asked(engine, more, adapters[:1])
    finish(engine)
    assert second.cached == len(more) - 3  # the last token of an answer is never decoded
    assert second.choices == alone(cold, more, adapters[:1])


@pytest.mark.parametrize("size", [30, 280])
def test_answers_that_grow_out_of_the_cache_wait_and_go_on(
    fresh: MakeEngine, adapters: list[AdapterRef], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    cold, engine = fresh(), fresh(sequences=6)
    slots = engine.scheduler.slots
    monkeypatch.setattr("skillc_runtime.slots._AHEAD", 8)
    monkeypatch.setattr(slots, "_room", 4 * size + 60)
    left: list[Task] = []
    leave = slots.leave

    def noted(task: Task) -> None:
        if not task.ended:
            left.append(task)
        leave(task)

    monkeypatch.setattr(slots, "leave", noted)
    specs = [(prompt(engine, size, f"{i}"), adapters[i % 3 : 2], 50) for i in range(8)]
    asked = [Asked(engine, *spec) for spec in specs]
    finish(engine)
    assert left
    assert [one.choices for one in asked] == [alone(cold, *spec) for spec in specs]


def test_engine_that_is_not_repeatable_answers_too(
    fresh: MakeEngine, adapters: list[AdapterRef]
) -> None:
    engine = fresh(repeatable=False, sequences=3, n_ctx=300)
    tokens = prompt(engine, 2 * CHUNK + 3)
    asked = [Asked(engine, tokens[: 60 + 7 * i], adapters[i % 3 : 2], 12) for i in range(12)]
    finish(engine)
    assert all(len(one.choices) == 12 for one in asked)


@pytest.mark.parametrize(
    ("left", "right", "agreed"),
    [
        (Origin(), Origin(), None),
        (Origin((("a", 1.0),)), Origin((("a", 1.0),)), None),
        (Origin((("a", 1.0),)), Origin((("b", 1.0),)), 0),
        (Origin((("a", 1.0),)), Origin(), 0),
        (Origin((("a", 1.0),), 70), Origin(), 70),
        (Origin((("a", 1.0),), 70), Origin((("b", 1.0),), 90), 70),
        (Origin((("a", 1.0),), 70), Origin((("a", 1.0),), 90), 70),
        (Origin((), 5), Origin((), 9), None),
    ],
)
def test_what_two_origins_decode_alike(left: Origin, right: Origin, agreed: int | None) -> None:
    assert left.agrees(right) == right.agrees(left) == agreed
