"""Starting `skillc serve` as a child: ready, dead, or late."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.plugin.chat_stub import chat_stub

from skillc import server_process
from skillc.server_process import announced_url, stop, wait_until_ready
from skillc_compiler.errors import ServeError


def child(code: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code], stdout=output, stderr=subprocess.STDOUT
        )


def test_ready_when_healthy(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with chat_stub(lambda body: "") as (url, _):
        process = child(f"import time; print('serving {url}/v1', flush=True); time.sleep(60)", log)
        try:
            assert wait_until_ready(process, log) == url
        finally:
            stop(process)
    assert process.returncode != 0


def test_a_server_that_ends(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = child("raise SystemExit('skillc: error: port 1 is taken')", log)
    with pytest.raises(ServeError, match="ended at once: port 1 is taken"):
        wait_until_ready(process, log)


def test_a_server_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_process, "READY_SECONDS", 0.2)
    log = tmp_path / "log"
    process = child("import time; time.sleep(60)", log)
    try:
        with pytest.raises(ServeError, match="was not ready after 0 s: it said nothing"):
            wait_until_ready(process, log)
    finally:
        stop(process)


def test_a_child_that_ignores_the_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "STOP_SECONDS", 0.2)
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\ntime.sleep(60)"
    )
    log = tmp_path / "log"
    process = child(code, log)
    while not log.read_bytes():
        pass
    stop(process)
    assert process.returncode == -9


def test_half_a_line_is_no_announcement(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("warning: x\nserving http://127.0.0.1:80")
    assert announced_url(log) is None
    log.write_text("warning: x\nserving http://127.0.0.1:8000/v1 with\n")
    assert announced_url(log) == "http://127.0.0.1:8000"
