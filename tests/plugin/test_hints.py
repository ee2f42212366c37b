"""Watching falls back to polling, in one line, when the system gives out no more events."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.plugin.project import FakeCompiler, write_skill
from tests.plugin.watched import eventually, serves, text, watching
from watchdog.observers import Observer

from skillc.hints import RESTARTS, Hints


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "raise the limit with 'sudo sysctl fs.inotify.max_user_watches="),
        (errno.EMFILE, "raise the limit with 'sudo sysctl fs.inotify.max_user_instances="),
        (errno.ENOSYS, "changes take a little longer"),
    ],
)
def test_no_more_watches(
    number: int,
    remedy: str,
    root: Path,
    compiler: FakeCompiler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: object, *args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Observer, "schedule", refuse)
    file = write_skill(root, "testing")
    with watching(root, compiler) as seen:
        eventually(lambda: serves(root, "testing", text("testing")))
        file.write_text(text("testing", "Later."), "utf-8")
        eventually(lambda: serves(root, "testing", text("testing", "Later.")))
    (line,) = seen.lines
    assert line.startswith("cannot watch for changes (")
    assert "polling instead; " + remedy in line
    assert "\n" not in line


def test_a_dead_thread_is_replaced_and_then_polled_for(tmp_path: Path) -> None:
    hints = Hints()
    try:
        for death in range(RESTARTS + 1):
            hints.watch({tmp_path: True})
            assert not hints.polling
            hints.wait(0)
            (tmp_path / f"{death}").write_text("x")
            assert hints.wait(30)
            kill(hints)
        hints.watch({tmp_path: True})
        assert hints.polling
        assert hints.lines == [
            "cannot watch for changes (its thread keeps dying): polling instead; "
            "changes take a little longer"
        ]
    finally:
        hints.stop()


def kill(hints: Hints) -> None:
    """End a thread of watchdog's, as an error in it would."""
    emitters: Any = hints._observer.emitters
    for emitter in emitters:
        emitter.stop()
        emitter.join()


def test_reading_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "SKILL.md").write_text("x")
    hints = Hints()
    try:
        hints.watch({tmp_path: True})
        hints.wait(0.1)
        for _ in range(5):
            (tmp_path / "SKILL.md").read_text()
            list(tmp_path.iterdir())
        for name in ("skillc.lock", ".skillc.lock.12-ab"):
            (tmp_path / name).write_text("x")
        assert not hints.wait(0.3)
    finally:
        hints.stop()


def test_a_folder_made_again_is_watched_again(tmp_path: Path) -> None:
    folder = tmp_path / "skills"
    hints = Hints()
    try:
        for _ in range(RESTARTS + 2):
            folder.mkdir()
            hints.watch({folder: True})
            while hints.wait(0.2):
                pass
            (folder / "new").write_text("x")
            assert hints.wait(30)
            shutil.rmtree(folder)
            hints.watch({})
        assert (hints.polling, hints.lines) == (False, [])
    finally:
        hints.stop()


def test_folders_that_are_gone_are_left_out(tmp_path: Path) -> None:
    hints = Hints()
    try:
        hints.watch({tmp_path / "gone": True, tmp_path: False})
        (tmp_path / "new").write_text("x")
        assert hints.wait(30)
        hints.watch({})
        hints.wait(0.1)
        (tmp_path / "newer").write_text("x")
        assert not hints.wait(0.3)
    finally:
        hints.stop()
