"""The real OpenCode, headless, in a home of its own, without a network."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillc import jsonc

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENTS = Path(os.environ.get("SKILLC_E2E_CLIENTS", REPOSITORY / ".e2e"))
NOWHERE = "http://127.0.0.1:9"  # nobody listens: as a proxy it refuses whatever leaves the machine
OFFLINE = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}
SECONDS = float(os.environ.get("SKILLC_E2E_SECONDS", "300"))


def opencode() -> Path:
    """The client's binary; `make e2e` installs it."""
    found = sorted(CLIENTS.glob("node_modules/opencode-linux-*/bin/opencode"), key=len_of)
    found += sorted(CLIENTS.glob("node_modules/opencode-darwin-*/bin/opencode"), key=len_of)
    assert found, f"no OpenCode in {CLIENTS}: run 'make e2e'"
    return found[0]


def len_of(path: Path) -> int:
    return len(str(path))


@dataclass(frozen=True, slots=True)
class Done:
    """A run of the client: what it printed as events, and as text."""

    events: list[dict[str, Any]]
    err: str
    code: int

    @property
    def session(self) -> str:
        return str(self.events[0]["sessionID"])

    @property
    def errors(self) -> list[Any]:
        return [event for event in self.events if event["type"] == "error"]

    @property
    def said(self) -> str:
        """The model's text."""
        return "".join(event["part"]["text"] for event in self.events if event["type"] == "text")

    def outputs(self, tool: str) -> list[str]:
        """What the calls of a tool returned."""
        parts = [event["part"] for event in self.events if event["type"] == "tool_use"]
        return [part["state"].get("output", "") for part in parts if part["tool"] == tool]


@dataclass(slots=True)
class OpenCode:
    """OpenCode in `project`, with `home` for everything that it keeps."""

    project: Path
    home: Path
    env: dict[str, str] = field(default_factory=dict)

    def run(self, prompt: str, *args: str, env: Mapping[str, str] | None = None) -> Done:
        """`opencode run` with the prompt on standard input."""
        done = self.call("run", "--format", "json", *args, prompt=prompt, env=env)
        events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return Done(events, done.stderr, done.returncode)

    def call(
        self, *args: str, prompt: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = [str(opencode()), *args]
        return subprocess.run(
            command,
            cwd=self.project,
            env={**self.environment(), **(env or {})},
            input=prompt,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def do_without_ripgrep(self, folder: Path) -> None:
        """Let the tool `skill`, which lists files with it, find none instead of downloading it."""
        stub = folder / "bin" / "rg"
        stub.parent.mkdir()
        stub.write_text("#!/bin/sh\nexit 0\n", "utf-8")
        stub.chmod(0o755)
        self.env["PATH"] = f"{os.environ['PATH']}:{stub.parent}"

    @contextmanager
    def serving(self) -> Iterator[str]:
        """`opencode serve` for the block: the URL of the client's own HTTP interface."""
        process = subprocess.Popen(
            [str(opencode()), "serve", "--port", "0", "--hostname", "127.0.0.1"],
            cwd=self.project,
            env=self.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            yield next(line.split()[-1] for line in lines if "listening on http" in line)
        finally:
            process.terminate()
            process.communicate()

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            **OFFLINE,
            **self.env,
        }


@contextmanager
def configured(project: Path, changes: Mapping[tuple[str, ...], Any]) -> Iterator[None]:
    """The project's `opencode.json` with these values, for the block."""
    path = project / "opencode.json"
    before = text = path.read_text("utf-8")
    for place, value in changes.items():
        text = jsonc.put(text, place, value)
    path.write_text(text, "utf-8")
    try:
        yield
    finally:
        path.write_text(before, "utf-8")


def without_plugin(project: Path, prompt: str, **permission: str) -> dict[tuple[str, ...], Any]:
    """Plain OpenCode's agent `bare`, whose slash commands paste the bodies of the skills."""
    bare = {"mode": "primary", "prompt": prompt, "model": "skillc/nano"}
    return {
        ("agent", "bare"): {**bare, "permission": {"*": "deny", **permission}},
        ("agent", "title"): {"disable": True},
        ("skills",): {"paths": [str(project / ".skills")]},
    }


def post(url: str, body: Mapping[str, Any]) -> Any:
    """What the client's HTTP interface answers."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.loads(answer.read() or b"null")
