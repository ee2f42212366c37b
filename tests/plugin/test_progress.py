"""What a build shows while it runs."""

from __future__ import annotations

import sys

import pytest

from skillc.outcome import Outcome
from skillc.progress import Bar, Lines, Progress, progress_for

FAILED = Outcome("odd", "failed", reason="line 3: no [bold]description[/bold]", kept=True)
OUTCOMES = [Outcome("one", "built", size=2048, seconds=0.5), FAILED, Outcome("two", "unchanged")]


def play(progress: Progress) -> None:
    progress.begin(2)
    for outcome in OUTCOMES:
        progress.compiling(outcome.name)
        progress.done(outcome)
    progress.done(Outcome("old", "removed"))
    progress.end()


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    play(Lines())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "built one in 0.50 s, 2 KiB",
        "failed odd: line 3: no [bold]description[/bold]; its last good adapter stays",
        "removed old",
    ]


def test_bar(capsys: pytest.CaptureFixture[str]) -> None:
    play(Bar())
    captured = capsys.readouterr()
    assert captured.out == ""
    printed = " ".join(captured.err.split())
    assert "failed odd: line 3: no [bold]description[/bold]; its last good adapter" in printed
    assert "removed old" in printed
    assert "built one" not in printed


def test_a_bar_with_nothing_to_compile(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar.done(OUTCOMES[2])
    bar.done(FAILED)
    bar.end()
    assert capsys.readouterr().err.splitlines() == [FAILED.line()]


def test_which_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(progress_for(quiet=True)) is Progress
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert type(progress_for(quiet=False)) is Lines
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(progress_for(quiet=False)) is Bar
