"""Other clients against the real server, set up word for word as their pages say."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.agents import Page
from tests.e2e.client import CLIENTS
from tests.e2e.relay import Relay

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_curl(relay: Relay) -> None:
    for command in Page("curl", relay.url).commands("curl"):
        done = subprocess.run(
            [*shlex.split(command), "-sS", "--fail"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 and '"skillc"' in done.stdout, done.stderr
    named, header = relay.take()
    assert (named.body["model"], named.attached) == ("nano:testing", ["testing"])
    assert (header.asked, header.attached) == ("testing@0.5", ["testing"])


def test_openai(relay: Relay) -> None:
    (program,) = Page("openai", relay.url).blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'name': 'testing'" in done.stdout
    assert [one.attached for one in relay.take()] == [["testing"]] * 3


def test_llm(relay: Relay, tmp_path: Path) -> None:
    assert (CLIENTS / "python" / "llm").is_dir(), f"no llm in {CLIENTS}: run 'make e2e'"
    (settings,) = Page("llm", relay.url).blocks("yaml")
    (tmp_path / "extra-openai-models.yaml").write_text(settings, "utf-8")
    env = {
        **os.environ,
        "PYTHONPATH": str(CLIENTS / "python"),
        "LLM_USER_PATH": str(tmp_path),
        "OPENAI_API_KEY": "local",
    }
    for model in ("nano-testing", "nano-with-header"):
        done = subprocess.run(
            [sys.executable, "-m", "llm", "-m", model, "How do I run the quick tests?"],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert [one.attached for one in relay.take()] == [["testing"], ["testing"]]
