"""Agents from npm and PyPI, headless, each in a home of its own, with loopback as their network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.e2e.client import CLIENTS, OFFLINE, REPOSITORY, SECONDS
from tests.e2e.relay import Seen

PAGES = REPOSITORY / "docs" / "clients"
HERE = "http://127.0.0.1:8191"
_BINARIES = {
    "aider": "aider/bin/aider",
    "claude": "node_modules/@anthropic-ai/claude-code-*/claude",
    "cn": "node_modules/.bin/cn",
    "codex": "node_modules/.bin/codex",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A page of docs/clients, for the server at `url`."""

    name: str
    url: str

    @property
    def text(self) -> str:
        return (PAGES / f"{self.name}.md").read_text("utf-8").replace(HERE, self.url)

    def blocks(self, kind: str) -> list[str]:
        """The fenced blocks of a kind."""
        return re.findall(rf"```{kind}\n(.*?)```", self.text, re.DOTALL)

    def commands(self, program: str) -> list[str]:
        """The indented commands that run `program`, continued lines joined."""
        text = self.text.replace("\\\n", " ")
        lines = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
        return [line for line in lines if program in line.split()]

    def exports(self) -> str:
        """The shell lines that set variables for all of its commands."""
        return "\n".join(re.findall(r"^    (export .+)$", self.text, re.MULTILINE))

    def files(self) -> dict[str, str]:
        """The fenced blocks that a sentence with `~/path` introduces, by that path."""
        found = re.findall(r"`~/([^`]+)`[^`]*:\n\n```\w+\n(.*?)```", self.text, re.DOTALL)
        return dict(found)

    def version(self) -> str:
        """The client's version that the page says it was tested with."""
        (found,) = re.findall(r"# tested with (\S+)", self.text)
        return str(found)


@dataclass(slots=True)
class Agent:
    """A client that runs in `project`, with `home` for everything that it keeps."""

    program: str
    page: Page
    project: Path
    home: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def set_up(self) -> None:
        """Write the files that the page tells one to write."""
        for name, text in self.page.files().items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the page, after its exports."""
        return subprocess.run(
            ["sh", "-c", f"{self.page.exports()}\n{command}"],
            cwd=self.project,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def environment(self) -> dict[str, str]:
        folder = str(binary(self.program).parent)
        return {
            "PATH": os.pathsep.join([folder, os.environ["PATH"]]),
            "HOME": str(self.home),
            "TERM": "dumb",
            "LANG": "C.UTF-8",
            **OFFLINE,
            **self.env,
        }


def binary(program: str) -> Path:
    """Where `make e2e` installed a client; the test is skipped where it could not."""
    found = sorted(CLIENTS.glob(_BINARIES[program]))
    if not found and program == "aider":
        pytest.skip(f"no aider in {CLIENTS}: 'make e2e' installs it where Python is 3.10 to 3.12")
    if not found and shutil.which("npm") is None:
        pytest.skip(f"no {program} in {CLIENTS}: 'make e2e' installs it with npm, which is missing")
    assert found, f"no {program} in {CLIENTS}: run 'make e2e'"
    return found[0]


def said(seen: Seen) -> str:
    """The text of an answer, in whichever of the three APIs it is."""
    deltas = []
    for event in seen.events():
        kind = event.get("type", "")
        if kind == "response.output_text.delta":
            deltas.append(event["delta"])
        elif kind == "content_block_delta":
            deltas.append(event["delta"].get("text", ""))
        for choice in event.get("choices", ()):
            deltas.append(choice["delta"].get("content") or "")
    return "".join(deltas)
