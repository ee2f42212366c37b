"""`skillc serve` as a child process: started, waited for, stopped."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from skillc.ask import is_healthy
from skillc_compiler.errors import ServeError

READY_SECONDS = 60.0
STOP_SECONDS = 10.0
URL_MARK = "serving "


@contextmanager
def serving(project: Path, log: Path, options: Sequence[str] = ()) -> Iterator[str]:
    """Run `skillc serve` on a free port for the block; yields its URL (no trailing /v1).

    Output goes to the file `log`. ServeError when it does not answer within a minute.
    """
    command = [sys.executable, "-m", "skillc", "-C", str(project), "serve", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield wait_until_ready(process, log)
    finally:
        stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServeError(f"the server ended at once: {last_line(log)}")
        url = announced_url(log)
        if url is not None and is_healthy(url):
            return url
        time.sleep(0.05)
    raise ServeError(f"the server was not ready after {READY_SECONDS:.0f} s: {last_line(log)}")


def announced_url(log: Path) -> str | None:
    """The URL in the line that `skillc serve` prints when it listens."""
    for line in log.read_text("utf-8", errors="replace").splitlines(keepends=True):
        if line.startswith(URL_MARK) and line.endswith("\n"):
            return line.split()[1].removesuffix("/v1")
    return None


def last_line(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("skillc: error: ") if lines else "it said nothing"


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
