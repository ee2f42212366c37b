"""The process of `child.py`, seen from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

_PATIENCE = 10.0  # seconds for a process to end


class Process:
    """The engine's process, and the socket that it serves."""

    def __init__(self) -> None:
        self.link, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "skillc_runtime.child", str(number)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[number],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                # Ctrl-C is the server's: the engine ends when its socket does.
                start_new_session=True,
            )
        self.pid = self._process.pid

    def end(self) -> int:
        """Close the socket and wait until the process is gone; its exit code."""
        shut(self.link)
        self.link.close()
        try:
            return self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def describe(code: int) -> str:
    """An exit code in words; a signal by its name."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def shut(link: socket.socket) -> None:
    """End a connection whose other side may have ended it already."""
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
