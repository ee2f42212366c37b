"""How tokens are chosen, and how their bytes become text."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skillc_runtime.pieces import TextStream, overlap
from skillc_runtime.sampling import Row, Sampler, Sampling, log_softmax, nucleus

LOGITS: Row = np.log(np.array([0.5, 0.25, 0.15, 0.1], np.float32))


def left(**asked: float) -> list[int]:
    """The tokens that can still be chosen."""
    sampling = Sampling(**{"temperature": 1.0, **asked})  # type: ignore[arg-type]
    return np.flatnonzero(nucleus(LOGITS, sampling)).tolist()


def test_filters() -> None:
    assert left() == [0, 1, 2, 3]
    assert left(top_k=2) == [0, 1]
    assert left(top_k=9) == [0, 1, 2, 3]
    assert left(top_p=0.5) == [0]
    assert left(top_p=0.6) == [0, 1]
    assert left(top_p=0.0) == [0]
    assert left(min_p=0.29) == [0, 1, 2]
    assert left(top_k=3, min_p=0.4, top_p=0.99) == [0, 1]


def test_greedy_takes_the_first_best() -> None:
    row: Row = np.array([1, 3, 3, 2], np.float32)
    assert Sampler(Sampling()).choose(row).token == 1


def test_frequencies_follow_the_distribution() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=1))
    counts = Counter(sampler.choose(LOGITS).token for _ in range(4000))
    shares = np.array([counts[token] for token in range(4)]) / 4000
    assert np.abs(shares - [0.5, 0.25, 0.15, 0.1]).max() < 0.03
    cold = Sampler(Sampling(temperature=0.2, seed=1))
    assert Counter(cold.choose(LOGITS).token for _ in range(500))[0] > 450


def test_no_seed_differs_from_run_to_run() -> None:
    row: Row = np.zeros(1000, np.float32)
    runs = []
    for _ in range(2):
        sampler = Sampler(Sampling(temperature=1.0))
        runs.append([sampler.choose(row).token for _ in range(8)])
    assert runs[0] != runs[1]


def test_penalties_and_bias() -> None:
    row: Row = np.array([2.0, 1.5, 0.0], np.float32)
    once = Sampler(Sampling(presence_penalty=1.0))
    assert [once.choose(row).token for _ in range(4)] == [0, 1, 0, 0]
    more = Sampler(Sampling(frequency_penalty=1.0))
    assert [more.choose(row).token for _ in range(4)] == [0, 1, 0, 1]
    assert Sampler(Sampling(logit_bias={2: 5.0})).choose(row).token == 2
    assert row.tolist() == [2.0, 1.5, 0.0]


def test_logprobs() -> None:
    choice = Sampler(Sampling(logprobs=2)).choose(LOGITS)
    assert choice.logprob == pytest.approx(np.log(0.5), abs=1e-6)
    assert [token for token, _ in choice.top] == [0, 1]
    assert np.exp(log_softmax(LOGITS)).sum() == pytest.approx(1)
    assert Sampler(Sampling()).choose(LOGITS).logprob is None


def test_at_least_one_token() -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        Sampling(max_tokens=0)


@settings(deadline=None)
@given(st.text(), st.integers(1, 4))
def test_text_survives_any_cut_of_its_bytes(text: str, step: int) -> None:
    data = text.encode()
    stream = TextStream()
    parts = [stream.feed(data[at : at + step]) for at in range(0, len(data), step)]
    assert "".join(parts) + stream.feed(b"", last=True) == text


def test_half_a_character_becomes_a_mark_only_at_the_end() -> None:
    stream = TextStream()
    assert stream.feed("é".encode()[:1]) == ""
    assert stream.feed(b"", last=True) == "\ufffd"


@settings(deadline=None)
@given(
    st.text("abc", max_size=30),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.integers(1, 5),
)
def test_stop_strings(text: str, stops: list[str], step: int) -> None:
    stream = TextStream(stops)
    found = "".join(stream.feed(text[at : at + step].encode()) for at in range(0, len(text), step))
    found += stream.feed(b"", last=True)
    # What was sent is never more than what comes before the stop that is complete first.
    if stream.stopped_by is None:
        assert found == text
        assert not any(stop in text for stop in stops)
    else:
        assert text.startswith(found + stream.stopped_by)
        assert not any(stop in found for stop in stops)
    assert stream.feed(b"more") == "" or stream.stopped_by is None


def test_overlap() -> None:
    assert overlap("x<tool", "<tool_call>") == 5
    assert overlap("<tool_call>", "<tool_call>") == 0
    assert overlap("aa", "aab") == 2
    assert overlap("", "a") == 0
