"""Lock files: one holder at a time, and nobody is kept out by the dead."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from skillc_compiler.errors import StoreError
from skillc_compiler.file_lock import hold

HOLDER = """\
import sys, time
from pathlib import Path
from skillc_compiler.file_lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def start_holder(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "lock"
    with hold(path) as first:
        assert first
        with hold(path, wait=False) as second:
            assert not second
        assert path.exists()
    assert list(path.parent.iterdir()) == []
    with hold(path, wait=False) as again:
        assert again


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = start_holder(path)
    with hold(path, wait=False) as taken:
        assert not taken
    stop(process)
    assert path.exists()
    with hold(path, wait=False) as taken:
        assert taken
    assert not path.exists()


def test_many_threads_take_turns(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            with hold(tmp_path / "lock") as held:
                assert held
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.0002)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 120
    assert max(most) == 1
    assert list(tmp_path.iterdir()) == []


def test_where_no_lock_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match=r"cannot be locked: a file is where a folder"),
        hold(tmp_path / "file" / "lock"),
    ):
        pass
