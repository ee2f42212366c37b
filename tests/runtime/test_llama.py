"""The wrapper over llama.cpp's library: what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys


def test_the_process_ends_without_warnings() -> None:
    roots = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", "import skillc_runtime.llama"],
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
